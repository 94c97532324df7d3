"""Figures of an assessment: distances with their scale, the map of features, and calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from .curves import COLORS
from .figures import plt, save_figure

Array = np.ndarray


def draw_distances(classes: Mapping[str, Mapping[str, Any]], path: str | Path) -> Path:
    """Draws each class's KID with its interval between floor (real against real) and ceiling (nearest wrong class).

    Args:
        classes: `classes` of `quality.json`.
        path: of the PNG.
    """
    known = {name: numbers for name, numbers in classes.items() if numbers["kid"] is not None}
    figure, axes = plt.subplots(figsize=(7.2, 1.3 + 0.55 * max(len(known), 1)), layout="constrained")
    for place, numbers in enumerate(known.values()):
        if numbers["floor_high"] is not None:
            axes.plot([0, max(numbers["floor_high"], 0)], [place, place], color="#3b8f5a", linewidth=9, alpha=0.35)
        if numbers["ceiling"] is not None:
            axes.plot(numbers["ceiling"], place, "|", color="#8c2f39", markersize=20, markeredgewidth=2.2)
            words = f" {numbers['nearest_class']}"
            axes.text(numbers["ceiling"], place - 0.32, words, color="#8c2f39", fontsize=7, ha="center", va="bottom")
        axes.plot([numbers["kid_low"], numbers["kid_high"]], [place, place], color=COLORS[0], linewidth=2)
        axes.plot(numbers["kid"], place, "o", color=COLORS[0], markersize=8)
    axes.axvline(0, color="#444444", linewidth=0.8)
    axes.set_yticks(range(len(known)), list(known))
    axes.set_ylim(len(known) - 0.4, -0.7)
    axes.set_xlabel("KID, unbiased: green is real against real, red the nearest wrong class")
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right", "left"]].set_visible(False)
    return save_figure(figure, path)


def draw_map(rows: Sequence[Mapping[str, Any]], class_names: Sequence[str], path: str | Path) -> Path:
    """Draws images in the plane of their first two principal components, filled where they are real.

    Args:
        rows: x, y, class_name and origin of each image.
        class_names: in the order of the colors.
        path: of the PNG.
    """
    figure, axes = plt.subplots(figsize=(7.2, 4.8), layout="constrained")
    for name, color in zip(class_names, COLORS * (1 + len(class_names) // len(COLORS))):
        for origin in ("real", "synthetic"):
            members = [row for row in rows if row["class_name"] == name and row["origin"] == origin]
            face = color if origin == "real" else "none"
            x, y = ([float(row[axis]) for row in members] for axis in "xy")
            marker = "o" if origin == "real" else "^"
            axes.scatter(x, y, s=16, marker=marker, facecolors=face, edgecolors=color, linewidths=0.9, alpha=0.75)
        axes.plot([], [], "o", color=color, label=name)
    axes.plot([], [], "^", markerfacecolor="none", markeredgecolor="#444444", label="synthetic (hollow)")
    axes.set_xlabel("first principal component of the features")
    axes.set_ylabel("second")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return save_figure(figure, path)


def draw_reliability(curves: Mapping[str, tuple[Array, Array]], path: str | Path, num_bins: int = 8) -> Path:
    """Draws how often each classifier is right against how sure it is, in bins of equally many images.

    Args:
        curves: labels (N,) and probabilities (N, K) of each classifier, by its name.
        path: of the PNG.
        num_bins: bins at the most.
    """
    figure, axes = plt.subplots(figsize=(4.6, 4.2), layout="constrained")
    axes.plot([0, 1], [0, 1], color="#999999", linewidth=0.9, linestyle="--")
    for (name, (labels, probabilities)), color in zip(curves.items(), cycle(COLORS)):
        confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
        bins = np.array_split(np.argsort(confidence, kind="stable"), min(num_bins, len(labels)))
        x, y = [confidence[part].mean() for part in bins], [correct[part].mean() for part in bins]
        axes.plot(x, y, marker="o", markersize=4, linewidth=1.6, color=color, label=name)
    axes.set_xlim(1 / max(len(next(iter(curves.values()))[1][0]), 2) - 0.05, 1.02)
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlabel("how sure")
    axes.set_ylabel("how often right")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    return save_figure(figure, path)
