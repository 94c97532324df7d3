"""What a running config knows of itself: where its bundle lies and which keys it may be given."""

from __future__ import annotations

import difflib
import hashlib
import itertools
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser, ConfigWorkflow

RESERVED = {"_desc_", "imports", "initialize", "run", "finalize", "_meta_"}


def running_workflow() -> ConfigWorkflow | None:
    """The workflow whose config is being evaluated, or None outside of one.

    An expression in a config cannot name the config it stands in, and `bundle_root: "."` would depend on the working
    directory; so the caller's frames are searched for the workflow.
    """
    frame = sys._getframe(1)
    while frame is not None:
        owner = frame.f_locals.get("self")
        if isinstance(owner, ConfigWorkflow) and "config_root_path" in vars(owner):
            return owner
        frame = frame.f_back  # type: ignore[assignment]
    return None


def bundle_root() -> str:
    """The folder of the bundle whose config is running; "." outside of a workflow, as MONAI's own bundles say."""
    workflow = running_workflow()
    if workflow is None:
        return "."
    return str(workflow.config_root_path.resolve().parent)


def is_plain(value: Any) -> bool:
    """Whether a config value is a setting: a number, a text, or lists and dictionaries of them."""
    if isinstance(value, str):
        return not value.startswith(("$", "@", "%"))
    if isinstance(value, dict):
        return "_target_" not in value and all(is_plain(item) for item in value.values())
    if isinstance(value, (list, tuple)):
        return all(is_plain(item) for item in value)
    return value is None or isinstance(value, (bool, int, float))


def plain_settings(config: Any) -> dict[str, Any]:
    """The settings among a config's top-level keys, in the config's order."""
    return {key: value for key, value in config.items() if key not in RESERVED and is_plain(value)}


def is_writable(value: Any) -> bool:
    """Whether a config file can hold a value, as a setting, an expression or a component."""
    if isinstance(value, dict):
        return all(is_writable(item) for item in value.values())
    if isinstance(value, (list, tuple)):
        return all(is_writable(item) for item in value)
    return value is None or isinstance(value, (str, bool, int, float))


def check_kept(workflow: ConfigWorkflow) -> None:
    """Refuses values of settings that no config file can hold, which would reach no other stage.

    Raises:
        TypeError: names the key and its value, and how a text is quoted.
    """
    config: Any = workflow.parser.config
    of_bundle = map(ConfigParser.load_config_file, config_files(workflow.config_root_path))
    settings = set().union(*(plain_settings(own) for own in of_bundle))
    for key in sorted(settings & set(config)):
        if not is_writable(config[key]):
            raise TypeError(
                f"{key} is {config[key]!r}. It can be text, a number, True, False, None, or lists and dictionaries of "
                "them. A text with a comma or braces is quoted twice on the command line, which else reads it as "
                f"Python: --{key} \"'histology, {{phrase}}'\"; in Python a path is given as text."
            )


def overlaid(config: Any, own: Mapping[str, Any]) -> dict[str, Any]:
    """The components of a config that an overlay or an override put in the place of its file's.

    Args:
        config: the running config.
        own: content of the bundle's file that it began as.
    """
    return {
        key: value
        for key, value in config.items()
        if key not in RESERVED and not is_plain(value) and value != own.get(key) and not isinstance(value, Path)
    }


def changed_parts(value: Any, own: Any) -> Any:
    """What of a component differs from that of the bundle's file: of dictionaries the keys that do, to any depth."""
    if not (isinstance(value, dict) and isinstance(own, dict)):
        return value
    parts = {key: changed_parts(item, own.get(key)) for key, item in value.items() if item != own.get(key)}
    return parts | {key: None for key in own if key not in value}


def digest(value: Any) -> str:
    """The SHA-256 of a config value, 64 hexadecimal digits."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def config_files(config_dir: Path) -> list[Path]:
    """The configs of a bundle."""
    return [path for path in sorted(config_dir.glob("*.json")) if path.name != "metadata.json"]


def known_keys(config_dir: Path) -> set[str]:
    """The top-level keys of all configs of a bundle; `a::b` counts as `a`."""
    keys = set(RESERVED)
    for path in config_files(config_dir):
        keys |= {key.lstrip("+").split("::")[0].split("#")[0] for key in ConfigParser.load_config_file(path)}
    return keys


def check_keys(workflow: ConfigWorkflow) -> None:
    """Refuses keys that no config of the bundle has, since MONAI would add a misspelt override without a word.

    Raises:
        ValueError: names every unknown key and the known one that is nearest.
    """
    known = known_keys(workflow.config_root_path)
    config: Any = workflow.parser.config
    unknown = [key for key in config if key not in known]
    if not unknown:
        return
    raise ValueError(
        f"No config in {workflow.config_root_path} has the key {with_nearest(unknown, known)}. "
        f"What may be set stands at the top of each config there."
    )


def check_own_keys(workflow: ConfigWorkflow, name: str) -> None:
    """Refuses keys that a config itself does not have, where it runs no other one that could have them.

    Args:
        workflow: the one that is running.
        name: of the config.

    Raises:
        ValueError: names every such key, the nearest one and all settings that the config has.
    """
    path = workflow.config_root_path / f"{name}.json"
    config: Any = workflow.parser.config
    own = ConfigParser.load_config_file(path)
    other = [key for key in config if key not in {*own, *RESERVED}]
    if not other:
        return
    top = itertools.takewhile(lambda key: not isinstance(own[key], dict), own)  # settings stand above components
    raise ValueError(
        f"{path} does not have the key {with_nearest(other, set(own))}. What may be set is "
        f"{', '.join(key for key in top if key not in RESERVED)}."
    )


def with_nearest(unknown: Iterable[str], known: set[str]) -> str:
    """Unknown keys for a message, each with the known one that is nearest where one is near."""
    words = []
    for key in unknown:
        near = difflib.get_close_matches(key, known - RESERVED, n=1, cutoff=0.5)
        words.append(f"{key!r}" + (f" (did you mean {near[0]!r}?)" if near else ""))
    return ", ".join(words)
