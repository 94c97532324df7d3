import pytest

from monai_synth.bundle.controls import CONTROLS, REFERENCE, arms_of_study
from monai_synth.bundle.study_plan import plan
from tests.bundles.running import ROOT


def test_the_controls_are_added_by_one_key():
    arms, reference = arms_of_study({"mine": {"mixing": "real+synthetic", "rank": 8}}, "real", controls=True)
    assert set(arms) == {*CONTROLS, "mine"} and reference == REFERENCE
    assert arms_of_study({"real": {}}, "real", controls=False) == ({"real": {}}, "real")
    steps = {cell.settings.get("classifier_steps") for cell in plan({"seed": [0], "shots": [5]}, arms, ROOT)}
    assert steps == {None}  # the study's, the same for all
    assert {tuple(sorted(cell.settings.items()))[-1] for cell in plan({"shots": [5]}, arms, ROOT)} == {("shots", 5)}


def test_the_reference_is_one_of_the_arms():
    with pytest.raises(ValueError, match="reference_arm is 'gone', but the arms are 'real'"):
        arms_of_study({"real": {}}, "gone", controls=False)
