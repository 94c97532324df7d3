"""Times the fine-tuning, the generation and the reading of images beside the way of today's scripts, in one table each.

    python scripts/benchmark.py                                 # the nano base on the CPU
    python scripts/benchmark.py --shape sd21 --device cuda      # random weights in the shapes of Stable Diffusion 2.1

All ways of a table run in turns, so that a busy machine slows them alike; the figures are medians, and what counts are
the ratios. Pictures are judged by the unbiased KID of the nano encoder against phantoms that nobody trained on, and by
the share of those that is near a drawn one (recall), the same noise for every way, so that no speed is bought with a
loss that is not told. Random weights have no quality.
"""

from __future__ import annotations

import argparse
import logging
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import torch
from benchmarks.arithmetic import count_arithmetic
from benchmarks.fine_tuning import benchmark_fine_tuning
from benchmarks.generation import Setting, benchmark_batches, benchmark_generation
from benchmarks.hot_loop import profile_drawing, profile_training
from benchmarks.memory import benchmark_memory
from benchmarks.quality import FEWEST, features_of
from benchmarks.reading import benchmark_reading
from benchmarks.same_kid import benchmark_same_kid
from benchmarks.shapes import SHAPES, write_random_base
from benchmarks.shipped import shipped_setting, train_as_shipped
from benchmarks.timing import markdown
from benchmarks.tuning_quality import benchmark_tuning_quality
from monai.bundle import ConfigParser

from monai_synth.data import prompts_of
from monai_synth.data.phantom import PHANTOM_SETS, write_phantoms
from monai_synth.networks import FeatureEncoder
from monai_synth.networks.adapter_files import adapter_path
from monai_synth.networks.base_models import resolve_base_model
from monai_synth.utils.cores import processor_name

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
PARTS = (
    *("arithmetic", "fine_tuning", "tuning_quality", "generation", "same_kid", "batches", "memory", "reading"),
    "profile",
)
DRAWING = {"generation", "batches", "memory", "profile"}  # parts that draw with an adapter
CLASSES = PHANTOM_SETS["colon"]
NANO_FEW_STEP = "nano_few_step"
WORKS_CLASSIFIERS = [  # timm's names; CLIP's towers for images
    *("resnet50", "resnet101", "densenet121", "efficientnet_b0", "mobilenetv2_100", "maxvit_tiny_tf_224"),
    *("swin_tiny_patch4_window7_224", "deit3_base_patch16_224", "deit3_large_patch16_224", "volo_d1_224"),
    *("vit_base_patch16_clip_224", "vit_base_patch32_clip_224"),
]


def machine(device: torch.device) -> str:
    """Processor or GPU, threads, versions and the date."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor_name()
    threads = f"{torch.get_num_threads()} threads of {os.cpu_count()} cores"
    return f"{name}, {threads}, torch {torch.__version__}, {date.today().isoformat()}"


def whole_job(works: float, ours: float, rates: dict[str, float], steps: int, images: int, loading: float) -> str:
    """How long it takes to fine-tune on the shots and draw all images, the works' way and with ever more levers.

    Args:
        works: seconds of their fine-tuning.
        ours: seconds of ours, images and prompts encoded and files written.
        rates: images a second, the works' way first; the plain way of diffusers, which is no lever, is left out.
        steps: of the fine-tuning.
        images: to be drawn.
        loading: seconds in which the works load their pipelines.
    """
    rows, first = [], None
    for number, (name, rate) in enumerate(rates.items()):
        if name.startswith("diffusers"):
            continue
        tuning, drawing = (ours if number else works), images / rate + (0 if number else loading)
        first = first or tuning + drawing
        rows.append([name, f"{tuning:.0f}", f"{drawing:.0f}", f"{first / (tuning + drawing):.2f}x"])
    title = f"The whole job: {steps} steps and {images} images, our fine-tuning in bfloat16 and with all it does"
    return markdown(title, ["way of drawing", "seconds of fine-tuning", "seconds of drawing", "speed"], rows)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options, checked and complete."""
    steps = shipped_setting("max_steps")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--base_model", default="nano", help="name or folder of a Stable Diffusion 1.x or 2.x")
    parser.add_argument("--shape", choices=sorted(SHAPES), help="random weights of these shapes in its place")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--size", type=int, help="pixels; 128 for nano, 512 for the others")
    parser.add_argument("--repeats", type=int, default=3, help="rounds of the timing")
    parser.add_argument("--shots", type=int, default=16, help="images of each class that are trained on")
    parser.add_argument("--adapter_steps", type=int, default=steps, help="of the adapter that is drawn with")
    parser.add_argument(
        "--few_step_adapter",
        help=f"adapter of the base for few steps: file, folder or name; {NANO_FEW_STEP} for nano where it is there",
    )
    parser.add_argument(
        "--few_step_scheduler", choices=("lcm", "ddim"), help="its; ddim for the embedded one, else lcm"
    )
    parser.add_argument("--images_per_class", type=int, default=100, help="that are judged; fewer are timed")
    parser.add_argument(
        "--checkpoints", type=int, nargs="+", default=[25, 50, 100, 200], help="steps after which same_kid judges"
    )
    parser.add_argument("--patients", type=int, nargs="+", default=[0], help="whose images same_kid takes, seeds")
    parser.add_argument(
        "--no_compile", action="store_true", help="leave out torch.compile, which takes minutes on a GPU"
    )
    parser.add_argument("--interval", type=float, nargs=2, default=(0.28, 5.42), help="sigma at which guidance acts")
    parser.add_argument("--tflops", type=float, default=790.0, help="of the GPU, in 10^12 a second; 790 is an H200's")
    parser.add_argument("--classifier", nargs="+", help="timm's names; regnetx_002 beside nano, else the works'")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    options = parser.parse_args(arguments)
    options.device, options.interval = torch.device(options.device), tuple(options.interval)
    if options.device.type == "cuda" and not torch.cuda.is_available():
        parser.error("--device is cuda, but torch sees no GPU here. Leave it out to run on the CPU.")
    if options.images_per_class < FEWEST:
        parser.error(f"--images_per_class is {options.images_per_class}; {FEWEST} are the fewest that can be judged.")
    if min(options.checkpoints) < 1:
        parser.error(f"--checkpoints are {options.checkpoints}; each must be 1 step or more.")
    is_nano = options.base_model == "nano" and not options.shape
    options.size = options.size or (128 if is_nano else 512)
    options.classifier = options.classifier or (["regnetx_002"] if is_nano else WORKS_CLASSIFIERS)
    if options.few_step_adapter is None and is_nano and adapter_path(NANO_FEW_STEP).is_file():
        options.few_step_adapter = NANO_FEW_STEP
    embedded = options.few_step_adapter == NANO_FEW_STEP
    options.few_step_scheduler = options.few_step_scheduler or ("ddim" if embedded else "lcm")
    if options.few_step_adapter and not adapter_path(options.few_step_adapter).is_file():
        parser.error(f"--few_step_adapter: there is no {adapter_path(options.few_step_adapter)}.")
    return options


def run_parts(options: argparse.Namespace, folder: Path) -> Iterator[str]:
    """The tables that are asked for, one after another.

    Args:
        options: see `parse`.
        folder: for images and adapters.
    """
    device, size, interval = options.device, options.size, options.interval
    if options.shape:
        base = write_random_base(options.shape, folder / "base", device)
    else:
        base = resolve_base_model(options.base_model)
    prompts = prompts_of(CLASSES, {}, "H&E histopathology, {phrase}")
    images = write_phantoms(folder / "shots", CLASSES, options.shots, options.shots, min(size, 512), seed=1)
    paths = [(path, prompts[path.parent.name]) for path in sorted(images.rglob("*.png"))]
    few_step = options.few_step_adapter
    if options.shape and not few_step:
        few_step = str(folder / "adapter")  # random weights as well: what is drawn does not matter
    overlay = {} if options.base_model == "nano" and not options.shape else overlay_of_bases()
    adapters = {"adapter": folder / "adapter", "works_adapter": folder / "works_adapter"}
    few = {"few_step": few_step, "few_step_scheduler": options.few_step_scheduler}
    where = {"base": base, "prompts": prompts, "size": size, "device": device, "folder": folder / "drawn"}
    setting = Setting(**where, **adapters, **few, compiles=not options.no_compile, overlay=overlay)
    seconds: dict[str, float] = {}
    if "arithmetic" in options.parts:
        yield count_arithmetic(options.tflops, interval)
    if "fine_tuning" in options.parts:
        table, seconds = benchmark_fine_tuning(base, device, paths, size, 5, options.repeats, **overlay)
        yield table
    if DRAWING & set(options.parts):
        changes = {"max_steps": options.adapter_steps, "amp": "bfloat16"}
        ours = train_as_shipped(base, device, paths, size, folder / "adapter", **changes, **overlay)
        # The works' layers and our rate, which brings them as far in as few steps as ours.
        theirs = {**changes, **overlay, "lora_targets": "attention", "train_text_encoder": True}
        train_as_shipped(base, device, paths, size, folder / "works_adapter", **theirs)
    real = None
    if {"generation", "tuning_quality"} & set(options.parts) and not options.shape:
        real = held_out_features(folder / "held_out", min(size, 512), device)
    if "tuning_quality" in options.parts and real is not None:
        place = replace(setting, folder=folder / "tuning_quality")
        yield benchmark_tuning_quality(place, paths, options.adapter_steps, options.images_per_class, interval, real)
    if "generation" in options.parts:
        table, rates, loading = benchmark_generation(setting, options.images_per_class, options.repeats, interval, real)
        yield table
        if seconds:
            loading *= len(CLASSES)
            works = options.adapter_steps * next(iter(seconds.values()))
            yield whole_job(works, ours, rates, options.adapter_steps, 5000 * len(CLASSES), loading)
    if "same_kid" in options.parts and not options.shape:
        for patient in options.patients:
            yield benchmark_same_kid(
                setting, options.shots, options.checkpoints, options.images_per_class, interval, patient
            )
    if "batches" in options.parts:
        yield benchmark_batches(setting, options.repeats, interval)
    if "memory" in options.parts:
        yield benchmark_memory(setting, paths, interval)
    if "reading" in options.parts:
        many = write_phantoms(folder / "many", CLASSES, 200, 20, min(size, 512), seed=3)
        yield benchmark_reading(sorted(many.rglob("*.png")), many, options.classifier, size, device, options.repeats)
    if "profile" in options.parts:
        yield profile_training(setting, paths)
        yield profile_drawing(setting, interval)


def overlay_of_bases() -> dict[str, Any]:
    """What the overlays of Stable Diffusion set of a fine-tuning, sizes and numbers of steps apart."""
    overlay = ConfigParser.load_config_file(CONFIGS / "base_models" / "sd21.yaml")
    return {key: overlay[key] for key in ("lora_targets", "adapter_learning_rate", "min_snr_gamma")}


def held_out_features(folder: Path, size: int, device: torch.device) -> dict[str, torch.Tensor]:
    """Features of phantoms that nobody trained on, 300 patients with an image of each class, by class."""
    written = write_phantoms(folder, CLASSES, 300, 300, size, seed=2)
    encoder = FeatureEncoder("nano").to(device)
    return {name: features_of(sorted((written / name).glob("*.png")), encoder) for name in CLASSES}


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the tables."""
    options = parse(arguments)
    logging.basicConfig(level=logging.ERROR)
    torch.set_num_threads(options.threads)
    print(f"{machine(options.device)}\n", flush=True)
    with tempfile.TemporaryDirectory() as name:
        for table in run_parts(options, Path(name)):
            print(table, flush=True)


if __name__ == "__main__":
    main()
