import pytest

from monai_synth.bundle.study_plan import plan, pool_name
from tests.bundles.running import ROOT

ARMS = {"real": {"mixing": "none"}, "both": {"mixing": "real+synthetic"}}


def test_every_arm_runs_at_every_point_once():
    cells = plan({"seed": [0, 1], "synthetic_per_class": [0, 50, 100]}, ARMS, ROOT)
    runs = [(cell.arm, cell.settings.get("seed"), cell.settings.get("synthetic_per_class")) for cell in cells]
    real = [("real", seed, None) for seed in (0, 1)]  # the same for every number of synthetic images
    both = [("both", seed, number) for seed in (0, 1) for number in (50, 100)]  # none of them is the arm "real"
    assert sorted(map(str, runs)) == sorted(map(str, real + both))
    assert len({(cell.name, cell.settings["seed"]) for cell in cells}) == 6


def test_an_overlay_comes_before_the_grid_and_an_arms_own_settings_before_both():
    probe = {"mixing": "none", "overlay": "configs/classifiers/linear_probe_nano.yaml", "classifier_size": 64}
    (cell,) = plan({"classifier": ["regnetx_002", "resnet50"], "shots": [5]}, {"probe": probe}, ROOT)  # one, not two
    assert cell.overlays == ("configs/classifiers/linear_probe_nano.yaml",)
    assert cell.settings.pop("classifier_checkpoint") == "nano" and list(cell.components) == ["network_def"]
    own = {"mixing": "none", "classifier_size": 64}
    assert cell.settings == {"classifier": "linear_probe_nano", "shots": 5, "learning_rate": 0.01, **own}


def test_a_later_overlay_comes_before_an_earlier_one(tmp_path):
    for name, rank in (("first.yaml", 4), ("second.yaml", 8)):
        (tmp_path / name).write_text(f"rank: {rank}\nmixing: none\ntrain::random_transforms: []\n")
    overlays = ["first.yaml", "second.yaml"]
    (cell,) = plan({"synthetic_per_class": [5, 6]}, {"wide": {"overlay": overlays}}, tmp_path)
    assert cell.settings == {"rank": 8, "mixing": "none"} and not cell.own  # what is the overlays' is laid with them
    assert cell.components == {"train::random_transforms": []}


def test_a_missing_overlay_is_named_with_the_places_searched(tmp_path):
    with pytest.raises(ValueError, match="There is no overlay no.yaml; looked for .* and .*no.yaml"):
        plan({}, {"arm": {"overlay": "no.yaml"}}, tmp_path)


@pytest.mark.parametrize("grid", [{"shots": 5}, {"shots": []}])
def test_a_grid_is_made_of_lists(grid):
    with pytest.raises(ValueError, match="The grid's 'shots' is .* It must be a list of values"):
        plan(grid, ARMS, ROOT)


def test_a_study_without_runs_is_refused():
    with pytest.raises(ValueError, match="nothing to run"):
        plan({"synthetic_per_class": [0]}, {"both": {"mixing": "real+synthetic"}}, ROOT)


def test_runs_share_what_does_not_depend_on_the_classifier():
    keys = {"shots", "seed", "rank"}
    first = pool_name({"shots": 5, "seed": 1, "classifier": "a", "mixing": "none"}, keys)
    assert first == pool_name({"shots": 5, "seed": 1, "classifier": "b", "mixing": "synthetic"}, keys) == "shots5_seed1"
    assert pool_name({"shots": 5, "seed": 1, "rank": 8}, keys).startswith("shots5_seed1_")
    assert pool_name({"classifier": "a"}, keys) == "all"
    assert pool_name({"prompts::benign": "x"}, {"prompts"}) != pool_name({}, {"prompts"}) == "all"


def test_parts_of_components_that_grid_and_arm_set_are_laid_over_the_overlays():
    part, own = "train::sampler::real_share", {"network_def::neighbors": 5}
    overlay = {"overlay": "configs/classifiers/knn_probe_nano.yaml", **own}
    cells = plan({part: [0.25, 0.75]}, {"few": {"mixing": "none", **overlay}}, ROOT)
    assert [cell.own for cell in cells] == [{part: share, **own} for share in (0.25, 0.75)]
    assert "network_def" in cells[0].components and part not in cells[0].settings
    assert len({cell.name for cell in cells}) == 2
