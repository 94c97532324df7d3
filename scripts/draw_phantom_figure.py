"""Draws the figure of docs/phantoms.md, a row for each class, and prints how fast phantoms are drawn.

python scripts/draw_phantom_figure.py docs/images/phantoms.png
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import matplotlib
import numpy as np

from monai_synth.data.phantom import CLASS_PHRASES, draw_phantom

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

NUM_COLUMNS = 8
TIMED = 20  # images of each class and size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path)
    path = parser.parse_args().path
    figure, axes = plt.subplots(
        len(CLASS_PHRASES),
        NUM_COLUMNS,
        figsize=(NUM_COLUMNS * 1.0 + 1.8, len(CLASS_PHRASES)),
        gridspec_kw={"wspace": 0.03, "hspace": 0.03, "left": 0.19, "right": 0.995, "top": 0.998, "bottom": 0.002},
    )
    for row, (class_name, phrase) in zip(axes, CLASS_PHRASES.items()):
        for seed, cell in enumerate(row):
            cell.imshow(draw_phantom(class_name, 500 + seed, size=128).transpose(1, 2, 0))
            cell.axis("off")
        row[0].text(
            -0.08,
            0.5,
            phrase.replace(" cell", "\ncell"),
            transform=row[0].transAxes,
            ha="right",
            va="center",
            fontsize=8,
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    print("| class | images/s at 64 pixels | at 128 pixels |\n|---|---|---|")
    for class_name in CLASS_PHRASES:
        speeds = []
        for size in (64, 128):
            began = time.perf_counter()
            for seed in range(TIMED):
                draw_phantom(class_name, seed, size=size)
            speeds.append(TIMED / (time.perf_counter() - began))
        print(f"| {class_name} | {speeds[0]:.0f} | {speeds[1]:.0f} |")
    print(f"numpy {np.__version__}, one process")


if __name__ == "__main__":
    main()
