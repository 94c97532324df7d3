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


def train(work_dir, output_dir, steps):
    counts = [f"--{name}_steps={steps}" for name in ("vae", "unet", "gamut", "encoder", "clip", "few_step")]
    few = ["--num_shards=1", "--images_per_shard=2", "--batch_size=4", "--threads=1", *counts]
    folders = ["--work_dir", str(work_dir), "--output_dir", str(output_dir)]
    subprocess.run([sys.executable, str(SCRIPT), *folders, *few], check=True, capture_output=True)


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
