"""The arithmetic of an image, counted, not timed: the floor under every speed."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPTextConfig, CLIPTextModel

from monai_synth.networks.base_models import resolve_base_model
from monai_synth.networks.diffusion.stable_diffusion import karras_timesteps

from .shapes import SHAPES, build_autoencoder, build_scheduler, build_text, build_unet
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


def of_encoding(autoencoder: AutoencoderKL, side: int) -> float:
    """Floating-point operations of encoding one image of a side in pixels."""
    with FlopCounterMode(display=False) as counter:
        autoencoder.encode(torch.empty(1, 3, side, side, device="meta"))
    return counter.get_total_flops()


def of_text(text_encoder: nn.Module) -> float:
    """Floating-point operations of encoding one prompt."""
    with FlopCounterMode(display=False) as counter:
        text_encoder(torch.ones(1, LENGTH, dtype=torch.long, device="meta"))
    return counter.get_total_flops()


def guided(scheduler: DDIMScheduler, interval: tuple[float, float]) -> list[bool]:
    """In which of our 20 steps guidance acts, which then calls the denoiser twice."""
    sigmas = ((1 - scheduler.alphas_cumprod) / scheduler.alphas_cumprod).sqrt()
    levels = sigmas[karras_timesteps(sigmas, STEPS)]
    return ((levels >= interval[0]) & (levels <= interval[1])).tolist()


def drawing_ways(twice: list[bool], outer: float) -> dict[str, float]:
    """Calls of the denoiser for an image by each way, a call of the outermost level alone as its share of one.

    Args:
        twice: in which of our steps guidance acts.
        outer: share of the outermost level.
    """

    def cached(every: int) -> float:
        return sum((1 + both) * (outer if number % every else 1) for number, both in enumerate(twice))

    return {
        "the works' way: 51 calls of PNDM, guided": 102,
        f"{STEPS} steps, guided": 2 * STEPS,
        f"{STEPS} steps, guided in the interval (ours)": cached(1),
        "ours, inner blocks in every second step": cached(2),
        "ours, inner blocks in every third step": cached(3),
        "8 few steps, no guidance": 8,
        "4 few steps, no guidance": 4,
    }


def count_arithmetic(tflops: float, interval: tuple[float, float]) -> str:
    """Tables of the operations of a call, of an image by each way, and of a step of fine-tuning for an image.

    From the operations of a way, and those a processor does in a second, follows how fast it can be at most; its
    ratio to the works' way is the speed-up that its arithmetic gives, whatever the processor.

    Args:
        tflops: of the processor, in 10^12 operations a second.
        interval: noise levels at which guidance acts.
    """
    nano = resolve_base_model("nano")
    with torch.device("meta"):
        kinds = ((UNet2DConditionModel, "unet"), (AutoencoderKL, "vae"))
        bases: dict[str, tuple[nn.Module, ...]] = {
            "nano": (
                *(kind.from_config(kind.load_config(nano, subfolder=name)) for kind, name in kinds),
                CLIPTextModel(CLIPTextConfig.from_pretrained(nano, subfolder="text_encoder")),
            ),
            **{shape: (build_unet(shape), build_autoencoder(), build_text(shape)) for shape in sorted(SHAPES)},
        }
    calls, images, steps = [], [], []
    for name, (unet, autoencoder, text) in bases.items():
        scheduler = DDIMScheduler.from_pretrained(nano, subfolder="scheduler") if name == "nano" else build_scheduler()
        (one, outer), side = of_unet(unet), unet.config.sample_size
        decoding = of_decoding(autoencoder, side)
        calls.append([name, f"{one / 1e9:.1f}", f"{outer:.2f}", f"{decoding / 1e9:.1f}"])
        ways = {way: n * one + decoding for way, n in drawing_ways(guided(scheduler, interval), outer).items()}
        images += [[name, *row] for row in compared(ways, tflops)]
        # a frozen denoiser is run forward, and backward for the gradients of what goes through it, as much again
        learned = 2 * one
        caches = {"ours: latents and prompts computed once": learned}
        encoded = learned + of_encoding(autoencoder, 8 * side) + of_text(text)
        steps += [[name, *row] for row in compared({"the works' way: all at every step": encoded, **caches}, tflops)]
    speed = f"images/s at {tflops:g} TFLOP/s"
    each = ["base", "way", "TFLOP of an image", "of the works' way", speed]
    return "\n".join(
        (
            markdown(
                "Arithmetic of a call", ["base", "GFLOP of a call", "its outermost level", "GFLOP of decoding"], calls
            ),
            markdown("Arithmetic of an image", each, images),
            markdown("Arithmetic of a step of fine-tuning", each, steps),
        )
    )


def compared(ways: dict[str, float], tflops: float) -> list[list[str]]:
    """Rows of ways: their arithmetic, how many times less it is than the first's, and the images a second at most."""
    first = next(iter(ways.values()))
    return [
        [way, f"{value / 1e12:.3g}", f"{first / value:.2f}x", f"{tflops * 1e12 / value:,.1f}"]
        for way, value in ways.items()
    ]
