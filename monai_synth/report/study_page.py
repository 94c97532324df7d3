"""The page of a study: what the differences are worth, learning curves with bands, images, data and provenance."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..data.audits import audit_of
from ..data.records import class_names_of, load_datalist
from ..utils.io import write_json
from .collect import LIMITS, data_of, optional, samples_of
from .html import embedded, thumbnails, write_page
from .study import draw_of, settings_of
from .study_files import Row, read_results, rows_if_any
from .study_report import AXES, confusion_path, curves_of, labels_of, unchecked_images, write_study_report

SUMMARIZED = ("balanced_accuracy", "macro_f1", "auroc", "accuracy")
FIGURES = {
    "differences.png": "paired differences from the reference arm, 95 % intervals over draws, groups and images",
    "differences_external.png": "the same on the other data set",
    **{
        f"accuracy_against_{axis}.png": f"balanced accuracy against {title}: means, with a band from worst to best draw"
        for axis, title in AXES.items()
    },
    "distance_per_class.png": "KID of each class between floor and ceiling",
}


def write_study_page(folder: Path, include_real_images: bool = False) -> Path:
    """Writes tables, figures, `report.json` and `report.html` of a study from its files, and gives the page's path.

    Args:
        folder: of the study.
        include_real_images: show the shots of every pool above its synthetic images.

    Raises:
        FileNotFoundError: when the study has not come to its end.
    """
    record = optional(folder / "run.json")
    if not (record and record["complete"]):
        raise FileNotFoundError(f"The study in {folder} has not come to its end. Run the same command, it goes on.")
    written = write_study_report(folder, record["settings"]["reference_arm"])
    content = collect_study(folder, record)
    write_json(folder / "report.json", content)
    figures = [(embedded(path), FIGURES[path.name]) for path in written if path.name in FIGURES]
    arms = dict.fromkeys(row["arm"] for row in content["summary"])
    confusions = [(embedded(confusion_path(folder, arm)), arm) for arm in arms]
    pools = sorted(folder.glob("*/real_and_synthetic.png")) if include_real_images else []
    shown = {
        "figures": figures,
        "confusions": confusions,
        "pictures": thumbnails(content["samples"]),
        "has_curves": any(path.name.startswith("accuracy_against") for path in written),
        "pools": [(embedded(path), path.parent.name) for path in pools],
    }
    return write_page(folder / "report.html", "study.html.j2", {**content, **shown})


def collect_study(folder: Path, record: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a study's `report.json`: plain numbers, texts and lists.

    Args:
        folder: of the study, with its tables.
        record: of its `run.json`.
    """
    rows = read_results(folder)
    pools = list(dict.fromkeys(row["folder"].split("/")[0] for row in rows))
    drawing = [pool for pool in pools if (folder / pool / "synthetic" / "datalist.json").is_file()]
    shown = folder / (drawing or pools)[0]
    class_names = class_names_of(shown / "datalist.json")
    synthetic = load_datalist(shown / "synthetic" / "datalist.json") if drawing else []
    return {
        "made": time.strftime("%Y-%m-%d %H:%M"),
        "class_names": class_names,
        "reference_arm": record["settings"]["reference_arm"],
        "grid": record["settings"]["grid"],
        "arms": record["settings"]["arms"],
        "num_draws": len({draw_of(row) for row in rows}),
        "summary": summary_of(rows),
        "comparison": comparison_of(folder / "comparison.csv"),
        "external": comparison_of(folder / "comparison_external.csv"),
        "curves": {axis: curves_of(rows, axis) for axis in AXES},
        "distances": [typed(row) for row in rows_if_any(folder / "distances.csv")],
        "runs": [typed(row) for row in rows],
        "data": data_of(load_datalist(shown / "datalist.json"), synthetic, class_names),
        "pool": shown.name,
        "samples": samples_of(synthetic, class_names),
        "privacy": {pool: audit_of(folder / pool) for pool in pools},
        "limits": [*unchecked_images(rows), *LIMITS],
        "provenance": {key: record[key] for key in ("began", "identity", "machine", "versions", "peak_memory_mb")}
        | {"seconds": sum(float(row["seconds"]) for row in rows)},
    }


def summary_of(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Mean of each result over the draws of every arm and setting, with the worst and best balanced accuracy."""
    groups: dict[tuple, list[Row]] = {}
    for row in rows:
        groups.setdefault(settings_of(row), []).append(row)
    labels = labels_of([dict(settings) for settings in groups])
    found = []
    for label, members in zip(labels, groups.values()):
        accuracies = [float(row["balanced_accuracy"]) for row in members]
        means: dict[str, Any] = {}
        for name in SUMMARIZED:
            values = [float(row[name]) for row in members if row.get(name)]
            means[name] = sum(values) / len(values) if values else None
        spread = {"draws": len(members), "worst": min(accuracies), "best": max(accuracies)}
        found.append({"label": label, "arm": members[0]["arm"], **spread, **means})
    return found


def comparison_of(path: Path) -> list[dict[str, Any]]:
    """The rows of a comparison with their labels; none where nothing could be compared."""
    rows = rows_if_any(path)
    labels = labels_of(rows) if rows else []
    return [{"label": label, **typed(row)} for label, row in zip(labels, rows)]


def typed(row: Row) -> dict[str, Any]:
    """A row of a CSV file with its numbers as numbers, and nothing as None."""
    return {key: _value(value) for key, value in row.items()}


def _value(text: str) -> Any:
    if text == "":
        return None
    try:
        return float(text) if "." in text or "e" in text else int(text)
    except ValueError:
        return text
