"""A config that runs another of its bundle: what it hands on."""

from __future__ import annotations

from typing import Any

from monai.bundle import ConfigParser, ConfigWorkflow

from .session import overlaid, plain_settings

CONFIGS = ("train_diffusion", "generate", "filter", "assess", "privacy", "train")  # stages whose config has their name


def forwarded(config: Any, other: Any) -> dict[str, Any]:
    """The settings of one config that another of the same bundle has too: one name means one thing in all of them."""
    return {key: value for key, value in plain_settings(config).items() if key in other}


def nested_workflow(workflow: ConfigWorkflow, configs: list[str], **override: Any) -> ConfigWorkflow:
    """Another config of the same bundle, with this one's settings and overlays.

    Args:
        workflow: the one that is running.
        configs: names of the bundle's config files, or paths of overlays, later ones over earlier ones.
        override: settings that differ.
    """
    folder = workflow.config_root_path
    paths = [name if name.endswith((".json", ".yaml", ".yml")) else str(folder / f"{name}.json") for name in configs]
    nested = ConfigWorkflow(config_file=paths[:1], workflow_type="train")
    nested.parser.update(shared_components(workflow, nested, configs[0]))
    for path in paths[1:]:
        nested.parser.update(ConfigParser.load_config_file(path))
    settings = shared_settings(workflow, nested)
    for key in other_folders(workflow.parser.config, override):
        settings.pop(key, None)
    nested.parser.update({**settings, **override})
    return nested


def shared_components(workflow: ConfigWorkflow, nested: ConfigWorkflow, name: str) -> dict[str, Any]:
    """Components that an overlay replaced in the running config and that a nested one takes over.

    A component of the running config itself goes to the same config alone: `network_def` is the classifier in one and
    the generator in another. A component that the running config lacks goes wherever it is known.
    """
    own = vars(workflow).get("stage", "")
    own = own if own in CONFIGS else {"evaluate": "train"}.get(own, "study")
    path = workflow.config_root_path / f"{own}.json"
    if not path.is_file():
        return {}
    mine = ConfigParser.load_config_file(path)
    theirs: Any = nested.parser.config
    return {
        key: value
        for key, value in overlaid(workflow.parser.config, mine).items()
        if key in theirs and (own == name or key not in mine)
    }


def shared_settings(workflow: ConfigWorkflow, nested: ConfigWorkflow) -> dict[str, Any]:
    """What a nested workflow takes over, the folders resolved."""
    settings = forwarded(workflow.parser.config, nested.parser.config)
    for key in ("bundle_root", "output_dir"):
        settings[key] = workflow.parser.get_parsed_content(key)
    return settings


def other_folders(config: Any, override: dict[str, Any]) -> list[str]:
    """The folders that a config names for its own classifier and evaluation, and that another one may not have.

    Args:
        config: that is running.
        override: settings that differ in the nested one.
    """
    if override.get("mixing", config.get("mixing")) != config.get("mixing"):
        return ["arm_dir", "evaluation_dir"]
    own_role = config.get("test_role", "test")
    return ["evaluation_dir"] if override.get("test_role", own_role) != own_role else []
