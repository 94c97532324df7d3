"""The tables and figures of a study: comparisons, learning curves, confusions and distances."""

from __future__ import annotations

import textwrap
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..data.fitted_images import unchecked
from ..metrics.statistics import Difference
from ..utils.io import read_json, write_text
from .curves import draw_curves, draw_distance_dots, draw_forest
from .figures import draw_confusion
from .study import DRAW, EXTERNAL, RESULTS, compare_arms, on_external, values_of
from .study_files import Row, read_results, rows_if_any
from .tables import text_table, write_rows

DISTANCE = "unbiased KID x 1000 to real images (0: as other real ones)"
AXES = {"shots": "real images per class", "synthetic_per_class": "synthetic images per class"}  # of learning curves


def sum_of_confusions(folder: Path, rows: Sequence[Row]) -> tuple[np.ndarray, list[str]]:
    """The confusion matrices of several runs added up, and the class names."""
    metrics = [read_json(folder / row["folder"] / "evaluation" / "metrics.json") for row in rows]
    return np.sum([m["confusion_matrix"] for m in metrics], axis=0), list(metrics[0]["recall"])


def confusion_path(folder: Path, arm: str) -> Path:
    """Where the confusion matrix of an arm is drawn."""
    return folder / f"confusion_{''.join(c if c.isalnum() else '_' for c in arm)}.png"


def curves_of(rows: Sequence[Row], axis: str) -> dict[str, dict[float, list[float]]]:
    """Balanced accuracies over a setting's values, a curve for each arm and each value of what else varies within it.

    Args:
        rows: of `results.csv`.
        axis: the setting.
    """
    others = [key for key in rows[0] if key not in (*RESULTS, *DRAW, "arm", axis)]
    arms = {row["arm"] for row in rows}
    varying = {
        arm: [key for key in others if len(values_of([row for row in rows if row["arm"] == arm], key)) > 1]
        for arm in arms
    }
    curves: dict[str, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        name = ", ".join([row["arm"], *(f"{key} {row[key]}" for key in varying[row["arm"]])])
        curves[name][float(row.get(axis) or 0)].append(float(row["balanced_accuracy"]))
    return curves


COMPARED = (
    *("arm", "draws", "reference", "balanced_accuracy", "difference", "low", "high", "p", "p_holm", "verdict"),
    *("kept", "chosen", "chosen_difference", "chosen_low", "chosen_high"),
)


def labels_of(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The arm of each row, and those of its settings that vary within an arm, in one line."""
    arms = {row["arm"] for row in rows}
    varying = [
        key
        for key in rows[0]
        if key not in COMPARED
        and any(len({str(row.get(key, "")) for row in rows if row["arm"] == arm}) > 1 for arm in arms)
    ]
    told = [[f"{key} {row[key]}" for key in varying if row.get(key, "") != ""] for row in rows]
    return [", ".join([row["arm"], *words]) for row, words in zip(rows, told)]


def write_study_report(folder: str | Path, reference: str) -> list[Path]:
    """Writes `comparison.csv`, `summary.txt` and the figures of a study, and gives their paths.

    Args:
        folder: of the study, with its `results.csv`.
        reference: name of the arm that the others are compared with.
    """
    folder = Path(folder)
    rows = read_results(folder)
    compared = compare_arms(folder, rows, reference)
    written = [folder / "summary.txt", *write_comparison(folder, compared, reference)]
    text = text_table(compared) if compared else text_table(rows)
    if EXTERNAL + "accuracy" in rows[0]:
        elsewhere = compare_arms(folder, on_external(rows), reference, "evaluation_external")
        written += write_comparison(folder, elsewhere, reference, "_external")
        text += "\nOn the other data set:\n\n" + text_table(elsewhere) if elsewhere else ""
    for axis, title in AXES.items():
        curves = curves_of(rows, axis)
        if any(len(points) > 1 for points in curves.values()):
            written.append(draw_curves(curves, title, folder / f"accuracy_against_{axis}.png"))
    written += draw_distances(folder)
    for arm in sorted({row["arm"] for row in rows}):
        matrix, names = sum_of_confusions(folder, [row for row in rows if row["arm"] == arm])
        written.append(confusion_path(folder, arm))
        draw_confusion(matrix, names, written[-1])
    write_text(folder / "summary.txt", "\n\n".join([text, *unchecked_images(rows)]))
    return written


def unchecked_images(rows: Sequence[Row]) -> list[str]:
    """What could not be checked of synthetic images from elsewhere: a sentence for each datalist without a note."""
    paths = sorted({row["synthetic_datalist"] for row in rows if row.get("synthetic_datalist")})
    return [words for path in paths if (words := unchecked(path))]


def draw_distances(folder: Path) -> list[Path]:
    """Draws the distance of each class's synthetic images from real ones against the shots, from `distances.csv`.

    Images of other generators stand apart: a line is one class and one generator, its values are draws of the shots.
    """
    rows = [row for row in rows_if_any(folder / "distances.csv") if row["kid"]]
    if not rows:
        return []
    members: dict[str, list[Row]] = defaultdict(list)
    for row, label in sorted(zip(rows, generator_labels(rows)), key=lambda pair: pair[0]["class_name"]):
        members[label].append(row)
    path = folder / "distance_per_class.png"
    if len(values_of(rows, "shots")) > 1:
        curves: dict[str, dict[float, list[float]]] = {label: defaultdict(list) for label in members}
        for label, own in members.items():
            for row in own:
                curves[label][float(row["shots"])].append(1000 * float(row["kid"]))
        return [draw_curves(curves, "real images per class", path, DISTANCE)]
    bounds = {
        label: (1000 * mean_where_known(own, "floor"), 1000 * mean_where_known(own, "ceiling"))
        for label, own in members.items()
    }
    values = {label: [1000 * float(row["kid"]) for row in own] for label, own in members.items()}
    return [draw_distance_dots(values, bounds, path, DISTANCE)]


def generator_labels(rows: Sequence[Row]) -> list[str]:
    """The class of each row of `distances.csv`, and in which settings its generator is not that of every row."""
    apart = ("pool", "class_name", "shots", "kid", "floor", "ceiling", "ratio", *DRAW)
    varying = [key for key in rows[0] if key not in apart and len(values_of(rows, key)) > 1]
    told = [", ".join(f"{key} {row[key]}" for key in varying if row[key]) for row in rows]
    return [textwrap.fill(", ".join(filter(None, (row["class_name"], words))), 48) for row, words in zip(rows, told)]


def mean_where_known(rows: Sequence[Row], key: str) -> float:
    """The mean of a column over the rows that have a value there; not a number when none has."""
    known = [float(row[key]) for row in rows if row[key]]
    return float(np.mean(known)) if known else float("nan")


def write_comparison(
    folder: Path, compared: Sequence[Mapping[str, Any]], reference: str, suffix: str = ""
) -> list[Path]:
    """Writes comparisons as `comparison.csv` and as the forest plot `differences.png`, where there are any."""
    if not compared:
        return []
    table = folder / f"comparison{suffix}.csv"
    write_rows(table, compared)
    differences = [Difference(row["difference"], row["low"], row["high"]) for row in compared]
    return [table, draw_forest(labels_of(compared), differences, folder / f"differences{suffix}.png", reference)]
