"""Images per second and their distance from real ones, from the two works' way to ours, lever by lever."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, PNDMScheduler, StableDiffusionPipeline
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator

from monai_synth.data import plan_requests
from monai_synth.engines import SamplingPrepareBatch, noise_of_seeds
from monai_synth.handlers import SampleSaver
from monai_synth.inferers import SamplingInferer
from monai_synth.networks import Denoiser, FeatureEncoder, LatentDiffusion, load_adapter

from .quality import judge
from .timing import SPEEDS, in_turns, markdown, ratio, speeds, synchronize

BATCH = 10  # of the works
BATCHES = (1, 5, BATCH, 20, 40)
GUIDANCE, WORKS_GUIDANCE = 1.5, 2.0  # ours by default, and the works'
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
        few_step: an adapter for few steps, where there is one: its folder, its file or an embedded one's name.
        few_step_scheduler: with which it draws.
        compiles: whether torch.compile is among the ways.
        works_adapter: the works' adapter, on the attention and the text encoder; None is the other one.
        overlay: settings of the base over the shipped train_diffusion.json.
    """

    base: Path
    adapter: Path
    prompts: dict[str, str]
    size: int
    device: torch.device
    folder: Path
    few_step: str | None = None
    few_step_scheduler: str = "lcm"
    compiles: bool = True
    works_adapter: Path | None = None
    overlay: dict[str, Any] = field(default_factory=dict)

    def requests(self, per_class: int) -> list[Request]:
        """The images that every way draws, the same noise for all."""
        return plan_requests(list(self.prompts), self.prompts, per_class, seed=0)


def knows_pndm(base: Path) -> bool:
    """Whether the works' scheduler can follow a base's noise schedule, which it cannot where that ends in pure noise.

    The nano base's does; its own DDIM takes the place of PNDM then, with 50 calls of the denoiser for 51.
    """
    return not DDIMScheduler.load_config(base, subfolder="scheduler").get("rescale_betas_zero_snr")


class Plain:
    """diffusers' pipeline as the works call it: adapter beside the weights, guidance throughout, files one by one.

    Args:
        setting: what is drawn.
        steps: of the sampler.
        solver: "pndm", the works' one (see `knows_pndm`), or "dpmsolver++".
        guidance: at every step.
    """

    batch = BATCH

    def __init__(
        self, setting: Setting, steps: int = 50, solver: str = "pndm", guidance: float = WORKS_GUIDANCE
    ) -> None:
        self.setting, self.steps, self.solver, self.guidance = setting, steps, solver, guidance
        self.pipeline = self.load()
        side = setting.size // self.pipeline.vae_scale_factor
        self.shape = self.pipeline.unet.config.in_channels, side, side

    def load(self) -> Any:
        """The pipeline with its adapter and scheduler."""
        dtype = torch.float16 if self.setting.device.type == "cuda" else torch.float32
        pipeline = StableDiffusionPipeline.from_pretrained(self.setting.base, torch_dtype=dtype)
        pipeline.load_lora_weights(self.setting.works_adapter or self.setting.adapter)
        config = pipeline.scheduler.config
        if self.solver == "dpmsolver++":
            pipeline.scheduler = DPMSolverMultistepScheduler.from_config(config, timestep_spacing="trailing")
        elif knows_pndm(self.setting.base):
            pipeline.scheduler = PNDMScheduler.from_config(config, skip_prk_steps=True)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline.to(self.setting.device)

    def draw(self, requests: list[Request], folder: Path) -> None:
        """Writes the requested images."""
        for class_name, prompt in self.setting.prompts.items():
            (folder / class_name).mkdir(parents=True, exist_ok=True)
            own = [request for request in requests if request["class_name"] == class_name]
            for start in range(0, len(own), BATCH):
                part = own[start : start + BATCH]
                noise = noise_of_seeds([request["seed"] for request in part], self.shape)
                images = self.pipeline(
                    [prompt] * len(part),
                    height=self.setting.size,
                    width=self.setting.size,
                    num_inference_steps=self.steps,
                    guidance_scale=self.guidance,
                    latents=noise.to(self.pipeline.device, self.pipeline.dtype),
                ).images
                for request, image in zip(part, images):
                    image.save(folder / request["image"])


@cache
def loaded(base: Path, adapter: Path, few_step: str | None, device: torch.device, dtype: torch.dtype) -> Denoiser:
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
        few_step: an adapter for few steps, which is drawn with without guidance.
        cache_interval: the inner blocks are computed in every so many steps.
        compile: by torch.compile; the first images wait for it and are not timed.
        batch: images at once.
        network: that draws; None is the setting's base with its adapter.
    """

    def __init__(
        self,
        setting: Setting,
        steps: int,
        scheduler: str = "dpmsolver++",
        interval: tuple[float, float] | None = None,
        dtype: torch.dtype = torch.float32,
        few_step: str | None = None,
        cache_interval: int = 1,
        compile: bool = False,
        batch: int = BATCH,
        network: Denoiser | None = None,
    ) -> None:
        self.setting, self.batch, self.compile = setting, batch, compile
        self.network = network or loaded(setting.base, setting.adapter, few_step, setting.device, dtype)
        diffusion = self.network.diffusion
        self.prepare_batch = SamplingPrepareBatch(diffusion, setting.size)
        guidance = 1.0 if few_step else GUIDANCE
        self.inferer = SamplingInferer(diffusion, steps, guidance, interval, scheduler, cache_interval=cache_interval)

    def draw(self, requests: list[Request], folder: Path) -> None:
        """Writes the requested images."""
        self.network.diffusion.compiled = self.compile
        SupervisedEvaluator(
            device=self.setting.device,
            non_blocking=True,
            val_data_loader=DataLoader(Dataset(requests), batch_size=self.batch),
            network=self.network,
            prepare_batch=self.prepare_batch,
            inferer=self.inferer,
            val_handlers=[SampleSaver(folder, {})],
            decollate=False,
        ).run()


def ladder(setting: Setting, interval: tuple[float, float]) -> tuple[dict[str, Plain | Ours], dict[str, str]]:
    """The ways of drawing, and the way that each builds on where that is not the one before.

    On a GPU all are in half precision.
    """
    half: dict[str, Any] = {"interval": interval, "dtype": torch.bfloat16}
    on_gpu = setting.device.type == "cuda"
    first: dict[str, Any] = {"dtype": torch.bfloat16} if on_gpu else {}
    note = ", bfloat16" if on_gpu else ""
    solver = "PNDM" if knows_pndm(setting.base) else "DDIM (PNDM does not know this base's noise schedule)"
    works = f"the works' way: 50 steps of {solver}, guidance of {WORKS_GUIDANCE:g} throughout"
    plainly = f"diffusers called plainly, 20 DPM-Solver++ steps, guidance of {GUIDANCE:g} throughout"
    guided = f"+ guidance between sigma {interval[0]:g} and {interval[1]:g}"
    rungs: dict[str, Plain | Ours] = {
        works + (", float16" if on_gpu else ""): Plain(setting),
        plainly: Plain(setting, 20, "dpmsolver++", GUIDANCE),
        f"our adapter, in the weights, writers beside the loop, 20 steps{note}": Ours(
            setting, 20, "dpmsolver++_trailing", **first
        ),
        "+ noise levels as Karras et al. space them (our default steps)": Ours(setting, 20, **first),
        guided: Ours(setting, 20, interval=interval, **first),
        **({} if on_gpu else {"+ bfloat16": Ours(setting, 20, **half)}),
        "+ 15 steps": Ours(setting, 15, **half),
        "+ 12 steps": Ours(setting, 12, **half),
    }
    twenty = guided if on_gpu else "+ bfloat16"
    others: dict[str, Plain | Ours] = {
        "20 steps, inner blocks in every second": Ours(setting, 20, cache_interval=2, **half),
        "20 steps, inner blocks in every third": Ours(setting, 20, cache_interval=3, **half),
    }
    if on_gpu:
        others["20 steps, 40 images at once"] = Ours(setting, 20, batch=40, **half)
    if setting.few_step:
        for steps in (8, 4):
            name = f"few-step adapter, {steps} steps of {setting.few_step_scheduler}, no guidance, bfloat16"
            few: dict[str, Any] = {"dtype": torch.bfloat16, "few_step": setting.few_step}
            others[name] = Ours(setting, steps, setting.few_step_scheduler, **few)
    if setting.compiles:
        others["20 steps, torch.compile"] = Ours(setting, 20, compile=True, **half)
        if on_gpu:
            others["20 steps, torch.compile, 40 images at once"] = Ours(setting, 20, compile=True, batch=40, **half)
    builds_on = dict.fromkeys(others, twenty)
    if setting.compiles:
        others["12 steps, torch.compile"] = Ours(setting, 12, compile=True, **half)
        builds_on["12 steps, torch.compile"] = "+ 12 steps"
    return {**rungs, **others}, builds_on


def benchmark_generation(
    setting: Setting, per_class: int, repeats: int, interval: tuple[float, float], real: dict[str, torch.Tensor] | None
) -> tuple[str, dict[str, float], float]:
    """The table of the ladder: images per second, ratio to the works' way, distance from real images, and variety.

    Also the images per second of every way, and the seconds in which the works' pipeline is loaded, which they do anew
    for each class and which is in no row of the table.

    Args:
        setting: what is drawn.
        per_class: images of each class for the distance and the variety; `BATCH` of each, or a batch, are timed.
        repeats: rounds of the timing.
        interval: noise levels at which guidance acts.
        real: features of real images of each class; None leaves distance and variety out.
    """
    rungs, builds_on = ladder(setting, interval)
    loading = loading_time(Plain(setting))
    scores: dict[str, tuple[str, ...]] = {name: ("not measured",) * 3 for name in rungs}
    encoder = FeatureEncoder("nano").to(setting.device)
    for number, (name, rung) in enumerate(rungs.items()):
        folder = setting.folder / f"rung_{number}"
        rung.draw(setting.requests(max(BATCH, rung.batch, per_class if real else 0)), folder)  # also warms up
        if real:
            quality = judge(real, folder, encoder)
            scores[name] = (str(quality), f"{quality.vendi:.1f}", f"{quality.recall:.2f}")
    timed = {name: setting.requests(max(BATCH, rung.batch)) for name, rung in rungs.items()}
    seconds = in_turns({name: way(rung, timed[name]) for name, rung in rungs.items()}, repeats)
    each = {name: [value / len(timed[name]) for value in values] for name, values in seconds.items()}  # of an image
    rates, columns = {name: 1 / median(values) for name, values in each.items()}, speeds(each, builds_on)
    rows = [[name, f"{rate:.2f}", *columns[name], *scores[name]] for name, rate in rates.items()]
    table = markdown("Generation", ["way", "images/s", *SPEEDS, "KID x 1000 (95 %)", "Vendi score", "recall"], rows)
    table += f"\nThe works load their pipeline anew for each class: {loading:.1f} s, which is not in the images/s.\n"
    return table, rates, loading


def loading_time(plain: Plain) -> float:
    """Seconds in which diffusers' pipeline is loaded, its files having been read before."""
    start = time.perf_counter()
    plain.load()
    synchronize()
    return time.perf_counter() - start


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
        [size, f"{len(requests) / median(values):.2f}", f"{ratio(seconds[str(BATCH)], values):.2f}x"]
        for size, values in seconds.items()
    ]
    return markdown("Images at once", ["batch", "images/s", f"speed, {BATCH} are 1"], rows)
