"""Stable Diffusion 3 and 3.5: a transformer that predicts the flow from image to noise."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from diffusers import (
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    UniPCMultistepScheduler,
)
from torch import Tensor
from transformers import CLIPTextModelWithProjection

from .interface import Conditioning, LatentDiffusion
from .stable_diffusion import MIDPOINT, PREDICTOR_CORRECTOR

T5_LENGTH = 256  # features that a pipeline without T5 fills with zeros


class StableDiffusion3(LatentDiffusion):
    """Stable Diffusion 3 and 3.5, without its third text encoder.

    T5-XXL has 4.8 billion weights, and a class prompt of a few words gains little by them; the model was trained to do
    without. In plain diffusers, load the base with `text_encoder_3=None, tokenizer_3=None` to draw the same images.

    Timesteps are sigma times 1,000, with sigma from 0 (image) to 1 (noise).

    Reference:
        Esser et al., "Scaling Rectified Flow Transformers for High-Resolution Image Synthesis", 2024, sections 3.1 and
        5.3. https://arxiv.org/abs/2403.03206
    """

    pipeline = StableDiffusion3Pipeline
    denoiser_name = "transformer"
    denoiser_class = SD3Transformer2DModel
    text_encoder_classes = {"text_encoder": CLIPTextModelWithProjection, "text_encoder_2": CLIPTextModelWithProjection}
    lora_targets = (
        *("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0"),
        *("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", "attn.to_add_out"),
    )

    @property
    def latent_step(self) -> int:
        return int(self.denoiser.config.patch_size)

    def encode_ids(self, ids: Conditioning) -> Conditioning:
        first = self.text_encoders["text_encoder"](ids["token_ids"], output_hidden_states=True)
        second = self.text_encoders["text_encoder_2"](ids["token_ids_2"], output_hidden_states=True)
        features = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1)
        width = self.denoiser.config.joint_attention_dim - features.shape[-1]
        features = F.pad(features, (0, width, 0, T5_LENGTH))
        return {"features": features, "pooled": torch.cat([first.text_embeds, second.text_embeds], dim=-1)}

    def predict(self, x: Tensor, timesteps: Tensor, context: Conditioning) -> Tensor:
        return self.denoise(
            hidden_states=x.to(self.dtype),
            timestep=timesteps,
            encoder_hidden_states=context["features"].to(self.dtype),
            pooled_projections=context["pooled"].to(self.dtype),
        )

    def load_noise_scheduler(self) -> Any:
        scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(self.folder / "scheduler")
        if scheduler.config.use_dynamic_shifting:
            raise ValueError(f"{self.base_model!r} shifts its noise by the image's size, which cannot be used yet.")
        return scheduler

    @property
    def prediction_type(self) -> str:
        return "flow"

    @property
    def shift(self) -> float:
        """How far the noise levels lean towards noise; 1 is not at all."""
        return float(self.noise_scheduler.config.shift)

    def timesteps_at(self, quantiles: Tensor) -> Tensor:
        """Logit-normal, shifted as in sampling."""
        even = torch.special.ndtri(quantiles).sigmoid().float()
        sigma = self.shift * even / (1 + (self.shift - 1) * even)
        return sigma * self.noise_scheduler.config.num_train_timesteps

    def sigma(self, timesteps: Tensor) -> Tensor:
        """Share of noise at timesteps of shape (B,), shape (B,)."""
        return timesteps / self.noise_scheduler.config.num_train_timesteps

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        sigma = self.sigma(timesteps).to(latents.dtype).view(-1, 1, 1, 1)
        return (1 - sigma) * latents + sigma * noise

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """The flow, noise minus image."""
        return noise - latents

    def signal_to_noise(self, timesteps: Tensor) -> Tensor:
        sigma = self.sigma(timesteps.double())
        return ((1 - sigma) / sigma).square()

    def solvers(self) -> dict[str, tuple[Any, dict[str, Any]]]:
        flow = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": self.shift}
        return {
            "dpmsolver++": (DPMSolverMultistepScheduler, {**MIDPOINT, **flow}),
            "unipc": (UniPCMultistepScheduler, {**PREDICTOR_CORRECTOR, **flow}),
            "euler": (FlowMatchEulerDiscreteScheduler, {}),
        }
