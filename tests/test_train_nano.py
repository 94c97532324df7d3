"""Every stage of the training of the embedded models runs, and what it writes is what the package reads."""

import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from diffusers import StableDiffusionPipeline

from monai_synth.networks import LatentDiffusion, load_adapter

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "train_nano.py"
sys.path.insert(0, str(SCRIPT.parent))


def train(work_dir, output_dir, steps):
    counts = [f"--{name}_steps={steps}" for name in ("linear", "vae", "unet", "encoder", "clip", "few_step")]
    few = ["--num_shards=1", "--images_per_shard=2", "--batch_size=4", "--threads=1", *counts]
    folders = ["--work_dir", str(work_dir), "--output_dir", str(output_dir)]
    subprocess.run([sys.executable, str(SCRIPT), *folders, *few], check=True, capture_output=True)


@pytest.mark.parametrize("stop", [199, 200, 330])
def test_a_training_that_was_killed_ends_with_the_same_bytes(tmp_path, stop):
    from nano_training.loop import train as train_stage

    def run(folder, last):
        torch.manual_seed(0)
        network = torch.nn.Linear(3, 1)

        def loss_of(step):
            if step == last:
                raise KeyboardInterrupt
            generator = torch.Generator().manual_seed(step)
            return {"loss": network(torch.randn(4, 3, generator=generator)).square().mean()}

        train_stage(folder, "stage", {"network": network}, loss_of, 400, 1e-2, 0.99)
        return (folder / "stage.safetensors").read_bytes()

    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", stop)
    assert run(tmp_path / "parts", None) == run(tmp_path / "whole", None)


@pytest.mark.slow
def test_all_stages_run_go_on_and_write_what_the_package_reads(tmp_path):
    work, out = tmp_path / "work", tmp_path / "out"
    train(work, out, steps=1)
    train(work, out, steps=2)  # goes on
    pipeline = StableDiffusionPipeline.from_pretrained(out / "nano")
    assert pipeline.vae.config.latent_channels == pipeline.unet.config.in_channels
    assert timm.create_model(f"local-dir:{out / 'nano_encoder'}")(torch.zeros(1, 3, 128, 128)).shape == (1, 368)
    assert (out / "nano_clip" / "open_clip_model.safetensors").is_file()
    diffusion = LatentDiffusion(str(out / "nano"))
    before = diffusion.denoiser.conv_in.weight.clone()
    load_adapter(diffusion, None, out / "nano_few_step")
    assert not torch.equal(diffusion.denoiser.conv_in.weight, before)
