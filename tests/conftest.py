"""Fixtures: small random models in the formats of the real ones, and small folders of drawn images."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import open_clip
import pytest
import timm
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    PNDMScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from PIL import Image
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from monai_synth.networks.tokenizer import clip_tokenizer
from monai_synth.utils import save_safetensors, write_json

torch.set_num_threads(1)


KINDS = ("epsilon", "v_prediction", "xl", "flow")
SCHEDULE = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
    "set_alpha_to_one": False,
}


def text_encoder(kind=CLIPTextModel, width=16, hidden_act="quick_gelu", projection=16):
    return kind(
        CLIPTextConfig(
            vocab_size=len(clip_tokenizer()),
            hidden_size=width,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=77,
            hidden_act=hidden_act,
            projection_dim=projection,
            bos_token_id=49406,
            eos_token_id=49407,
        )
    )


def autoencoder(**options):
    return AutoencoderKL(
        sample_size=32,
        block_out_channels=(8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        norm_num_groups=4,
        **{"latent_channels": 4, **options},
    )


def unet(**options):
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=(8, 16),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        norm_num_groups=4,
        **options,
    )


def stable_diffusion(prediction_type):
    """As the 1.x (epsilon) or 2.x (v_prediction) pipelines are."""
    second = prediction_type == "v_prediction"
    schedule = {"prediction_type": prediction_type, **SCHEDULE}
    return StableDiffusionPipeline(
        text_encoder=text_encoder(hidden_act="gelu" if second else "quick_gelu"),
        vae=autoencoder(),
        tokenizer=clip_tokenizer(),
        unet=unet(cross_attention_dim=16, attention_head_dim=[2, 4] if second else 2, use_linear_projection=second),
        scheduler=(
            DDIMScheduler(clip_sample=False, **schedule) if second else PNDMScheduler(skip_prk_steps=True, **schedule)
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def stable_diffusion_xl():
    second = clip_tokenizer()
    second.pad_token = "!"  # as in the published one
    return StableDiffusionXLPipeline(
        vae=autoencoder(scaling_factor=0.13025),
        text_encoder=text_encoder(),
        text_encoder_2=text_encoder(CLIPTextModelWithProjection, width=24, hidden_act="gelu", projection=12),
        tokenizer=clip_tokenizer(),
        tokenizer_2=second,
        unet=unet(
            cross_attention_dim=40,
            attention_head_dim=[2, 4],
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=4,
            projection_class_embeddings_input_dim=12 + 6 * 4,
        ),
        scheduler=DDIMScheduler(clip_sample=False, **SCHEDULE),
        add_watermarker=False,
    )


def stable_diffusion_3():
    second = clip_tokenizer()
    second.pad_token = "!"
    return StableDiffusion3Pipeline(
        transformer=SD3Transformer2DModel(
            sample_size=8,
            patch_size=2,
            in_channels=8,
            out_channels=8,
            num_layers=2,
            attention_head_dim=8,
            num_attention_heads=2,
            joint_attention_dim=48,
            caption_projection_dim=16,
            pooled_projection_dim=24,
            pos_embed_max_size=12,
            dual_attention_layers=(0,),
            qk_norm="rms_norm",
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=autoencoder(
            latent_channels=8,
            scaling_factor=1.5305,
            shift_factor=0.0609,
            use_quant_conv=False,
            use_post_quant_conv=False,
        ),
        text_encoder=text_encoder(CLIPTextModelWithProjection, projection=10),
        text_encoder_2=text_encoder(CLIPTextModelWithProjection, width=24, hidden_act="gelu", projection=14),
        tokenizer=clip_tokenizer(),
        tokenizer_2=second,
        text_encoder_3=None,
        tokenizer_3=None,
    )


def build_miniature(folder: Path, kind: str = "epsilon", seed: int = 0) -> Path:
    """A random base of 32 pixels, saved as the real pipelines are; see `KINDS`."""
    torch.manual_seed(seed)
    build = {"xl": stable_diffusion_xl, "flow": stable_diffusion_3}.get(kind, lambda: stable_diffusion(kind))
    build().save_pretrained(folder, safe_serialization=True)
    return folder


@pytest.fixture(scope="session")
def miniature(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Gives the folder of a random small base of one of `KINDS`: `miniature("v_prediction", seed=1)`."""
    built: dict[tuple[str, int], Path] = {}

    def of(kind: str = "epsilon", seed: int = 0) -> Path:
        key = (kind, seed)
        if key not in built:
            built[key] = build_miniature(tmp_path_factory.mktemp("base"), kind, seed)
        return built[key]

    return of


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """Name and folder (`local-dir:`) of a random small CLIP of 32 pixels, in open_clip's format."""
    folder = tmp_path_factory.mktemp("clip")
    config = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
    }
    (folder / "tiny-clip.json").write_text(json.dumps(config))
    colors = {"mean": [0.5, 0.25, 0.125], "std": [0.5, 1.0, 2.0]}  # other than CLIP's own
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": colors}))
    open_clip.add_model_config(folder / "tiny-clip.json")
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = open_clip.create_model("tiny-clip")
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return "tiny-clip", folder


@pytest.fixture(scope="session")
def plain_pipeline() -> Callable[[Path], DiffusionPipeline]:
    """Gives plain diffusers' pipeline of a folder."""

    def load(folder: Path) -> DiffusionPipeline:
        is_third = (folder / "transformer").is_dir()
        pipeline = DiffusionPipeline.from_pretrained(
            folder, **({"text_encoder_3": None, "tokenizer_3": None} if is_third else {})
        )
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    return load


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


@pytest.fixture(scope="session")
def encoder(tmp_path_factory):
    """A random small timm network as `local-dir:` reads it."""
    folder = tmp_path_factory.mktemp("encoder")
    network = timm.create_model("test_resnet", pretrained=False, num_classes=0)
    save_safetensors(folder / "model.safetensors", network.state_dict(), {"format": "pt"})
    known = {"input_size": [3, 32, 32], "mean": [0.5] * 3, "std": [0.5] * 3, "num_classes": 0, "classifier": "fc"}
    write_json(folder / "config.json", {"architecture": "test_resnet", "num_classes": 0, "pretrained_cfg": known})
    return folder
