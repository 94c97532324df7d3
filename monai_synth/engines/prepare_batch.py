"""What an engine makes of a batch before the network sees it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.engines import PrepareBatch
from monai.transforms import Compose
from torch import Tensor

from ..networks.diffusion import Conditioning, LatentDiffusion
from ..transforms.latents import EncodeLatentd
from ..transforms.tile import LoadTiled, ResizeCropd
from ..utils.tensors import moved

Device = str | torch.device | None


class LatentDiffusionPrepareBatch(PrepareBatch):
    """Noisy latents, what shall be predicted, and the prompts' features.

    Args:
        diffusion: gives the noise schedule and the empty prompt.
        prompt_dropout: share of prompts that are replaced by the empty one.
        min_snr_gamma: limit of the signal-to-noise weight; None weighs all timesteps alike.
        noise_offset: strength of a noise that is the same all over a channel; 0 is none.

    Raises:
        ValueError: for a min_snr_gamma with a base that predicts the flow, for which it is not defined.

    Reference:
        Hang et al., "Efficient Diffusion Training via Min-SNR Weighting Strategy", 2023.
        https://arxiv.org/abs/2303.09556
    """

    def __init__(
        self,
        diffusion: LatentDiffusion,
        prompt_dropout: float = 0.0,
        min_snr_gamma: float | None = None,
        noise_offset: float = 0.0,
    ) -> None:
        if min_snr_gamma is not None and diffusion.prediction_type == "flow":
            raise ValueError(
                f"min_snr_gamma is {min_snr_gamma}, but {diffusion.base_model!r} predicts the flow, whose timesteps "
                "are drawn by their worth already. Set min_snr_gamma to null, as "
                "configs/base_models/sd35_medium.yaml does."
            )
        self.diffusion = diffusion
        self.prompt_dropout = prompt_dropout
        self.min_snr_gamma = min_snr_gamma
        self.noise_offset = noise_offset
        self.empty = {
            name: value.cpu() for name, value in (diffusion.token_ids([""]) | diffusion.encode_prompts([""])).items()
        }

    def __call__(
        self, batchdata: dict[str, Any], device: Device = None, non_blocking: bool = False, **kwargs: Any
    ) -> tuple[Tensor, dict[str, Tensor], tuple, dict[str, Any]]:
        """
        Args:
            batchdata: "image" holds latents of shape (B, c, h, w), "prompt" text features or token ids, see
                `EncodePromptd`; "weight", shape (B,), is each image's weight in the loss, 1 where it is missing.
            device: where the result lies.
            non_blocking: copy without waiting.
            kwargs: for `Tensor.to`.

        Returns:
            Noisy latents (B, c, h, w); "target" of the same shape and "weight" of shape (B,); no positional arguments;
            "timesteps" (B,) and "context", the prompts as they came, some replaced by the empty one.
        """
        latents, context = batchdata["image"], batchdata["prompt"]
        batch = len(latents)
        noise = torch.randn_like(latents)
        if self.noise_offset:
            noise = noise + self.noise_offset * torch.randn(*latents.shape[:2], 1, 1)
        timesteps = self.diffusion.draw_timesteps(batch)
        context = self._drop_prompts(context, torch.rand(batch) < self.prompt_dropout)
        noisy = self.diffusion.add_noise(latents, noise, timesteps)
        weight = self.weight(timesteps) * torch.as_tensor(batchdata.get("weight", 1.0), dtype=torch.float32)
        target = {"target": self.diffusion.target(latents, noise, timesteps), "weight": weight}

        def move(tensor: Tensor) -> Tensor:
            return moved(tensor, device, non_blocking, **kwargs)

        return (
            move(noisy),
            {name: move(value) for name, value in target.items()},
            (),
            {"timesteps": move(timesteps), "context": {name: move(value) for name, value in context.items()}},
        )

    def _drop_prompts(self, context: Conditioning, dropped: Tensor) -> Conditioning:
        return {
            name: torch.where(dropped.view(-1, *[1] * (value.ndim - 1)), self.empty[name].to(value.dtype), value)
            for name, value in context.items()
        }

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
        Shape (B, c, h, w), on the CPU, so that every device begins with the same; see docs/determinism.md.
    """
    return torch.stack(
        [torch.randn(tuple(shape), generator=torch.Generator().manual_seed(int(seed))) for seed in seeds]
    )


class SamplingPrepareBatch(PrepareBatch):
    """The starting noise of requested images and the features of their prompts.

    Args:
        diffusion: gives the latent's shape and the text encoder.
        image_size: side of the images in pixels.
        shots: records of the real images that drawing begins on where a request names one of its class's.
    """

    def __init__(
        self, diffusion: LatentDiffusion, image_size: int, shots: Sequence[Mapping[Hashable, Any]] = ()
    ) -> None:
        self.diffusion = diffusion
        self.shape = diffusion.latent_shape(image_size)
        self.shots: dict[str, list[Mapping[Hashable, Any]]] = {}
        for shot in shots:
            self.shots.setdefault(shot["class_name"], []).append(shot)
        self.load = Compose([LoadTiled("image"), ResizeCropd("image", image_size), EncodeLatentd("image", diffusion)])
        self._contexts: dict[str, Conditioning] = {}
        self._latents: dict[tuple[str, int], Tensor] = {}

    def __call__(
        self, batchdata: dict[str, Any], device: Device = None, non_blocking: bool = False, **kwargs: Any
    ) -> tuple[Tensor, None, tuple, dict[str, Any]]:
        """
        Args:
            batchdata: "seed", B whole numbers, and "prompt", B texts; where drawing begins on shots also "class_name",
                "shot" and "shot_view".
            device: where the result lies.
            non_blocking: copy without waiting.
            kwargs: for `Tensor.to`.

        Returns:
            Noise (B, c, h, w); no target; no positional arguments; "context" and "empty", features of the prompts
            and of the empty one, B each, "seeds", and "start", the shots' latents (B, c, h, w), where there are shots.
        """
        noise = noise_of_seeds(batchdata["seed"], self.shape)
        prompts = [self.context(prompt) for prompt in batchdata["prompt"]]
        nothing = [self.context("")] * len(prompts)
        features: dict[str, Any] = {"context": _stacked(prompts, device), "empty": _stacked(nothing, device)}
        features["seeds"] = [int(seed) for seed in batchdata["seed"]]
        if self.shots:
            names = zip(*(batchdata[key] for key in ("class_name", "shot", "shot_view")))
            start = torch.stack([self.latent(name, int(shot), int(view)) for name, shot, view in names])
            features["start"] = moved(start, device, non_blocking, **kwargs)
        return moved(noise, device, non_blocking, **kwargs), None, (), features

    def latent(self, class_name: str, shot: int, view: int) -> Tensor:
        """Mean latent of one view of a class's shot, shape (c, h, w), computed once."""
        key = (class_name, shot)
        if key not in self._latents:
            self._latents[key] = self.load(self.shots[class_name][shot])["image"][0]
        return self._latents[key][view]

    def context(self, prompt: str) -> Conditioning:
        """Features of one prompt, without the first axis, computed once unless a text encoder is being trained."""
        parts = self.diffusion.text_encoders.values()
        learns = any(parameter.requires_grad for part in parts for parameter in part.parameters())
        if learns or prompt not in self._contexts:
            encoded = self.diffusion.encode_prompts([prompt])
            self._contexts[prompt] = {name: value[0] for name, value in encoded.items()}
        return self._contexts[prompt]


def _stacked(contexts: Sequence[Conditioning], device: Device) -> Conditioning:
    return {name: torch.stack([context[name] for context in contexts]).to(device) for name in contexts[0]}


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
        image = moved(batchdata["image"], device, non_blocking, **kwargs)
        label = moved(torch.as_tensor(batchdata["label"]), device, non_blocking)
        weight = moved(torch.as_tensor(batchdata["weight"]), device, non_blocking)
        return image, {"label": label, "weight": weight}
