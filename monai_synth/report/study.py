"""What a study showed: paired differences with their intervals, and the works' figures, from its files alone."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..metrics.statistics import Difference, holm, paired_bootstrap
from .study_files import Row, read_predictions

DRAW = ("fold", "seed")  # what makes another draw of the shots
NUMBERS = ("balanced_accuracy", "macro_f1", "auroc", "accuracy", "majority_share", "num_images")
EXTERNAL = "external_"  # what these are called on the other data set
VALIDATION = "val_balanced_accuracy"
RESULTS = (*NUMBERS, *(EXTERNAL + name for name in NUMBERS), VALIDATION, "seconds", "folder")
FEWEST_DRAWS = 2
SAMPLES_PER_COMPARISON = 80  # bootstrap samples, so that the smallest p-value is 0.025 after Holm's adjustment


def settings_of(row: Row, *without: str) -> tuple[tuple[str, str], ...]:
    """What a run was, apart from its results and the named settings."""
    return tuple((key, value) for key, value in row.items() if key not in (*RESULTS, *DRAW, *without))


def draw_of(row: Row) -> tuple[str, ...]:
    """Which draw of the shots a run had."""
    return tuple(row.get(key, "") for key in DRAW)


def shared_settings(rows: Sequence[Row], reference: str) -> list[str]:
    """The settings in which an arm and its reference must agree: those of the grid, and not an arm's own.

    A setting of the grid stands in every row, or varies among the reference's; one that an arm alone sets is empty in
    the others. The number of synthetic images stands in every row, but counts only where the reference has several: it
    may do without any.

    Args:
        rows: of `results.csv`.
        reference: name of the arm that the others are compared with.
    """
    settings = [key for key, _ in settings_of(rows[0], "arm")]
    own = [row for row in rows if row["arm"] == reference]
    varied = {key for key in settings if len(values_of(own, key)) > 1}
    everywhere = {key for key in settings if all(row.get(key, "") != "" for row in rows)} - {"synthetic_per_class"}
    return [key for key in settings if key in varied | everywhere]


def on_external(rows: Sequence[Row]) -> list[Row]:
    """The rows of a study as they would be had it tested on the other data set alone."""
    numbers = {name: EXTERNAL + name for name in NUMBERS}
    return [{**row, **{name: row[other] for name, other in numbers.items()}} for row in rows]


def compare_arms(
    folder: Path, rows: Sequence[Row], reference: str, evaluation: str = "evaluation"
) -> list[dict[str, Any]]:
    """Every arm against the reference arm with the same settings, paired by draw and test image.

    An arm that sets something of the grid itself (a classifier, by its overlay) to what the reference never has is
    compared with the reference at each value that this has there, and the comparison says so: `against`.

    Args:
        folder: of the study.
        rows: of `results.csv`.
        reference: name of the arm that the others are compared with.
        evaluation: name of the folder of each run's predictions.

    Returns:
        A row per comparison: settings, number of draws, both means of balanced accuracy, their difference, its 95 %
        interval, p-value, p-value by Holm over all comparisons, and what that shows in words. Then what comes of it
        when the validation images choose between arm and reference in every draw: in how many the arm is kept, and the
        mean, difference and interval of what was chosen.
    """
    treated = pairs_of(rows, reference)
    found, most = [], SAMPLES_PER_COMPARISON * len(treated)
    for (settings, against), pairs in treated.items():
        members, others = [row for row, _ in pairs], [other for _, other in pairs]
        named = {**dict(settings), **({"against": against} if any(told for _, told in treated) else {})}
        found.append((named, members, others, difference_of(folder, members, others, evaluation, most)))
    adjusted = holm([difference.p_value or 1.0 for *_, difference in found])
    return [
        {
            **settings,
            "draws": len(members),
            "balanced_accuracy": round(mean_of(members), 4),
            "reference": round(mean_of(others), 4),
            "difference": round(difference.estimate, 4),
            "low": round(difference.low, 4),
            "high": round(difference.high, 4),
            "p": round(difference.p_value or 1.0, 5),
            "p_holm": round(p, 4),
            "verdict": verdict(members, difference, p),
            **chosen_by_validation(folder, members, others, evaluation),
        }
        for (settings, members, others, difference), p in zip(found, adjusted)
    ]


def pairs_of(rows: Sequence[Row], reference: str) -> dict[tuple, list[tuple[Row, Row]]]:
    """The runs of every comparison, each with the reference's run that it is compared with.

    Args:
        rows: of `results.csv`.
        reference: name of the arm that the others are compared with.

    Returns:
        Pairs by the arm's settings and by what of the reference differs from them and is named, see `compare_arms`.
    """
    shared = shared_settings(rows, reference)

    def place(row: Row, keys: Sequence[str]) -> tuple[str, ...]:
        return (*(row.get(key, "") for key in keys), *draw_of(row))

    baselines = list({place(row, shared): row for row in rows if row["arm"] == reference}.values())
    own: dict[str, list[str]] = {}  # settings of the grid that an arm sets to what the reference never has
    for arm in {row["arm"] for row in rows}:
        members = [row for row in rows if row["arm"] == arm]
        own[arm] = [key for key in shared if not values_of(members, key) & values_of(baselines, key)]
    found: dict[tuple, list[tuple[Row, Row]]] = defaultdict(list)
    for row, other in itertools.product(rows, baselines):
        agreed = [key for key in shared if key not in own[row["arm"]]]
        if row["arm"] != reference and place(row, agreed) == place(other, agreed):
            against = ", ".join(f"{key} {other.get(key, '')}" for key in own[row["arm"]])
            found[settings_of(row), against].append((row, other))
    return found


def values_of(rows: Sequence[Row], key: str) -> set[str]:
    """The values that a setting has in some rows."""
    return {row.get(key, "") for row in rows}


def chosen_by_validation(
    folder: Path, members: Sequence[Row], others: Sequence[Row], evaluation: str
) -> dict[str, Any]:
    """What the validation images make of an arm and its reference: see `choose_arm`, here in every draw."""
    keeps = [float(row[VALIDATION]) > float(other[VALIDATION]) for row, other in zip(members, others)]
    chosen = [row if keep else other for row, other, keep in zip(members, others, keeps)]
    difference = difference_of(folder, chosen, others, evaluation)
    return {
        "kept": f"{sum(keeps)} of {len(keeps)}",
        "chosen": round(mean_of(chosen), 4),
        "chosen_difference": round(difference.estimate, 4),
        "chosen_low": round(difference.low, 4),
        "chosen_high": round(difference.high, 4),
    }


def difference_of(
    folder: Path,
    members: Sequence[Row],
    others: Sequence[Row],
    evaluation: str = "evaluation",
    most_samples: int | None = None,
) -> Difference:
    """Paired difference of two arms over their draws, from the predictions of each run; see `paired_bootstrap`."""
    paths = [[folder / row["folder"] / evaluation / "predictions.csv" for row in arm] for arm in (members, others)]
    treatment, baseline = ([read_predictions(path) for path in of_arm] for of_arm in paths)
    return paired_bootstrap(
        [run[0] for run in treatment],
        [run[0] for run in baseline],
        [run[1] for run in treatment],
        [run[2] for run in treatment],
        most_samples=most_samples,
    )


def mean_of(rows: Sequence[Row], name: str = "balanced_accuracy") -> float:
    """Mean of one result over runs."""
    return float(np.mean([float(row[name]) for row in rows]))


def verdict(members: Sequence[Row], difference: Difference, p_holm: float) -> str:
    """What a comparison shows, in words that claim no more than that."""
    if len(members) < FEWEST_DRAWS:
        return "One draw of the shots: nothing can be said."
    if difference.estimate > 0 and mean_of(members, "accuracy") <= mean_of(members, "majority_share"):
        return "Not better than always answering the most frequent class: no gain."
    return difference.sentence(p_holm)
