"""The arithmetic of an image, counted, not timed: the floor under every speed."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from monai_synth.networks.base_models import resolve_base_model
from monai_synth.networks.diffusion.stable_diffusion import karras_timesteps

from .shapes import SHAPES, build_autoencoder, build_scheduler, build_unet
from .timing import markdown

STEPS = 20
LENGTH = 77  # of a prompt


def of_unet(unet: UNet2DConditionModel) -> tuple[float, float]:
    """Floating-point operations of one call for one latent, and the share of the outermost level.

    Args:
        unet: on the meta device.
    """
    config = unet.config
    latent = torch.empty(1, config.in_channels, config.sample_size, config.sample_size, device="meta")
    text = torch.empty(1, LENGTH, config.cross_attention_dim, device="meta")
    with FlopCounterMode(display=False, depth=3) as counter:
        unet(latent, torch.empty(1, device="meta"), text)
    counts = {name: sum(values.values()) for name, values in counter.get_flop_counts().items()}
    outer = ("down_blocks.0", f"up_blocks.{len(unet.up_blocks) - 1}")
    share = sum(count for name, count in counts.items() if name.endswith(outer)) / counts["Global"]
    return counts["Global"], share


def of_decoding(autoencoder: AutoencoderKL, side: int) -> float:
    """Floating-point operations of decoding one latent of a side."""
    with FlopCounterMode(display=False) as counter:
        autoencoder.decode(torch.empty(1, autoencoder.config.latent_channels, side, side, device="meta"))
    return counter.get_total_flops()


def calls(scheduler: DDIMScheduler, interval: tuple[float, float]) -> int:
    """Calls of the denoiser for an image of 20 steps, two where guidance acts."""
    sigmas = ((1 - scheduler.alphas_cumprod) / scheduler.alphas_cumprod).sqrt()
    levels = sigmas[karras_timesteps(sigmas, STEPS)]
    return STEPS + int(((levels >= interval[0]) & (levels <= interval[1])).sum())


def count_arithmetic(tflops: float, interval: tuple[float, float]) -> str:
    """The table of operations for one image, and of the images that a processor of a given speed can draw at most.

    Args:
        tflops: of the processor, in 10^12 operations a second.
        interval: noise levels at which guidance acts.
    """
    nano = resolve_base_model("nano")
    with torch.device("meta"):
        bases: dict[str, tuple[nn.Module, nn.Module]] = {
            "nano": tuple(
                kind.from_config(kind.load_config(nano, subfolder=name))
                for kind, name in ((UNet2DConditionModel, "unet"), (AutoencoderKL, "vae"))
            ),
            **{shape: (build_unet(shape), build_autoencoder()) for shape in sorted(SHAPES)},
        }
    rows = []
    for name, (unet, autoencoder) in bases.items():
        scheduler = DDIMScheduler.from_pretrained(nano, subfolder="scheduler") if name == "nano" else build_scheduler()
        one, share = of_unet(unet)
        decoding, number = of_decoding(autoencoder, unet.config.sample_size), calls(scheduler, interval)
        whole = number * one + decoding
        rows.append(
            [name, f"{one / 1e9:.1f}", f"{share:.2f}", f"{decoding / 1e9:.1f}", str(number), f"{whole / 1e12:.2f}"]
            + [f"{tflops * 1e12 / whole:.1f}"]
        )
    columns = ["base", "GFLOP of a call", "its outermost level", "GFLOP of decoding", f"calls, {STEPS} steps"]
    return markdown("Arithmetic", [*columns, "TFLOP of an image", f"images/s at {tflops:g} TFLOP/s"], rows)
