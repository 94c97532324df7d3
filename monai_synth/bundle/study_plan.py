"""What a study runs: its cells, what an arm's overlays set, and what several runs share."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from .session import RESERVED, digest, is_plain

WITHOUT_SYNTHETIC = ("none",)  # policies that need no generator


@dataclass(frozen=True)
class Cell:
    """One run of a study.

    Args:
        arm: its name.
        settings: of `train.json`: those of the grid's point, over them the overlays', over them the arm's own.
        overlays: paths of YAML files that are laid over `train.json`.
        components: what else the overlays and the arm set, such as `network_def` or `prompts::colon_n`.
        own: those that the arm itself or the grid sets, which are laid over the overlays.
    """

    arm: str
    settings: dict[str, Any]
    overlays: tuple[str, ...] = ()
    components: dict[str, Any] = field(default_factory=dict)
    own: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name of its folder: the arm's, and a digest of what else it is."""
        slug = re.sub(r"[^A-Za-z0-9]+", "_", self.arm).strip("_")
        return f"{slug}_{digest([self.settings, self.overlays, *([self.own] if self.own else [])])[:8]}"


def plan(grid: Mapping[str, Sequence[Any]], arms: Mapping[str, Mapping[str, Any]], root: Path) -> list[Cell]:
    """The runs of a study: each arm at each point of the grid, every run once.

    An arm without synthetic images is the same for every number of them, and an arm with none of them is left to such
    an arm.

    Args:
        grid: values of each setting, the first setting varies slowest.
        arms: settings of each arm by its name; "overlay" names YAML files (one, or a list) laid over `train.json`.
            They win over the grid, later ones over earlier ones, and the arm's own settings win over them.
        root: where an overlay is looked for that is not in the working directory.

    Raises:
        ValueError: when there is nothing to run, a value is not a list, or an overlay is missing.
    """
    for key, values in grid.items():
        if not isinstance(values, (list, tuple)) or not values:
            raise ValueError(f"The grid's {key!r} is {values!r}. It must be a list of values, such as [5, 10].")
    overlays_of = {name: _as_tuple(arm.get("overlay", ())) for name, arm in arms.items()}
    laid = {name: _overlaid_keys(overlays, root) for name, overlays in overlays_of.items()}
    cells: dict[str, Cell] = {}
    for values in itertools.product(*grid.values()):
        for name, arm in arms.items():
            overlays = overlays_of[name]
            merged = {**dict(zip(grid, values)), **laid[name], **arm}
            merged.pop("overlay", None)
            settings = {key: value for key, value in merged.items() if is_plain(value) and top_key(key) == key}
            components = {key: value for key, value in merged.items() if key not in settings}
            own = {key: value for key, value in components.items() if key in arm or key not in laid[name]}
            if settings.get("mixing") in WITHOUT_SYNTHETIC:
                settings.pop("synthetic_per_class", None)
            elif settings.get("synthetic_per_class") == 0:
                continue
            cell = Cell(name, settings, overlays, components, own)
            cells.setdefault(digest([name, settings, overlays, own]), cell)
    if not cells:
        raise ValueError(f"The study has nothing to run: grid {dict(grid)}, arms {dict(arms)}.")
    return list(cells.values())


def _as_tuple(overlay: str | Sequence[str]) -> tuple[str, ...]:
    return (overlay,) if isinstance(overlay, str) else tuple(overlay)


def _overlaid_keys(overlays: Sequence[str], root: Path) -> dict[str, Any]:
    """What overlays put in the place of top-level keys, and of parts of them, such as `prompts::colon_n`."""
    contents = [ConfigParser.load_config_file(overlay_path(path, root)) for path in overlays]
    merged = {key: value for content in contents for key, value in content.items()}
    return {key: value for key, value in merged.items() if top_key(key) not in RESERVED}


def top_key(key: str) -> str:
    """The top-level key that a key of an overlay is or is a part of."""
    return re.split("::|#", key.lstrip("+"))[0]


def overlay_path(path: str, root: Path) -> Path:
    """Where an overlay lies, in the working directory or else under a root.

    Raises:
        ValueError: when it is in neither.
    """
    places = (Path(path), root / path)
    for place in places:
        if place.is_file():
            return place
    raise ValueError(f"There is no overlay {path}; looked for {' and '.join(str(p.resolve()) for p in places)}.")


def pool_name(settings: Mapping[str, Any], generator_keys: set[str]) -> str:
    """Name of the folder whose split, adapter and images a run uses; runs that can share them get the same.

    Args:
        settings: of the run.
        generator_keys: the settings that decide split, adapter and images.
    """
    deciding = {key: value for key, value in sorted(settings.items()) if top_key(key) in generator_keys}
    words = [f"{key}{deciding.pop(key)}" for key in ("fold", "shots", "seed") if key in deciding]
    return "_".join([*words, *([digest(deciding)[:8]] if deciding else [])]) or "all"
