"""The report as one self-contained HTML page."""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from PIL import Image

from ..metrics.statistics import Difference
from ..utils.io import write_json, write_text
from .collect import collect
from .curves import draw_forest
from .data_card import data_card
from .quality_figures import draw_distances, draw_map, draw_reliability
from .study import read_probabilities

TEMPLATES = Path(__file__).resolve().parents[1] / "templates" / "report"
THUMBNAIL = 112  # pixels


def write_report(output_dir: str | Path, include_real_images: bool = False) -> Path:
    """Writes `report.json` and `report.html` of a run from its files, and gives the page's path.

    The page holds its pictures, has no script and asks no address. Real images are patient data: they are shown on
    request alone.

    Args:
        output_dir: of the run.
        include_real_images: show the nearest real training image beside synthetic ones.

    Raises:
        FileNotFoundError: when the folder holds no run.
    """
    folder = Path(output_dir)
    content = collect(folder)
    content["card"] = data_card(content)
    write_json(folder / "report.json", content)
    figures = {name: embedded(path) for name, path in figures_of(folder, content).items()}
    samples = {
        name: [{"picture": thumbnail(row["image"]), "seed": row["seed"]} for row in rows]
        for name, rows in content["samples"].items()
    }
    neighbors = neighbors_of(folder) if include_real_images else []
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    environment.filters["number"] = number
    page = environment.get_template("report.html.j2").render(
        **content, figures=figures, pictures=samples, neighbors=neighbors
    )
    write_text(folder / "report.html", page)
    return folder / "report.html"


def number(value: Any, digits: int = 3, sign: bool = False) -> str:
    """A number for the eye, a dash for None."""
    if value is None:
        return "–"
    return f"{value:{'+' if sign else ''}.{digits}f}"


def figures_of(folder: Path, content: Mapping[str, Any]) -> dict[str, Path]:
    """Draws the figures that the files allow for, into `report_figures`."""
    place, drawn = folder / "report_figures", {}
    if content["comparison"]:
        rows = content["comparison"]
        differences = [Difference(row["difference"], row["low"], row["high"]) for row in rows]
        drawn["forest"] = draw_forest(
            [row["arm"] for row in rows], differences, place / "forest.png", rows[0]["reference"]
        )
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
    points = folder / "assess" / "map.csv"
    if points.is_file():
        with open(points, newline="", encoding="utf-8") as file:
            drawn["map"] = draw_map(list(csv.DictReader(file)), content["class_names"], place / "map.png")
    return drawn


def embedded(path: Path) -> str:
    """A picture file as a data address."""
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def thumbnail(path: str | Path) -> str:
    """An image as a small data address, without any metadata of the file."""
    with Image.open(path) as image:
        small = image.convert("RGB")
    small.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def neighbors_of(folder: Path, count: int = 8) -> list[dict[str, Any]]:
    """Synthetic images with their nearest training image, the nearest pairs first."""
    path = folder / "assess" / "neighbors.csv"
    if not path.is_file():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: float(row["distance"]))[:count]
    return [
        {
            "synthetic": thumbnail(row["synthetic"]),
            "real": thumbnail(row["real"]),
            "distance": float(row["distance"]),
            "class_name": row["class_name"],
        }
        for row in rows
    ]
