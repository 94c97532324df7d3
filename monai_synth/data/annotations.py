"""What is annotated on whole-slide images: regions of classes, or one class of a whole slide."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .class_names import check_class_names

LABELS = "slides.csv"
SUFFIXES = (".svs", ".tif", ".tiff", ".ndpi", ".scn", ".mrxs", ".vms", ".bif")  # of slides
Ring = list[tuple[float, float]]
Polygon = list[Ring]  # the outline, then its holes


def read_labels(path: Path) -> dict[str, str]:
    """Class of whole slides by name, from a CSV with the columns slide and class_name; empty when there is none.

    A slide is named with or without its ending; other dots, as those of TCGA, belong to its name.

    Raises:
        ValueError: when a column is missing, a line lacks its slide or class, a slide has two classes, or a class
            cannot be the name of a folder.
    """
    if not path.is_file():
        return {}
    with open(path, newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        columns = reader.fieldnames or []
        rows = [(reader.line_num, row) for row in reader]
    if not {"slide", "class_name"} <= set(columns):
        raise ValueError(f"{path} needs the columns slide and class_name, found {sorted(columns)}.")
    labels: dict[str, str] = {}
    for line, row in rows:
        slide, class_name = ((row[column] or "").strip() for column in ("slide", "class_name"))
        if not slide or not class_name:
            raise ValueError(
                f"{path}, line {line}, has the slide {slide!r} and the class {class_name!r}. Name both, or remove the "
                "line."
            )
        name = _slide_name(slide)
        if labels.setdefault(name, class_name) != class_name:
            raise ValueError(
                f"{path} gives the slide {name!r} the classes {labels[name]!r} and {class_name!r}. Leave it one, or "
                f"draw the region of each class into {name}.geojson."
            )
    check_class_names(labels.values(), path)
    return labels


def _slide_name(cell: str) -> str:
    """The name of a slide without its folder and, where it has one that slides have, its ending."""
    path = Path(cell)
    return path.stem if path.suffix.lower() in SUFFIXES else path.name


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
