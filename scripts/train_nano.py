"""Trains the embedded nano Stable Diffusion on phantoms alone and writes it as package data.

    python scripts/train_nano.py --work_dir nano_work                # every stage, resumes where it stopped
    python scripts/train_nano.py --work_dir nano_work --stage unet   # one stage

The stages are `data` (phantoms are drawn), `vae` (autoencoder), `latents` (every phantom is encoded once), `unet`
(denoiser and text encoder together) and `export` (half-precision safetensors into `monai_synth/assets/nano`). Every
stage keeps a checkpoint and goes on from it; a log line every 50 steps goes to `log_<stage>.csv`.
"""

from __future__ import annotations

import argparse
import copy
import csv
import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.training_utils import EMAModel
from torch import Tensor
from tqdm import tqdm
from transformers import CLIPTextConfig, CLIPTextModel

from monai_synth.data.phantom import CLASS_PHRASES, draw_patient, draw_phantom, phantom_caption
from monai_synth.data.phantom.catalog import stains_of
from monai_synth.networks.tokenizer import clip_tokenizer
from monai_synth.utils.io import atomic_path, load_tensors, read_json, save_tensors, write_json

logger = logging.getLogger("train_nano")
ATTRIBUTES = ("strength", "hue", "background", "magnification")
CLASS_NAMES = tuple(CLASS_PHRASES)
IMAGE_SIZE = 128
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
    """Stable Diffusion's noise schedule with v-prediction."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        timestep_spacing="trailing",
    )


def draw_shard(arguments: tuple[Path, int, int]) -> None:
    """Draws one shard: `count` phantoms of every class, each of a patient of its own, with the patients' attributes."""
    path, shard, count = arguments
    if path.with_suffix(".json").exists():
        return
    torch.set_num_threads(1)
    images, rows = [], []
    for label, class_name in enumerate(CLASS_NAMES):
        for index in range(count):
            seed = (shard * len(CLASS_NAMES) + label) * count + index + 10_000_000
            variety = (0.7, 1.0, 1.5, 2.2)[index % 4]
            patient = draw_patient(stains_of(class_name), seed, variety)
            image = draw_phantom(class_name, seed, patient, IMAGE_SIZE)
            images.append((image * 255 + 0.5).astype(np.uint8))
            rows.append({"class_name": class_name, **patient.attributes})
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.save(file, np.stack(images))
    write_json(path.with_suffix(".json"), rows)


def draw_data(work_dir: Path, num_shards: int, count: int, workers: int) -> None:
    """Draws the phantom shards that are still missing."""
    (work_dir / "data").mkdir(parents=True, exist_ok=True)
    jobs = [(work_dir / "data" / f"shard_{shard:03d}.npy", shard, count) for shard in range(num_shards)]
    with ProcessPoolExecutor(workers) as pool:
        list(tqdm(pool.map(draw_shard, jobs), total=len(jobs), desc="phantom shards"))


class Phantoms:
    """All shards that are complete, as one array of images with their attributes.

    Args:
        work_dir: folder in which `draw_data` wrote.
    """

    def __init__(self, work_dir: Path) -> None:
        self.shards = sorted(path.with_suffix(".npy") for path in (work_dir / "data").glob("shard_*.json"))
        if not self.shards:
            raise FileNotFoundError(f"There are no phantoms in {work_dir / 'data'}. Run the stage 'data' first.")
        self.images = [np.load(path, mmap_mode="r") for path in self.shards]
        self.rows = [row for path in self.shards for row in read_json(path.with_suffix(".json"))]
        self.size = len(self.images[0])

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, indices: np.ndarray) -> Tensor:
        """Images at the indices, shape (B, 3, H, W), float32 in [0, 1]."""
        return torch.from_numpy(np.stack([self.images[i // self.size][i % self.size] for i in indices])).float() / 255


def recolor(images: Tensor, generator: torch.Generator, spread: float = 1.0) -> Tensor:
    """The images under another light, stain and camera: a random color matrix, strength and saturation for each.

    Args:
        images: shape (B, 3, H, W), in [0, 1].
        generator: source of the draw.
        spread: width of the draw.
    """
    batch = images.shape[0]
    density = -torch.log(images.clamp(1 / 255, 1.0))
    mix = torch.eye(3) + 0.12 * spread * torch.randn(batch, 3, 3, generator=generator)
    scale = torch.exp(0.25 * spread * torch.randn(batch, 1, 1, 1, generator=generator))
    shift = 0.06 * spread * torch.randn(batch, 3, 1, 1, generator=generator)
    colored = torch.exp(-(torch.einsum("bij,bjhw->bihw", mix, density) * scale + shift)).clamp(0, 1)
    saturation = torch.exp(0.35 * spread * torch.randn(batch, 1, 1, 1, generator=generator))
    grey = colored.mean(dim=1, keepdim=True)
    return (grey + saturation * (colored - grey)).clamp(0, 1)


def crops(phantoms: Phantoms, rng: np.random.Generator, generator: torch.Generator, batch: int, size: int) -> Tensor:
    """Random windows of random phantoms, turned, flipped, zoomed and recolored, shape (B, 3, size, size)."""
    images = phantoms.batch(rng.integers(len(phantoms), size=batch))
    side = int(rng.integers(size // 2, IMAGE_SIZE + 1)) if rng.random() < 0.5 else size
    top, left = rng.integers(IMAGE_SIZE - side + 1, size=2)
    images = images[:, :, top : top + side, left : left + side]
    if side != size:
        images = F.interpolate(images, (size, size), mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
    images = torch.rot90(images, int(rng.integers(4)), (2, 3))
    keep = torch.rand(batch, 1, 1, 1, generator=generator) < 0.3
    return torch.where(keep, images, recolor(images, generator, spread=2.0))


def detail_loss(images: Tensor, target: Tensor) -> Tensor:
    """Mean absolute error of the pixels and of their differences at four scales, so that edges stay sharp."""
    loss = F.l1_loss(images, target)
    for _ in range(4):
        for axis in (2, 3):
            loss = loss + 0.5 * F.l1_loss(images.diff(dim=axis), target.diff(dim=axis))
        images, target = F.avg_pool2d(images, 2), F.avg_pool2d(target, 2)
    return loss


def rate(step: int, steps: int, warmup: int = 200) -> float:
    """Learning-rate factor: warm-up, constant, then linear to zero over the last quarter."""
    return min(1.0, (step + 1) / warmup, max(0.0, (steps - step) / (0.25 * steps)))


def train(
    work_dir: Path,
    stage: str,
    modules: dict[str, torch.nn.Module],
    loss_of: Callable[[int], dict[str, Tensor]],
    steps: int,
    learning_rate: float,
    decay: float,
) -> None:
    """The loop that all stages share: AdamW, clipping, moving average, checkpoints every 200 steps, a log every 50.

    Args:
        work_dir: folder of checkpoint and log.
        stage: name of both.
        modules: what is trained, by name.
        loss_of: losses of a step by name; "loss" is the one that is minimized.
        steps: optimizer steps in all.
        learning_rate: peak rate of AdamW.
        decay: of the exponential moving average of the weights, which is what is exported of the denoiser.
    """
    parameters = [parameter for module in modules.values() for parameter in module.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=1e-2, betas=(0.9, 0.99))
    average = EMAModel(parameters, decay=decay, use_ema_warmup=True, power=0.75)
    path, first = work_dir / f"{stage}.safetensors", 0
    if path.exists():
        state = load_tensors(path)
        first = state["step"]
        for name, module in modules.items():
            module.load_state_dict(state["modules"][name])
        optimizer.load_state_dict(state["optimizer"])
        average.load_state_dict(state["average"])
    log_path = work_dir / f"log_{stage}.csv"
    start, history = time.time(), []
    for step in tqdm(range(first, steps), initial=first, total=steps, desc=stage, mininterval=10):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * rate(step, steps)
        losses = loss_of(step)
        losses["loss"].backward()
        norm = torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        if not torch.isfinite(norm):
            raise RuntimeError(f"The gradient of step {step} is not finite. {path} holds the last good state.")
        optimizer.step()
        optimizer.zero_grad()
        average.step(parameters)
        history.append({name: float(value) for name, value in losses.items()})
        if (step + 1) % 50 == 0:
            means = {name: np.mean([row[name] for row in history]) for name in history[0]}
            history = []
            with open(log_path, "a", newline="") as file:
                csv.writer(file).writerow(
                    [step + 1, f"{time.time() - start:.0f}", *(f"{name}={value:.5f}" for name, value in means.items())]
                )
        if (step + 1) % 200 == 0 or step + 1 == steps:
            state = {
                "step": step + 1,
                "modules": {name: module.state_dict() for name, module in modules.items()},
                "optimizer": optimizer.state_dict(),
                "average": average.state_dict(),
            }
            save_tensors(path, state)


def trained(
    work_dir: Path, stage: str, modules: dict[str, torch.nn.Module], average: bool
) -> dict[str, torch.nn.Module]:
    """The modules with the weights of a stage's last checkpoint, or with their moving average, frozen."""
    state = load_tensors(work_dir / f"{stage}.safetensors")
    for name, module in modules.items():
        module.load_state_dict(state["modules"][name])
    if average:
        parameters = [parameter for module in modules.values() for parameter in module.parameters()]
        for parameter, value in zip(parameters, state["average"]["shadow_params"]):
            parameter.data.copy_(value)
    return {name: module.eval().requires_grad_(False) for name, module in modules.items()}


def trained_autoencoder(work_dir: Path) -> torch.nn.Module:
    """The autoencoder at the end of its schedule, which is better than the average that lags behind it."""
    return trained(work_dir, "vae", {"vae": build_autoencoder()}, average=False)["vae"]


def train_autoencoder(work_dir: Path, steps: int, device: torch.device) -> None:
    """Trains the autoencoder on windows of 64 pixels; it has no attention, so any size works afterwards."""
    phantoms = Phantoms(work_dir)
    autoencoder = build_autoencoder().to(device)

    def loss_of(step: int) -> dict[str, Tensor]:
        rng, generator = np.random.default_rng([1, step]), torch.Generator().manual_seed(step)
        images = crops(phantoms, rng, generator, batch=32, size=64).to(device) * 2 - 1
        with torch.autocast(device.type, torch.bfloat16):
            posterior = autoencoder.encode(images).latent_dist
            output = autoencoder.decode(posterior.sample()).sample.float()
        detail = detail_loss(output, images)
        divergence = posterior.kl().float().mean() / posterior.mean[0].numel()
        return {
            "loss": detail + 1e-4 * divergence,
            "detail": detail,
            "kl": divergence,
            "mse": F.mse_loss(output, images),
        }

    train(work_dir, "vae", {"vae": autoencoder}, loss_of, steps, 6e-4, 0.998)


@torch.no_grad()
def encode_latents(work_dir: Path, device: torch.device) -> None:
    """Encodes every phantom, upright and in turned and recolored views, and keeps the means in half precision."""
    phantoms = Phantoms(work_dir)
    autoencoder = trained_autoencoder(work_dir).to(device)
    for number, path in enumerate(tqdm(phantoms.shards, desc="latents")):
        target = work_dir / "latents" / f"{path.stem}.safetensors"
        if target.exists():
            continue
        indices = np.arange(phantoms.size) + number * phantoms.size
        means = []
        for view in range(NUM_VIEWS):
            generator = torch.Generator().manual_seed(number * NUM_VIEWS + view)
            parts = []
            for chunk in np.array_split(indices, max(1, len(indices) // 50)):
                images = phantoms.batch(chunk)
                if view:
                    images = torch.rot90(images, view, (2, 3)).flip(3 if view % 2 else 2)
                    images = torch.where(
                        torch.rand(len(images), 1, 1, 1, generator=generator) < 0.5, images, recolor(images, generator)
                    )
                with torch.autocast(device.type, torch.bfloat16):
                    parts.append(autoencoder.encode(images.to(device) * 2 - 1).latent_dist.mean.half().cpu())
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
    """Trains the denoiser and the text encoder on cached latents, v-prediction with min-SNR weights (gamma 5)."""
    rows, latents = Phantoms(work_dir).rows, read_latents(work_dir)
    scale = 1.0 / latents[:, 0].float().std()
    write_json(work_dir / "scaling.json", {"scaling_factor": float(scale)})
    tokenizer, scheduler, seen = clip_tokenizer(), build_scheduler(), {}
    unet, text = build_unet().to(device), build_text_encoder(len(tokenizer)).to(device)

    def ids_of(caption: str) -> Tensor:
        if caption not in seen:
            seen[caption] = torch.tensor(tokenizer(caption, padding="max_length", max_length=77).input_ids)
        return seen[caption]

    def loss_of(step: int) -> dict[str, Tensor]:
        rng, generator = np.random.default_rng([2, step]), torch.Generator().manual_seed(step)
        indices, views = rng.integers(len(latents), size=batch_size), rng.integers(NUM_VIEWS, size=batch_size)
        clean = latents[indices, views].float() * scale
        noise = torch.randn(clean.shape, generator=generator)
        timesteps = torch.randint(0, scheduler.config.num_train_timesteps, (batch_size,), generator=generator)
        noisy = scheduler.add_noise(clean, noise, timesteps).to(device)
        target = scheduler.get_velocity(clean, noise, timesteps).to(device)
        cumulative = scheduler.alphas_cumprod[timesteps]
        snr = cumulative / (1 - cumulative)
        weight = (snr.clamp(max=5.0) / (snr + 1)).to(device)
        ids = torch.stack([ids_of(text) for text in captions([rows[i] for i in indices], views, rng)]).to(device)
        with torch.autocast(device.type, torch.bfloat16):
            context = text(ids).last_hidden_state
            output = unet(noisy, timesteps.to(device), context).sample.float()
        errors = (output - target).square().mean(dim=(1, 2, 3))
        return {"loss": (weight * errors).mean() * 2, "mse": errors.mean()}

    train(work_dir, "unet", {"unet": unet, "text": text}, loss_of, steps, 5e-4, 0.9995)


def export(work_dir: Path, output_dir: Path) -> None:
    """Writes the averaged weights as a complete Stable Diffusion pipeline in half-precision safetensors."""
    tokenizer = clip_tokenizer()
    parts = {"unet": build_unet(), "text": build_text_encoder(len(tokenizer))}
    modules, autoencoder = trained(work_dir, "unet", parts, average=True), trained_autoencoder(work_dir)
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
    logger.info("Wrote the nano Stable Diffusion to %s.", output_dir)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work_dir", type=Path, required=True, help="checkpoints, phantoms and logs")
    parser.add_argument("--stage", choices=["all", "data", "vae", "latents", "unet", "export"], default="all")
    parser.add_argument("--num_shards", type=int, default=18, help="shards of phantoms")
    parser.add_argument("--images_per_shard", type=int, default=100, help="phantoms of every class in a shard")
    parser.add_argument("--vae_steps", type=int, default=2000)
    parser.add_argument("--unet_steps", type=int, default=8000)
    parser.add_argument("--batch_size", type=int, default=32, help="of the denoiser")
    parser.add_argument("--threads", type=int, default=2, help="threads of the training, processes of the drawing")
    parser.add_argument("--device", default="cpu")
    assets = Path(__file__).resolve().parents[1] / "monai_synth" / "assets" / "nano"
    parser.add_argument("--output_dir", type=Path, default=assets)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    device = torch.device(args.device)
    stages: dict[str, Callable[[], None]] = {
        "data": lambda: draw_data(args.work_dir, args.num_shards, args.images_per_shard, args.threads),
        "vae": lambda: train_autoencoder(args.work_dir, args.vae_steps, device),
        "latents": lambda: encode_latents(args.work_dir, device),
        "unet": lambda: train_denoiser(args.work_dir, args.unet_steps, args.batch_size, device),
        "export": lambda: export(args.work_dir, args.output_dir),
    }
    for name, stage in stages.items():
        if args.stage in ("all", name):
            stage()


if __name__ == "__main__":
    main()
