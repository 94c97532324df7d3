"""What the synthetic images of a run are worth: quality, and the report of it all."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors

from ..data.feature_store import FeatureStore
from ..data.records import TESTS, Record, class_names_of
from ..metrics.quality import FEWEST_FOR_FLOOR, ImageSet, class_agreement, quality
from ..report.page import write_report
from ..report.tables import write_rows
from ..utils.io import write_json
from ..utils.processes import is_first, wait_for_all
from .stages import required_workflow

logger = logging.getLogger(__name__)
METHOD = 2  # counted up when numbers of earlier versions can no longer stand beside those of today


def image_set(store: FeatureStore, records: Sequence[Record], class_names: Sequence[str]) -> ImageSet:
    """Features, labels and groups of records; a synthetic image is its own group."""
    labels = np.array([class_names.index(record["class_name"]) for record in records], dtype=int)
    groups = np.array([str(record.get("group") or record["image"]) for record in records])
    features = store.features(records) if records else np.zeros((0, 0))
    return ImageSet(features, labels, groups)


def assess(store: FeatureStore, records: Sequence[Record]) -> dict[str, Any]:
    """Judges the synthetic images of the running config and writes `quality.json`.

    Args:
        store: with the features of all records.
        records: real images of the roles shots, train and val, and the synthetic ones.

    Raises:
        ValueError: for a test image among the records.
    """
    wait_for_all()  # each process has encoded its part
    if not is_first():
        return {}
    store.read()
    parser = required_workflow("assess").parser
    class_names = class_names_of(parser.get_parsed_content("datalist_path"))
    roles = tuple(parser.get_parsed_content("reference_roles"))
    if any(record.get("role") in TESTS for record in records):
        raise ValueError("Test images judge the classifier at the end and nothing before.")
    drawn = [record for record in records if record["origin"] == "synthetic"]
    sides = {
        "shots": [record for record in records if record.get("role") == "shots"],
        "val": [record for record in records if record.get("role") == "val"],
    }
    sides["reference"], notes = strange_to(sides["shots"], [r for r in records if r.get("role") in roles])
    sets = {name: image_set(store, members, class_names) for name, members in sides.items()}
    synthetic = image_set(store, drawn, class_names)
    found = quality(
        sets["reference"],
        synthetic,
        class_names,
        parser.get_parsed_content("bootstrap_samples"),
        parser.get_parsed_content("seed"),
    )
    agreement = class_agreement(sets["shots"], synthetic, sets["val"], class_names)
    agreement.pop("probabilities")
    found["notes"] = [*notes, *found["notes"]]
    content = {
        "encoder": {"name": parser.get_parsed_content("encoder"), "fingerprint": store.encoder},
        "method": METHOD,
        "reference_roles": list(roles),
        "bootstrap_samples": parser.get_parsed_content("bootstrap_samples"),
        **found,
        "agreement": agreement,
    }
    folder = Path(parser.get_parsed_content("assess_dir"))
    write_json(folder / "quality.json", content)
    write_rows(folder / "map.csv", feature_map(store, records))
    write_rows(folder / "neighbors.csv", nearest_shots(store, drawn, sides["shots"]))
    page = write_report(parser.get_parsed_content("output_dir"), parser.get_parsed_content("include_real_images"))
    logger.info(quality_sentence(content))
    logger.info("Report: %s", page)
    return content


def strange_to(shots: Sequence[Record], references: Sequence[Record]) -> tuple[list[Record], list[str]]:
    """The reference images of groups that no shot belongs to, and what there is to note.

    A patient whose tiles guided the generator makes it look nearer to real images than it is to those of others. A
    class that would be left with fewer than the four groups that a distance and its floor need keeps all, with a note.
    """
    used = {record["group"] for record in shots}
    kept: list[Record] = []
    notes = []
    for name in sorted({record["class_name"] for record in references}):
        own = [record for record in references if record["class_name"] == name]
        others = [record for record in own if record["group"] not in used]
        groups = len({record["group"] for record in others})
        if groups < FEWEST_FOR_FLOOR and len(others) < len(own):
            notes.append(
                f"{name}: {groups} real groups have no shot, and {FEWEST_FOR_FLOOR} are needed. So the "
                f"{len(own) - len(others)} other images of the shots' groups are compared with too, to which the "
                "generator may be nearer than to those of other patients. More groups or fewer shots mend it."
            )
            others = own
        kept += others
    return kept, notes


def feature_map(store: FeatureStore, records: Sequence[Record]) -> list[dict[str, Any]]:
    """Each record's place in the plane of the first two principal components of all features."""
    places = PCA(2, svd_solver="full").fit_transform(store.features(records))
    return [
        {"x": round(float(x), 4), "y": round(float(y), 4), "class_name": r["class_name"], "origin": r["origin"]}
        for r, (x, y) in zip(records, places)
    ]


def nearest_shots(store: FeatureStore, drawn: Sequence[Record], shots: Sequence[Record]) -> list[dict[str, Any]]:
    """The nearest shot of each synthetic image by the encoder's features."""
    distances, places = NearestNeighbors(n_neighbors=1).fit(store.features(shots)).kneighbors(store.features(drawn))
    return [
        {
            "synthetic": record["image"],
            "real": shots[place]["image"],
            "class_name": record["class_name"],
            "distance": round(float(distance), 5),
        }
        for record, place, distance in zip(drawn, places[:, 0], distances[:, 0])
    ]


def quality_sentence(content: dict[str, Any]) -> str:
    """The headline of an assessment in one line."""
    ratio = content["pooled"]["ratio"]
    if ratio is None:
        return "KID: not to be had for these images, see the notes in quality.json."
    return (
        f"KID over between-class KID, mean over the classes: {ratio:.2f} "
        "(0 is as good as other real images of the class, 1 as far off as the nearest wrong class)."
    )
