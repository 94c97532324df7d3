"""The stages of a bundle: which comes before which, whether one is complete, and running what is missing."""

from __future__ import annotations

import hashlib
import json
import logging
import platform
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from monai.bundle import ConfigWorkflow
from monai.utils import set_determinism

from ..networks.base_models import fingerprint, resolve_base_model
from ..utils.io import read_json, write_json
from ..utils.lock import hold_folder
from .errors import speak_plainly
from .session import check_keys, plain_settings, running_workflow

logger = logging.getLogger(__name__)

# Settings that decide where or how fast something is made, but not what. The data set and the base model are known by
# their content: the split's identity and the fingerprint of the weights.
NOT_IDENTITY = {
    *("bundle_root", "output_dir", "dataset_dir", "datalist_path", "adapter_dir", "synthetic_dir", "arm_dir"),
    *("evaluation_dir", "model_path", "base_model", "device", "num_workers", "baseline", "generation_batch_size"),
    "sample_every",
}
# A stage may grow: more images of the same kind are added to those that exist.
GROWS = {"generate": "images_per_class"}


def identity_of(settings: dict[str, Any], upstream: dict[str, str]) -> str:
    """The SHA-256 of what decides a stage's outputs, 64 hexadecimal digits."""
    return hashlib.sha256(json.dumps([settings, upstream], sort_keys=True).encode()).hexdigest()


def changed(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """One line for each setting that differs, the old value first."""
    missing = "(not set)"
    return [
        f"{key}: {before.get(key, missing)!r} -> {now.get(key, missing)!r}"
        for key in sorted(set(before) | set(now))
        if before.get(key, missing) != now.get(key, missing)
    ]


class Stage:
    """One stage of a run: its folder and the record `run.json` in it.

    Args:
        name: name of the stage, also of its config.
        folder: where the stage writes.
        settings: what decides its outputs.
        upstream: identities of the stages it reads, by name.
    """

    def __init__(self, name: str, folder: Path, settings: dict[str, Any], upstream: dict[str, str]) -> None:
        self.name, self.folder, self.upstream = name, folder, upstream
        self.grows = GROWS.get(name)
        self.size = settings.get(self.grows, 0) if self.grows else 0
        self.settings = {key: value for key, value in settings.items() if key not in NOT_IDENTITY and key != self.grows}
        self.settings = json.loads(json.dumps(self.settings))  # as they will be read back
        self.path = folder / "run.json"

    @property
    def identity(self) -> str:
        """SHA-256 of settings and upstream identities."""
        return identity_of(self.settings, self.upstream)

    def record(self) -> dict[str, Any] | None:
        """What the last run of the stage wrote, None before the first."""
        return read_json(self.path) if self.path.exists() else None

    def complete(self) -> bool:
        """Whether the outputs are there for exactly these settings."""
        record = self.record()
        return (
            record is not None
            and record["complete"]
            and record["identity"] == self.identity
            and record.get("size", 0) >= self.size
        )

    def open(self) -> None:
        """Notes that the stage has begun.

        Raises:
            ValueError: when the folder holds outputs of other settings; names what differs.
        """
        record = self.record()
        if record is not None and record["identity"] != self.identity:
            lines = changed(record["settings"], self.settings) + changed(record["upstream"], self.upstream)
            raise ValueError(
                f"{self.folder} was made with other settings, and nothing of it is overwritten. What differs:\n  "
                + "\n  ".join(lines)
                + "\nName another --output_dir, or remove that folder to make it anew."
            )
        if record is None or not record["complete"]:
            self._write(complete=False, began=time.time())

    def close(self) -> None:
        """Notes that the stage is complete."""
        record = self.record() or {}
        self._write(complete=True, began=record.get("began", time.time()))

    def _write(self, complete: bool, began: float) -> None:
        content = {
            "stage": self.name,
            "complete": complete,
            "identity": self.identity,
            "size": self.size,
            "settings": self.settings,
            "upstream": self.upstream,
            "began": began,
            "wall_time_s": round(time.time() - began, 1) if complete else None,
            "versions": {name: version(name) for name in ("torch", "monai", "diffusers", "peft", "timm")}
            | {"python": platform.python_version()},
        }
        write_json(self.path, content)


def current_stage(name: str, folder: str | Path) -> Stage:
    """The stage of the config that is running.

    Args:
        name: name of the stage.
        folder: where it writes.
    """
    return stage_of(required_workflow("finish"), name, Path(folder))


def required_workflow(caller: str) -> ConfigWorkflow:
    """The running workflow.

    Raises:
        RuntimeError: outside of one.
    """
    workflow = running_workflow()
    if workflow is None:
        raise RuntimeError(f"{caller}() belongs into a bundle config that is being run.")
    return workflow


def stage_of(workflow: ConfigWorkflow, name: str, folder: Path) -> Stage:
    """The stage of a workflow, its upstream identities read from the stages' records."""
    config = workflow.parser.config
    output_dir = Path(workflow.parser.get_parsed_content("output_dir"))
    settings = plain_settings(config)
    if "base_model" in settings and needs_base(name, settings):
        settings["base_fingerprint"] = fingerprint(resolve_base_model(settings["base_model"]))
    upstream = {}
    if name != "split":
        record = output_dir / "datalist.json"
        upstream["split"] = read_json(record)["identity"] if record.exists() else ""
    for parent in upstream_of(name, settings):
        record = output_dir / FOLDERS[parent] / "run.json"
        upstream[parent] = read_json(record)["identity"] if record.exists() else ""
    return Stage(name, folder, settings, upstream)


FOLDERS = {"train_diffusion": "adapter", "generate": "synthetic"}


def upstream_of(name: str, settings: dict[str, Any]) -> list[str]:
    """The stages that must be complete before one can begin."""
    if name == "generate":
        return ["train_diffusion"]
    if name == "train" and settings["mixing"] != "none":
        return ["generate"]
    return []


def needs_base(name: str, settings: dict[str, Any]) -> bool:
    """Whether a stage's outputs depend on the base model."""
    return name in FOLDERS or settings.get("mixing") != "none"


def begin(name: str, folder: str) -> None:
    """First call of every config: checks the keys, holds the output folder, brings earlier stages up to date.

    Args:
        name: the stage that the config is.
        folder: where it writes, under `output_dir`.

    Raises:
        ValueError: for an unknown key, data that cannot be used, or a folder made with other settings.
        RuntimeError: when another run holds the output folder.
    """
    workflow = required_workflow("begin")
    speak_plainly()
    check_keys(workflow)
    parser = workflow.parser
    hold_folder(parser.get_parsed_content("output_dir"))
    set_determinism(seed=int(parser.get_parsed_content("seed")))
    from .preparation import check_settings, prepare_data

    check_settings(workflow)
    prepare_data(workflow)
    for parent in upstream_of(name, plain_settings(parser.config)):
        bring_up_to_date(workflow, parent)
    stage_of(workflow, name, Path(folder)).open()


def finish(name: str, folder: str) -> None:
    """Last call of every config: notes that the stage is complete."""
    current_stage(name, folder).close()


def forwarded(config: Any, other: Any) -> dict[str, Any]:
    """The settings of one config that another of the same bundle has too: one name means one thing in all of them."""
    return {key: value for key, value in plain_settings(config).items() if key in other}


def nested_workflow(workflow: ConfigWorkflow, configs: list[str], **override: Any) -> ConfigWorkflow:
    """Another config of the same bundle, with this one's settings.

    Args:
        workflow: the one that is running.
        configs: names of the config files, later ones over earlier ones.
        override: settings that differ.
    """
    paths = [str(workflow.config_root_path / f"{name}.json") for name in configs]
    nested = ConfigWorkflow(config_file=paths, workflow_type="train")
    nested.parser.update({**shared_settings(workflow, nested), **override})
    return nested


def shared_settings(workflow: ConfigWorkflow, nested: ConfigWorkflow) -> dict[str, Any]:
    """What a nested workflow takes over, the folders resolved."""
    settings = forwarded(workflow.parser.config, nested.parser.config)
    for key in ("bundle_root", "output_dir"):
        settings[key] = workflow.parser.get_parsed_content(key)
    return settings


def bring_up_to_date(workflow: ConfigWorkflow, name: str) -> None:
    """Runs a stage with the settings of the running config unless its outputs are complete for them."""
    nested = nested_workflow(workflow, [name])
    nested.parser.parse(reset=True)
    folder = Path(nested.parser.get_parsed_content("output_dir")) / FOLDERS[name]
    for parent in upstream_of(name, plain_settings(nested.parser.config)):
        bring_up_to_date(workflow, parent)
    if stage_of(nested, name, folder).complete():
        logger.info("Stage %s is complete for these settings; its outputs in %s are used.", name, folder)
        return
    logger.info("Stage %s begins.", name)
    execute(nested)


def execute(workflow: ConfigWorkflow) -> None:
    """Initializes, runs and finalizes a workflow."""
    workflow.initialize()
    workflow.run()
    workflow.finalize()


def begin_inference(model_path: str) -> None:
    """First call of inference.json: checks the keys and that there is a model.

    Raises:
        FileNotFoundError: when the bundle has no model yet.
    """
    speak_plainly()
    workflow = running_workflow()
    if workflow is not None:
        check_keys(workflow)
    if not Path(model_path).is_file():
        raise FileNotFoundError(f"There is no model {model_path}. Run train.json first, or name one with --model_path.")


def run_pending(dataset_id: str, engine_id: str) -> None:
    """Runs an engine of the running config unless its data set is empty, which Ignite would refuse.

    Args:
        dataset_id: id of the data set in the config.
        engine_id: id of the engine.
    """
    workflow = required_workflow("run_pending")
    if len(workflow.parser.get_parsed_content(dataset_id)) == 0:
        logger.info("Nothing is left to do: all requested images are there.")
        return
    workflow.parser.get_parsed_content(engine_id).run()
