"""Stable Diffusion 1.x, 2.x and XL: a UNet that predicts noise or velocity at 1,000 timesteps."""

from __future__ import annotations

import json
from typing import Any, ClassVar

import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    LCMScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
    UniPCMultistepScheduler,
)
from torch import Tensor
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from .cpu_attention import CPUAttention
from .interface import Conditioning, LatentDiffusion

# What makes a way of drawing is stated, since from_config inherits the writer's, and one name would draw in many ways.
NOISE_LEVELS: dict[str, Any] = {
    **{f"use_{kind}_sigmas": False for kind in ("karras", "exponential", "beta")},
    "final_sigmas_type": "zero",
}
OF_SECOND_ORDER: dict[str, Any] = {**NOISE_LEVELS, "solver_order": 2, "lower_order_final": True, "thresholding": False}
MIDPOINT: dict[str, Any] = {
    **OF_SECOND_ORDER,
    **{"algorithm_type": "dpmsolver++", "solver_type": "midpoint", "euler_at_final": False, "use_lu_lambdas": False},
}
PREDICTOR_CORRECTOR: dict[str, Any] = {
    **OF_SECOND_ORDER,
    **{"solver_type": "bh2", "predict_x0": True, "disable_corrector": []},
}
PLUS: dict[str, Any] = {**MIDPOINT, "timestep_spacing": "trailing"}  # "dpmsolver++" gets explicit timesteps
SOLVERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "dpmsolver++": (DPMSolverMultistepScheduler, PLUS),
    "dpmsolver++_trailing": (DPMSolverMultistepScheduler, PLUS),
    "unipc": (UniPCMultistepScheduler, {**PREDICTOR_CORRECTOR, "timestep_spacing": "trailing"}),
    "ddim": (DDIMScheduler, {"timestep_spacing": "trailing", "clip_sample": False}),
    "lcm": (LCMScheduler, {"clip_sample": False}),
    "pndm": (PNDMScheduler, {"timestep_spacing": "leading", "skip_prk_steps": True}),
}
SIGMAS = 0.05, 20.0  # lowest and highest noise level that the spaced timesteps span
RHO = 7.0


def karras_timesteps(sigmas: Tensor, num_steps: int) -> list[int]:
    """Timesteps that lie densely where the noise is low, from the last timestep down.

    Evenly spaced timesteps leave the last step to go from a noise level of 0.2 to none at once, and fine structure is
    lost. A schedule that ends in pure noise has no largest noise level; its levels are spaced from 20 down, after the
    last timestep itself.

    Args:
        sigmas: noise level of each timestep, rising, shape (T,); the last may be infinite.
        num_steps: how many timesteps; fewer where several would be the same.

    Reference:
        Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", 2022, equation 5.
        https://arxiv.org/abs/2206.00364
    """
    low, high = max(SIGMAS[0], float(sigmas[0])), min(SIGMAS[1], float(sigmas[-1]))
    whole = high == float(sigmas[-1])
    share = torch.linspace(0, 1, num_steps if whole or num_steps == 1 else num_steps - 1, dtype=torch.float64)
    levels = (high ** (1 / RHO) + share * (low ** (1 / RHO) - high ** (1 / RHO))) ** RHO
    finite = sigmas.double().clamp(max=1e9)
    places = {int((finite - level).abs().argmin()) for level in levels} | {len(sigmas) - 1}
    return sorted(places, reverse=True)[:num_steps] if num_steps == 1 else sorted(places, reverse=True)


class StableDiffusion(LatentDiffusion):
    """Stable Diffusion 1.x (epsilon) and 2.x (epsilon or velocity), one text encoder."""

    pipeline: ClassVar[Any] = StableDiffusionPipeline
    denoiser_class = UNet2DConditionModel
    text_encoder_classes = {"text_encoder": CLIPTextModel}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.device.type == "cpu" and self.dtype == torch.bfloat16:
            self.denoiser.set_attn_processor(CPUAttention())

    @property
    def latent_step(self) -> int:
        return int(2 ** (len(self.denoiser.config.block_out_channels) - 1))

    def encode_ids(self, ids: Conditioning) -> Conditioning:
        return {"features": self.text_encoders["text_encoder"](ids["token_ids"]).last_hidden_state}

    def predict(self, x: Tensor, timesteps: Tensor, context: Conditioning) -> Tensor:
        return self.denoise(x.to(self.dtype), timesteps, context["features"].to(self.dtype))

    def load_noise_scheduler(self) -> Any:
        scheduler = DDPMScheduler.from_pretrained(self.folder / "scheduler")
        kind = scheduler.config.prediction_type
        if kind not in ("epsilon", "v_prediction"):
            raise ValueError(f"{self.base_model!r} predicts {kind!r}; epsilon and v_prediction can be used.")
        return scheduler

    @property
    def prediction_type(self) -> str:
        return str(self.noise_scheduler.config.prediction_type)

    def timesteps_at(self, quantiles: Tensor) -> Tensor:
        """Uniform."""
        return (quantiles * self.noise_scheduler.config.num_train_timesteps).long()

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        return self.noise_scheduler.add_noise(latents, noise, timesteps)

    def signal_to_noise(self, timesteps: Tensor) -> Tensor:
        cumulative = self.noise_scheduler.alphas_cumprod.to(timesteps.device)[timesteps.long()].double()
        return cumulative / (1 - cumulative)

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """The noise, or the velocity for v-prediction.

        Reference:
            Salimans and Ho, "Progressive Distillation for Fast Sampling of Diffusion Models", 2022, appendix D.
        """
        if self.prediction_type == "epsilon":
            return noise
        return self.noise_scheduler.get_velocity(latents, noise, timesteps)

    def solvers(self) -> dict[str, tuple[Any, dict[str, Any]]]:
        return SOLVERS

    def solver_options(self, name: str) -> tuple[Any, dict[str, Any]]:
        """As for every family; diffusers' PNDM would draw by another noise schedule than one that ends in pure noise.

        Raises:
            ValueError: for a solver that the family does not have or that does not know the base's noise schedule.
        """
        if name == "pndm" and self.noise_scheduler.config.rescale_betas_zero_snr:
            raise ValueError(
                f"scheduler is 'pndm', which does not know a noise schedule that ends in pure noise, as that of "
                f"{self.base_model!r} does (rescale_betas_zero_snr). Choose one of "
                f"{', '.join(other for other in SOLVERS if other != name)}."
            )
        return super().solver_options(name)

    def solver_timesteps(self, name: str, num_steps: int) -> list[int] | None:
        if name != "dpmsolver++":
            return None
        timesteps = torch.arange(len(self.noise_scheduler.alphas_cumprod))
        return karras_timesteps(self.signal_to_noise(timesteps).rsqrt(), num_steps)


class StableDiffusionXL(StableDiffusion):
    """Stable Diffusion XL: two text encoders, pooled features of the second, and the image's size as time ids.

    Reference:
        Podell et al., "SDXL: Improving Latent Diffusion Models for High-Resolution Image Synthesis", 2023, section 2.2.
        https://arxiv.org/abs/2307.01952
    """

    pipeline = StableDiffusionXLPipeline
    text_encoder_classes = {"text_encoder": CLIPTextModel, "text_encoder_2": CLIPTextModelWithProjection}

    def encode_ids(self, ids: Conditioning) -> Conditioning:
        first = self.text_encoders["text_encoder"](ids["token_ids"], output_hidden_states=True)
        second = self.text_encoders["text_encoder_2"](ids["token_ids_2"], output_hidden_states=True)
        features = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1)
        keep = self._is_said(ids["token_ids"]).to(features.dtype)
        return {"features": features * keep[:, None, None], "pooled": second.text_embeds * keep[:, None]}

    def _is_said(self, ids: Tensor) -> Tensor:
        """Whether each prompt, shape (B,), counts: XL was trained with zeros in place of the empty one."""
        if not json.loads((self.folder / "model_index.json").read_text()).get("force_zeros_for_empty_prompt", True):
            return torch.ones(len(ids), dtype=torch.bool, device=ids.device)
        return (ids != self.token_ids([""])["token_ids"].to(ids.device)).any(dim=1)

    def predict(self, x: Tensor, timesteps: Tensor, context: Conditioning) -> Tensor:
        time_ids = x.new_zeros(len(x), 6, dtype=self.dtype)
        # size of the original image, corner of the crop, size of the crop: ours are never a part of a larger one
        for place, side in enumerate(x.shape[-2:]):
            time_ids[:, place::4] = side * self.downsampling
        added = {"text_embeds": context["pooled"].to(self.dtype), "time_ids": time_ids}
        features = context["features"].to(self.dtype)
        return self.denoise(x.to(self.dtype), timesteps, features, added_cond_kwargs=added)
