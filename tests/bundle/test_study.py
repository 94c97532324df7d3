import pytest

from monai_synth.bundle.study import plan, pool_name

ARMS = {"real": {"mixing": "none"}, "both": {"mixing": "real+synthetic"}}


def test_every_arm_runs_at_every_point_once():
    cells = plan({"seed": [0, 1], "synthetic_per_class": [0, 50, 100]}, ARMS)
    runs = [(cell.arm, cell.settings.get("seed"), cell.settings.get("synthetic_per_class")) for cell in cells]
    real = [("real", seed, None) for seed in (0, 1)]  # the same for every number of synthetic images
    both = [("both", seed, number) for seed in (0, 1) for number in (50, 100)]  # none of them is the arm "real"
    assert sorted(map(str, runs)) == sorted(map(str, real + both))
    assert len({(cell.name, cell.settings["seed"]) for cell in cells}) == 6


def test_an_arms_own_settings_come_before_the_grids():
    (cell,) = plan({"rank": [4]}, {"wide": {"rank": 8, "overlay": "strong.yaml"}})
    assert cell.settings == {"rank": 8} and cell.overlays == ("strong.yaml",)


@pytest.mark.parametrize("grid", [{"shots": 5}, {"shots": []}])
def test_a_grid_is_made_of_lists(grid):
    with pytest.raises(ValueError, match="The grid's 'shots' is .* It must be a list of values"):
        plan(grid, ARMS)


def test_a_study_without_runs_is_refused():
    with pytest.raises(ValueError, match="nothing to run"):
        plan({"synthetic_per_class": [0]}, {"both": {"mixing": "real+synthetic"}})


def test_runs_share_what_does_not_depend_on_the_classifier():
    keys = {"shots", "seed", "rank"}
    first = pool_name({"shots": 5, "seed": 1, "classifier": "a", "mixing": "none"}, keys)
    assert first == pool_name({"shots": 5, "seed": 1, "classifier": "b", "mixing": "synthetic"}, keys) == "shots5_seed1"
    assert pool_name({"shots": 5, "seed": 1, "rank": 8}, keys).startswith("shots5_seed1_")
    assert pool_name({"classifier": "a"}, keys) == "all"
