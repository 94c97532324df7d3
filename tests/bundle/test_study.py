from pathlib import Path

import pytest
from monai.bundle import ConfigParser, ConfigWorkflow

from monai_synth.bundle.assessment import METHOD
from monai_synth.bundle.study import _Runs, is_up_to_date
from monai_synth.bundle.study_plan import plan
from monai_synth.data import save_datalist
from monai_synth.networks.feature_encoder import encoder_fingerprint

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
