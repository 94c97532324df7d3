"""Overlays in `configs/` lie over any bundle."""

from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow

from monai_synth.bundle.preparation import check_settings
from monai_synth.bundle.session import check_keys, is_plain
from monai_synth.networks import ImageClassifier

ROOT = Path(__file__).resolve().parents[1]
OVERLAYS = sorted((ROOT / "configs").rglob("*.yaml"))


def over(bundle, overlay):
    files = [str(ROOT / "bundles" / bundle / "configs" / "train.json"), str(overlay)]
    return ConfigWorkflow(files, logging_file=False)


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: f"{path.parent.name}/{path.stem}")
@pytest.mark.parametrize("bundle", ["colon", "wbc"])
def test_an_overlay_replaces_known_settings_and_adds_no_logic(bundle, overlay):
    content = ConfigParser.load_config_file(overlay)
    assert content and all(is_plain(value) for value in content.values())
    workflow = over(bundle, overlay)
    check_keys(workflow)
    workflow.parser["base_model"] = "nano"  # the hub cannot be asked here
    check_settings(workflow)


@pytest.mark.parametrize(
    "overlay", [path for path in OVERLAYS if path.parent.name == "classifiers"], ids=lambda p: p.stem
)
def test_a_classifier_builds_and_answers_at_its_size(overlay):
    if overlay.stem in ("deit3_large", "resnet101", "maxvit_tiny"):
        pytest.skip("large; the slow suite runs it")
    answer(overlay)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["deit3_large", "resnet101", "maxvit_tiny"])
def test_a_large_classifier_builds_and_answers_at_its_size(name):
    answer(ROOT / "configs" / "classifiers" / f"{name}.yaml")


def answer(overlay):
    content = ConfigParser.load_config_file(overlay)
    network = ImageClassifier(content["classifier"], 3).eval()
    size = content["classifier_size"]
    with torch.no_grad():
        assert network(torch.rand(1, 3, size, size)).shape == (1, 3)
