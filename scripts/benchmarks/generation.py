"""Images per second and their distance from real ones, from the two works' way to ours, lever by lever."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DPMSolverMultistepScheduler, PNDMScheduler, StableDiffusionPipeline
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator

from monai_synth.data import plan_requests, read_image
from monai_synth.engines import SamplingPrepareBatch
from monai_synth.handlers import SampleSaver
from monai_synth.inferers import SamplingInferer
from monai_synth.metrics.distances import unbiased_mmd, vendi_score
from monai_synth.networks import Denoiser, FeatureEncoder, LatentDiffusion, load_adapter

from .timing import in_turns, markdown

BATCH = 10  # of the works
BATCHES = (1, 5, BATCH, 20, 40)
GUIDANCE = 2.0
GROUPS = 10  # of the jackknife
Request = dict[str, Any]


@dataclass
class Setting:
    """What all ways of drawing share.

    Args:
        base: folder of the base model.
        adapter: folder of an adapter that was trained on it.
        prompts: of the classes.
        size: pixels of the images.
        device: where is drawn.
        folder: for the images.
        few_step: folder of an adapter for few steps, where there is one.
    """

    base: Path
    adapter: Path
    prompts: dict[str, str]
    size: int
    device: torch.device
    folder: Path
    few_step: Path | None = None

    def requests(self, per_class: int) -> list[Request]:
        """The images that every way draws, the same noise for all."""
        return plan_requests(list(self.prompts), self.prompts, per_class, seed=0)


class Plain:
    """diffusers' pipeline as the works call it: adapter beside the weights, guidance throughout, files one by one.

    Args:
        setting: what is drawn.
        steps: of the sampler; None is the works' 50 with their scheduler.
        reload: load the pipeline anew for every class.
    """

    def __init__(self, setting: Setting, steps: int | None, reload: bool) -> None:
        self.setting, self.steps, self.reload = setting, steps, reload
        self.pipeline = None if reload else self.load()
        self.noise = SamplingPrepareBatch(LatentDiffusion(str(setting.base)), setting.size)

    def load(self) -> Any:
        """The pipeline with its adapter and scheduler."""
        dtype = torch.float16 if self.setting.device.type == "cuda" else torch.float32
        pipeline = StableDiffusionPipeline.from_pretrained(self.setting.base, torch_dtype=dtype)
        pipeline.load_lora_weights(self.setting.adapter)
        config = pipeline.scheduler.config
        if self.steps is not None:
            kind, options = DPMSolverMultistepScheduler, {"timestep_spacing": "trailing"}
            pipeline.scheduler = kind.from_config(config, **options)
        elif not config.get("rescale_betas_zero_snr"):  # which PNDM does not know; DDIM has as many calls
            pipeline.scheduler = PNDMScheduler.from_config(config, skip_prk_steps=True)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline.to(self.setting.device)

    def draw(self, requests: list[Request], folder: Path) -> None:
        """Writes the requested images."""
        pipeline = self.pipeline
        for class_name, prompt in self.setting.prompts.items():
            pipeline = self.load() if self.reload else pipeline
            (folder / class_name).mkdir(parents=True, exist_ok=True)
            own = [request for request in requests if request["class_name"] == class_name]
            for start in range(0, len(own), BATCH):
                part = own[start : start + BATCH]
                given = {"seed": [request["seed"] for request in part], "prompt": [prompt] * len(part)}
                latents = self.noise(given)[0].to(pipeline.device, pipeline.dtype)  # type: ignore[union-attr]
                images = pipeline(  # type: ignore[misc]
                    [prompt] * len(part),
                    height=self.setting.size,
                    width=self.setting.size,
                    num_inference_steps=self.steps or 50,
                    guidance_scale=GUIDANCE,
                    latents=latents,
                ).images
                for request, image in zip(part, images):
                    image.save(folder / request["image"])


@cache
def loaded(base: Path, adapter: Path, few_step: Path | None, device: torch.device, dtype: torch.dtype) -> Denoiser:
    """A base with its adapter in the weights, one for all ways that share them, so that all ways fit a GPU at once."""
    return load_adapter(LatentDiffusion(str(base), device=device, dtype=dtype), adapter, few_step)


class Ours:
    """The parts of generate.json: adapter in the weights, own loop, writers beside it.

    Args:
        setting: what is drawn.
        steps: of DPM-Solver++, or of DDIM.
        scheduler: of `SamplingInferer`.
        interval: noise levels at which guidance acts.
        dtype: of the denoiser.
        few_step: folder of an adapter for few steps, which is drawn with without guidance.
        cache_interval: the inner blocks are computed in every so many steps.
        compile: by torch.compile; the first images wait for it and are not timed.
        batch: images at once.
    """

    def __init__(
        self,
        setting: Setting,
        steps: int,
        scheduler: str = "dpmsolver++",
        interval: tuple[float, float] | None = None,
        dtype: torch.dtype = torch.float32,
        few_step: Path | None = None,
        cache_interval: int = 1,
        compile: bool = False,
        batch: int = BATCH,
    ) -> None:
        self.setting, self.batch, self.compile = setting, batch, compile
        self.network = loaded(setting.base, setting.adapter, few_step, setting.device, dtype)
        diffusion = self.network.diffusion
        self.prepare_batch = SamplingPrepareBatch(diffusion, setting.size)
        guidance = 1.0 if few_step else GUIDANCE
        self.inferer = SamplingInferer(diffusion, steps, guidance, interval, scheduler, cache_interval=cache_interval)

    def draw(self, requests: list[Request], folder: Path) -> None:
        """Writes the requested images."""
        self.network.diffusion.compiled = self.compile
        SupervisedEvaluator(
            device=self.setting.device,
            val_data_loader=DataLoader(Dataset(requests), batch_size=self.batch),
            network=self.network,
            prepare_batch=self.prepare_batch,
            inferer=self.inferer,
            val_handlers=[SampleSaver(folder, list(self.setting.prompts), {})],
            decollate=False,
        ).run()


def ladder(setting: Setting, interval: tuple[float, float]) -> dict[str, Plain | Ours]:
    """The ways of drawing, each with one lever more than the one before."""
    half: dict[str, Any] = {"interval": interval, "dtype": torch.bfloat16}
    rungs: dict[str, Plain | Ours] = {
        "the works' way: 50 steps, guidance throughout, pipeline loaded for each class": Plain(setting, None, True),
        "diffusers called plainly, 20 DPM-Solver++ steps": Plain(setting, 20, False),
        "adapter in the weights, writers beside the loop, 20 steps": Ours(setting, 20, "dpmsolver++_trailing"),
        "+ noise levels as Karras et al. space them (our default steps)": Ours(setting, 20),
        f"+ guidance between sigma {interval[0]:g} and {interval[1]:g}": Ours(setting, 20, interval=interval),
        "+ bfloat16": Ours(setting, 20, **half),
        "+ 15 steps": Ours(setting, 15, **half),
        "+ 12 steps": Ours(setting, 12, **half),
        "20 steps, inner blocks in every second": Ours(setting, 20, cache_interval=2, **half),
        "20 steps, inner blocks in every third": Ours(setting, 20, cache_interval=3, **half),
        "20 steps, torch.compile": Ours(setting, 20, compile=True, **half),
        "12 steps, torch.compile": Ours(setting, 12, compile=True, **half),
    }
    if setting.few_step:
        for steps in (8, 4):
            name = f"few-step adapter, {steps} steps (lcm), no guidance, bfloat16"
            rungs[name] = Ours(setting, steps, "lcm", dtype=torch.bfloat16, few_step=setting.few_step)
    return rungs


def features_of(paths: list[Path], encoder: FeatureEncoder) -> torch.Tensor:
    """Features of image files, shape (N, D)."""
    parts = [paths[start : start + 32] for start in range(0, len(paths), 32)]
    return torch.cat([encoder(torch.stack([torch.from_numpy(read_image(path)) for path in part])) for part in parts])


def judge(real: dict[str, torch.Tensor], folder: Path, encoder: FeatureEncoder) -> tuple[float, float, float]:
    """Mean over the classes of the unbiased KID x 1000, 1.96 of its standard errors over the images, and Vendi score.

    The error is that of a jackknife which leaves out a tenth of the images at a time.
    """
    drawn = {name: features_of(sorted((folder / name).glob("*.png")), encoder).numpy() for name in real}

    def kid(left_out: int | None) -> float:
        parts = []
        for name, features in real.items():
            kept = np.arange(len(drawn[name])) % GROUPS != left_out
            parts.append(unbiased_mmd(features.numpy(), drawn[name][kept]))
        return 1000 * float(np.mean(parts))

    without = np.array([kid(group) for group in range(GROUPS)])
    error = np.sqrt((GROUPS - 1) / GROUPS * np.square(without - without.mean()).sum())
    vendi = np.mean([vendi_score(features) for features in drawn.values()])
    return kid(None), 1.96 * float(error), float(vendi)


def benchmark_generation(
    setting: Setting, per_class: int, repeats: int, interval: tuple[float, float], real: dict[str, torch.Tensor] | None
) -> tuple[str, dict[str, float]]:
    """The table of the ladder: images per second, ratio to the works' way, distance from real images, and variety.

    Also the images per second of every way.

    Args:
        setting: what is drawn.
        per_class: images of each class for the distance; a tenth of them is timed.
        repeats: rounds of the timing.
        interval: noise levels at which guidance acts.
        real: features of real images of each class; None leaves the distance out.
    """
    rungs = ladder(setting, interval)
    scores: dict[str, tuple[str, ...]] = {name: ("not measured", "not measured") for name in rungs}
    encoder = FeatureEncoder("nano")
    for number, (name, rung) in enumerate(rungs.items()):
        folder = setting.folder / f"rung_{number}"
        rung.draw(setting.requests(per_class if real else BATCH), folder)
        if real:
            kid, error, vendi = judge(real, folder, encoder)
            scores[name] = (f"{kid:.2f} +- {error:.2f}", f"{vendi:.1f}")
    few = setting.requests(BATCH)
    seconds = in_turns({name: way(rung, few) for name, rung in rungs.items()}, repeats)
    first = next(iter(seconds.values()))
    rows = [
        [name, f"{len(few) / value:.2f}", f"{first / value:.2f}x", *scores[name]] for name, value in seconds.items()
    ]
    table = markdown("Generation", ["way", "images/s", "speed", "KID x 1000 (95 %)", "Vendi score"], rows)
    return table, {name: len(few) / value for name, value in seconds.items()}


def way(rung: Plain | Ours, requests: list[Request]) -> Callable[[], None]:
    """A call that draws the requested images anew."""
    folder = rung.setting.folder / "timed"

    def draw() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        rung.draw(requests, folder)

    return draw


def benchmark_batches(setting: Setting, repeats: int, interval: tuple[float, float]) -> str:
    """The table of images per second by how many are drawn at once, 12 steps in bfloat16.

    Args:
        setting: what is drawn.
        repeats: rounds of the timing.
        interval: noise levels at which guidance acts.
    """
    requests = setting.requests(BATCHES[-1] // len(setting.prompts))
    ways = {}
    for size in BATCHES:
        ours = Ours(setting, 12, interval=interval, dtype=torch.bfloat16, batch=size)
        ways[str(size)] = way(ours, requests)
        ways[str(size)]()
    seconds = in_turns(ways, repeats)
    rows = [
        [size, f"{len(requests) / value:.2f}", f"{seconds[str(BATCH)] / value:.2f}x"] for size, value in seconds.items()
    ]
    return markdown("Images at once", ["batch", "images/s", f"speed, {BATCH} are 1"], rows)
