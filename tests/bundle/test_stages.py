from pathlib import Path
from types import SimpleNamespace

import pytest
from monai.bundle import ConfigWorkflow

from monai_synth.bundle import stages
from monai_synth.bundle.stage_identity import needs_base
from monai_synth.bundle.stage_record import Stage, changed
from monai_synth.bundle.stages import bring_prior_up_to_date, bring_up_to_date, current_stage
from monai_synth.utils import read_json


def test_a_stage_is_complete_for_its_own_settings_alone(tmp_path):
    stage = Stage("train", tmp_path, {"rank": 4}, {"split": "s"})
    assert not stage.complete()
    stage.open()
    assert not stage.complete() and read_json(tmp_path / "run.json")["complete"] is False
    stage.close()
    assert stage.complete() and read_json(tmp_path / "run.json")["wall_time_s"] >= 0
    assert not Stage("train", tmp_path, {"rank": 8}, {"split": "s"}).complete()
    assert not Stage("train", tmp_path, {"rank": 4}, {"split": "t"}).complete()


@pytest.mark.parametrize("name", ["train_diffusion", "train"])
def test_weights_that_are_not_the_ones_written_are_refused(tmp_path, name):
    stage = Stage(name, tmp_path, {"rank": 4}, {})
    paths = [tmp_path / "malignant" / "pytorch_lora_weights.safetensors", tmp_path / "model.pt"]
    paths[0].parent.mkdir()
    for path in (*paths, tmp_path / "state_0.safetensors"):
        path.write_bytes(bytes(1000))
    stage.close()
    (tmp_path / "state_0.safetensors").unlink()  # a state may go
    for path in paths:
        assert stage.complete()
        path.write_bytes(bytes(500) + b"\x01" + bytes(499))
        with pytest.raises(ValueError, match=f"{path.name} has other bytes than were written.*make it anew"):
            stage.complete()
        path.unlink()
        with pytest.raises(ValueError, match=f"{path.name} is gone"):
            stage.complete()
        path.write_bytes(bytes(1000))
    assert not Stage(name, tmp_path, {"rank": 8}, {}).complete()  # refused for its settings, in the words for those


def test_where_and_how_fast_do_not_matter(tmp_path):
    first = Stage("train", tmp_path, {"rank": 4, "device": "cpu", "num_workers": 0, "output_dir": "a"}, {})
    second = Stage("train", tmp_path, {"rank": 4, "device": "cuda", "num_workers": 4, "output_dir": "b"}, {})
    assert first.identity == second.identity


def test_other_settings_are_refused_with_the_difference(tmp_path):
    first = Stage("train", tmp_path, {"rank": 4, "steps": 5}, {"split": "s"})
    first.open()
    with pytest.raises(
        ValueError, match=r"(?s)made with other settings.*rank: 4 -> 8.*split: 's' -> 't'.*--output_dir"
    ):
        Stage("train", tmp_path, {"rank": 8, "steps": 5}, {"split": "t"}).open()
    first.open()  # the same settings go on
    assert changed({"a": 1}, {"b": 2}) == ["a: 1 -> '(not set)'", "b: '(not set)' -> 2"]


def test_settings_that_decide_nothing_may_stand_in_a_record_of_before(tmp_path):
    before = Stage("train", tmp_path, {"mixing": "none", "batch_size": 4, "max_steps": 200}, {"split": "s"})
    before.close()
    now = Stage("train", tmp_path, {"mixing": "none", "batch_size": 4}, {"split": "s"}, left_out=["max_steps"])
    assert now.identity != before.identity and now.complete()
    now.compare()
    now.open()
    other = Stage("train", tmp_path, {"mixing": "none", "batch_size": 8}, {"split": "s"}, left_out=["max_steps"])
    assert not other.complete()
    for refused in (other.compare, other.open):
        with pytest.raises(ValueError, match="batch_size: 4 -> 8") as error:
            refused()
        assert "max_steps" not in str(error.value)


def test_generation_may_grow_but_a_smaller_wish_is_complete(tmp_path):
    Stage("generate", tmp_path, {"images_per_class": 5, "seed": 0}, {}).close()
    assert Stage("generate", tmp_path, {"images_per_class": 3, "seed": 0}, {}).complete()
    larger = Stage("generate", tmp_path, {"images_per_class": 9, "seed": 0}, {})
    assert not larger.complete()
    larger.open()
    larger.close()
    assert larger.complete()


def test_the_baseline_does_not_depend_on_a_generator():
    assert not needs_base("train", {"mixing": "none"})
    assert needs_base("train", {"mixing": "synthetic"}) and needs_base("generate", {})


def test_stages_belong_into_a_config(tmp_path):
    with pytest.raises(RuntimeError, match=r"finish\(\) belongs into a bundle config"):
        current_stage("train", tmp_path)


def test_an_assessment_of_an_empty_folder_draws_the_prior_that_it_names(monkeypatch, tmp_path):
    configs = Path(__file__).resolve().parents[2] / "bundles" / "colon" / "configs"
    workflow = ConfigWorkflow(str(configs / "assess.json"), logging_file=False)
    workflow.parser.update({"prior_images": 4, "output_dir": str(tmp_path)})
    ran = []
    monkeypatch.setattr(stages, "execute", ran.append)
    bring_up_to_date(workflow, "generate")
    prior, fine_tuning, drawing = (nested.parser for nested in ran)
    default = ConfigWorkflow(str(configs / "generate.json"), logging_file=False).parser
    for name in ("num_inference_steps", "guidance_scale", "scheduler"):
        assert prior[name] == drawing[name] == default[name]
    assert prior["images_per_class"] == fine_tuning["prior_images"] == 4


@pytest.mark.parametrize("config", ["train_diffusion", "train"])
@pytest.mark.parametrize("few_steps", [None, "nano_few_step"])
def test_the_prior_is_what_the_base_itself_draws_for_the_prompts_that_are_learned(
    monkeypatch, tmp_path, config, few_steps
):
    configs = Path(__file__).resolve().parents[2] / "bundles" / "colon" / "configs"
    given = {"few_step_adapter": few_steps, "scheduler": "ddim", "num_inference_steps": 8, "guidance_scale": 1.0}
    workflow = ConfigWorkflow(str(configs / f"{config}.json"), logging_file=False)
    settings = {**given, "prior_images": 3, "attributes": {"stain": ["pale stain"]}, "output_dir": str(tmp_path)}
    workflow.parser.update(settings)
    drawn = []
    monkeypatch.setattr(stages, "stage_of", lambda *args: SimpleNamespace(complete=lambda: False))
    monkeypatch.setattr(stages, "execute", drawn.append)
    bring_prior_up_to_date(workflow)
    prior = drawn[0].parser
    assert prior["attributes"] == {} and prior["few_step_adapter"] is None and prior["images_per_class"] == 3
    learns = ConfigWorkflow(str(configs / "train_diffusion.json"), logging_file=False).parser
    learns.update(given)
    for name in ("num_inference_steps", "guidance_scale", "scheduler"):
        assert prior[name] == learns.get_parsed_content(f"sampler::{name}")
