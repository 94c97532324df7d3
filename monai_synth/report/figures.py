"""Pictures for a report."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from PIL import Image

from ..data.images import read_image
from ..utils.io import atomic_path

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

TILE_INCHES = 0.95


def draw_confusion(matrix: Any, class_names: Sequence[str], path: str | Path) -> None:
    """Draws a confusion matrix with counts, colored by the share of each true class.

    Args:
        matrix: counts, shape (K, K), true classes in rows.
        class_names: the K classes.
        path: of the PNG.
    """
    counts = np.asarray(matrix)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = 1.8 + 0.62 * len(class_names)
    figure, axes = plt.subplots(figsize=(side + 0.6, side), layout="constrained")
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        color = "white" if shares[row, column] > 0.55 else "#222222"
        axes.text(column, row, str(count), ha="center", va="center", color=color, fontsize=9)
    axes.set_xticks(range(len(class_names)), class_names, rotation=35, ha="right")
    axes.set_yticks(range(len(class_names)), class_names)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.spines[:].set_visible(False)
    save_figure(figure, path)


def draw_real_and_synthetic(
    real: Sequence[dict[str, Any]],
    synthetic: Sequence[dict[str, Any]],
    class_names: Sequence[str],
    path: str | Path,
    num_columns: int = 8,
) -> None:
    """Draws a row of real and a row of synthetic images for each class.

    Args:
        real: records of real images; without any their rows are left out.
        synthetic: records of synthetic images.
        class_names: the classes, from top to bottom.
        path: of the PNG.
        num_columns: images in a row at the most.
    """
    origins = {"real": real, "synthetic": synthetic}
    lines = [(name, origin, records) for name in class_names for origin, records in origins.items() if records]
    figure, axes = plt.subplots(
        len(lines),
        num_columns,
        figsize=(TILE_INCHES * num_columns + 1.5, TILE_INCHES * len(lines)),
        squeeze=False,
        gridspec_kw={
            "wspace": 0.04,
            "hspace": 0.06,
            "left": 1.5 / (TILE_INCHES * num_columns + 1.5),
            "right": 0.995,
            "top": 0.995,
            "bottom": 0.005,
        },
    )
    for line, (name, origin, records) in enumerate(lines):
        members = [record for record in records if record["class_name"] == name][:num_columns]
        for column, cell in enumerate(axes[line]):
            cell.axis("off")
            if column < len(members):
                cell.imshow(_square(read_image(members[column]["image"])))
        axes[line, 0].text(
            -0.12, 0.5, f"{name}\n{origin}", transform=axes[line, 0].transAxes, ha="right", va="center", fontsize=8
        )
    save_figure(figure, path)


def draw_pairs(pairs: Sequence[tuple[tuple[str, str], str]], path: str | Path, num_columns: int = 3) -> Path:
    """Draws pairs of images side by side, each with a sentence below, and gives the path.

    Args:
        pairs: paths of the two images, and what is said of them.
        path: of the PNG.
        num_columns: pairs in a row.
    """
    rows = -(-len(pairs) // num_columns)
    width = 2 * TILE_INCHES + 0.5
    figure, axes = plt.subplots(
        rows,
        num_columns,
        figsize=(width * num_columns, (TILE_INCHES + 0.95) * rows),
        squeeze=False,
        layout="constrained",
    )
    for cell in axes.flat:
        cell.axis("off")
    for cell, (names, sentence) in zip(axes.flat, pairs):
        sides = [
            Image.fromarray((_square(read_image(name)) * 255).astype(np.uint8)).resize((192, 192)) for name in names
        ]
        gap = np.full((192, 8, 3), 255, np.uint8)
        cell.imshow(np.concatenate([np.asarray(sides[0]), gap, np.asarray(sides[1])], axis=1))
        caption = textwrap.fill(f"{Path(names[0]).name}: {sentence}", 46)
        cell.text(0.5, -0.04, caption, transform=cell.transAxes, ha="center", va="top", fontsize=5.5)
    return save_figure(figure, path)


def _square(image: np.ndarray) -> np.ndarray:
    side = min(image.shape[1:])
    top, left = (image.shape[1] - side) // 2, (image.shape[2] - side) // 2
    return image[:, top : top + side, left : left + side].transpose(1, 2, 0)


def save_figure(figure: Any, path: str | Path) -> Path:
    """Writes a figure as PNG in one piece, closes it and gives the path."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150, metadata={"Software": None})
    plt.close(figure)
    return Path(path)
