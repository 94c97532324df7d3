"""The tables that runs and studies leave behind, read again."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

Row = dict[str, str]


def read_rows(path: Path) -> list[Row]:
    """The rows of a CSV file."""
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def rows_if_any(path: Path) -> list[Row]:
    """The rows of a CSV file that not every run or study has; none where there is no file."""
    return read_rows(path) if path.is_file() else []


def read_results(folder: Path) -> list[Row]:
    """The rows of a study's `results.csv`.

    Raises:
        FileNotFoundError: when there is none.
    """
    path = Path(folder) / "results.csv"
    if not path.is_file():
        raise FileNotFoundError(f"There is no {path}. Run study.json first.")
    return read_rows(path)


def read_predictions(path: Path) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Right or not, true classes and groups of a run's test images, sorted by image.

    Args:
        path: of `predictions.csv`.
    """
    rows = sorted(read_rows(path), key=lambda row: row["image"])
    names = sorted({row["class_name"] for row in rows})
    labels = np.array([names.index(row["class_name"]) for row in rows])
    correct = np.array([row["class_name"] == row["predicted"] for row in rows], dtype=float)
    return correct, labels, [row["group"] or row["image"] for row in rows]


def read_probabilities(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """True labels, shape (N,), and probabilities, shape (N, K), of a run's test images, classes in the file's order.

    Args:
        path: of `predictions.csv`.
    """
    rows = read_rows(path)
    names = [column.removeprefix("prob_") for column in rows[0] if column.startswith("prob_")]
    labels = np.array([names.index(row["class_name"]) for row in rows])
    return labels, np.array([[float(row[f"prob_{name}"]) for name in names] for row in rows])
