"""Random weights in the exact shapes of published bases, for speed alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from monai_synth.networks.tokenizer import clip_tokenizer

SHAPES: dict[str, dict[str, Any]] = {
    "sd15": {
        "heads": 8,
        "width": 768,
        "layers": 12,
        "text_heads": 12,
        "act": "quick_gelu",
        "linear": False,
        "size": 64,
    },
    "sd21": {
        **{"heads": [5, 10, 20, 20], "width": 1024, "layers": 23, "text_heads": 16},
        **{"act": "gelu", "linear": True, "size": 64},
    },
}


def build_unet(shape: str) -> UNet2DConditionModel:
    """The denoiser of a published base with random weights: 859.5 M parameters ("sd15") or 865.9 M ("sd21")."""
    known = SHAPES[shape]
    return UNet2DConditionModel(
        sample_size=known["size"],
        block_out_channels=(320, 640, 1280, 1280),
        cross_attention_dim=known["width"],
        attention_head_dim=known["heads"],
        use_linear_projection=known["linear"],
    )


def build_text(shape: str) -> CLIPTextModel:
    """The text encoder of a published base with random weights."""
    known = SHAPES[shape]
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=49408,
            hidden_size=known["width"],
            intermediate_size=4 * known["width"],
            num_hidden_layers=known["layers"],
            num_attention_heads=known["text_heads"],
            hidden_act=known["act"],
            projection_dim=known["width"],
            bos_token_id=49406,
            eos_token_id=49407,
        )
    )


def build_autoencoder() -> AutoencoderKL:
    """The autoencoder of Stable Diffusion 1.x and 2.x with random weights."""
    return AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=4,
        sample_size=512,
    )


def build_scheduler() -> DDIMScheduler:
    """The noise schedule of Stable Diffusion 1.x and 2.x."""
    return DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False)


def write_random_base(shape: str, folder: Path, device: torch.device | None = None) -> Path:
    """A pipeline of a published base's shapes in half precision, in diffusers' format.

    Args:
        shape: of `SHAPES`.
        folder: where it is written.
        device: that draws the weights, the CPU by default; a GPU is much faster.
    """
    torch.manual_seed(0)
    with torch.device(device or "cpu"):
        parts = {"text_encoder": build_text(shape), "vae": build_autoencoder(), "unet": build_unet(shape)}
    pipeline = StableDiffusionPipeline(
        **parts,
        tokenizer=clip_tokenizer(),
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.to(torch.float16).save_pretrained(folder, safe_serialization=True)
    return folder
