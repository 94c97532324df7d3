"""What an engine makes of a batch before the network sees it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from monai.engines import PrepareBatch
from torch import Tensor

from ..networks.diffusion import LatentDiffusion

Device = str | torch.device | None


class LatentDiffusionPrepareBatch(PrepareBatch):
    """Noisy latents, what shall be predicted, and the prompts' features.

    Args:
        diffusion: gives the noise schedule and the empty prompt.
        prompt_dropout: share of prompts that are replaced by the empty one, so that guidance works.
        min_snr_gamma: limit of the signal-to-noise weight; None weighs all timesteps alike.
        noise_offset: strength of a noise that is the same all over a channel; 0 is none.

    Reference:
        Hang et al., "Efficient Diffusion Training via Min-SNR Weighting Strategy", 2023.
        https://arxiv.org/abs/2303.09556
    """

    def __init__(
        self,
        diffusion: LatentDiffusion,
        prompt_dropout: float = 0.1,
        min_snr_gamma: float | None = None,
        noise_offset: float = 0.0,
    ) -> None:
        self.diffusion = diffusion
        self.prompt_dropout = prompt_dropout
        self.min_snr_gamma = min_snr_gamma
        self.noise_offset = noise_offset
        self.empty_ids = diffusion.token_ids([""])[0]
        self.empty_context = diffusion.encode_prompts([""])[0].cpu()

    def __call__(
        self, batchdata: dict[str, Any], device: Device = None, non_blocking: bool = False, **kwargs: Any
    ) -> tuple[Tensor, dict[str, Tensor], tuple, dict[str, Tensor]]:
        """
        Args:
            batchdata: "image" holds latents of shape (B, c, h, w), "prompt" text features of shape (B, L, D) or token
                ids of shape (B, L).
            device: where the result lies.
            non_blocking: copy without waiting.
            kwargs: for `Tensor.to`.

        Returns:
            Noisy latents (B, c, h, w); "target" of the same shape and "weight" of shape (B,); no positional arguments;
            "timesteps" (B,) and "context".
        """
        latents, context = batchdata["image"], batchdata["prompt"]
        batch = len(latents)
        noise = torch.randn_like(latents)
        if self.noise_offset:
            noise = noise + self.noise_offset * torch.randn(*latents.shape[:2], 1, 1)
        timesteps = torch.randint(0, self.diffusion.noise_scheduler.config.num_train_timesteps, (batch,))
        dropped = torch.rand(batch) < self.prompt_dropout
        empty = self.empty_context if context.is_floating_point() else self.empty_ids
        context = torch.where(dropped.view(-1, *[1] * (context.ndim - 1)), empty.to(context.dtype), context)
        noisy = self.diffusion.noise_scheduler.add_noise(latents, noise, timesteps)
        target = {"target": self.diffusion.target(latents, noise, timesteps), "weight": self.weight(timesteps)}

        def move(tensor: Tensor) -> Tensor:
            return tensor.to(device=device, non_blocking=non_blocking, **kwargs)

        return (
            move(noisy),
            {name: move(value) for name, value in target.items()},
            (),
            {"timesteps": move(timesteps), "context": move(context)},
        )

    def weight(self, timesteps: Tensor) -> Tensor:
        """Min-SNR weight of each timestep, shape (B,); ones without a limit."""
        if self.min_snr_gamma is None:
            return torch.ones(len(timesteps))
        ratio = self.diffusion.signal_to_noise(timesteps)
        divisor = ratio if self.diffusion.prediction_type == "epsilon" else ratio + 1
        return (ratio.clamp(max=self.min_snr_gamma) / divisor).float()


def noise_of_seeds(seeds: Sequence[int], shape: Sequence[int]) -> Tensor:
    """Standard normal noise, each image from a generator of its own, so that no image depends on its batch.

    Args:
        seeds: one for each image, length B.
        shape: of one image's latent, (c, h, w).

    Returns:
        Shape (B, c, h, w), on the CPU, the same on every machine.
    """
    return torch.stack(
        [torch.randn(tuple(shape), generator=torch.Generator().manual_seed(int(seed))) for seed in seeds]
    )


class SamplingPrepareBatch(PrepareBatch):
    """The starting noise of requested images and the features of their prompts.

    Args:
        diffusion: gives the latent's shape and the text encoder.
        image_size: side of the images in pixels.
    """

    def __init__(self, diffusion: LatentDiffusion, image_size: int) -> None:
        self.diffusion = diffusion
        self.shape = diffusion.latent_shape(image_size)
        self._contexts: dict[str, Tensor] = {}

    def __call__(
        self, batchdata: dict[str, Any], device: Device = None, non_blocking: bool = False, **kwargs: Any
    ) -> tuple[Tensor, None, tuple, dict[str, Tensor]]:
        """
        Args:
            batchdata: "seed", B whole numbers, and "prompt", B texts.
            device: where the result lies.
            non_blocking: copy without waiting.
            kwargs: for `Tensor.to`.

        Returns:
            Noise (B, c, h, w); no target; no positional arguments; "context" and "empty", both (B, L, D).
        """
        noise = noise_of_seeds(batchdata["seed"], self.shape)
        contexts = torch.stack([self.context(prompt) for prompt in batchdata["prompt"]])
        empty = self.context("").expand_as(contexts)
        return noise.to(device, **kwargs), None, (), {"context": contexts.to(device), "empty": empty.to(device)}

    def context(self, prompt: str) -> Tensor:
        """Features of one prompt, shape (L, D), computed once unless the text encoder is being trained."""
        learns = any(parameter.requires_grad for parameter in self.diffusion.text_encoder.parameters())
        if learns or prompt not in self._contexts:
            self._contexts[prompt] = self.diffusion.encode_prompts([prompt])[0]
        return self._contexts[prompt]


class ClassificationPrepareBatch(PrepareBatch):
    """Images and, as the target, their labels with the weight of each image in the loss."""

    def __call__(
        self, batchdata: dict[str, Any], device: Device = None, non_blocking: bool = False, **kwargs: Any
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """
        Args:
            batchdata: "image" (B, 3, H, W), "label" (B,) and "weight" (B,).
            device: where the result lies.
            non_blocking: copy without waiting.
            kwargs: for `Tensor.to`, for the images.
        """
        image = batchdata["image"].to(device=device, non_blocking=non_blocking, **kwargs)
        label = torch.as_tensor(batchdata["label"]).to(device=device, non_blocking=non_blocking)
        weight = torch.as_tensor(batchdata["weight"]).to(device=device, non_blocking=non_blocking)
        return image, {"label": label, "weight": weight}
