"""The classifier that a bundle has published, for inference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from .classifiers import EncoderClassifier, ImageClassifier
from .clip import PromptClassifier
from .neighbors import NeighborClassifier

FAMILIES: dict[str, Any] = {
    "timm": ImageClassifier,
    "linear": EncoderClassifier,
    "prompts": PromptClassifier,
    "neighbors": NeighborClassifier,
}


def published_classifier(
    architecture: str | Mapping[str, Any], num_classes: int, image_size: int | None = None
) -> nn.Module:
    """A network as training described it beside the model, its weights still to be loaded.

    Args:
        architecture: "family" and the arguments of its class, as `describe` gives them; or a timm name.
        num_classes: number of classes, K.
        image_size: pixels of the images.

    Raises:
        ValueError: for a family that this version does not know.
    """
    if isinstance(architecture, str):
        return ImageClassifier(architecture, num_classes, image_size=image_size)
    options = dict(architecture)
    family = options.pop("family", None)
    if family not in FAMILIES:
        raise ValueError(f"The model is of family {family!r}; this version knows {', '.join(FAMILIES)}.")
    return FAMILIES[family](num_classes=num_classes, image_size=image_size, **options)
