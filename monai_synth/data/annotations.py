"""What is annotated on whole-slide images: regions of classes, or one class of a whole slide."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .class_names import check_class_names

LABELS = "slides.csv"
Ring = list[tuple[float, float]]
Polygon = list[Ring]  # the outline, then its holes


def read_labels(path: Path) -> dict[str, str]:
    """Class of whole slides by name, from a CSV with the columns slide and class_name; empty when there is none.

    Raises:
        ValueError: when a column is missing, or a class cannot be the name of a folder.
    """
    if not path.is_file():
        return {}
    with open(path, newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    if not rows or not {"slide", "class_name"} <= set(rows[0]):
        raise ValueError(f"{path} needs the columns slide and class_name, found {sorted(rows[0]) if rows else []}.")
    labels = {Path(row["slide"].strip()).stem: (row["class_name"] or "").strip() for row in rows}
    check_class_names(labels.values(), path)
    return labels


def regions_of(slide: Path, labels: Mapping[str, str]) -> dict[str, list[Polygon]] | str:
    """The regions of each class in pixels of the finest level, or the one class of the whole slide.

    Raises:
        FileNotFoundError: when nobody has said anything of the slide.
        ValueError: for a file that is no GeoJSON with classes, or a class that cannot be the name of a folder.
    """
    path = slide.with_suffix(".geojson")
    if not path.is_file():
        if slide.stem in labels:
            return labels[slide.stem]
        raise FileNotFoundError(
            f"{slide.name} has no class: there is no {path.name} beside it (QuPath: File, Export objects as GeoJSON), "
            f"and no line in {LABELS} (slide,class_name)."
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        features = content["features"] if isinstance(content, dict) else content
        regions: dict[str, list[Polygon]] = {}
        for feature in features:
            name = str(feature["properties"]["classification"]["name"])
            regions.setdefault(name, []).extend(_outlines(feature["geometry"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is not what QuPath exports: every feature needs a polygon and properties.classification.name "
            f"({type(error).__name__}: {error})."
        ) from error
    check_class_names(regions, path)
    if not regions:
        raise ValueError(
            f"{path} has no region. Annotate the slide, or remove the file and name its class in {LABELS}."
        )
    return regions


def _outlines(geometry: Mapping[str, Any]) -> list[Polygon]:
    polygons = {"Polygon": [geometry["coordinates"]], "MultiPolygon": geometry["coordinates"]}.get(geometry["type"])
    if polygons is None:
        raise ValueError(f"a {geometry['type']} is no area")
    return [[[(float(x), float(y)) for x, y, *_ in ring] for ring in polygon] for polygon in polygons if polygon]
