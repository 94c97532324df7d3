"""The classifier of a config is tried before anything long begins."""

from __future__ import annotations

import json
import logging
import re
import warnings
from functools import lru_cache
from typing import Any

import torch
from monai.bundle import ConfigParser

from ..networks.checkpoints import initial_weights
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
    asked = json.dumps(network, default=str)
    settings = {key: value for key, value in plain_settings(config).items() if f"@{key}" in asked}
    try_classifier(json.dumps({**settings, **stand_ins, "network_def": network}, sort_keys=True, default=str))
    if "checkpoint" in network:
        beginning = network.get("name", name)
        own_name = name if str(beginning).startswith("@") else str(beginning).removeprefix("open_clip:")
        weights = initial_weights(own_name, config.get("classifier_checkpoint"))
        tell_beginning(name, weights, weights != config.get("classifier_checkpoint"))


@lru_cache(maxsize=256)
def try_classifier(content: str) -> None:
    """Builds the `network_def` of a config's JSON, once in this process for the same one."""
    parser = ConfigParser(json.loads(content), globals={"monai_synth": "monai_synth"})
    own = logging.getLogger(OURS.rstrip("."))
    level = own.level
    own.setLevel(logging.ERROR)  # what they say is said when they are built
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*meta parameter.*")
            parser.get_parsed_content("network_def")
    finally:
        own.setLevel(level)


@lru_cache(maxsize=64)
def tell_beginning(name: str, weights: str | None, unasked: bool) -> None:
    """Says once what a classifier starts from where nobody has asked for it."""
    if weights is None:
        logger.warning("Classifier %s starts from random weights. Name others with --classifier_checkpoint.", name)
    elif unasked:
        logger.info(
            "Classifier %s starts from the embedded weights %s, trained on drawn phantoms; --classifier_checkpoint "
            "random starts from random ones.",
            name,
            weights,
        )
