"""Seconds of a fine-tuning step, from the two works' way to ours, lever by lever."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import AttnProcessor2_0
from ignite.engine import Engine, Events
from monai.utils import CommonKeys as Keys
from PIL import Image
from torch import Tensor
from torchvision import transforms

from monai_synth.handlers.progress import without_progress
from monai_synth.inferers import InPartsInferer
from monai_synth.networks import LatentDiffusion, LoRADenoiser, save_adapter
from monai_synth.networks.diffusion import Conditioning
from monai_synth.transforms import EncodeLatent, LoadTile, RandLatentView, ResizeCrop

from .shipped import shipped_training
from .timing import SPEEDS, in_turns, markdown, speeds

BATCH = 8  # of the works
RATE = 1e-3
SHIPPED: dict[str, dict[str, Any]] = {"": {}, ", bfloat16": {"amp": "bfloat16"}}  # ways of a precision share its base


class Stepper:
    """An optimizer step over a batch, in a plain loop without an engine, with what is cached of the images.

    Without a cache it is the loop of today's scripts (diffusers' train_text_to_image_lora.py): PIL and torchvision read
    a batch, and the autoencoder and the text encoder run over all of it on the device, at every step. Noise, loss and
    optimizer are the same for all ways, on the device too.

    Args:
        base: folder of the base model.
        device: where is trained.
        images: paths of the images and the prompt of each.
        size: pixels.
        cache_latents: encode the 8 flips and turns of each image once.
        cache_prompts: encode the prompts once.
        dtype: of the frozen base.
        fused: keep torch's fused attention on a CPU in bfloat16 too.
        learn_text: adapt the text encoder as well, which leaves no prompt to be cached.
        learning_rate: of AdamW, the same at all steps.
        cuda_graph: run the network as a CUDA graph.
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
        learn_text: bool = False,
        learning_rate: float = RATE,
        cuda_graph: bool = False,
    ) -> None:
        self.images, self.device, self.learn_text = images, device, learn_text
        self.inferer = InPartsInferer(cuda_graph)
        torch.manual_seed(0)
        self.diffusion = LatentDiffusion(str(base), device=device, dtype=dtype)
        if fused:
            self.diffusion.denoiser.set_attn_processor(AttnProcessor2_0())
        self.network = LoRADenoiser(self.diffusion, rank=16, train_text_encoder=learn_text)
        self.optimizer = torch.optim.AdamW(self.network.trainable_parameters(), lr=learning_rate)
        self.read = transforms.Compose([transforms.Resize(size), transforms.CenterCrop(size), transforms.ToTensor()])
        self.view, self.generator = RandLatentView().set_random_state(0), torch.Generator().manual_seed(0)
        self.latents: list[Tensor] = []
        if cache_latents:
            load, resize, encode = LoadTile(), ResizeCrop(size), EncodeLatent(self.diffusion)
            self.latents = [encode(resize(load(path))) for path, _ in images]
        else:
            self.diffusion.autoencoder.to(memory_format=torch.contiguous_format)  # as diffusers loads it
        self.contexts: dict[str, Conditioning] = {}
        if cache_prompts:
            for prompt in dict.fromkeys(prompt for _, prompt in images):
                encoded = self.diffusion.encode_prompts([prompt])
                self.contexts[prompt] = {name: value[0] for name, value in encoded.items()}

    def batch_of_latents(self, chosen: list[int]) -> Tensor:
        """Fresh latents of the chosen images, shape (B, c, h, w), on the device."""
        if self.latents:
            return torch.stack([self.view(self.latents[index]) for index in chosen]).to(self.device)
        pixels = []
        for index in chosen:
            with Image.open(self.images[index][0]) as image:
                pixels.append(self.read(image.convert("RGB")))
        mean, std = self.diffusion.encode(torch.stack(pixels))
        return mean + std * torch.randn_like(mean)

    def batch_of_contexts(self, prompts: list[str]) -> Conditioning:
        """Features of prompts on the device; token ids where the text encoder learns."""
        if self.contexts:
            parts = [self.contexts[prompt] for prompt in prompts]
            return {name: torch.stack([part[name] for part in parts]) for name in parts[0]}
        if self.learn_text:
            return {name: ids.to(self.device) for name, ids in self.diffusion.token_ids(prompts).items()}
        return self.diffusion.encode_prompts(prompts)

    def step(self) -> Tensor:
        """One step of the optimizer, and the loss, which is not waited for."""
        chosen = torch.randint(len(self.images), (BATCH,), generator=self.generator).tolist()
        latents = self.batch_of_latents(chosen)
        context = self.batch_of_contexts([self.images[index][1] for index in chosen])
        noise = torch.randn_like(latents)
        timesteps = torch.randint(self.diffusion.noise_scheduler.config.num_train_timesteps, (BATCH,)).to(self.device)
        noisy = self.diffusion.add_noise(latents, noise, timesteps)
        predicted = self.inferer(noisy, self.network, timesteps=timesteps, context=context)
        loss = F.mse_loss(predicted, self.diffusion.target(latents, noise, timesteps))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(list(self.network.trainable_parameters()), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=not self.inferer.cuda_graph)
        return loss.detach()

    def save(self, folder: Path) -> None:
        """Writes the adapter."""
        prompts = {path.parent.name: prompt for path, prompt in self.images}
        origin = {"base_fingerprint": self.diffusion.fingerprint, "prompts": prompts, "class_names": list(prompts)}
        save_adapter(self.network, folder, origin)


class ShippedStepper:
    """Steps of the trainer that train_diffusion.json builds, with all its handlers, some at a time.

    No epoch ends within the steps, so that no state is written; one is after 25 steps or fewer.

    Args:
        steps: that are taken at a time.
        times: how often.
        setting: for `shipped_training`: base, device, images, size and folder.
        changes: settings of the config.
    """

    def __init__(self, steps: int, times: int, *setting: Any, **changes: Any) -> None:
        one_epoch = {"max_steps": steps * times, "epoch_length": steps * times + 1, "num_epochs": 1}
        parser = shipped_training(*setting, **{**changes, **one_epoch})
        self.trainer = parser.get_parsed_content("train::trainer")
        self.losses: list[Tensor] = []
        self.trainer.add_event_handler(Events.ITERATION_COMPLETED, self._note)
        self.trainer.add_event_handler(Events.ITERATION_COMPLETED(every=steps), Engine.interrupt)

    def _note(self, engine: Engine) -> None:
        self.losses.append(engine.state.output[Keys.LOSS].detach())

    def __call__(self) -> list[Tensor]:
        """Takes the next steps, and gives their losses."""
        self.losses = []
        with without_progress():
            self.trainer.run()  # goes on where it was interrupted
        return self.losses

    def end(self) -> None:
        """Ends the run, which writes the adapter."""
        self.trainer.terminate()
        self()


def ladder(base: Path, device: torch.device, images: list[tuple[Path, str]], size: int) -> dict[str, Stepper]:
    """The ways of a step, each with one lever more than the one before.

    The works adapt the text encoder too, all others the denoiser alone.
    """
    cached: dict[str, Any] = {"cache_latents": True, "cache_prompts": True}
    half = {**cached, "dtype": torch.bfloat16}
    ways: dict[str, dict[str, Any]] = {
        "the works' way: autoencoder and text encoder at every step, the latter learns too": {
            **{"cache_latents": False, "cache_prompts": False, "learn_text": True},
        },
        "+ text encoder as it is": {"cache_latents": False, "cache_prompts": False},
        "+ latents of every flip and turn computed once": {"cache_latents": True, "cache_prompts": False},
        "+ prompts encoded once": cached,
    }
    if device.type == "cpu":
        ways["+ bfloat16"] = {**half, "fused": True}
        ways["+ plain attention where gradients are wanted"] = half
    else:
        ways["+ bfloat16"] = half
        ways["+ a CUDA graph"] = {**half, "cuda_graph": True}
    return {name: Stepper(base, device, images, size, **options) for name, options in ways.items()}


def benchmark_fine_tuning(
    base: Path,
    device: torch.device,
    images: list[tuple[Path, str]],
    size: int,
    steps: int,
    repeats: int,
    **changes: Any,
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
        changes: settings of the shipped config, which a base's overlay makes.
    """
    ways = {name: stepping(stepper, steps) for name, stepper in ladder(base, device, images, size).items()}
    with tempfile.TemporaryDirectory() as folder:
        for name, precision in SHIPPED.items():
            setting = base, device, images, size, Path(folder, name)
            shipped = ShippedStepper(steps, repeats + 1, *setting, **changes, **precision)
            ways[f"train_diffusion.json{name}, all handlers"] = shipped
        losses: dict[str, list[Tensor]] = {name: [] for name in ways}

        def noting(name: str) -> Callable[[], None]:
            return lambda: losses[name].extend(ways[name]())

        for name in ways:
            noting(name)()
        seconds = in_turns({name: noting(name) for name in ways}, repeats)
        for way in ways.values():
            if isinstance(way, ShippedStepper):
                way.end()
    names = list(ways)  # the shipped trainer in float32, the last but one, builds on the last way in that precision
    builds_on = {names[-2]: "+ prompts encoded once", names[-1]: names[-3]}
    times, columns = (
        {name: median(values) / steps for name, values in seconds.items()},
        speeds(seconds, builds_on),
    )
    rows = []
    for name, value in times.items():
        mean_loss = float(torch.stack(losses[name][-steps * repeats :]).mean())
        rows.append([name, f"{value:.3f}", *columns[name], f"{mean_loss:.3f}"])
    return markdown(f"A step of fine-tuning, {BATCH} images", ["way", "seconds", *SPEEDS, "mean loss"], rows), times


def stepping(stepper: Stepper, steps: int) -> Callable[[], list[Tensor]]:
    """Some steps of a plain loop, and their losses."""
    return lambda: [stepper.step() for _ in range(steps)]
