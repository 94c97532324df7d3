"""Images from noise, or from noised real images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import LCMScheduler
from torch import Tensor, nn

from ..networks.diffusion import Conditioning, LatentDiffusion
from ..utils.seeds import derived_seed
from .feature_cache import FeatureCache
from .halving import HalvingInferer


class SamplingInferer(HalvingInferer):
    """Draws images by running the denoiser from noise to a clean latent, with classifier-free guidance.

    Every image depends on its own noise and prompt alone, not on the others of its batch.

    Args:
        diffusion: gives the noise schedule and the decoder.
        num_inference_steps: denoising steps.
        guidance_scale: weight of the prompt; 1 is none and halves the work.
        guidance_interval: lowest and highest noise level (sigma) at which guidance acts; None is all of them.
        scheduler: "dpmsolver++" (with 1.x, 2.x and XL at noise levels that are spaced as by Karras et al.) or "unipc";
            with 1.x, 2.x and XL also "dpmsolver++_trailing" (evenly spaced timesteps), "ddim", "pndm" or, for an
            adapter of that kind, "lcm"; with 3.x also "euler".
        start_sigma: highest noise level that is passed through when drawing begins on images; the lower, the more is
            left of them.
        cache_interval: in every so many steps the inner blocks of a U-Net are computed, see `FeatureCache`.

    Raises:
        ValueError: for a scheduler that the base's family does not have, or that cannot do what is asked for.

    Reference:
        Ho and Salimans, "Classifier-Free Diffusion Guidance", 2022; Kynkaanniemi et al., "Applying Guidance in a
        Limited Interval", 2024. https://arxiv.org/abs/2404.07724; Meng et al., "SDEdit", 2021, and Trabucco et al.,
        "Effective Data Augmentation With Diffusion Models", 2023, https://arxiv.org/abs/2302.07944: images as a start.
    """

    def __init__(
        self,
        diffusion: LatentDiffusion,
        num_inference_steps: int = 20,
        guidance_scale: float = 2.0,
        guidance_interval: tuple[float, float] | None = None,
        scheduler: str = "dpmsolver++",
        start_sigma: float | None = None,
        cache_interval: int = 1,
    ) -> None:
        super().__init__()
        check_start(scheduler, start_sigma)
        diffusion.solver_options(scheduler)
        self.diffusion = diffusion
        self.num_inference_steps = num_inference_steps
        self.guidance_scale = guidance_scale
        self.guidance_interval = guidance_interval
        self.scheduler = scheduler
        self.start_sigma = start_sigma
        self.cache_interval = cache_interval

    def build_scheduler(self) -> Any:
        """A fresh scheduler with the base's noise schedule; it keeps state, so every batch gets its own."""
        kind, options = self.diffusion.solver_options(self.scheduler)
        scheduler = kind.from_config(self.diffusion.noise_scheduler.config, **options)
        timesteps = self.diffusion.solver_timesteps(self.scheduler, self.num_inference_steps)
        if timesteps is None:
            scheduler.set_timesteps(self.num_inference_steps)
        else:
            scheduler.set_timesteps(timesteps=timesteps)
        return scheduler

    @torch.no_grad()
    def __call__(  # type: ignore[override]  # an Inferer's keywords are its own
        self,
        inputs: Tensor,
        network: nn.Module,
        context: Conditioning,
        empty: Conditioning,
        start: Tensor | None = None,
        seeds: Sequence[int] | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """
        Args:
            inputs: standard normal noise, shape (B, c, h, w).
            network: called as network(x, timesteps=, context=).
            context: features of the prompts, see `SamplingPrepareBatch`.
            empty: features of the empty prompt, as many.
            start: latents of the images that drawing begins on, shape (B, c, h, w); None begins with noise alone.
            seeds: of the images, for a scheduler that adds noise on the way ("lcm").
            kwargs: not used.

        Returns:
            Images of shape (B, 3, H, W), float32 in [0, 1].

        Raises:
            RuntimeError: when an image holds numbers that are not finite, which would be written as black.
            ValueError: for a scheduler that adds noise, without seeds.
            torch.OutOfMemoryError: when the memory of the GPU is too small for one image; a batch for which it is too
                small is drawn in halves, which gives the same images, and so are all that follow.
        """

        def drawn(part: slice) -> Tensor:
            with_prompt, without = ({name: value[part] for name, value in which.items()} for which in (context, empty))
            begun = None if start is None else start[part]
            return self.draw(inputs[part], network, with_prompt, without, begun, None if seeds is None else seeds[part])

        return self.in_halves(drawn, len(inputs))

    def draw(
        self,
        inputs: Tensor,
        network: nn.Module,
        context: Conditioning,
        empty: Conditioning,
        start: Tensor | None = None,
        seeds: Sequence[int] | None = None,
    ) -> Tensor:
        """The images of a batch, as `__call__` gives them, all at once."""
        scheduler = self.build_scheduler()
        options = {"generator": step_noise(seeds)} if isinstance(scheduler, LCMScheduler) else {}
        timesteps = scheduler.timesteps
        latents = inputs * getattr(scheduler, "init_noise_sigma", 1.0)  # flow matching begins with the noise itself
        if start is not None:
            timesteps = self.late(timesteps)
            latents = self.diffusion.add_noise(start, inputs, timesteps[:1].expand(len(start)).to(start.device))
        cache = FeatureCache(network, self.cache_interval)
        times = timesteps.to(latents.device)  # once: a copy at every step would wait for the GPU
        for number, timestep in enumerate(timesteps):
            scales = hasattr(scheduler, "scale_model_input")
            scaled = scheduler.scale_model_input(latents, timestep) if scales else latents
            with cache.step(number):
                prediction = self.predict(network, scaled, timestep, times[number], context, empty)
            latents = scheduler.step(prediction, timestep, latents, **options).prev_sample
        images = self.diffusion.decode(latents)
        broken = int((~images.isfinite()).flatten(1).any(dim=1).sum())
        if broken:
            raise RuntimeError(
                f"{broken} of {len(images)} images hold numbers that are not finite. The adapter has diverged, or the "
                "base overflows in half precision: fine-tune anew with a lower learning rate, or draw in float32."
            )
        return images

    def predict(
        self,
        network: nn.Module,
        x: Tensor,
        timestep: Tensor,
        time: Tensor,
        context: Conditioning,
        empty: Conditioning,
    ) -> Tensor:
        """The denoiser's prediction at one timestep, guided where guidance acts; `time` is the same on its device."""
        times = time.expand(len(x))
        if not self.guided(timestep):
            return network(x, timesteps=times, context=context)
        contexts = {name: torch.cat([empty[name], context[name]]) for name in context}
        both = network(torch.cat([x, x]), timesteps=torch.cat([times, times]), context=contexts)
        without, with_prompt = both.chunk(2)
        return without + self.guidance_scale * (with_prompt - without)

    def guided(self, timestep: Tensor) -> bool:
        """Whether guidance acts at a timestep."""
        if self.guidance_scale == 1.0:
            return False
        if self.guidance_interval is None:
            return True
        return self.guidance_interval[0] <= self.sigma(timestep) <= self.guidance_interval[1]

    def late(self, timesteps: Tensor) -> Tensor:
        """Those of a solver's timesteps that are no noisier than `start_sigma`, the last one at least."""
        if self.start_sigma is None:
            return timesteps
        return timesteps[[self.sigma(timestep) <= self.start_sigma for timestep in timesteps[:-1]] + [True]]

    def sigma(self, timestep: Tensor) -> float:
        """Noise level at a timestep: how large the noise is beside the signal."""
        return float(self.diffusion.signal_to_noise(timestep.cpu().view(1)).rsqrt())


def check_start(scheduler: str | None, start_sigma: float | None) -> None:
    """Checks that a scheduler can begin on images.

    Raises:
        ValueError: for "pndm", which takes its first step twice and knows it only at the beginning of its schedule.
    """
    if scheduler == "pndm" and start_sigma is not None:
        raise ValueError(
            f"start_sigma is {start_sigma}, but the scheduler 'pndm' cannot begin on images. Choose dpmsolver++, "
            "dpmsolver++_trailing, unipc or ddim, or set start_sigma to null."
        )


def step_noise(seeds: Sequence[int] | None) -> list[torch.Generator]:
    """A generator for each image, for the noise that some schedulers add at every step.

    Raises:
        ValueError: without seeds.
    """
    if seeds is None:
        raise ValueError("This scheduler adds noise at every step, and needs the seed of each image for it.")
    return [torch.Generator().manual_seed(derived_seed(int(seed), "steps")) for seed in seeds]
