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

from .linear_code import (
    Code,
    decode_linearly,
    encode,
    fit_code,
    is_residual,
    linear_layers,
    set_decoder,
    set_encoder,
)
from .loop import train, trained
from .phantoms import CLASS_NAMES, IMAGE_SIZE, Phantoms, read_rows, rich_windows

logger = logging.getLogger(__name__)
LATENT_CHANNELS = 48
LATENT_STD = 0.5  # beside noise of one: many numbers tell the same shape, and it takes more noise to hide it
TEXT_WIDTH = 96


def build_autoencoder() -> AutoencoderKL:
    """An autoencoder from (3, 128, 128) pixels to (48, 16, 16) latents."""
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
    """A denoiser of (48, 16, 16) latents, conditioned by (77, 96) text features."""
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


def read_code(work_dir: Path, device: torch.device) -> Code:
    """The linear code that is the encoder."""
    return {name: value.to(device) for name, value in load_tensors(work_dir / "code.safetensors").items()}


def train_code(work_dir: Path, num_batches: int, device: torch.device) -> None:
    """Fits the linear code to windows of phantoms, 64 in a batch."""
    if (work_dir / "code.safetensors").exists():
        return
    phantoms = Phantoms(work_dir, device)
    images = torch.cat([rich_windows(phantoms, [1, 1_000_000 + number], 64, 64) for number in range(num_batches)])
    save_tensors(work_dir / "code.safetensors", fit_code(images.cpu(), LATENT_CHANNELS))


def train_linear_decoder(work_dir: Path, steps: int, device: torch.device) -> None:
    """Fits the best linear decoder that the layers of the autoencoder can be."""
    phantoms, code, autoencoder = Phantoms(work_dir, device), read_code(work_dir, device), build_autoencoder()
    set_encoder(autoencoder.to(device), code)
    set_decoder(autoencoder.requires_grad_(False))
    for layer in linear_layers(autoencoder):
        layer.requires_grad_(True)

    def loss_of(step: int) -> dict[str, Tensor]:
        images = rich_windows(phantoms, [1, step], 16, 64)
        output = decode_linearly(autoencoder, encode(code, images))
        return {"loss": F.mse_loss(output, images * 2 - 1)}

    train(work_dir, "linear", {"vae": autoencoder}, loss_of, steps, 2e-3, 0.9)


def train_decoder(work_dir: Path, steps: int, device: torch.device) -> None:
    """Trains the decoder, begun linear, on windows of 64 pixels; it has no attention, so any size works afterwards.

    The numbers are noisy, as those of a denoiser are. The residual blocks learn five times as fast as the linear path.
    """
    phantoms, code = Phantoms(work_dir, device), read_code(work_dir, device)
    autoencoder = trained(work_dir, "linear", {"vae": build_autoencoder()}, average=False)["vae"].to(device)
    for part in (autoencoder.decoder, autoencoder.post_quant_conv):
        part.requires_grad_(True)

    def loss_of(step: int) -> dict[str, Tensor]:
        source = {"generator": torch.Generator(device).manual_seed(step), "device": device}
        images = rich_windows(phantoms, [1, 100_000 + step], 16, 64)
        numbers = encode(code, images)
        noise = 0.06 * torch.rand(len(numbers), 1, 1, 1, **source) * torch.randn(numbers.shape, **source)
        images = images * 2 - 1
        with torch.autocast(device.type, torch.bfloat16):
            output = autoencoder.decode(numbers + noise).sample.float()
        detail, error = detail_loss(output, images), F.mse_loss(output, images)
        return {"loss": 0.3 * detail + 8.0 * error, "detail": detail, "mse": error}

    speed = {True: 1.0, False: 0.2}
    train(work_dir, "vae", {"vae": autoencoder}, loss_of, steps, 6e-4, 0.998, lambda name: speed[is_residual(name)])


@torch.no_grad()
def encode_latents(work_dir: Path, device: torch.device) -> None:
    """Encodes every phantom and keeps the numbers in half precision."""
    phantoms, code = Phantoms(work_dir, device), read_code(work_dir, device)
    for number, path in enumerate(tqdm(phantoms.shards, desc="latents")):
        target = work_dir / "latents" / f"{path.stem}.safetensors"
        if not target.exists():
            chunks = (np.arange(phantoms.size) + number * phantoms.size).reshape(-1, len(CLASS_NAMES))
            parts = [encode(code, phantoms.batch(chunk)).half().cpu() for chunk in chunks]
            save_tensors(target, {"means": torch.cat(parts)})


def read_latents(work_dir: Path) -> Tensor:
    """Latents of all phantoms, shape (N, 48, 16, 16), half precision."""
    return torch.cat([load_tensors(path)["means"] for path in sorted((work_dir / "latents").glob("*.safetensors"))])


def captions(rows: list[dict[str, str]], rng: np.random.Generator) -> Iterator[str]:
    """A caption per row: the class alone, or with some of its attributes; empty for one in ten."""
    words = {
        "strength": "{} stain",
        "hue": "{} hue",
        "background": "{} background",
        "magnification": "{} magnification",
    }
    for row in rows:
        if rng.random() < 0.1:
            yield ""
            continue
        told = [phrase.format(row[name]) for name, phrase in words.items() if rng.random() < 0.5]
        yield ", ".join([phantom_caption(row["class_name"]), *told])


@torch.no_grad()
def begin_denoiser(
    pipeline: StableDiffusionPipeline, phantoms: Phantoms, latents: Tensor, unet: UNet2DConditionModel
) -> None:
    """Begins a denoiser as that of another autoencoder, through linear maps between the two kinds of latents.

    Args:
        pipeline: the other base, whose denoiser has the same layers but the first and the last.
        phantoms: to fit the maps to.
        latents: of the same phantoms, scaled, shape (N, 48, 16, 16).
        unet: the denoiser, which is changed.
    """
    some = np.random.default_rng(0).permutation(len(phantoms))[:400]
    autoencoder = pipeline.vae.to(latents.device)
    parts = [autoencoder.encode(phantoms.batch(part) * 2 - 1).latent_dist.mean for part in np.array_split(some, 10)]
    theirs = (torch.cat(parts) * autoencoder.config.scaling_factor).movedim(1, -1).flatten(0, 2)
    ours = latents[torch.from_numpy(some).to(latents.device)].movedim(1, -1).flatten(0, 2)
    one = torch.ones(len(ours), 1, device=ours.device)
    to_theirs = torch.linalg.lstsq(torch.cat([ours, one], 1), theirs).solution[:-1]
    to_ours = torch.linalg.lstsq(torch.cat([theirs, one], 1), ours).solution[:-1]
    state = {name: value.to(ours.device) for name, value in pipeline.unet.state_dict().items()}
    state["conv_in.weight"] = torch.einsum("oihw,ki->okhw", state["conv_in.weight"], to_theirs)
    state["conv_out.weight"] = torch.einsum("oihw,ok->kihw", state["conv_out.weight"], to_ours)
    state["conv_out.bias"] = state["conv_out.bias"] @ to_ours
    unet.load_state_dict(state)


def train_denoiser(
    work_dir: Path,
    steps: int,
    batch_size: int,
    device: torch.device,
    learning_rate: float = 1e-3,
    begin_from: str | None = None,
) -> None:
    """Trains the denoiser and the text encoder on cached latents, v-prediction, all timesteps alike.

    Args:
        work_dir: folder of latents, checkpoint and log.
        steps: optimizer steps in all.
        batch_size: phantoms of a step; their timesteps are spread evenly.
        device: to train on.
        learning_rate: peak rate; 2.5e-3 diverged.
        begin_from: another base whose denoiser and text encoder the first step begins with; random ones without.
    """
    rows, latents = read_rows(work_dir), read_latents(work_dir).to(device)
    scale = LATENT_STD / latents[:4000].float().std()
    write_json(work_dir / "scaling.json", {"scaling_factor": float(scale)})
    tokenizer, scheduler, seen = clip_tokenizer(), build_scheduler(), {}
    unet, text = build_unet().to(device), build_text_encoder(len(tokenizer)).to(device)
    if begin_from is not None and not (work_dir / "unet.safetensors").exists():
        other = StableDiffusionPipeline.from_pretrained(begin_from, torch_dtype=torch.float32)
        text.load_state_dict(other.text_encoder.state_dict())
        begin_denoiser(other, Phantoms(work_dir, device), latents.float() * scale, unet)

    def ids_of(caption: str) -> Tensor:
        if caption not in seen:
            seen[caption] = torch.tensor(tokenizer(caption, padding="max_length", max_length=77).input_ids)
        return seen[caption]

    def loss_of(step: int) -> dict[str, Tensor]:
        rng, generator = np.random.default_rng([2, step]), torch.Generator(device).manual_seed(step)
        source = {"generator": generator, "device": device}
        indices = rng.integers(len(latents), size=batch_size)
        clean = latents[torch.from_numpy(indices).to(device)].float() * scale
        noise = torch.randn(clean.shape, **source)
        shares = (torch.randperm(batch_size, **source) + torch.rand(batch_size, **source)) / batch_size
        timesteps = (shares * scheduler.config.num_train_timesteps).long()
        noisy, target = scheduler.add_noise(clean, noise, timesteps), scheduler.get_velocity(clean, noise, timesteps)
        ids = torch.stack([ids_of(text) for text in captions([rows[i] for i in indices], rng)]).to(device)
        with torch.autocast(device.type, torch.bfloat16):
            context = text(ids).last_hidden_state
            output = unet(noisy, timesteps, context).sample.float()
        errors = (output - target).square().mean(dim=(1, 2, 3))
        late = (timesteps < scheduler.config.num_train_timesteps // 4).float()
        return {"loss": errors.mean(), "last_quarter": (errors * late).sum() / late.sum().clamp(min=1)}

    train(work_dir, "unet", {"unet": unet, "text": text}, loss_of, steps, learning_rate, 0.9995)


def export(work_dir: Path, output_dir: Path) -> None:
    """Writes the averaged weights as a complete Stable Diffusion pipeline in half-precision safetensors."""
    tokenizer = clip_tokenizer()
    parts = {"unet": build_unet(), "text": build_text_encoder(len(tokenizer))}
    modules = trained(work_dir, "unet", parts, average=True)
    autoencoder = trained(work_dir, "vae", {"vae": build_autoencoder()}, average=False)["vae"]
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
