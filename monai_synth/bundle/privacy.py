"""The privacy audit of a run: the images and the adapter, each with a verdict of its own, and the bytes that travel."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.preprocessing import normalize

from ..data.audits import audited
from ..data.near_duplicates import find_near_duplicates
from ..data.records import Record, class_names_of, load_datalist, select, turned
from ..data.synthetic_image import FORMATS
from ..metrics.filters import COPY_SHARE, OTHERS, distances_to_nearest
from ..metrics.privacy import (
    LEAK,
    NO_LEAK,
    NOT_TESTABLE,
    membership,
    membership_verdict,
    why_not_testable,
)
from ..metrics.statistics import share_interval
from ..report.page import write_report
from ..utils.io import write_json
from .adapter_privacy import Channel, adapter_channel
from .filtering import encoded
from .stages import required_workflow

logger = logging.getLogger(__name__)
HOLDOUT_RATIO = 4  # holdout images for each shot of a class, at the most


def audited_records(datalist_path: str, synthetic_dir: str) -> list[Record]:
    """The images whose features an audit needs: shots and holdout in their 8 flips and turns, and the drawn ones."""
    shots, holdout = members_and_holdout(load_datalist(datalist_path))
    return [*turned([*shots, *holdout]), *load_datalist(Path(synthetic_dir) / "datalist.json")]


def members_and_holdout(records: Sequence[Record]) -> tuple[list[Record], list[Record]]:
    """The shots, and real images of the same classes and of other groups that nothing was fine-tuned on.

    Test images are none of them. At most four holdout images for each shot of a class are taken, one of each group
    before a second of any.

    Raises:
        ValueError: when a holdout image is one of the shots, byte for byte.
    """
    shots = select(records, "shots")
    used = {record["group"] for record in shots}
    known = {record["sha256"]: record["image"] for record in shots}
    rng, holdout = np.random.default_rng(0), []
    counts = Counter(record["class_name"] for record in shots)
    for name, count in sorted(counts.items()):
        pool = [r for r in records if r["role"] in ("train", "val") and r["class_name"] == name]
        pool = [pool[place] for place in rng.permutation(len(pool)) if pool[place]["group"] not in used]
        turns: Counter = Counter()
        order = []
        for record in pool:
            order.append(turns[record["group"]])
            turns[record["group"]] += 1
        holdout += [pool[place] for place in np.argsort(order, kind="stable")[: HOLDOUT_RATIO * count]]
    for record in holdout:
        if record["sha256"] in known:
            raise ValueError(
                f"The holdout overlaps the shots: {record['image']} is {known[record['sha256']]}. An audit would say "
                "nothing; check the datalist."
            )
    return shots, holdout


def audit() -> dict[str, Any]:
    """Audits the run of the config that is running and writes `privacy.json`.

    Raises:
        ValueError: when the holdout overlaps the shots.
    """
    workflow = required_workflow("audit")
    parser = workflow.parser
    records = load_datalist(parser.get_parsed_content("datalist_path"))
    class_names = class_names_of(parser.get_parsed_content("datalist_path"))
    shots, holdout = members_and_holdout(records)
    holdout, alike = without_likenesses(shots, holdout)
    drawn = load_datalist(Path(parser.get_parsed_content("synthetic_dir")) / "datalist.json")
    real = [*shots, *holdout]
    is_member = np.arange(len(real)) < len(shots)
    groups = [str(record["group"]) for record in real]
    reason = why_not_testable(is_member, groups)
    labels = np.array([class_names.index(record["class_name"]) for record in real])
    store = encoded(workflow, "privacy")
    views = store.features(turned(real))
    channels = {
        "images": images_channel(
            views, store.features(drawn), drawn, real, is_member, labels, groups, class_names, reason
        )
    }
    if parser.get_parsed_content("adapter_scope") != "none":
        channels["adapter"] = adapter_channel(parser, real, is_member, labels, groups, reason)
    channels["metadata"] = metadata_channel(Path(parser.get_parsed_content("output_dir")), records, drawn)
    content = {
        "channels": channels,
        "audited": audited(drawn, parser.get_parsed_content("adapter_dir")),
        "shots": len(shots),
        "holdout": len(holdout),
        "left_out": [{"holdout": a, "shot": b, "similarity": round(value, 3)} for a, b, value in alike],
        "encoder": {"name": parser.get_parsed_content("encoder"), "fingerprint": store.encoder},
    }
    folder = Path(parser.get_parsed_content("output_dir"))
    write_json(Path(parser.get_parsed_content("privacy_dir")) / "privacy.json", content)
    for name, channel in channels.items():
        logger.info("Privacy of the %s: %s. %s", name, channel["verdict"], channel["words"])
    if (folder / "report.html").is_file():
        write_report(folder)
    return content


def without_likenesses(
    shots: Sequence[Record], holdout: Sequence[Record]
) -> tuple[list[Record], list[tuple[str, str, float]]]:
    """The holdout without images that come from the original of a shot, and the pairs that were found."""
    found = find_near_duplicates([record["image"] for record in (*shots, *holdout)])
    used = set(found.groups[: len(shots)])
    pairs = [
        (Path(holdout[j - len(shots)]["image"]).name, Path(shots[i]["image"]).name, value)
        for i, j, value in found.pairs
        if i < len(shots) <= j
    ]
    kept = [record for record, group in zip(holdout, found.groups[len(shots) :]) if group not in used]
    return kept, pairs


def images_channel(
    views: np.ndarray,
    features: np.ndarray,
    drawn: Sequence[Record],
    real: Sequence[Record],
    is_member: np.ndarray,
    labels: np.ndarray,
    groups: Sequence[str],
    class_names: Sequence[str],
    reason: str,
) -> Channel:
    """Whether the synthetic images are nearer to the shots than to other real images.

    Args:
        views: features of the real images in 8 views each, shape (8 N, D).
        features: of the synthetic images, shape (M, D).
        drawn: the synthetic images.
        real: shots, then holdout.
        is_member: whether an image is a shot, shape (N,).
        labels: of the real images, shape (N,).
        groups: of the real images, length N.
        class_names: in the order of the labels.
        reason: why it cannot be tested, empty when it can.
    """
    own = np.array([class_names.index(record["class_name"]) for record in drawn])
    nearness = np.zeros(len(real))
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        rows = (members[:, None] * 8 + np.arange(8)).ravel()
        gaps = distances_to_nearest(views[rows], features[own == label]).reshape(-1, 8)
        nearness[members] = -gaps.min(axis=1)
    numbers: Channel = {}
    shot_views, other_views = views[np.repeat(is_member, 8)], views[np.repeat(~is_member, 8)][::8]
    if len(other_views):
        limit = float(np.quantile(distances_to_nearest(other_views, shot_views), COPY_SHARE, method="lower"))
        gaps = distances_to_nearest(normalize(features), shot_views)
        suspects = np.flatnonzero(gaps < limit)
        low, high = share_interval(len(suspects), len(drawn))
        numbers = {
            "suspects": [Path(drawn[place]["image"]).name for place in suspects[:50]],
            "num_suspects": len(suspects),
            "suspect_share": {"estimate": len(suspects) / len(drawn), "low": low, "high": high},
            "copy_distance": limit,
        }
    if reason:
        return {"verdict": NOT_TESTABLE, "words": reason, **numbers}
    found = membership(nearness, is_member, labels, groups)
    verdict, words = membership_verdict(found, "Nearness to the synthetic images")
    words += (
        f" {numbers['num_suspects']} of {len(drawn)} synthetic images are nearer to a shot than {OTHERS} are; the "
        "filter sorts them out."
    )
    return {"verdict": verdict, "words": words, "membership": found.as_dict(), **numbers}


def metadata_channel(output_dir: Path, records: Sequence[Record], drawn: Sequence[Record]) -> Channel:
    """Whether a file that is meant to travel names a real image, a group or the folder that they lie in."""
    images = {path for name in FORMATS for path in (output_dir / "synthetic").rglob(f"*.{name}")}
    travelling = [*sorted(images), output_dir / "synthetic" / "datalist.json"]
    travelling += sorted((output_dir / "adapter").rglob("*lora*.safetensors"))
    own = {Path(record["image"]).stem for record in drawn} | {str(record["class_name"]) for record in records}
    words = {Path(record["image"]).name for record in records} | {str(record["group"]) for record in records}
    words |= {str(Path(record["image"]).parent) for record in records}
    wanted = sorted(word for word in words if len(word) >= 6 and word not in own and Path(word).stem not in own)
    pattern = re.compile(
        b"(?<![A-Za-z0-9])(" + b"|".join(re.escape(word.encode()) for word in wanted) + b")(?![A-Za-z0-9])"
    )
    found = []
    for path in travelling if wanted else []:
        match = pattern.search(path.read_bytes()) if path.is_file() else None
        if match:
            found.append({"file": path.relative_to(output_dir).as_posix(), "says": match.group(1).decode()})
    if found:
        first = found[0]["file"]
        text = f"{len(found)} files that are meant to travel name real images, groups or folders; the first is {first}."
        return {"verdict": LEAK, "words": text, "found": found[:50]}
    text = f"{len(travelling)} files (synthetic images, their datalist, the adapter) name none of {len(wanted)} names."
    return {"verdict": NO_LEAK, "words": text}
