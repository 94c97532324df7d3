"""Figures of results over settings, with their spread."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ..metrics.statistics import Difference
from .figures import plt, save_figure

COLORS = ("#1f5fa8", "#d1603d", "#3b8f5a", "#8a4fae", "#b8912b", "#5c6b73", "#c2417c", "#2a9d9d")


def draw_curves(
    curves: Mapping[str, Mapping[float, Sequence[float]]],
    label: str,
    path: str | Path,
    value_label: str = "balanced accuracy on real test images",
) -> Path:
    """Draws the mean of each curve with a band from the smallest to the largest draw, and gives the path.

    A curve with one value is a dashed line: what is had without the setting.

    Args:
        curves: results of each draw by value of the setting, by the curve's name.
        label: of the setting.
        path: of the PNG.
        value_label: of the results.
    """
    figure, axes = plt.subplots(figsize=(7.2, 4.4), layout="constrained")
    for (name, points), color in zip(curves.items(), COLORS * (1 + len(curves) // len(COLORS))):
        values = sorted(points)
        means = [float(np.mean(points[value])) for value in values]
        lows, highs = ([bound(points[value]) for value in values] for bound in (min, max))
        if len(values) == 1:
            axes.axhline(means[0], color=color, linestyle="--", linewidth=1.4, label=name)
            axes.axhspan(lows[0], highs[0], color=color, alpha=0.10, linewidth=0)
            continue
        axes.plot(values, means, marker="o", markersize=5, color=color, linewidth=1.8, label=name)
        axes.fill_between(values, lows, highs, color=color, alpha=0.15, linewidth=0)
    ticks = sorted({value for points in curves.values() for value in points if len(points) > 1})
    if ticks and min(ticks) > 0 and max(ticks) / min(ticks) > 8:
        axes.set_xscale("log")
        axes.minorticks_off()
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xlabel(label)
    axes.set_ylabel(textwrap.fill(value_label, 40))
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return save_figure(figure, path)


def draw_forest(labels: Sequence[str], differences: Sequence[Difference], path: str | Path, reference: str) -> Path:
    """Draws differences with their intervals, one line each, filled where zero is left out, and gives the path.

    Args:
        labels: of the lines, from the top.
        differences: in the same order.
        path: of the PNG.
        reference: name of what all are compared with.
    """
    figure, axes = plt.subplots(figsize=(8.0, 1.2 + 0.34 * len(labels)), layout="constrained")
    for place, difference in enumerate(differences):
        color = COLORS[0] if difference.estimate >= 0 else COLORS[1]
        axes.plot([difference.low, difference.high], [place, place], color=color, linewidth=1.8)
        face = color if difference.shown else "white"
        axes.plot(difference.estimate, place, "o", color=color, markerfacecolor=face, markersize=7)
    axes.axvline(0, color="#444444", linewidth=0.9)
    axes.set_yticks(range(len(labels)), labels, fontsize=8)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    figure.supxlabel(f"difference in balanced accuracy from {reference!r}, 95 % interval", fontsize=9)
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right", "left"]].set_visible(False)
    return save_figure(figure, path)


def draw_distance_dots(
    values: Mapping[str, Sequence[float]], bounds: Mapping[str, tuple[float, float]], path: str | Path, label: str
) -> Path:
    """Draws distances in a line for each class, a dot for each draw of the shots, between their floor and ceiling.

    Args:
        values: distances by the line's name, which may be of several lines of text.
        bounds: floor (real against real) and ceiling (the nearest wrong class) by the same; NaN is not drawn.
        path: of the PNG.
        label: of the distance.
    """
    height = 0.2 + 0.16 * max(name.count("\n") + 1 for name in values)  # inches of a line, by its text of 8 points
    figure, axes = plt.subplots(figsize=(7.2, 1.2 + height * len(values)), layout="constrained")
    for place, (name, distances) in enumerate(values.items()):
        floor, ceiling = bounds[name]
        axes.plot([floor, ceiling], [place, place], color="#bbbbbb", linewidth=5, solid_capstyle="butt", zorder=1)
        axes.plot(floor, place, "|", color="#3b8f5a", markersize=15, markeredgewidth=2.5)
        axes.plot(ceiling, place, "|", color="#d1603d", markersize=15, markeredgewidth=2.5)
        axes.plot(distances, [place] * len(distances), "o", color=COLORS[0], markersize=6, alpha=0.85)
    axes.set_yticks(range(len(values)), list(values), fontsize=8)
    axes.set_ylim(len(values) - 0.5, -0.5)
    figure.supxlabel(f"{label}; green: real against real, red: the nearest wrong class", fontsize=8)
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right", "left"]].set_visible(False)
    return save_figure(figure, path)
