"""A latent diffusion model and the one place where pixels, latents and prompts change form."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer
from transformers.utils import logging as transformers_logging

from .base_models import fingerprint, resolve_base_model, weight_files

logger = logging.getLogger(__name__)
transformers_logging.disable_progress_bar()  # reading a file of a few seconds needs none


class LatentDiffusion:
    """The frozen parts of a Stable Diffusion and its denoiser, read from a folder in diffusers' format.

    It is no module: an engine moves, trains and saves only the network it is given, and these parts are never any of
    that. Images are in [0, 1]; only here do they become [-1, 1].

    Args:
        base_model: name, folder or hub id, see `resolve_base_model`.
        device: where the parts lie.
        dtype: of all parts; float32 trains on any machine.

    Raises:
        ValueError: for a pipeline that is not a Stable Diffusion 1.x or 2.x.
    """

    def __init__(self, base_model: str, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32) -> None:
        self.base_model = base_model
        self.folder: Path = resolve_base_model(base_model)
        self.device = torch.device(device)
        if not (self.folder / "unet").is_dir() or (self.folder / "text_encoder_2").is_dir():
            raise ValueError(f"{base_model!r} is not a Stable Diffusion 1.x or 2.x; only those can be used.")
        options: dict[str, Any] = {"use_safetensors": True, "torch_dtype": dtype, "local_files_only": True}
        self.autoencoder: Any = self._part(AutoencoderKL, "vae", options)
        self.unet: Any = self._part(UNet2DConditionModel, "unet", options)
        self.text_encoder: Any = self._part(CLIPTextModel, "text_encoder", options)
        self.tokenizer: Any = CLIPTokenizer.from_pretrained(self.folder / "tokenizer", local_files_only=True)
        self.noise_scheduler: Any = DDPMScheduler.from_pretrained(self.folder / "scheduler")
        if self.prediction_type not in ("epsilon", "v_prediction"):
            raise ValueError(f"{base_model!r} predicts {self.prediction_type!r}; epsilon and v_prediction can be used.")

    def _part(self, kind: Any, name: str, options: dict[str, Any]) -> torch.nn.Module:
        folder = self.folder / name
        variant = "fp16" if ".fp16." in weight_files(folder)[0].name else None
        return kind.from_pretrained(folder, variant=variant, **options).to(self.device).eval().requires_grad_(False)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the base model's weights."""
        return fingerprint(self.folder)

    @property
    def prediction_type(self) -> str:
        """ "epsilon" or "v_prediction"."""
        return str(self.noise_scheduler.config.prediction_type)

    @property
    def image_size(self) -> int:
        """Side of the images the base was trained on, in pixels."""
        return int(self.unet.config.sample_size * self.downsampling)

    @property
    def downsampling(self) -> int:
        """Pixels per latent cell along a side."""
        return int(2 ** (len(self.autoencoder.config.block_out_channels) - 1))

    def latent_shape(self, image_size: int) -> tuple[int, int, int]:
        """Shape (c, h, w) of the latent of a square image.

        Raises:
            ValueError: when the size is no multiple of what the autoencoder and the denoiser need.
        """
        step = self.downsampling * 2 ** (len(self.unet.config.block_out_channels) - 1)
        if image_size % step:
            raise ValueError(f"image_size is {image_size}; the base {self.base_model!r} needs a multiple of {step}.")
        side = image_size // self.downsampling
        return int(self.unet.config.in_channels), side, side

    @torch.no_grad()
    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the scaled latents.

        Args:
            images: shape (B, 3, H, W), in [0, 1].

        Returns:
            Two tensors of shape (B, c, h, w).
        """
        posterior = self.autoencoder.encode(images.to(self.device, self.autoencoder.dtype) * 2 - 1).latent_dist
        scale = self.autoencoder.config.scaling_factor
        return posterior.mean * scale, posterior.std * scale

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Images of shape (B, 3, H, W) in [0, 1] from scaled latents of shape (B, c, h, w)."""
        latents = latents.to(self.autoencoder.dtype) / self.autoencoder.config.scaling_factor
        return (self.autoencoder.decode(latents).sample.float() / 2 + 0.5).clamp(0, 1)

    def token_ids(self, prompts: list[str]) -> Tensor:
        """Token ids of prompts, shape (B, 77); one that does not fit is cut, with a warning that shows the rest."""
        for prompt in dict.fromkeys(prompts):
            ids = self.tokenizer(prompt).input_ids
            if len(ids) > self.tokenizer.model_max_length:
                lost = self.tokenizer.decode(ids[self.tokenizer.model_max_length - 1 : -1])
                logger.warning(
                    "A prompt has %d tokens and the text encoder sees %d; it does not see: %s",
                    len(ids),
                    self.tokenizer.model_max_length,
                    lost,
                )
        options = {"padding": "max_length", "truncation": True, "return_tensors": "pt"}
        return self.tokenizer(prompts, max_length=self.tokenizer.model_max_length, **options).input_ids

    @torch.no_grad()
    def encode_prompts(self, prompts: list[str]) -> Tensor:
        """Text features of prompts, shape (B, L, D)."""
        return self.text_encoder(self.token_ids(prompts).to(self.device)).last_hidden_state

    def signal_to_noise(self, timesteps: Tensor) -> Tensor:
        """Ratio of signal to noise power at timesteps of shape (B,), shape (B,)."""
        cumulative = self.noise_scheduler.alphas_cumprod.to(timesteps.device)[timesteps].double()
        return cumulative / (1 - cumulative)

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What the denoiser shall predict: the noise, or the velocity for v-prediction.

        Reference:
            Salimans and Ho, "Progressive Distillation for Fast Sampling of Diffusion Models", 2022, appendix D.
        """
        if self.prediction_type == "epsilon":
            return noise
        return self.noise_scheduler.get_velocity(latents, noise, timesteps)
