"""Requests: what shall be drawn, with a seed for each image, and what of it is there already."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..utils.io import sha256_of
from ..utils.seeds import derived_seed
from .prompts import with_attributes

logger = logging.getLogger(__name__)

JOURNAL = "journal.jsonl"


def plan_requests(
    class_names: Sequence[str],
    prompts: Mapping[str, str],
    images_per_class: int,
    seed: int,
    requested: Sequence[str] | None = None,
    attributes: Mapping[str, Sequence[str]] | None = None,
    shots: Sequence[Mapping[str, Any]] = (),
    image_format: str = "png",
) -> list[dict[str, Any]]:
    """One request for every image to be drawn.

    An image's seed depends on the run's seed, its class and its index, so a longer plan begins with a shorter one.

    Args:
        class_names: in the order of their labels.
        prompts: prompt of each class.
        images_per_class: number of images of each class.
        seed: of the run.
        requested: the classes to be drawn; None is all of them.
        attributes: phrases of which one of each kind is added to a prompt, see `with_attributes`.
        shots: records of real images that drawing begins on, each class on its own in turn; none begins with noise.
        image_format: "png", or "webp" (lossless).

    Returns:
        Records with class_name, label, index, prompt, seed and the image's path relative to the output folder; with
        shots also "shot", which of its class's it is, and "shot_view", which of its 8 flips and quarter turns.

    Raises:
        KeyError: for a class without a prompt.
        ValueError: for a class whose name cannot be the name of a folder, or one without a shot where others have some.
    """
    unfit = [name for name in class_names if name in ("", ".", "..") or set(name) & set("/\\\0")]
    if unfit:
        raise ValueError(
            f"The class names {unfit} cannot be names of folders. Rename them without '/', '\\', '.' or '..'."
        )
    wanted = class_names if requested is None else requested
    missing = [name for name in wanted if name not in prompts]
    if missing:
        raise KeyError(f"There is no prompt for {missing}. Prompts are known for {sorted(prompts)}.")

    num_shots = Counter(shot["class_name"] for shot in shots)
    without = [name for name in wanted if num_shots and not num_shots[name]]
    if without:
        raise ValueError(f"There are no shots of {without} to begin on. Set start_sigma to null to begin with noise.")

    def start(class_name: str, index: int) -> dict[str, int]:
        if not num_shots:
            return {}
        return {
            "shot": index % num_shots[class_name],
            "shot_view": derived_seed(seed, class_name, index, "view") % 8,
        }

    def request(label: int, class_name: str, index: int) -> dict[str, Any]:
        own = derived_seed(seed, class_name, index)
        return {
            "class_name": class_name,
            "label": label,
            "index": index,
            "prompt": with_attributes(prompts[class_name], attributes, own),
            "seed": own,
            "image": f"{class_name}/{class_name}_{index:06d}.{image_format}",
            **start(class_name, index),
        }

    return [
        request(label, class_name, index)
        for label, class_name in enumerate(class_names)
        if class_name in wanted
        for index in range(images_per_class)
    ]


def journal_of(output_dir: str | Path, process: int) -> Path:
    """The journal that a process writes; each has its own, so that no line is torn by another."""
    return Path(output_dir) / (JOURNAL if process == 0 else f"journal.{process}.jsonl")


def read_journal(output_dir: str | Path) -> dict[str, dict[str, Any]]:
    """The records of all images drawn so far by their relative path, whichever process drew them."""
    records: dict[str, dict[str, Any]] = {}
    for path in sorted(Path(output_dir).glob("journal*.jsonl")):
        records |= read_lines(path)
    return records


def read_lines(path: Path) -> dict[str, dict[str, Any]]:
    """The records of one journal by their image's relative path; a torn last line is passed over."""
    records: dict[str, dict[str, Any]] = {}
    if not path.exists():
        return records
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            logger.warning("%s has a torn line; its image is drawn again.", path)
            continue
        records[record["image"]] = record
    return records


def pending_requests(requests: Sequence[dict[str, Any]], output_dir: str | Path) -> list[dict[str, Any]]:
    """The requests whose image is not there yet, whole and as it was written.

    Args:
        requests: from `plan_requests`.
        output_dir: where `SampleSaver` writes.
    """
    done = read_journal(output_dir)

    def finished(request: dict[str, Any]) -> bool:
        record, path = done.get(request["image"]), Path(output_dir) / request["image"]
        return (
            record is not None
            and all(record[key] == request[key] for key in ("prompt", "seed", "class_name"))
            and path.exists()
            and sha256_of(path) == record["sha256"]
        )

    return [request for request in requests if not finished(request)]
