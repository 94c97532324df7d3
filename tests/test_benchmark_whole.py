"""The benchmark runs through as a whole: on the nano base, and on random weights of a published shape."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))


@pytest.mark.slow
def test_random_weights_of_a_published_shape_run_through(miniature, monkeypatch, tmp_path):
    """With a miniature's networks in the place of the large ones; what a GPU will do, on the CPU."""
    import benchmark
    from benchmarks import shapes

    base = miniature()
    kinds = {"build_unet": (UNet2DConditionModel, "unet"), "build_autoencoder": (AutoencoderKL, "vae")}
    for name, (kind, folder) in {**kinds, "build_text": (CLIPTextModel, "text_encoder")}.items():
        monkeypatch.setattr(
            shapes, name, lambda *shape, kind=kind, folder=folder: kind.from_pretrained(base, subfolder=folder)
        )
    monkeypatch.setattr(torch, "compile", lambda network, **options: network)  # takes minutes, and is tested elsewhere
    options = "--shape sd21 --parts fine_tuning generation batches profile --size 64 --repeats 1 --shots 2".split()
    options = benchmark.parse([*options, "--adapter_steps", "1", "--images_per_class", "3"])
    tables = dict(
        zip(("step", "drawing", "job", "batches", "training", "batch"), benchmark.run_parts(options, tmp_path))
    )
    assert "train_diffusion.json, all handlers" in tables["step"] and "The whole job" in tables["job"]
    assert "51 steps of PNDM" in tables["drawing"] or "50 steps of PNDM" in tables["drawing"]
    assert "not measured" in tables["drawing"] and "+-" not in tables["drawing"]  # random weights have no quality
    assert "| 40 |" in tables["batches"] and "A batch" in tables["batch"]


@pytest.mark.slow
def test_the_whole_benchmark_runs():
    small = "--threads 1 --repeats 1 --shots 4 --adapter_steps 2 --images_per_class 3 --checkpoints 1 2".split()
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "benchmark.py"), *small], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    for words in (
        "the works' way",
        "50 steps of DDIM (PNDM does not know this base's noise schedule)",
        "The works load their pipeline anew for each class",
        "+ bfloat16",
        "scan: files",
        "Peak memory of drawing",
        "KID x 1000",
        "recall",
        "The whole job",
        "Images after 2 steps of fine-tuning",
        "The works' way is nearest after",
        "A step of train_diffusion.json's trainer",
        "A batch",
        "Images at once",
        "torch.compile",
        "inner blocks in every third",
    ):
        assert words in done.stdout
