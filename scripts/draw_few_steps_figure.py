"""Draws the same images of the nano base in many steps and, with the embedded adapter, in few.

    python scripts/draw_few_steps_figure.py docs/images/nano_few_steps.png

Prints how far the images of each way are from those of 40 guided steps of DDIM, from the same noise.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib
import torch

from monai_synth.data.phantom import CLASS_PHRASES, phantom_caption
from monai_synth.engines import SamplingPrepareBatch
from monai_synth.inferers import SamplingInferer
from monai_synth.networks import LatentDiffusion, load_adapter

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

GUIDANCE, INTERVAL = 1.5, (0.28, 5.42)  # as shipped, and as the adapter was made
MANY = ("40 steps of DDIM, guided", None, "ddim", 40, GUIDANCE)
WAYS = (
    ("20 steps of DPM-Solver++, guided", None, "dpmsolver++", 20, GUIDANCE),
    ("12 steps of DPM-Solver++, guided", None, "dpmsolver++", 12, GUIDANCE),
    ("4 steps of DDIM, guided", None, "ddim", 4, GUIDANCE),
    ("4 steps of DDIM, with the adapter", "nano_few_step", "ddim", 4, 1.0),
    ("8 steps of DDIM, with the adapter", "nano_few_step", "ddim", 8, 1.0),
)
SHOWN = (0, 2, 3)  # of these ways


def draw(adapter: str | None, scheduler: str, num_steps: int, guidance: float, copies: int) -> torch.Tensor:
    """Some images of every phantom class, shape (classes x copies, 3, 128, 128) in [0, 1]."""
    diffusion = LatentDiffusion("nano")
    network = load_adapter(diffusion, None, adapter)
    inferer = SamplingInferer(diffusion, num_steps, guidance, INTERVAL, scheduler)
    images = []
    for name in CLASS_PHRASES:
        batch = {"seed": range(copies), "prompt": [phantom_caption(name)] * copies}
        noise, _, _, features = SamplingPrepareBatch(diffusion, 128)(batch)
        images.append(inferer(noise, network, **features))
    return torch.cat(images)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path)
    parser.add_argument("--copies", type=int, default=4, help="images of each class that are compared")
    args = parser.parse_args()
    expected = draw(*MANY[1:], args.copies)
    figure, axes = plt.subplots(
        len(SHOWN),
        len(CLASS_PHRASES),
        figsize=(len(CLASS_PHRASES) + 1.8, len(SHOWN)),
        gridspec_kw={"wspace": 0.03, "hspace": 0.03, "left": 0.12, "right": 0.998, "top": 0.99, "bottom": 0.01},
    )
    rows = iter(axes)
    print(f"| way | mean difference from {MANY[0]}, of 255 | of the image that differs most |\n|---|---|---|")
    for number, (name, *way) in enumerate(WAYS):
        images = draw(*way, args.copies)
        differences = (images - expected).abs().mean(dim=(1, 2, 3)) * 255
        print(f"| {name} | {float(differences.mean()):.1f} | {float(differences.max()):.1f} |", flush=True)
        if number in SHOWN:
            row = next(rows)
            for cell, image in zip(row, images[:: args.copies]):
                cell.imshow(image.permute(1, 2, 0))
                cell.axis("off")
            words = name.replace(", ", ",\n").replace(" of ", "\nof ")
            row[0].text(-0.08, 0.5, words, transform=row[0].transAxes, ha="right", va="center", fontsize=8)
    args.path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.path, dpi=110)


if __name__ == "__main__":
    main()
