"""Distils an adapter with which a base draws in 2 to 8 steps instead of 20, from images of any origin.

    python -m monai_synth phantoms my_phantoms --set colon --images_per_class 300
    python scripts/distill_few_steps.py --data_dir my_phantoms --work_dir few_step
    python -m monai.bundle run --config_file bundles/colon/configs/generate.json --few_step_adapter few_step \
        --scheduler lcm --num_inference_steps 4 --guidance_scale 1

Latent consistency distillation: the adapter learns to say at every noise level what the base, guided, would say one
step of DDIM further down. It goes with the adapters of all data sets of that base. Started again, it goes on. Prompts
are `--prompt_template` with the names of the class folders; where the base knows other words, give `--prompts`.

Reference:
    Luo et al., "Latent Consistency Models", 2023, https://arxiv.org/abs/2310.04378, and "LCM-LoRA", 2023,
    https://arxiv.org/abs/2311.05556.
"""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path

import torch
from diffusers import LCMScheduler
from nano_training.loop import train
from torch import Tensor
from tqdm import tqdm

from monai_synth.data import prompts_of, scan
from monai_synth.networks import LatentDiffusion, LoRADenoiser, save_adapter
from monai_synth.transforms import EncodeLatent, LoadTile, RandLatentView, ResizeCrop

LEVELS = 50  # of the scale on which the base takes one step
Conditioning = dict[str, Tensor]


class Distillation:
    """The loss of consistency distillation.

    Args:
        diffusion: the base.
        network: the base with the adapter that learns.
        guidance_scale: of the base; the adapter learns it along, and is drawn with without guidance.
    """

    def __init__(self, diffusion: LatentDiffusion, network: LoRADenoiser, guidance_scale: float) -> None:
        self.diffusion, self.network, self.guidance_scale = diffusion, network, guidance_scale
        self.scheduler = LCMScheduler.from_config(diffusion.noise_scheduler.config)
        self.step = len(self.scheduler.alphas_cumprod) // LEVELS

    def split(self, x: Tensor, prediction: Tensor, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """The clean latents and the noise that a prediction for noisy ones says, each of shape (B, c, h, w)."""
        signal, noise = self.levels(timesteps, x)
        if self.diffusion.prediction_type == "epsilon":
            return (x - noise * prediction) / signal, prediction
        return signal * x - noise * prediction, noise * x + signal * prediction

    def levels(self, timesteps: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Weights of signal and noise at timesteps, shape (B, 1, 1, 1)."""
        power = self.scheduler.alphas_cumprod.to(x.device)[timesteps].view(-1, 1, 1, 1)
        return power.sqrt(), (1 - power).sqrt()

    def consistent(self, x: Tensor, timesteps: Tensor, context: Conditioning) -> Tensor:
        """What the adapter says the clean latents are; at no noise the latents themselves."""
        clean, _ = self.split(x, self.network(x, timesteps=timesteps, context=context), timesteps)
        keep, change = self.scheduler.get_scalings_for_boundary_condition_discrete(timesteps.view(-1, 1, 1, 1))
        return keep * x + change * clean

    @torch.no_grad()
    def one_step_down(self, x: Tensor, timesteps: Tensor, context: Conditioning, empty: Conditioning) -> Tensor:
        """Latents one step of DDIM less noisy, by the base alone, with guidance."""
        part = self.diffusion.denoiser
        part.disable_adapters()
        with_prompt, without = (self.diffusion.predict(x, timesteps, known) for known in (context, empty))
        part.enable_adapters()
        guided = without + self.guidance_scale * (with_prompt - without)
        clean, noise = self.split(x, guided, timesteps)
        signal, spread = self.levels((timesteps - self.step).clamp(min=0), x)
        return signal * clean + spread * noise

    def loss(self, latents: Tensor, context: Conditioning, empty: Conditioning, generator: torch.Generator) -> Tensor:
        """Distance of what is said at two neighboring noise levels (pseudo-Huber).

        Args:
            latents: clean ones, shape (B, c, h, w).
            context: features of their prompts.
            empty: features of the empty prompt, as many.
            generator: of noise and timesteps.
        """
        noise = torch.randn(latents.shape, generator=generator).to(latents)
        places = torch.randint(1, LEVELS + 1, (len(latents),), generator=generator)
        timesteps = (places * self.step - 1).to(latents.device)
        noisy = self.diffusion.add_noise(latents, noise, timesteps)
        lower = self.one_step_down(noisy, timesteps, context, empty)
        with torch.no_grad():
            target = self.consistent(lower, (timesteps - self.step).clamp(min=0), context)
        difference = self.consistent(noisy, timesteps, context) - target
        return (difference.square() + 1e-6).sqrt().mean() - 1e-3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base_model", default="nano", help="name or folder of a Stable Diffusion 1.x or 2.x")
    parser.add_argument("--data_dir", required=True, help="folder of class folders; a few hundred images of each")
    parser.add_argument("--work_dir", type=Path, required=True, help="gets checkpoint, log and adapter")
    parser.add_argument("--prompts", type=json.loads, default={}, help="phrase of each class as JSON")
    parser.add_argument("--prompt_template", default="H&E histopathology, {phrase}")
    parser.add_argument("--image_size", type=int, default=128)
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--guidance_scale", type=float, default=2.0, help="that the adapter learns along")
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--learning_rate", type=float, default=1e-3)
    parser.add_argument("--amp", choices=["bfloat16"], help="precision of the base")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    dtype = torch.bfloat16 if args.amp else torch.float32
    diffusion = LatentDiffusion(args.base_model, device=args.device, dtype=dtype)
    records, class_names = scan(args.data_dir, find_duplicates=False)
    prompts = prompts_of(class_names, args.prompts, args.prompt_template)
    contexts = {name: diffusion.encode_prompts([prompt]) for name, prompt in prompts.items()}
    nothing = diffusion.encode_prompts([""])
    load, resize, encode = LoadTile(), ResizeCrop(args.image_size), EncodeLatent(diffusion)
    known = [encode(resize(load(record["image"]))) for record in tqdm(records, desc="encoding")]
    network = LoRADenoiser(diffusion, rank=args.rank, target_modules="all")
    distillation, view = Distillation(diffusion, network, args.guidance_scale), RandLatentView()

    def loss_of(step: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(step)
        view.set_random_state(step)
        chosen = torch.randint(len(known), (args.batch_size,), generator=generator).tolist()
        latents = torch.stack([view(known[index]) for index in chosen]).to(diffusion.device)
        of_batch = [contexts[records[index]["class_name"]] for index in chosen]
        context = {name: torch.cat([one[name] for one in of_batch]) for name in nothing}
        empty = {name: value.expand(len(chosen), *value.shape[1:]) for name, value in nothing.items()}
        return {"loss": distillation.loss(latents, context, empty, generator)}

    args.work_dir.mkdir(parents=True, exist_ok=True)
    train(args.work_dir, "few_step", {"adapter": network}, loss_of, args.steps, args.learning_rate, 0.95)
    origin = {"base_model": args.base_model, "base_fingerprint": diffusion.fingerprint, "rank": args.rank}
    path = save_adapter(network, args.work_dir, {**origin, "guidance_scale": args.guidance_scale})
    print(f"Wrote {path}.")


if __name__ == "__main__":
    main()
