"""The adapter with which the nano Stable Diffusion draws in a few steps."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch
from diffusers import LCMScheduler
from torch import Tensor

from monai_synth.networks import Denoiser, LatentDiffusion, LoRADenoiser, save_adapter
from monai_synth.networks.diffusion.cpu_attention import CPUAttention

from .diffusion import captions
from .loop import train, trained
from .phantoms import Phantoms

logger = logging.getLogger(__name__)
RANK = 12  # in half precision, so that all assets stay under 60 MB
GUIDANCE, INTERVAL = 2.0, (0.28, 5.42)  # what the adapter learns to do without: the defaults of generate.json
SOLVER_STEPS = 50
HUBER = 0.001


class Schedule:
    """The noise levels of a base that predicts velocity, and what follows from a prediction.

    Args:
        diffusion: the base.
    """

    def __init__(self, diffusion: LatentDiffusion) -> None:
        self.lcm = LCMScheduler.from_config(diffusion.noise_scheduler.config)
        self.signal = self.lcm.alphas_cumprod.sqrt().view(-1, 1, 1, 1)
        self.noise = (1 - self.lcm.alphas_cumprod).sqrt().view(-1, 1, 1, 1)

    def clean(self, noisy: Tensor, velocity: Tensor, times: Tensor) -> Tensor:
        """The clean latents that a velocity says."""
        return self.signal[times] * noisy - self.noise[times] * velocity

    def step(self, noisy: Tensor, velocity: Tensor, times: Tensor, earlier: Tensor) -> Tensor:
        """A step of DDIM from one noise level to an earlier one."""
        noise = self.signal[times] * velocity + self.noise[times] * noisy
        return self.signal[earlier] * self.clean(noisy, velocity, times) + self.noise[earlier] * noise

    def consistent(self, noisy: Tensor, velocity: Tensor, times: Tensor) -> Tensor:
        """The consistency function, with the boundary condition of diffusers' scheduler."""
        scalings = [self.lcm.get_scalings_for_boundary_condition_discrete(int(time)) for time in times]
        skip, out = (torch.tensor(values, dtype=torch.float32).view(-1, 1, 1, 1) for values in zip(*scalings))
        return skip * noisy + out * self.clean(noisy, velocity, times)

    def guidance(self, times: Tensor) -> Tensor:
        """Weight of the prompt at each time."""
        sigma = self.noise[times] / self.signal[times]
        return torch.where((sigma >= INTERVAL[0]) & (sigma <= INTERVAL[1]), GUIDANCE, 1.0)


def build_student(base_model: str, device: torch.device) -> LoRADenoiser:
    """The base with a fresh adapter on all layers."""
    diffusion = LatentDiffusion(base_model, device=device)
    if device.type == "cpu":
        diffusion.denoiser.set_attn_processor(CPUAttention())
    return LoRADenoiser(diffusion, rank=RANK, target_modules="all")


def train_few_step(work_dir: Path, base_model: str, steps: int, batch_size: int, device: torch.device) -> None:
    """Trains an adapter to say at once where the guided base arrives in many steps.

    Reference:
        Luo et al., "LCM-LoRA: A Universal Stable-Diffusion Acceleration Module", 2023.
        https://arxiv.org/abs/2311.05556
    """
    phantoms, student = Phantoms(work_dir), build_student(base_model, device)
    teacher = Denoiser(LatentDiffusion(base_model, device=device))
    diffusion, schedule = teacher.diffusion, Schedule(teacher.diffusion)
    skip = diffusion.noise_scheduler.config.num_train_timesteps // SOLVER_STEPS

    def loss_of(step: int) -> dict[str, Tensor]:
        rng, generator = np.random.default_rng([6, step]), torch.Generator().manual_seed(step)
        indices = rng.integers(len(phantoms), size=batch_size)
        prompts = list(captions([phantoms.rows[index] for index in indices], np.zeros(batch_size, int), rng))
        times = skip * (torch.randint(0, SOLVER_STEPS, (batch_size,), generator=generator) + 1) - 1
        earlier = (times - skip).clamp(min=0)
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16):
            clean = diffusion.encode(phantoms.batch(indices).to(device))[0].float().cpu()
            noisy = diffusion.add_noise(clean, torch.randn(clean.shape, generator=generator), times)
            contexts = [diffusion.encode_prompts(texts) for texts in (prompts, [""] * batch_size)]
            said, unasked = (teacher(noisy.to(device), times.to(device), context).cpu() for context in contexts)
            guided = unasked + schedule.guidance(times) * (said - unasked)
            nearer = schedule.step(noisy, guided, times, earlier)
            there = student(nearer.to(device), earlier.to(device), contexts[0]).cpu()
            target = schedule.consistent(nearer, there, earlier)
        with torch.autocast(device.type, torch.bfloat16):
            velocity = student(noisy.to(device), times.to(device), contexts[0])
        output = schedule.consistent(noisy, velocity.cpu(), times)
        far = output - target
        return {"loss": ((far.square() + HUBER**2).sqrt() - HUBER).mean(), "mse": far.square().mean()}

    train(work_dir, "few_step", {"student": student}, loss_of, steps, 5e-4, 0.99)


def export_few_step(work_dir: Path, base_model: str, output_dir: Path) -> None:
    """Writes the adapter, averaged over its steps, in half precision as diffusers reads it."""
    student = build_student(base_model, torch.device("cpu"))
    trained(work_dir, "few_step", {"student": student}, average=True)
    student.half()
    diffusion = student.diffusion
    path = save_adapter(student, output_dir, {"base_model": base_model, "base_fingerprint": diffusion.fingerprint})
    logger.info("Wrote the adapter for few steps to %s.", path)
