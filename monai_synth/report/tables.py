"""Results as text."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..utils.io import atomic_path, read_json

COLUMNS = ("balanced_accuracy", "macro_f1", "auroc", "accuracy")


def results_table(folders: dict[str, Path], columns: Sequence[str] = COLUMNS) -> str:
    """A table with a line for each arm of a comparison.

    Args:
        folders: where each arm's `metrics.json` lies, by the arm's name.
        columns: numbers to show.

    Raises:
        FileNotFoundError: when an arm has not been evaluated.
    """
    metrics: dict[str, dict[str, Any]] = {}
    for name, folder in folders.items():
        path = Path(folder) / "metrics.json"
        if not path.exists():
            raise FileNotFoundError(f"The arm {name!r} has not been evaluated: there is no {path}.")
        metrics[name] = read_json(path)
    width = max(map(len, [*folders, "trained on"]))
    head = "  ".join([f"{'trained on':<{width}}", *(f"{column:>17}" for column in columns)])
    lines = [head, "-" * len(head)]
    for name, numbers in metrics.items():
        cells = [f"{numbers[c]:>17.3f}" if numbers[c] is not None else f"{'-':>17}" for c in columns]
        lines.append("  ".join([f"{name:<{width}}", *cells]))
    first = next(iter(metrics.values()))
    lines.append(
        f"{first['num_images']} real test images; always answering the most frequent class is right for "
        f"{first['majority_share']:.3f} of them."
    )
    return "\n".join(lines)


def write_rows(path: str | Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes rows as a CSV in one piece; its columns are all keys of the rows, in the order in which they come up."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def text_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as a Markdown table, which reads as well as text; columns as in `write_rows`."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    cells = [columns, *([str(row.get(column, "")) for column in columns] for row in rows)]
    widths = [max(len(line[index]) for line in cells) for index in range(len(columns))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths)) + " |" for line in cells]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines) + "\n"
