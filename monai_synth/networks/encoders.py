"""Image encoders of timm and open_clip by name, with their color normalization inside."""

from __future__ import annotations

import difflib
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import timm
import torch
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.model import CLIP, CustomTextCLIP, resize_pos_embed
from torch import Tensor, nn

from ..utils.io import read_json
from .checkpoints import EMBEDDED, NANO_CLIP, find_weights, fit_weights, initial_weights, published_colors, read_weights

logger = logging.getLogger(__name__)

open_clip.add_model_config(EMBEDDED[NANO_CLIP] / f"{NANO_CLIP}.json")
PREFIX = "open_clip:"  # before open_clip's names; all others are timm's


class ImageEncoder(nn.Module):
    """Features of images in [0, 1], from a network of timm or the image tower of one of open_clip.

    Args:
        name: a name of `timm.list_models()`, or "open_clip:" and one of `open_clip.list_models()`.
        checkpoint: initial weights, see `find_weights`; for open_clip those of the whole model. None is random,
            "auto" the embedded ones where there are any.
        image_size: pixels of the images; None takes the size that the network was published with.

    Raises:
        ValueError: for an unknown name, a checkpoint of another network, or a size that the network cannot take.
        FileNotFoundError: when the checkpoint is missing.
    """

    def __init__(self, name: str, checkpoint: str | None = None, image_size: int | None = None) -> None:
        super().__init__()
        self.name = name
        self.tower: Any
        checkpoint = initial_weights(name.removeprefix(PREFIX), checkpoint)
        if name.startswith(PREFIX):
            self.tower = build_clip(name.removeprefix(PREFIX), image_size).visual
            self.feature_size: int = clip_config(name.removeprefix(PREFIX))["embed_dim"]  # towers of timm do not say it
            mean, std = clip_colors(checkpoint)
        else:
            self.tower = build_timm(name, 0, image_size)
            self.feature_size = getattr(self.tower, "head_hidden_size", None) or self.tower.num_features
            mean, std = published_colors(checkpoint) or timm_colors(self.tower)
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))
        if checkpoint and name.startswith(PREFIX):
            load_clip(self, name.removeprefix(PREFIX), checkpoint)
        elif checkpoint:
            load_timm(self.tower, name, checkpoint)

    def forward(self, x: Tensor) -> Tensor:
        """Features of shape (B, D) for images of shape (B, 3, H, W) in [0, 1]."""
        return self.tower((x - self.mean) / self.std)


def build_timm(name: str, num_classes: int, image_size: int | None, dropout: float = 0.0) -> nn.Module:
    """A network of timm with random weights.

    Args:
        name: a name of `timm.list_models()`.
        num_classes: of its head; 0 leaves the head out.
        image_size: pixels; None is the size that it was published with.
        dropout: rate before the head.

    Raises:
        ValueError: for an unknown name, naming the nearest, or a size that the network cannot take.
    """
    if not timm.is_model(name):
        near = difflib.get_close_matches(str(name), timm.list_models(), n=3, cutoff=0.4)
        raise ValueError(
            f"timm has no model {name!r}. "
            + (f"Near names are {', '.join(near)}. " if near else "")
            + "timm.list_models() lists them all."
        )
    config: Any = timm.get_pretrained_cfg(name)
    published = config.input_size[-1]

    def build(size: int | None) -> nn.Module:
        fixed = config.fixed_input_size and size not in (None, published)
        options = {"img_size": size} if fixed else {}
        return timm.create_model(name, pretrained=False, num_classes=num_classes, drop_rate=dropout, **options)

    check_image_size(build, image_size, name, published)
    # Convolutions are faster with channels last, on a CPU and in half precision on a GPU, and nothing else changes.
    return build(image_size).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def timm_colors(model: Any) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of the colors that a network of timm expects."""
    config = model.pretrained_cfg
    return tuple(config.get("mean", (0.5,) * 3)), tuple(config.get("std", (0.5,) * 3))


def load_timm(model: Any, name: str, checkpoint: str) -> None:
    """Loads initial weights into a network of timm; a head of another number of classes stays new.

    Position embeddings of another image size are resampled by timm.
    """
    path = find_weights(checkpoint)
    weights = read_weights(path)
    adapt = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    try:
        adapted = adapt(dict(weights), model) if adapt else weights
    except Exception as error:
        raise ValueError(f"{path} does not fit {name}: timm says {type(error).__name__}: {error}.") from error
    head = model.pretrained_cfg.get("classifier", "fc")
    fit_weights(model, adapted, path, name, (head,) if isinstance(head, str) else tuple(head))


def build_clip(name: str, image_size: int | None = None) -> CLIP | CustomTextCLIP:
    """A whole model of open_clip with random weights.

    Args:
        name: a name of `open_clip.list_models()`.
        image_size: pixels; None is the size that it was published with.

    Raises:
        ValueError: for an unknown name, naming the nearest, or a size that the network cannot take.
    """
    config = clip_config(name)
    published = config["vision_cfg"]["image_size"]

    def build(size: int | None) -> CLIP | CustomTextCLIP:
        config = clip_config(name)
        config["vision_cfg"].update(image_size=size or published)
        custom = config.pop("custom_text", False)
        return (CustomTextCLIP if custom else CLIP)(**config)

    check_image_size(lambda size: build(size).visual, image_size, PREFIX + name, published)
    return build(image_size)


def clip_config(name: str) -> dict[str, Any]:
    """How open_clip builds a model.

    Raises:
        ValueError: for an unknown name; the nearest are named.
    """
    config = open_clip.get_model_config(name) if name in open_clip.list_models() else None
    if config is None:
        near = difflib.get_close_matches(name, open_clip.list_models(), n=3, cutoff=0.4)
        raise ValueError(
            f"open_clip has no model {name!r}. "
            + (f"Near names are {', '.join(near)}. " if near else "")
            + "open_clip.list_models() lists them all."
        )
    return config


def clip_colors(checkpoint: str | None) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of the colors that a checkpoint of open_clip expects, CLIP's own where none tells."""
    return published_colors(checkpoint) or (OPENAI_DATASET_MEAN, OPENAI_DATASET_STD)


def clip_weights(model: Any, name: str, checkpoint: str) -> tuple[dict[str, Tensor], Path]:
    """The weights of a whole model of open_clip, its position embeddings resampled to the model's image size.

    Args:
        model: of open_clip, or what has its image tower as `visual`.
        name: of open_clip.
        checkpoint: see `find_weights`.

    Raises:
        ValueError: for a file in another format than open_clip's, or weights that need another activation.
    """
    path = find_weights(checkpoint)
    weights = read_weights(path)
    if not any(key.startswith("visual.") for key in weights):
        hint = " It looks like a file of transformers; open_clip's own is needed." if _of_transformers(weights) else ""
        raise ValueError(f"{path} does not fit {PREFIX}{name}: it holds no open_clip model (visual.*).{hint}")
    note = path.parent / "open_clip_config.json"
    if note.is_file():
        quick = bool(read_json(note).get("model_cfg", {}).get("quick_gelu", False))
        if quick != bool(clip_config(name).get("quick_gelu", False)):
            other = f"{name}-quickgelu" if quick else name.removesuffix("-quickgelu")
            raise ValueError(f"{note} says quick_gelu {quick}, which {PREFIX}{name} is not. Take {PREFIX}{other}.")
    resize_pos_embed(weights, model)
    return weights, path


def _of_transformers(weights: dict[str, Tensor]) -> bool:
    return any(key.startswith("vision_model.") for key in weights)


def load_clip(encoder: ImageEncoder, name: str, checkpoint: str) -> None:
    """Loads the image tower of an open_clip checkpoint into an encoder."""
    model = nn.Module()
    model.visual = encoder.tower
    weights, path = clip_weights(model, name, checkpoint)
    tower = {key.removeprefix("visual."): value for key, value in weights.items() if key.startswith("visual.")}
    fit_weights(encoder.tower, tower, path, PREFIX + name)


_fitting: set[tuple[str, int]] = set()  # sizes that were found to fit; a study asks for the same ones many times


def check_image_size(
    build: Callable[[int | None], nn.Module], size: int | None, name: str, published: int | tuple[int, int]
) -> None:
    """Tries a network on one image of a size, without memory or arithmetic (torch's meta device).

    Args:
        build: builds the network for a size.
        size: in pixels; None is not tried.
        name: of the network, for the message.
        published: the size that it was published with.

    Raises:
        ValueError: when the network cannot take the size; names those near it that it can take.
    """
    if size is None or (name, size) in _fitting:
        return
    if _takes(build, size):
        _fitting.add((name, size))
        return
    candidates = sorted(range(32, max(512, 2 * size) + 1, 16), key=lambda other: abs(other - size))
    near: list[int] = []
    for other in candidates:
        if len(near) < 4 and _takes(build, other):
            near.append(other)
    raise ValueError(
        f"{name} cannot take images of {size} pixels (classifier_size). The nearest sizes that it takes are "
        f"{', '.join(map(str, sorted(near)))}; it was published with {published}."
    )


def _takes(build: Callable[[int | None], nn.Module], size: int) -> bool:
    try:
        with torch.device("meta"), torch.no_grad():
            network: Any = build(size).eval()
            trunk = getattr(network, "trunk", network)  # of timm, in an open_clip tower
            patch: Any = getattr(trunk, "patch_size", None) or getattr(
                getattr(trunk, "patch_embed", None), "patch_size", 1
            )
            network(torch.empty(2, 3, size, size))
    except (AssertionError, RuntimeError, ValueError, TypeError, IndexError):
        return False
    # A patch embedding passes over what is left of the last patch: such pixels would be lost without a word.
    return size % (patch if isinstance(patch, int) else patch[0]) == 0
