"""The nano Stable Diffusion: autoencoder, text encoder, denoiser."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor
from tqdm import tqdm
from transformers import CLIPTextConfig, CLIPTextModel

from monai_synth.data.phantom import phantom_caption
from monai_synth.networks.tokenizer import clip_tokenizer
from monai_synth.utils.io import read_json, write_json, write_text
from monai_synth.utils.tensors import load_tensors, save_tensors

from .loop import train, trained
from .phantoms import IMAGE_SIZE, Phantoms, any_color, crops, read_rows, recolor

logger = logging.getLogger(__name__)
ATTRIBUTES = ("strength", "hue", "background", "magnification")
LATENT_CHANNELS = 8
NUM_VIEWS = 1  # latents of every phantom: upright, then turned and recolored ones
TEXT_WIDTH = 96


def build_autoencoder() -> AutoencoderKL:
    """An autoencoder from (3, 128, 128) pixels to (8, 16, 16) latents."""
    return AutoencoderKL(
        sample_size=IMAGE_SIZE,
        block_out_channels=(32, 64, 96, 128),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=8,
        mid_block_add_attention=False,
    )


def build_unet() -> UNet2DConditionModel:
    """A denoiser of (8, 16, 16) latents, conditioned by (77, 96) text features."""
    return UNet2DConditionModel(
        sample_size=IMAGE_SIZE // 8,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        layers_per_block=1,
        block_out_channels=(96, 160, 192),
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=4,
        norm_num_groups=16,
    )


def build_text_encoder(vocabulary: int) -> CLIPTextModel:
    """A CLIP text encoder with 3 layers of width 96."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=vocabulary,
            hidden_size=TEXT_WIDTH,
            intermediate_size=4 * TEXT_WIDTH,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=77,
            projection_dim=TEXT_WIDTH,
            bos_token_id=49406,
            eos_token_id=49407,
        )
    )


def build_scheduler() -> DDIMScheduler:
    """Stable Diffusion's noise schedule with v-prediction, rescaled so that the last step is pure noise.

    Without that the mean color of an image is read from the noise, and neither prompt nor adapter can set the stain:
    Lin et al., "Common Diffusion Noise Schedules and Sample Steps are Flawed", 2024.
    """
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        timestep_spacing="trailing",
        rescale_betas_zero_snr=True,
    )


def detail_loss(images: Tensor, target: Tensor) -> Tensor:
    """Mean absolute error of the pixels and of their differences at four scales, so that edges stay sharp."""
    loss = F.l1_loss(images, target)
    for _ in range(4):
        for axis in (2, 3):
            loss = loss + 0.5 * F.l1_loss(images.diff(dim=axis), target.diff(dim=axis))
        images, target = F.avg_pool2d(images, 2), F.avg_pool2d(target, 2)
    return loss


def trained_autoencoder(work_dir: Path, stage: str = "vae") -> torch.nn.Module:
    """The autoencoder at the end of a stage's schedule, which is better than the average that lags behind it."""
    return trained(work_dir, stage, {"vae": build_autoencoder()}, average=False)["vae"]


def train_autoencoder(work_dir: Path, steps: int, device: torch.device) -> None:
    """Trains the autoencoder on windows of 64 pixels; it has no attention, so any size works afterwards."""
    phantoms = Phantoms(work_dir, device)
    autoencoder = build_autoencoder().to(device)

    def loss_of(step: int) -> dict[str, Tensor]:
        rng, generator = np.random.default_rng([1, step]), torch.Generator(device).manual_seed(step)
        images = crops(phantoms, rng, generator, batch=32, size=64) * 2 - 1
        with torch.autocast(device.type, torch.bfloat16):
            posterior = autoencoder.encode(images).latent_dist
            output = autoencoder.decode(posterior.sample(generator)).sample.float()
        detail = detail_loss(output, images)
        divergence = posterior.kl().float().mean() / posterior.mean[0].numel()
        return {
            "loss": detail + 1e-4 * divergence,
            "detail": detail,
            "kl": divergence,
            "mse": F.mse_loss(output, images),
        }

    train(work_dir, "vae", {"vae": autoencoder}, loss_of, steps, 6e-4, 0.998)


def train_gamut(work_dir: Path, steps: int, device: torch.device) -> None:
    """Teaches the autoencoder all colors, while the latents of phantoms stay where the denoiser knows them.

    Phantoms are pink, purple and blue, and an autoencoder that has seen little else makes a grey or greenish smear
    lavender.
    """
    phantoms, before = Phantoms(work_dir, device), trained_autoencoder(work_dir).to(device)
    autoencoder = build_autoencoder().to(device)
    autoencoder.load_state_dict(before.state_dict())

    def loss_of(step: int) -> dict[str, Tensor]:
        rng, generator = np.random.default_rng([5, step]), torch.Generator(device).manual_seed(step)
        images = crops(phantoms, rng, generator, batch=24, size=64)
        images[8:] = any_color(images[8:], generator)
        upright = phantoms.batch(rng.integers(len(phantoms), size=6)) * 2 - 1
        images = images * 2 - 1
        with torch.autocast(device.type, torch.bfloat16):
            posterior = autoencoder.encode(images).latent_dist
            output = autoencoder.decode(posterior.sample(generator)).sample.float()
            moved = autoencoder.encode(upright).latent_dist.mean.float()
            with torch.no_grad():
                known = before.encode(upright).latent_dist.mean.float()
        detail, anchor = detail_loss(output, images), F.mse_loss(moved, known) / known.var()
        color = F.l1_loss(F.avg_pool2d(output, 8), F.avg_pool2d(images, 8))
        divergence = posterior.kl().float().mean() / posterior.mean[0].numel()
        loss = detail + color + 2.0 * anchor + 1e-4 * divergence
        return {"loss": loss, "detail": detail, "color": color, "anchor": anchor, "mse": F.mse_loss(output, images)}

    train(work_dir, "gamut", {"vae": autoencoder}, loss_of, steps, 4e-4, 0.998)


@torch.no_grad()
def encode_latents(work_dir: Path, device: torch.device) -> None:
    """Encodes every phantom, upright and in turned and recolored views, and keeps the means in half precision."""
    phantoms = Phantoms(work_dir, device)
    autoencoder = trained_autoencoder(work_dir).to(device)
    for number, path in enumerate(tqdm(phantoms.shards, desc="latents")):
        target = work_dir / "latents" / f"{path.stem}.safetensors"
        if target.exists():
            continue
        indices = np.arange(phantoms.size) + number * phantoms.size
        means = []
        for view in range(NUM_VIEWS):
            generator = torch.Generator(device).manual_seed(number * NUM_VIEWS + view)
            parts = []
            for chunk in np.array_split(indices, max(1, len(indices) // 50)):
                images = phantoms.batch(chunk)
                if view:
                    images = torch.rot90(images, view, (2, 3)).flip(3 if view % 2 else 2)
                    keep = torch.rand(len(images), 1, 1, 1, generator=generator, device=device) < 0.5
                    images = torch.where(keep, images, recolor(images, generator))
                with torch.autocast(device.type, torch.bfloat16):
                    parts.append(autoencoder.encode(images * 2 - 1).latent_dist.mean.half().cpu())
            means.append(torch.cat(parts))
        save_tensors(target, {"means": torch.stack(means, dim=1)})


def read_latents(work_dir: Path) -> Tensor:
    """Latents of all phantoms in V views, shape (N, V, 8, 16, 16), half precision."""
    return torch.cat([load_tensors(path)["means"] for path in sorted((work_dir / "latents").glob("*.safetensors"))])


def captions(rows: list[dict[str, str]], views: np.ndarray, rng: np.random.Generator) -> Iterator[str]:
    """A caption per row: the class alone, or with some of its attributes; empty for one in ten.

    Recolored views (all but the first) only tell what recoloring keeps.
    """
    words = {
        "strength": "{} stain",
        "hue": "{} hue",
        "background": "{} background",
        "magnification": "{} magnification",
    }
    for row, view in zip(rows, views):
        if rng.random() < 0.1:
            yield ""
            continue
        known = ATTRIBUTES if view == 0 else ("magnification",)
        told = [words[name].format(row[name]) for name in known if rng.random() < 0.5]
        yield ", ".join([phantom_caption(row["class_name"]), *told])


def train_denoiser(work_dir: Path, steps: int, batch_size: int, device: torch.device) -> None:
    """Trains the denoiser and the text encoder on cached latents, v-prediction, all timesteps alike."""
    rows, latents = read_rows(work_dir), read_latents(work_dir).to(device)
    scale = 1.0 / latents[:, 0].float().std()
    write_json(work_dir / "scaling.json", {"scaling_factor": float(scale)})
    tokenizer, scheduler, seen = clip_tokenizer(), build_scheduler(), {}
    unet, text = build_unet().to(device), build_text_encoder(len(tokenizer)).to(device)

    def ids_of(caption: str) -> Tensor:
        if caption not in seen:
            seen[caption] = torch.tensor(tokenizer(caption, padding="max_length", max_length=77).input_ids)
        return seen[caption]

    def loss_of(step: int) -> dict[str, Tensor]:
        rng, generator = np.random.default_rng([2, step]), torch.Generator(device).manual_seed(step)
        source = {"generator": generator, "device": device}
        indices, views = rng.integers(len(latents), size=batch_size), rng.integers(NUM_VIEWS, size=batch_size)
        clean = latents[torch.from_numpy(indices).to(device), torch.from_numpy(views).to(device)].float() * scale
        noise = torch.randn(clean.shape, **source)
        timesteps = torch.randint(0, scheduler.config.num_train_timesteps, (batch_size,), **source)
        noisy, target = scheduler.add_noise(clean, noise, timesteps), scheduler.get_velocity(clean, noise, timesteps)
        ids = torch.stack([ids_of(text) for text in captions([rows[i] for i in indices], views, rng)]).to(device)
        with torch.autocast(device.type, torch.bfloat16):
            context = text(ids).last_hidden_state
            output = unet(noisy, timesteps, context).sample.float()
        return {"loss": F.mse_loss(output, target)}

    train(work_dir, "unet", {"unet": unet, "text": text}, loss_of, steps, 5e-4, 0.9995)


def export(work_dir: Path, output_dir: Path) -> None:
    """Writes the averaged weights as a complete Stable Diffusion pipeline in half-precision safetensors."""
    tokenizer = clip_tokenizer()
    parts = {"unet": build_unet(), "text": build_text_encoder(len(tokenizer))}
    modules, autoencoder = trained(work_dir, "unet", parts, average=True), trained_autoencoder(work_dir, "gamut")
    autoencoder.register_to_config(scaling_factor=read_json(work_dir / "scaling.json")["scaling_factor"])
    pipeline = StableDiffusionPipeline(
        vae=autoencoder,
        text_encoder=modules["text"],
        tokenizer=tokenizer,
        unet=modules["unet"],
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    copy.copy(pipeline).to(dtype=torch.float16).save_pretrained(output_dir, safe_serialization=True)
    write_compact(output_dir / "tokenizer" / "tokenizer.json")
    logger.info("Wrote the nano Stable Diffusion to %s.", output_dir)


def write_compact(path: Path) -> None:
    """Takes the indentation out of a JSON file: half of a tokenizer's."""
    write_text(path, json.dumps(read_json(path), separators=(",", ":"), ensure_ascii=False))
