"""Times the fine-tuning, the generation and the reading of images beside the way of today's scripts, in one table each.

    python scripts/benchmark.py                                 # the nano base on the CPU
    python scripts/benchmark.py --shape sd21 --device cuda      # random weights in the shapes of Stable Diffusion 2.1

All ways of a table run in turns, so that a busy machine slows them alike; the figures are medians, and what counts are
the ratios. Pictures are judged by the unbiased KID of the nano encoder against phantoms that nobody trained on, the
same noise for every way, so that no speed is bought with a loss that is not told. Random weights have no quality.
"""

from __future__ import annotations

import argparse
import logging
import os
import platform
import resource
import tempfile
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import torch
from benchmarks.arithmetic import count_arithmetic
from benchmarks.fine_tuning import benchmark_fine_tuning, train_adapter
from benchmarks.generation import Setting, benchmark_batches, benchmark_generation, features_of
from benchmarks.hot_loop import profile_hot_loops
from benchmarks.reading import benchmark_reading
from benchmarks.shapes import SHAPES, write_random_base
from benchmarks.timing import markdown

from monai_synth.data import prompts_of
from monai_synth.data.phantom import PHANTOM_SETS, write_phantoms
from monai_synth.networks import FeatureEncoder
from monai_synth.networks.base_models import resolve_base_model

PARTS = ("arithmetic", "fine_tuning", "generation", "batches", "reading", "profile")


def machine(device: torch.device) -> str:
    """Processor or GPU, threads, versions and the date."""
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    names = [line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith("model name")]
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else (names or [platform.processor()])[0]
    threads = f"{torch.get_num_threads()} threads of {os.cpu_count()} cores"
    return f"{name}, {threads}, torch {torch.__version__}, {date.today().isoformat()}"


def peak_memory(device: torch.device) -> str:
    """The most memory that this process has had."""
    host = f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10:.0f} MB of host memory"
    if device.type != "cuda":
        return host
    return f"{host}, {torch.cuda.max_memory_allocated(device) / 2**20:.0f} MB of the GPU's"


def whole_job(seconds: dict[str, float], rates: dict[str, float], steps: int, images: int) -> str:
    """How long it takes to fine-tune on the shots and draw all images, the works' way and with ever more levers.

    Args:
        seconds: of a step of fine-tuning, the works' way first and ours last.
        rates: images a second, likewise; the plain way of diffusers, which is no lever, is left out.
        steps: of the fine-tuning.
        images: to be drawn.
    """
    slow, fast = list(seconds.values())[0], list(seconds.values())[-1]
    rows, first = [], None
    for number, (name, rate) in enumerate(rates.items()):
        if name.startswith("diffusers"):
            continue
        tuning, drawing = steps * (fast if number else slow), images / rate
        first = first or tuning + drawing
        rows.append([name, f"{tuning:.0f}", f"{drawing:.0f}", f"{first / (tuning + drawing):.2f}x"])
    title = f"The whole job: {steps} steps and {images} images, from the two tables above"
    return markdown(title, ["way of drawing", "seconds of fine-tuning", "seconds of drawing", "speed"], rows)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--base_model", default="nano", help="name or folder of a Stable Diffusion 1.x or 2.x")
    parser.add_argument("--shape", choices=sorted(SHAPES), help="random weights of these shapes in its place")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--size", type=int, help="pixels; 128 for nano, 512 for the others")
    parser.add_argument("--repeats", type=int, default=3, help="rounds of the timing")
    parser.add_argument("--shots", type=int, default=16, help="images of each class that are trained on")
    parser.add_argument("--adapter_steps", type=int, default=100, help="of the adapter that is drawn with")
    parser.add_argument("--few_step_adapter", type=Path, help="LCM-LoRA of the base: file or folder")
    parser.add_argument("--images_per_class", type=int, default=100, help="that are judged")
    parser.add_argument("--interval", type=float, nargs=2, default=(0.28, 5.42), help="sigma at which guidance acts")
    parser.add_argument("--tflops", type=float, default=790.0, help="of the GPU, in 10^12 a second; 790 is an H200's")
    parser.add_argument("--classifier", default="regnetx_002")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.ERROR)
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        parser.error("--device is cuda, but torch sees no GPU here. Leave it out to run on the CPU.")
    size = options.size or (128 if options.base_model == "nano" and not options.shape else 512)
    print(f"{machine(device)}\n", flush=True)
    if "arithmetic" in options.parts:
        print(count_arithmetic(options.tflops, tuple(options.interval)), flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        base = (
            write_random_base(options.shape, folder / "base")
            if options.shape
            else resolve_base_model(options.base_model)
        )
        classes = PHANTOM_SETS["colon"]
        prompts = prompts_of(classes, {}, "H&E histopathology, {phrase}")
        images = write_phantoms(folder / "shots", classes, options.shots, options.shots, min(size, 512), seed=1)
        paths = [(path, prompts[path.parent.name]) for path in sorted(images.rglob("*.png"))]
        if "fine_tuning" in options.parts:
            table, seconds = benchmark_fine_tuning(base, device, paths, size, 5, options.repeats)
            print(table, flush=True)
        few_step, interval = options.few_step_adapter, tuple(options.interval)
        setting = Setting(base, folder / "adapter", prompts, size, device, folder / "drawn", few_step)
        if {"generation", "batches", "profile"} & set(options.parts):
            train_adapter(base, device, paths, size, options.adapter_steps, folder / "adapter")
        if "generation" in options.parts:
            real = None
            if not options.shape:
                held_out = write_phantoms(folder / "held_out", classes, 300, 300, min(size, 512), seed=2)
                encoder = FeatureEncoder("nano")
                real = {name: features_of(sorted((held_out / name).glob("*.png")), encoder) for name in classes}
            table, rates = benchmark_generation(setting, options.images_per_class, options.repeats, interval, real)
            print(table, flush=True)
            if "fine_tuning" in options.parts:
                print(whole_job(seconds, rates, options.adapter_steps, 5000 * len(classes)), flush=True)
        if "batches" in options.parts:
            print(benchmark_batches(setting, options.repeats, interval), flush=True)
        if "reading" in options.parts:
            many = write_phantoms(folder / "many", classes, 200, 20, size, seed=3)
            files = sorted(many.rglob("*.png"))
            print(benchmark_reading(files, many, options.classifier, size, device, options.repeats), flush=True)
        if "profile" in options.parts:
            print(profile_hot_loops(setting, paths, torch.bfloat16, interval), flush=True)
    print(f"Peak memory: {peak_memory(device)}.")


if __name__ == "__main__":
    main()
