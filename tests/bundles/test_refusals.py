"""What is refused before anything long begins, and what it says."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from monai_synth.bundle.machine_check import check_device
from monai_synth.bundle.stage_record import identity_of
from monai_synth.utils import hold_folder, processes, read_json, release_folder, write_json
from tests.bundles.running import CONFIGS, ROOT, root_message, run


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"batchsize": 4}, "has the key 'batchsize' (did you mean 'batch_size'?)"),
        ({"shots": 15}, "fewer than shots=15"),
        ({"shots": "many"}, "shots is 'many'. It must be a whole number from 1"),
        ({"guidance_scale": -1}, "guidance_scale is -1. It must lie between 0 and 50"),
        ({"amp": "half"}, "amp is 'half'. It can be None, 'bfloat16', 'float16'"),
        ({"use_dora": "yes"}, "use_dora is 'yes'. It can be False, True"),
        ({"include_real_images": "false"}, "include_real_images is 'false'. It can be False, True"),
        (
            {"prompt_template": ("histology", {"phrase"})},  # what the command line makes of: histology, {phrase}
            "prompt_template is ('histology', {'phrase'}). It can be text, a number, True, False, None, or lists and "
            "dictionaries of them. A text with a comma or braces is quoted twice on the command line, which else reads "
            "it as Python: --prompt_template \"'histology, {phrase}'\";",
        ),
        ({"ema_decay": 2}, "ema_decay is 2. It must lie between 0 and 0.999999"),
        ({"min_snr_gamma": 0}, "min_snr_gamma is 0. It must lie between 0.001 and 1e+06"),
        ({"min_snr_gamma": -5.0}, "min_snr_gamma is -5.0. It must lie between 0.001 and 1e+06"),
        ({"synthetic_per_class": -5}, "synthetic_per_class is -5. It must lie between 1 and 1e+07"),
        ({"synthetic_per_class": 0}, "synthetic_per_class is 0. It must lie between 1 and 1e+07"),
        ({"synthetic_per_class": 2.5}, "synthetic_per_class is 2.5. It must be a whole number from 1"),
        (
            {"baseline": "nonee"},
            "baseline is 'nonee'. It can be '', None, 'none', 'synthetic', 'real+synthetic', 'fill-up'",
        ),
        ({"filter": "standard", "encoder": "nanno"}, "There is no encoder 'nanno'"),
        (
            {"mixing": "none", "baseline": "synthetic", "filter": "copies", "encoder": "nanno"},
            "There is no encoder 'nanno'",
        ),
        ({"real_roles": ["shots", "test"]}, "real_roles is ['shots', 'test']. It is a list of 'shots' or 'train', or"),
        ({"real_roles": "all"}, "real_roles is 'all'. It is a list of 'shots' or 'train', or of both. Images of other"),
        ({"real_roles": []}, "real_roles is []. It is a list of 'shots' or 'train'"),
        (
            {"synthetic_per_class": 500},
            "synthetic_per_class is 500, but of each class 3 images would be drawn. Generate more (--images_per_class "
            "500) or ask for fewer (--synthetic_per_class 3).",
        ),
        ({"attributes": {"stain": []}}, "It must give a list of phrases for each name"),
        ({"fold": 7}, "fold is 7, but there are 5 folds"),
        ({"mixing": "real"}, "mixing is 'real'. It can be 'none', 'synthetic', 'real+synthetic'"),
        (
            {"scheduler": "pndm", "start_sigma": 2.0},
            "start_sigma is 2.0, but the scheduler 'pndm' cannot begin on images",
        ),
        ({"real_weight": 0.5, "real_share": 0.0}, "real_weight is 0.5, but with real_share 0.0 no real image is drawn"),
        (
            {"synthetic_first": 0.6},
            "synthetic_first is 0.6, which of num_epochs 1 is 1 and not a part. Name 0 or 1, or",
        ),
        (
            {"mixing": "fill-up", "synthetic_first": 0.5, "classifier_steps": 100},
            "synthetic_first is 0.5, but with the mixing 'fill-up' the largest class has no synthetic image",
        ),
        ({"classifier": "resnet1"}, "timm has no model 'resnet1'. Near names are"),
        ({"base_model": "nowhere"}, "There is no base model 'nowhere'"),
        ({"dataset_dir": "/no/such/folder"}, "does not exist. Name a folder"),
        ({"few_step_adapter": "nowhere"}, "there is no nowhere/pytorch_lora_weights.safetensors. Name a .safetensors"),
        ({"device": "cuda:64"}, "device is 'cuda:64', but torch sees"),
        ({"num_threads": "many"}, "num_threads is 'many'. It can be a whole number from 1, 'auto'"),
        ({"classifier_amp": "float16"}, "classifier_amp is 'float16'. It can be None, 'bfloat16'"),
        ({"model_path": "/proc/nowhere/model.pt"}, "/proc/nowhere/model.pt cannot be written: "),
        ({"compile": True, "cache_interval": 2}, "Blocks that are skipped cannot be compiled"),
        (
            {"cuda_graph": True, "device": "cpu", "train_text_encoder": True},
            "cuda_graph is true, but does not go with device 'cpu' and train_text_encoder true. Leave cuda_graph out",
        ),
        ({"phantom_set": "liver", "dataset_dir": "phantom"}, "phantom_set is 'liver'. It can be one of"),
    ],
)
def test_bad_settings_stop_before_anything_is_written(settings, change, words):
    with pytest.raises(RuntimeError) as error:
        run("train", settings, **change)
    assert words in root_message(error)
    assert not list(Path(settings["output_dir"]).rglob("*.json"))[1:]  # the lock's note alone


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"seed": 1, "shots": 5},
            "inference.json does not have the key 'seed', 'shots'. What may be set is bundle_root, dataset_dir, "
            "output_dir, device, num_threads, classifier, classifier_size, normalize_stain, batch_size, model_path, "
            "class_names",
        ),
        ({"encoder_batch_size": 5}, "does not have the key 'encoder_batch_size' (did you mean 'batch_size'?)"),
        ({"batch_size": 0}, "batch_size is 0. It must lie between 1 and 4096"),
        ({"normalize_stain": "reinhard"}, "normalize_stain is 'reinhard'. It can be"),
        ({"num_threads": 0}, "num_threads is 0. It can be a whole number from 1"),
        ({"device": "cuda:64"}, "device is 'cuda:64', but torch sees"),
    ],
)
def test_inference_refuses_what_it_would_not_heed(tmp_path, change, words):
    with pytest.raises(RuntimeError) as error:
        run("inference", {"output_dir": str(tmp_path), "model_path": str(tmp_path / "model.pt"), **change})
    assert words in root_message(error)


def test_inference_computes_with_the_threads_that_it_is_given(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("monai_synth.bundle.stages.use_threads", asked.append)
    with pytest.raises(RuntimeError) as error:
        run("inference", {"output_dir": str(tmp_path), "model_path": str(tmp_path / "no.pt"), "num_threads": 3})
    assert asked == [3] and "There is no model" in root_message(error)


def test_bad_folders_stop_before_anything_long(settings, image_folder):
    (Path(settings["dataset_dir"]) / "benign" / "text.jpg").write_text("no image")
    with pytest.raises(RuntimeError) as error:
        run("train", settings)
    assert "benign/text.jpg: " in root_message(error) and "is not an image" in root_message(error)
    with pytest.raises(RuntimeError) as error:
        run("train", settings, dataset_dir=str(image_folder({"only": 9}, name="one")))
    assert "is the only class" in root_message(error)


def test_an_adapter_for_few_steps_of_another_base_is_refused_before_anything_long(settings):
    with pytest.raises(RuntimeError) as error:
        run("train", settings, few_step_adapter="nano_few_step")
    assert "which belongs to the base 'nano', but base_model is" in root_message(error)
    assert not list(Path(settings["output_dir"]).rglob("*.json"))[1:]


def test_processes_cannot_share_a_gpu_that_is_named(monkeypatch):
    monkeypatch.setattr(processes, "count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "1")
    check_device("cuda:1")
    with pytest.raises(ValueError, match="device is 'cuda:0' in every process.*each needs a GPU of its own"):
        check_device("cuda:0")


def test_an_adapter_of_another_base_is_refused(settings, miniature):
    run("train_diffusion", settings)
    out = Path(settings["output_dir"])
    shutil.copytree(out / "adapter", out / "foreign")
    run_json = read_json(out / "adapter" / "run.json")
    with pytest.raises(RuntimeError) as error:
        run("generate", settings, base_model=str(miniature("epsilon", seed=5)), adapter_dir=str(out / "foreign"))
    assert "other settings" in root_message(error) or "belongs to the base" in root_message(error)
    assert read_json(out / "adapter" / "run.json") == run_json


def test_an_adapter_of_a_base_that_predicts_something_else_now_is_refused_where_that_was_noted(settings, tmp_path):
    """The weights of the base are the same, and so is its fingerprint."""
    base, record = tmp_path / "base", Path(settings["output_dir"]) / "adapter" / "run.json"
    shutil.copytree(settings["base_model"], base)
    settings["base_model"] = str(base)
    run("train_diffusion", settings)
    noted, path = read_json(record), base / "scheduler" / "scheduler_config.json"
    saved = read_json(path)
    write_json(path, {**saved, "use_karras_sigmas": True, "rescale_betas_zero_snr": False})  # by another version
    run("train_diffusion", settings)
    write_json(path, {**saved, "prediction_type": "v_prediction"})
    for config in ("train_diffusion", "generate"):
        with pytest.raises(RuntimeError) as error:
            run(config, settings)
        assert "base_schedule: {'prediction_type': 'epsilon'" in root_message(error)
    del noted["settings"]["base_schedule"]  # as versions before wrote it
    write_json(record, {**noted, "identity": identity_of(noted["settings"], noted["upstream"])})
    stamp = record.stat().st_mtime_ns
    run("train_diffusion", settings)
    assert record.stat().st_mtime_ns == stamp


def test_the_command_line_ends_with_one_sentence(settings, tmp_path):
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", str(CONFIGS / "train.json")]
    given = ["--output_dir", str(tmp_path / "out"), "--batchsize", "4"]
    for folder in (ROOT, ROOT / "bundles" / "colon", tmp_path):
        done = subprocess.run([*command, *given], cwd=folder, capture_output=True, text=True)
        assert done.returncode == 1
        assert "Error: No config in" in done.stderr and "did you mean 'batch_size'?" in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("config", "key"), [("assess", "include_real_images"), ("study", "judge_images")])
def test_a_false_without_a_capital_shows_no_patient_and_asks_for_nothing(config, key, tmp_path):
    """The command line reads it as a text, which would be true."""
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", str(CONFIGS / f"{config}.json")]
    given = ["--output_dir", str(tmp_path / "out"), f"--{key}", "false"]
    done = subprocess.run([*command, *given], capture_output=True, text=True)
    assert done.returncode == 1 and f"Error: {key} is 'false'. It can be False, True." in done.stderr
    assert not list((tmp_path / "out").rglob("*.json"))[1:]


def test_an_output_folder_in_use_is_refused(settings, tmp_path):
    hold_folder(settings["output_dir"])
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", str(CONFIGS / "train.json")]
    done = subprocess.run([*command, "--output_dir", settings["output_dir"]], capture_output=True, text=True)
    release_folder(settings["output_dir"])
    assert done.returncode == 1 and f"used by another run (process {os.getpid()}" in done.stderr


def test_a_folder_of_ones_own_in_use_is_refused_though_the_output_folder_is_another(settings, tmp_path):
    hold_folder(tmp_path / "shared")
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", str(CONFIGS / "generate.json")]
    given = ["--output_dir", settings["output_dir"], "--synthetic_dir", str(tmp_path / "shared")]
    done = subprocess.run([*command, *given], capture_output=True, text=True)
    release_folder(tmp_path / "shared")
    assert done.returncode == 1 and f"shared is being used by another run (process {os.getpid()}" in done.stderr


def test_processes_meet_over_the_device_that_the_config_names(settings, monkeypatch):
    met = []
    monkeypatch.setattr(processes, "join", met.append)
    for config, given in (("train", {"device": "cpu"}), ("train", {"device": "cuda:64"}), ("study", {})):
        with pytest.raises(RuntimeError):  # afterwards
            run(config, {"output_dir": settings["output_dir"], "shots": "none", **given})
    assert met == ["cpu", "cuda:64", "cpu"]
