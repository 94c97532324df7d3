"""The report as one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..metrics.statistics import Difference
from ..utils.io import write_json
from .collect import collect
from .curves import draw_forest
from .data_card import data_card
from .html import embedded, thumbnail, thumbnails, write_page
from .quality_figures import draw_distances, draw_map, draw_reliability
from .study_files import read_probabilities, rows_if_any
from .study_page import write_study_page


def write_report(output_dir: str | Path, include_real_images: bool = False) -> Path:
    """Writes `report.json` and `report.html` of a run or a study from its files, and gives the page's path.

    The page holds its pictures, has no script and asks no address. Real images are patient data: they are shown on
    request alone.

    Args:
        output_dir: of the run or the study.
        include_real_images: show the nearest real training image beside synthetic ones; of a study the shots of every
            pool above its synthetic images.

    Raises:
        FileNotFoundError: when the folder holds neither a run nor a study.
    """
    folder = Path(output_dir)
    if (folder / "results.csv").is_file():
        return write_study_page(folder, include_real_images)
    content = collect(folder)
    content["card"] = data_card(content)
    write_json(folder / "report.json", content)
    figures = {name: embedded(path) for name, path in figures_of(folder, content).items()}
    shown = {
        "figures": figures,
        "pictures": thumbnails(content["samples"]),
        "neighbors": neighbors_of(folder) if include_real_images else [],
    }
    return write_page(folder / "report.html", "report.html.j2", {**content, **shown})


def figures_of(folder: Path, content: Mapping[str, Any]) -> dict[str, Path]:
    """Draws the figures that the files allow for, into `report_figures`."""
    place, drawn = folder / "report_figures", {}
    if content["comparison"]:
        rows = content["comparison"]
        differences = [Difference(row["difference"], row["low"], row["high"]) for row in rows]
        references = {row["reference"] for row in rows}
        reference = references.pop() if len(references) == 1 else "the same classifier on real images alone"
        drawn["forest"] = draw_forest([row["arm"] for row in rows], differences, place / "forest.png", reference)
    if content["arms"]:
        curves = {
            name: read_probabilities(folder / arm["folder"] / "predictions.csv")
            for name, arm in content["arms"].items()
        }
        drawn["reliability"] = draw_reliability(curves, place / "reliability.png")
        for number_of, arm in enumerate(content["arms"].values()):
            drawn[f"confusion_{number_of}"] = folder / arm["folder"] / "confusion.png"
    if content["quality"]:
        drawn["distances"] = draw_distances(content["quality"]["classes"], place / "distances.png")
    points = rows_if_any(folder / "assess" / "map.csv")
    if points:
        drawn["map"] = draw_map(points, content["class_names"], place / "map.png")
    return drawn


def neighbors_of(folder: Path, count: int = 8) -> list[dict[str, Any]]:
    """Synthetic images with their nearest training image, the nearest pairs first."""
    rows = sorted(rows_if_any(folder / "assess" / "neighbors.csv"), key=lambda row: float(row["distance"]))[:count]
    return [
        {
            "synthetic": thumbnail(row["synthetic"]),
            "real": thumbnail(row["real"]),
            "distance": float(row["distance"]),
            "class_name": row["class_name"],
        }
        for row in rows
    ]
