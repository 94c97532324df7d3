"""The adapter with which the nano Stable Diffusion draws in a few steps."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from monai_synth.networks import Denoiser, LatentDiffusion, LoRADenoiser, save_adapter
from monai_synth.networks.diffusion.cpu_attention import CPUAttention

from .diffusion import captions
from .loop import train, trained
from .phantoms import Phantoms

logger = logging.getLogger(__name__)
RANK = 10  # in half precision, so that all assets stay under 60 MB
GUIDANCE, INTERVAL = 1.5, (0.28, 5.42)  # what the adapter learns to do without: the defaults of generate.json
STEPS = 4  # in which images are drawn
TEACHER_STEPS = 10  # of the base for each of them


class Schedule:
    """The noise levels of a base that predicts velocity, and DDIM's steps between them.

    Args:
        diffusion: the base.
    """

    def __init__(self, diffusion: LatentDiffusion) -> None:
        cumulative = diffusion.noise_scheduler.alphas_cumprod.double()
        self.signal = cumulative.sqrt().float().view(-1, 1, 1, 1).to(diffusion.device)
        self.noise = (1 - cumulative).sqrt().float().view(-1, 1, 1, 1).to(diffusion.device)

    def factors(self, times: Tensor, ends: Tensor) -> tuple[Tensor, Tensor]:
        """What a step multiplies the noisy latents and the velocity with."""
        signal, noise, later_signal, later_noise = (
            self.signal[times],
            self.noise[times],
            self.signal[ends],
            self.noise[ends],
        )
        return later_signal * signal + later_noise * noise, later_noise * signal - later_signal * noise

    def step(self, noisy: Tensor, velocity: Tensor, times: Tensor, ends: Tensor) -> Tensor:
        """The noisy latents at an earlier time, by a step of DDIM."""
        of_noisy, of_velocity = self.factors(times, ends)
        return of_noisy * noisy + of_velocity * velocity

    def velocity(self, noisy: Tensor, arrived: Tensor, times: Tensor, ends: Tensor) -> Tensor:
        """The velocity whose step arrives there."""
        of_noisy, of_velocity = self.factors(times, ends)
        return (arrived - of_noisy * noisy) / of_velocity

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
    """Trains an adapter to arrive in one step where the guided base arrives in ten.

    The way from noise to image is cut into as many segments as images are drawn in steps. Within a segment the adapter
    is held to be consistent: from wherever it starts, it shall end at the segment's end where it ends from a step of
    the base further on. A segment is short, so that errors do not add up as they do over the whole way.

    Reference:
        Ren et al., "Hyper-SD: Trajectory Segmented Consistency Model for Efficient Image Synthesis", 2024, section 3.1.
        https://arxiv.org/abs/2404.13686
    """
    phantoms, student = Phantoms(work_dir, device), build_student(base_model, device)
    teacher = Denoiser(LatentDiffusion(base_model, device=device))
    diffusion, schedule = teacher.diffusion, Schedule(teacher.diffusion)
    segment = diffusion.noise_scheduler.config.num_train_timesteps // STEPS
    skip = segment // TEACHER_STEPS

    def loss_of(step: int) -> dict[str, Tensor]:
        rng, generator = np.random.default_rng([6, step]), torch.Generator(device).manual_seed(step)
        source = {"generator": generator, "device": device}
        indices = rng.integers(len(phantoms), size=batch_size)
        prompts = list(captions([phantoms.rows[index] for index in indices], rng))
        number = torch.randint(0, STEPS, (batch_size,), **source)
        within = torch.randint(1, TEACHER_STEPS + 1, (batch_size,), **source)
        times = number * segment + within * skip - 1
        earlier, ends = (times - skip).clamp(min=0), (number * segment - 1).clamp(min=0)
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16):
            clean = diffusion.encode(phantoms.batch(indices))[0].float()
            noisy = diffusion.add_noise(clean, torch.randn(clean.shape, **source), times)
            contexts = [diffusion.encode_prompts(texts) for texts in (prompts, [""] * batch_size)]
            said, unasked = (teacher(noisy, times, context).float() for context in contexts)
            guided = unasked + schedule.guidance(times) * (said - unasked)
            nearer = schedule.step(noisy, guided, times, earlier)
            onward = student(nearer, earlier, contexts[0]).float()
            arrived = torch.where((within == 1).view(-1, 1, 1, 1), nearer, schedule.step(nearer, onward, earlier, ends))
            target = schedule.velocity(noisy, arrived, times, ends)
        with torch.autocast(device.type, torch.bfloat16):
            velocity = student(noisy, times, contexts[0])
        return {"loss": F.mse_loss(velocity.float(), target)}

    train(work_dir, "few_step", {"student": student}, loss_of, steps, 3e-4, 0.99)


def export_few_step(work_dir: Path, base_model: str, output_dir: Path) -> None:
    """Writes the adapter, averaged over its steps, in half precision as diffusers reads it."""
    student = build_student(base_model, torch.device("cpu"))
    trained(work_dir, "few_step", {"student": student}, average=True)
    student.half()
    diffusion = student.diffusion
    path = save_adapter(student, output_dir, {"base_model": "nano", "base_fingerprint": diffusion.fingerprint})
    logger.info("Wrote the adapter for few steps to %s.", path)
