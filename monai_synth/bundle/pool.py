"""The images that a generation has drawn, and whether one adapter drew them all."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from pathlib import Path

from monai.bundle import ConfigWorkflow

from ..data.requests import journal_lines, journals_of
from ..networks.adapter_files import adapter_path, adapter_sha256
from ..utils.io import sha256_of

logger = logging.getLogger(__name__)


def check_drawn(workflow: ConfigWorkflow, folder: Path) -> None:
    """Refuses a folder of images of which some are another adapter's than that of the run.

    A fine-tuning that is repeated by another number of processes or on another machine has the same settings and ends
    with another adapter.

    Args:
        workflow: that draws, or has drawn, the images.
        folder: where they lie.

    Raises:
        ValueError: names an image and both adapters.
    """
    get = workflow.parser.get_parsed_content

    def adapter_for(class_name: str) -> Path | None:
        if get("adapter_scope") == "class":
            return Path(get("adapter_dir")) / class_name
        return None if get("adapter") is None else Path(get("adapter"))

    compare_drawn(folder, adapter_for)


def compare_drawn(folder: Path, adapter_for: Callable[[str], Path | None]) -> None:
    """Compares what is noted of every image in a folder with the adapter that is there for its class.

    Args:
        folder: where the images and their journals lie.
        adapter_for: gives the folder of a class's adapter, None for the base alone.

    Raises:
        ValueError: names an image and both adapters.
    """
    sha256_for = cache(lambda class_name: adapter_sha256(adapter_for(class_name)))
    unknown = 0
    for journal in journals_of(folder):
        for _, record in journal_lines(journal):
            if "adapter" not in record:
                unknown += 1
                continue
            noted, now = record["adapter"], sha256_for(record["class_name"])
            image = folder / record["image"]
            if noted == now or not image.exists() or sha256_of(image) != record["sha256"]:  # lost, or drawn again
                continue
            adapter = adapter_for(record["class_name"])
            raise ValueError(
                f"{image} was drawn with an adapter of the SHA-256 {noted}, but "
                f"{adapter_path(adapter) if adapter else 'the base alone'} has {now}: the adapter was trained anew or "
                f"replaced after that. Put the old one back, or name another --output_dir, or remove {folder} and what "
                "was made of its images (filter_*, classifier, assess, privacy) and run the same command to make it "
                "anew."
            )
    if unknown:
        logger.warning(
            "Of %d images in %s, drawn by an earlier version, it is not noted which adapter drew them; that it was the "
            "one that is there now is taken on trust.",
            unknown,
            folder,
        )
