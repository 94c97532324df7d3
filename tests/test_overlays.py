"""Overlays in `configs/` lie over any bundle."""

from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow

from monai_synth.bundle.session import check_keys, is_plain
from monai_synth.bundle.settings import check_settings
from monai_synth.utils import per_process

ROOT = Path(__file__).resolve().parents[1]
OVERLAYS = sorted((ROOT / "configs").rglob("*.yaml"))


def over(bundle, overlay):
    files = [str(ROOT / "bundles" / bundle / "configs" / "train.json"), str(overlay)]
    return ConfigWorkflow(files, logging_file=False)


def adds_no_logic(key, value):
    """Settings are plain; only components (`network_def`, `train::trainer`) may refer to keys of the bundle."""
    return is_plain(value) or key == "network_def" or "::" in key


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: f"{path.parent.name}/{path.stem}")
@pytest.mark.parametrize("bundle", ["colon", "wbc"])
def test_an_overlay_replaces_known_settings_and_adds_no_logic(bundle, overlay):
    content = ConfigParser.load_config_file(overlay)
    assert content and all(adds_no_logic(key, value) for key, value in content.items())
    workflow = over(bundle, overlay)
    check_keys(workflow)
    workflow.parser.update({"base_model": "nano", "variant": None})  # the hub cannot be asked here
    check_settings(workflow)


@pytest.mark.parametrize("base", sorted((ROOT / "configs" / "base_models").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_fine_tuning_on_many_gpus_has_a_step_of_32_images_and_the_rate_for_it(base, monkeypatch):
    monkeypatch.setattr("monai_synth.utils.processes.count", lambda: 8)
    own = str(ROOT / "bundles" / "wbc" / "configs" / "train_diffusion.json")
    alone, many = ConfigParser(), ConfigParser()
    alone.read_config([own, str(base)])
    many.read_config([own, str(base), str(ROOT / "configs" / "multi_gpu" / "fine_tuning.yaml")])
    images = many["accumulate_steps"] * 8 * per_process(many["adapter_batch_size"])
    growth = images / (alone["accumulate_steps"] * alone["adapter_batch_size"])
    assert images == 32 and many["adapter_learning_rate"] == alone["adapter_learning_rate"] * growth**0.5


def test_a_classification_on_many_gpus_leaves_the_rate_to_the_classifier():
    overlay = ConfigParser.load_config_file(ROOT / "configs" / "multi_gpu" / "classification.yaml")
    assert overlay["batch_size"] == 256 and "learning_rate" not in overlay


LARGE = ("deit3_large", "resnet101", "maxvit_tiny", "clip_vit_b16", "clip_lora_vit_b16", "clip_zero_shot_vit_b16")


@pytest.mark.parametrize(
    "overlay", [path for path in OVERLAYS if path.parent.name == "classifiers"], ids=lambda p: p.stem
)
def test_a_classifier_builds_and_answers_at_its_size(overlay):
    if overlay.stem in LARGE:
        pytest.skip("large; the slow suite runs it")
    if overlay.stem.startswith("knn_probe"):
        with pytest.raises(RuntimeError, match="remembers no images yet"):
            answer(overlay)
    else:
        answer(overlay)


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_a_large_classifier_builds_and_answers_at_its_size(name):
    answer(ROOT / "configs" / "classifiers" / f"{name}.yaml")


def answer(overlay):
    workflow = over("colon", overlay)
    workflow.parser.update({"class_names": ["one", "two", "three"], "num_classes": 3, "prompts": {}})
    network = workflow.parser.get_parsed_content("network_def").eval()
    size = workflow.parser.get_parsed_content("classifier_size")
    with torch.no_grad():
        assert network(torch.rand(1, 3, size, size)).shape == (1, 3)
