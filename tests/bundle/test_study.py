from pathlib import Path

import pytest
from monai.bundle import ConfigParser, ConfigWorkflow

from monai_synth.bundle.assessment import METHOD
from monai_synth.bundle.study import _Runs, is_up_to_date
from monai_synth.bundle.study_plan import plan
from monai_synth.data import save_datalist
from monai_synth.networks.feature_encoder import encoder_fingerprint
from monai_synth.utils import write_json

CONFIGS = Path(__file__).resolve().parents[2] / "bundles" / "colon" / "configs"


def runs_of(folder, grid, arms, **settings):
    workflow = ConfigWorkflow(str(CONFIGS / "study.json"), logging_file=False)
    workflow.parser.update({"output_dir": str(folder), "grid": grid, "arms": arms, **settings})
    return _Runs(workflow, folder, plan(grid, arms, folder))


def test_sample_grids_are_drawn_where_the_study_or_an_arm_asks_for_them(tmp_path):
    arms = {"plain": {"mixing": "synthetic"}, "watched": {"mixing": "synthetic", "sample_every": 7}}

    def asked(**settings):
        runs = runs_of(tmp_path, {"seed": [0]}, arms, **settings)
        return [runs.nested(cell).parser["sample_every"] for cell in runs.cells]

    assert asked() == [0, 7]
    assert asked(sample_every=5) == [5, 7]


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({}, True),
        ({"reference_roles": ("train", "val")}, True),
        ({"reference_roles": ["val"]}, False),
        ({"bootstrap_samples": 300}, False),
        ({"encoder": "nano+colors"}, False),
    ],
)
def test_images_are_judged_anew_where_another_encoder_role_or_number_of_samples_is_asked_for(tmp_path, change, same):
    images = [{"image": str(tmp_path / "0.png"), "label": 0, "class_name": "benign", "origin": "synthetic"}]
    save_datalist(tmp_path / "datalist.json", images, ["benign"], tmp_path)
    asked = {"encoder": "nano", "reference_roles": ["train", "val"], "bootstrap_samples": 200}
    quality = {
        **{"reference_roles": ["train", "val"], "bootstrap_samples": 200, "method": METHOD},
        "encoder": {"fingerprint": encoder_fingerprint("nano")},
        "classes": {"benign": {"num_synthetic": 1}},
    }
    assert is_up_to_date(quality, ConfigParser({"synthetic_dir": str(tmp_path), **asked, **change})) == same


def test_a_filter_keeps_the_usual_folder_unless_that_is_another_ones(tmp_path):
    arms = {"filtered": {"mixing": "synthetic", "filter": "standard"}, "real": {"mixing": "none"}}
    arms |= {"colors": {**arms["filtered"], "encoder": "nano+colors"}}
    runs = runs_of(tmp_path, {"seed": [0], "filter_quantile": [0.2, 0.05]}, arms)

    def folders():
        parsers = [runs.nested(cell).parser for cell in runs.cells if cell.arm != "real"]
        return [Path(parser.get_parsed_content("synthetic_datalist")).parent.name for parser in parsers]

    assert folders() == ["filter_standard"] * 4  # whichever comes first has it, as in studies of one filter
    made = {"filter_quantile": 0.05, "encoder_fingerprint": encoder_fingerprint("nano")}
    write_json(tmp_path / "seed0" / "filter_standard" / "run.json", {"settings": made})
    names = folders()
    assert names[2] == "filter_standard" and len(set(names)) == 4
    assert all(name.startswith("filter_standard") for name in names)


def test_images_from_elsewhere_are_neither_drawn_nor_judged_in_a_pool(tmp_path):
    elsewhere = {"mixing": "synthetic", "synthetic_datalist": str(tmp_path / "datalist.json")}
    arms = {"own": {"mixing": "synthetic", "images_per_class": 20}, "foreign": {**elsewhere, "images_per_class": 5000}}
    runs = runs_of(tmp_path, {"seed": [0]}, arms)
    own, foreign = runs.cells
    assert runs.pool_of(own) == runs.pool_of(foreign) and runs.pools == {"seed0": 20}
    assert runs.drawing() == {"seed0": own}
    assert [runs.nested(cell).parser["synthetic_per_class"] for cell in runs.cells] == [20, 5000]
    alone = runs_of(tmp_path, {"seed": [0]}, {"foreign": elsewhere})
    assert alone.drawing() == {} and alone.nested(alone.cells[0]).parser["images_per_class"] == 100
    all_foreign = runs_of(tmp_path, {"seed": [0]}, {"own": arms["own"]}, synthetic_datalist=str(tmp_path / "d.json"))
    assert all_foreign.drawing() == {}
