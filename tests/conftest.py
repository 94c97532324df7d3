"""Fixtures: small random models in the formats of the real ones, and small folders of drawn images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image
from transformers import CLIPTextConfig, CLIPTextModel

from monai_synth.networks.tokenizer import clip_tokenizer

torch.set_num_threads(1)


def build_miniature(folder: Path, prediction_type: str = "epsilon", seed: int = 0) -> Path:
    """A random Stable Diffusion of 32 pixels, saved as the 1.x (epsilon) or 2.x (v_prediction) pipelines are."""
    torch.manual_seed(seed)
    second = prediction_type == "v_prediction"
    tokenizer = clip_tokenizer()
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=77,
            hidden_act="gelu" if second else "quick_gelu",
            bos_token_id=49406,
            eos_token_id=49407,
        )
    )
    autoencoder = AutoencoderKL(
        sample_size=32,
        block_out_channels=(8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
    )
    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=(8, 16),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=[2, 4] if second else 2,
        use_linear_projection=second,
        norm_num_groups=4,
    )
    schedule = {
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "prediction_type": prediction_type,
        "steps_offset": 1,
        "set_alpha_to_one": False,
    }
    scheduler = (
        DDIMScheduler(clip_sample=False, **schedule) if second else PNDMScheduler(skip_prk_steps=True, **schedule)
    )
    StableDiffusionPipeline(
        vae=autoencoder,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder, safe_serialization=True)
    return folder


@pytest.fixture(scope="session")
def miniature(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Gives the folder of a random small base: `miniature("v_prediction", seed=1)`."""
    built: dict[tuple[str, int], Path] = {}

    def of(prediction_type: str = "epsilon", seed: int = 0) -> Path:
        key = (prediction_type, seed)
        if key not in built:
            built[key] = build_miniature(tmp_path_factory.mktemp("base"), prediction_type, seed)
        return built[key]

    return of


@pytest.fixture(autouse=True)
def _restore_random_state():
    state, numbers = torch.get_rng_state(), np.random.get_state()
    yield
    torch.set_rng_state(state)
    np.random.set_state(numbers)


@pytest.fixture
def image_folder(tmp_path: Path) -> Callable[..., Path]:
    """Makes a folder of class folders with distinct random images: `image_folder({"a": 8, "b": 8}, size=32)`."""

    def make(counts: dict[str, int], size: int = 32, name: str = "images") -> Path:
        rng = np.random.default_rng(0)
        for number, (class_name, count) in enumerate(counts.items()):
            folder = tmp_path / name / class_name
            folder.mkdir(parents=True, exist_ok=True)
            for index in range(count):
                pixels = rng.integers(0, 128, (size, size, 3)) + 60 * number
                Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(folder / f"{class_name}_{index:03d}.png")
        return tmp_path / name

    return make
