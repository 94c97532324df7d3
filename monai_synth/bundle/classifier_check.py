"""The classifier of a config is tried before anything long begins."""

from __future__ import annotations

import logging
import re
import warnings
from functools import lru_cache
from typing import Any

import torch
from monai.bundle import ConfigParser

from .session import plain_settings

logger = logging.getLogger(__name__)

OURS = "monai_synth.networks."  # networks of others are not tried: they may not know torch's meta device


def check_classifier(config: Any) -> None:
    """Builds the classifier of a config once without memory (torch's meta device), so that it fails now or never.

    Args:
        config: of train.json and its overlays.

    Raises:
        ValueError: for a name that cannot be a folder's, an unknown network, a size that it cannot take, or a
            checkpoint of another network.
        FileNotFoundError: when the checkpoint is missing.
    """
    name, network = config["classifier"], config.get("network_def", {})
    if not isinstance(name, str) or not re.fullmatch(r"\w[\w.+-]*", name):
        raise ValueError(
            f"classifier is {name!r}. It names the folder of the run: use letters, digits, dots, hyphens, underscores."
        )
    if not str(network.get("_target_", "")).startswith(OURS):
        return
    stand_ins = {"class_names": ["first", "second"], "num_classes": 2}
    parser = ConfigParser(
        {**plain_settings(config), **stand_ins, "network_def": network}, globals={"monai_synth": "monai_synth"}
    )
    own = logging.getLogger(OURS.rstrip("."))
    level = own.level
    own.setLevel(logging.ERROR)  # what they say is said when they are built
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*meta parameter.*")
            parser.get_parsed_content("network_def")
    finally:
        own.setLevel(level)
    if config.get("classifier_checkpoint") is None and "checkpoint" in network:
        tell_random(name)


@lru_cache(maxsize=64)
def tell_random(name: str) -> None:
    """Says once that a classifier starts from random weights."""
    logger.warning("Classifier %s starts from random weights. Name others with --classifier_checkpoint.", name)
