"""Seconds of a fine-tuning step, from the two works' way to ours, lever by lever."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from diffusers.models.attention_processor import AttnProcessor2_0
from torch import Tensor

from monai_synth.engines import LatentDiffusionPrepareBatch
from monai_synth.losses import DenoisingLoss
from monai_synth.networks import LatentDiffusion, LoRADenoiser, save_adapter
from monai_synth.transforms import EncodeLatent, LoadTile, RandLatentView, ResizeCrop

from .timing import in_turns, markdown

BATCH = 8  # of the works
RATE = 1e-3


class Stepper:
    """An optimizer step over a few images, with what is cached of them.

    Args:
        base: folder of the base model.
        device: where is trained.
        images: paths of the images and the prompt of each.
        size: pixels.
        cache_latents: encode the images once; else they are read and encoded at every step.
        cache_prompts: encode the prompts once.
        dtype: of the frozen base.
        fused: keep torch's fused attention on a CPU in bfloat16 too.
    """

    def __init__(
        self,
        base: Path,
        device: torch.device,
        images: list[tuple[Path, str]],
        size: int,
        cache_latents: bool,
        cache_prompts: bool,
        dtype: torch.dtype = torch.float32,
        fused: bool = False,
    ) -> None:
        self.images, self.device, self.cache_prompts = images, device, cache_prompts
        torch.manual_seed(0)
        self.diffusion = LatentDiffusion(str(base), device=device, dtype=dtype)
        if fused:
            self.diffusion.denoiser.set_attn_processor(AttnProcessor2_0())
        self.network = LoRADenoiser(self.diffusion, rank=16)
        self.optimizer = torch.optim.AdamW(self.network.trainable_parameters(), lr=RATE)
        self.prepare, self.loss = LatentDiffusionPrepareBatch(self.diffusion), DenoisingLoss()
        self.load, self.resize = LoadTile(), ResizeCrop(size)
        self.view, self.generator = RandLatentView().set_random_state(0), torch.Generator().manual_seed(0)
        self.latents = [EncodeLatent(self.diffusion)(self.read(path)) for path, _ in images] if cache_latents else None
        self.contexts = {prompt: self.encode(prompt) for _, prompt in images} if cache_prompts else {}

    def read(self, path: Path) -> Tensor:
        """An image as the autoencoder takes it."""
        return self.resize(self.load(path))

    def encode(self, prompt: str) -> dict[str, Tensor]:
        """Features of one prompt, without the first axis."""
        return {name: value[0].cpu() for name, value in self.diffusion.encode_prompts([prompt]).items()}

    def latent(self, index: int) -> Tensor:
        """A fresh latent of one image."""
        if self.latents is not None:
            return self.view(self.latents[index])
        mean, std = self.diffusion.encode(self.read(self.images[index][0])[None])
        return (mean + std * torch.randn_like(std))[0].float().cpu()

    def step(self) -> float:
        """One step of the optimizer, and the loss."""
        chosen = torch.randint(len(self.images), (BATCH,), generator=self.generator).tolist()
        prompts = [self.images[index][1] for index in chosen]
        contexts = [self.contexts[prompt] if self.cache_prompts else self.encode(prompt) for prompt in prompts]
        context = {name: torch.stack([one[name] for one in contexts]) for name in contexts[0]}
        batch = {"image": torch.stack([self.latent(index) for index in chosen]), "prompt": context}
        noisy, target, _, options = self.prepare(batch, self.device)
        loss = self.loss(self.network(noisy, **options), target)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(list(self.network.trainable_parameters()), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return float(loss.detach())


def ladder(base: Path, device: torch.device, images: list[tuple[Path, str]], size: int) -> dict[str, Stepper]:
    """The ways of a step, each with one lever more than the one before."""
    ways: dict[str, tuple] = {
        "the works' way: autoencoder and text encoder at every step": (False, False),
        "+ latents of every flip and turn computed once": (True, False),
        "+ prompts encoded once": (True, True),
    }
    if device.type == "cpu":
        ways["+ bfloat16"] = (True, True, torch.bfloat16, True)
        ways["+ plain attention where gradients are wanted"] = (True, True, torch.bfloat16)
    else:
        ways["+ bfloat16"] = (True, True, torch.bfloat16)
    return {name: Stepper(base, device, images, size, *options) for name, options in ways.items()}


def train_adapter(
    base: Path, device: torch.device, images: list[tuple[Path, str]], size: int, steps: int, folder: Path
) -> None:
    """A short fine-tuning, so that the drawing has an adapter."""
    stepper = Stepper(base, device, images, size, True, True)
    for _ in range(steps):
        stepper.step()
    prompts = {prompt: prompt for _, prompt in images}
    origin = {"base_fingerprint": stepper.diffusion.fingerprint, "prompts": prompts, "class_names": list(prompts)}
    save_adapter(stepper.network, folder, origin)


def benchmark_fine_tuning(
    base: Path, device: torch.device, images: list[tuple[Path, str]], size: int, steps: int, repeats: int
) -> tuple[str, dict[str, float]]:
    """The table of the ladder: seconds of a step, ratio to the works' way, and the loss at the end as a check.

    Also the seconds of a step of every way.

    Args:
        base: folder of the base model.
        device: where is trained.
        images: paths and prompts.
        size: pixels.
        steps: that are timed at a time.
        repeats: rounds of the timing.
    """
    steppers = ladder(base, device, images, size)
    losses: dict[str, list[float]] = {name: [] for name in steppers}

    def way(name: str) -> Callable[[], None]:
        return lambda: losses[name].extend(steppers[name].step() for _ in range(steps))

    for name in steppers:
        way(name)()
    seconds = in_turns({name: way(name) for name in steppers}, repeats)
    first = next(iter(seconds.values()))
    rows = []
    for name, value in seconds.items():
        tail = losses[name][-steps * repeats :]
        rows.append([name, f"{value / steps:.3f}", f"{first / value:.2f}x", f"{sum(tail) / len(tail):.3f}"])
    table = markdown(f"A step of fine-tuning, {BATCH} images", ["way", "seconds", "speed", "mean loss"], rows)
    return table, {name: value / steps for name, value in seconds.items()}
