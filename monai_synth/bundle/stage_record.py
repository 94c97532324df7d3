"""What is noted of a stage beside its outputs, and whether they are what a config asks for."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Collection
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..utils.io import read_json, sha256_of, write_json
from .machine import machine, peak_memory
from .stage_time import begun, ended, is_under_way

# Settings that decide where or how fast something is made, but not what. The data set and the base model are known by
# their content: the split's identity and the fingerprint of the weights. num_workers decides which random numbers
# augment a classifier's images; `TrainingState` refuses another one on the way.
NOT_IDENTITY = {
    *("bundle_root", "output_dir", "dataset_dir", "datalist_path", "adapter_dir", "synthetic_dir", "arm_dir"),
    *(
        "evaluation_dir",
        "assess_dir",
        "filter_dir",
        "privacy_dir",
        "feature_dir",
        "synthetic_datalist",
        "model_path",
        "base_model",
    ),
    *("device", "num_threads", "num_workers", "baseline", "encoder", "few_step_adapter"),
    *("generation_batch_size", "encoder_batch_size", "sample_every", "variant", "gradient_checkpointing", "cuda_graph"),
}
# A stage may grow: more images of the same kind are added to those that exist.
GROWS = {"generate": "images_per_class", "filter": "images_per_class"}
TRAINS = "train_diffusion", "train"  # stages that end with weights
STATE = "state_"  # how the files of a training's states begin, which may change


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
        config: what is running, noted for the reader.
        left_out: names of settings that decide nothing here, though records of earlier versions hold them.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        settings: dict[str, Any],
        upstream: dict[str, str],
        config: Any = None,
        left_out: Collection[str] = (),
    ) -> None:
        self.name, self.folder, self.upstream, self.config = name, folder, upstream, config
        self.grows = GROWS.get(name)
        self.size = settings.get(self.grows, 0) if self.grows else 0
        self.not_identity = {*NOT_IDENTITY, *left_out, self.grows}
        self.settings = json.loads(json.dumps(self.deciding(settings)))  # as they will be read back
        self.path = folder / "run.json"

    @property
    def identity(self) -> str:
        """SHA-256 of settings and upstream identities."""
        return identity_of(self.settings, self.upstream)

    def deciding(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Those of some settings that decide the stage's outputs."""
        return {key: value for key, value in settings.items() if key not in self.not_identity}

    def is_of(self, record: dict[str, Any]) -> bool:
        """Whether a record is of exactly these settings and upstream identities."""
        return identity_of(self.deciding(record["settings"]), record["upstream"]) == self.identity

    def record(self) -> dict[str, Any] | None:
        """What the last run of the stage wrote, None before the first."""
        return read_json(self.path) if self.path.exists() else None

    def complete(self) -> bool:
        """Whether the outputs are there for exactly these settings.

        Raises:
            ValueError: when weights among them are not the ones that were written; names the file.
        """
        record = self.record()
        if record is None or not record["complete"] or not self.is_of(record) or record.get("size", 0) < self.size:
            return False
        for name, sha256 in record.get("weights", {}).items():
            path = self.folder / name
            if not path.is_file() or sha256_of(path) != sha256:
                what = "has other bytes than were written" if path.is_file() else "is gone"
                raise ValueError(
                    f"{path} {what}: {self.path.name} beside it notes the SHA-256 {sha256}. It was damaged, changed or "
                    f"removed. Put it back, or remove {self.folder} and run the same command to make it anew."
                )
        return True

    def weights(self) -> dict[str, str]:
        """The SHA-256 of every file of weights that the stage ends with, by its path in the folder."""
        kinds = (".safetensors", ".pt") if self.name in TRAINS else ()
        found = sorted(path for kind in kinds for path in self.folder.rglob(f"*{kind}") if path.is_file())
        return {
            path.relative_to(self.folder).as_posix(): sha256_of(path)
            for path in found
            if not path.name.startswith(STATE)
        }

    def open(self) -> None:
        """Notes that the stage has begun, or goes on; the record of one with nothing left to do stays as it is.

        Raises:
            ValueError: when the folder holds outputs of other settings; names what differs.
        """
        record = self.record()
        if record is not None and not self.is_of(record):
            lines = changed(self.deciding(record["settings"]), self.settings)
            self._refuse(lines + changed(record["upstream"], self.upstream))
        if record is None or not record["complete"]:
            self._write(complete=False, times=begun(record, self.folder))
        elif is_under_way(record) or record.get("size", 0) < self.size:  # it grows, and what is there stays complete
            write_json(self.path, record | begun(record, self.folder))

    def compare(self) -> None:
        """Compares settings with those of the outputs that are there, which can be done before earlier stages run.

        Raises:
            ValueError: when the folder holds outputs of other settings; names what differs.
        """
        record = self.record()
        if record is not None and (lines := changed(self.deciding(record["settings"]), self.settings)):
            self._refuse(lines)

    def _refuse(self, lines: list[str]) -> None:
        raise ValueError(
            f"{self.folder} was made with other settings, and nothing of it is overwritten. What differs:\n  "
            + "\n  ".join(lines)
            + "\nName another --output_dir, or remove that folder to make it anew."
        )

    def start(self) -> None:
        """Notes that a stage has begun that may be run again with other settings, as a study or an assessment may."""
        record = self.record()
        same = record is not None and self.is_of(record)
        self._write(complete=False, times=begun(record if same else None, self.folder))

    def close(self) -> None:
        """Notes that the stage is complete; where nothing was left to do, its record stays as it is."""
        record = self.record()
        if record is not None and not is_under_way(record):
            same = self.is_of(record) and record.get("size", 0) == self.size
            if same and record.get("weights", {}) == self.weights():
                return
        self._write(complete=True, times=ended(record))

    def _write(self, complete: bool, times: dict[str, Any]) -> None:
        content = {
            "stage": self.name,
            "complete": complete,
            "identity": self.identity,
            "size": self.size,
            "settings": self.settings,
            "upstream": self.upstream,
            "weights": self.weights() if complete else {},
            **times,  # wall_time_s are the seconds of all attempts that have ended
            "peak_memory_mb": peak_memory(),
            "machine": machine(),
            "versions": {name: version(name) for name in ("torch", "monai", "diffusers", "peft", "timm")}
            | {"python": platform.python_version()},
            "config": json.loads(json.dumps(self.config, default=str)),
        }
        write_json(self.path, content)
