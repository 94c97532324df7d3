"""Images drawn by whole configs: one adapter or several, none, one for few steps, every family and option."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from monai_synth.bundle.stage_identity import OF_FINE_TUNING
from monai_synth.data import load_datalist, read_image
from monai_synth.networks import (
    LatentDiffusion,
    LoRADenoiser,
    adapter_sha256,
    read_adapter_metadata,
    release_diffusion,
    save_adapter,
)
from monai_synth.utils import read_json, sha256_of, write_json
from tests.bundles.running import CONFIGS, files_of, root_message, run


def test_an_adapter_for_few_steps_is_drawn_with_and_noted(settings):
    out = Path(settings["output_dir"])
    run("train_diffusion", settings)
    few_step = out.parent / "few_step"
    few_step.mkdir()
    adapter = LoRADenoiser(LatentDiffusion(settings["base_model"]), rank=2)
    for parameter in adapter.trainable_parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    save_adapter(adapter, few_step, {})
    drawing = {"scheduler": "lcm", "guidance_scale": 1.0}
    run("generate", settings, **drawing)
    shutil.move(out / "synthetic", out / "plain")
    run("generate", settings, **drawing, few_step_adapter=str(few_step))
    (plain, *_), (faster, *_) = (load_datalist(out / name / "datalist.json") for name in ("plain", "synthetic"))
    assert plain["few_step_adapter"] == "none" and faster["few_step_adapter"] == adapter_sha256(few_step)
    assert plain["adapter"] == faster["adapter"] and plain["sha256"] != faster["sha256"]
    for parameter in adapter.trainable_parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    save_adapter(adapter, few_step, {})  # another adapter under the same name
    with pytest.raises(RuntimeError) as error:
        run("generate", settings, **drawing, few_step_adapter=str(few_step))
    assert "few_step_sha256" in root_message(error)


@pytest.mark.parametrize(("config", "more"), [("generate", {"images_per_class": 4}), ("train", {})])
def test_images_of_an_adapter_that_was_trained_anew_are_neither_added_to_nor_used(settings, config, more):
    out = Path(settings["output_dir"])
    run("generate", settings)
    before = adapter_sha256(out / "adapter")
    save_adapter(LoRADenoiser(LatentDiffusion(settings["base_model"]), rank=2), out / "adapter", {})
    record = read_json(out / "adapter" / "run.json")
    record["weights"] = {"pytorch_lora_weights.safetensors": adapter_sha256(out / "adapter")}
    write_json(out / "adapter" / "run.json", record)
    with pytest.raises(RuntimeError) as error:
        run(config, settings, **more)
    assert f"was drawn with an adapter of the SHA-256 {before}, but" in root_message(error)
    assert len(files_of(out / "synthetic")) == 6 and not (out / "classifier").exists()


def test_one_adapter_for_each_class_on_one_loaded_base(settings, monkeypatch):
    release_diffusion()
    loaded, load = [], LatentDiffusion._part
    monkeypatch.setattr(LatentDiffusion, "_part", lambda self, *args: loaded.append(args[1]) or load(self, *args))
    run("generate", settings, adapter_scope="class")
    assert sorted(loaded) == ["text_encoder", "unet", "vae"]
    out = Path(settings["output_dir"])
    hashes = {sha256_of(path) for path in (out / "adapter").rglob("pytorch_lora_weights.safetensors")}
    assert len(hashes) == 2
    records = load_datalist(out / "synthetic" / "datalist.json")
    assert {record["adapter"] for record in records} == hashes and len(records) == 6


def test_the_base_alone_draws_without_any_training(settings, tmp_path):
    run("generate", settings, adapter_scope="none", attributes={"stain": ["pale", "strong"]})
    out = Path(settings["output_dir"])
    records = load_datalist(out / "synthetic" / "datalist.json")
    assert len(records) == 6 and {record["adapter"] for record in records} == {"none"}
    assert {record["prompt"].rsplit(", ", 1)[1] for record in records} <= {"pale", "strong"}
    assert not (out / "adapter").exists()
    times = {record["image"]: Path(record["image"]).stat().st_mtime_ns for record in records}
    tuning = {"rank": 2, "max_steps": 7}  # of an adapter that is not drawn with: nothing is drawn again or refused
    run("generate", settings, adapter_scope="none", attributes={"stain": ["pale", "strong"]}, **tuning)
    assert {path: Path(path).stat().st_mtime_ns for path in times} == times
    run("generate", {**settings, "output_dir": str(tmp_path / "webp")}, adapter_scope="none", image_format="webp")
    other = load_datalist(tmp_path / "webp" / "synthetic" / "datalist.json")
    assert {Path(record["image"]).suffix for record in other} == {".webp"}
    run("generate", {**settings, "output_dir": str(tmp_path / "png")}, adapter_scope="none")
    same = load_datalist(tmp_path / "png" / "synthetic" / "datalist.json")[0]["image"]
    np.testing.assert_array_equal(read_image(other[0]["image"]), read_image(same))
    with pytest.raises(RuntimeError) as error:
        run("train_diffusion", {**settings, "output_dir": str(tmp_path / "other")}, adapter_scope="none")
    assert "there is nothing to fine-tune. Run generate.json" in root_message(error)


def test_an_adapter_from_elsewhere_goes_on_and_what_it_has_learned_is_not_known(settings, tmp_path):
    run("train_diffusion", settings)
    elsewhere = {**settings, "output_dir": str(tmp_path / "elsewhere"), "adapter_scope": "none", "fold": 2}
    given = {**elsewhere, "adapter": str(Path(settings["output_dir"]) / "adapter")}
    run("generate", given)
    run("generate", given, images_per_class=settings["images_per_class"] + 1)  # the same adapter: nothing is refused
    drawn = tmp_path / "elsewhere" / "synthetic"
    assert not (drawn / "fitted_on.json").exists() and (drawn / "datalist.json").is_file()
    run("train", elsewhere, output_dir=str(tmp_path / "other"), synthetic_datalist=str(drawn / "datalist.json"))
    assert "adapters from elsewhere" in (tmp_path / "other" / "results.txt").read_text()


def test_what_only_the_fine_tuning_depends_on_is_known_by_its_name():
    assert set(OF_FINE_TUNING) <= read_json(CONFIGS / "generate.json").keys()
    assert set(OF_FINE_TUNING) <= read_json(CONFIGS / "train_diffusion.json").keys()


ALL = {
    "train_text_encoder": True,
    "use_rslora": True,
    "lora_init": "pissa",
    "lora_alpha": 3.0,
    "lora_dropout": 0.1,
    "lora_targets": ["to_q", "to_v"],
    "ema_decay": 0.9,
    "noise_offset": 0.1,
    "accumulate_steps": 2,
    "gradient_checkpointing": True,
}


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("epsilon", ALL),
        ("xl", {"use_dora": True, "amp": "bfloat16", "lora_targets": "all", "prompt_dropout": 0.5}),
        ("flow", {"train_text_encoder": True, "min_snr_gamma": None}),  # a null comes from an overlay alone
    ],
    ids=["sd", "xl", "sd3"],
)
def test_every_family_and_option_goes_from_a_folder_to_images(
    settings, miniature, plain_pipeline, tmp_path, kind, options
):
    base = miniature(kind)
    write_json(tmp_path / "overlay.json", options)
    run(["generate", str(tmp_path / "overlay")], {**settings, "base_model": str(base)})
    out = Path(settings["output_dir"])
    assert len(files_of(out / "synthetic")) == 6
    assert read_adapter_metadata(out / "adapter")["steps"] == settings["max_steps"]
    plain_pipeline(base).load_lora_weights(out / "adapter")
