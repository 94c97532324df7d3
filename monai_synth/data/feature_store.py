"""Features of images on the disk, by the content of the image, so that each image is encoded once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from itertools import count
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from ..utils.io import PathLike
from ..utils.processes import rank, share, wait_for_all
from ..utils.tensors import save_safetensors
from .records import Record


class FeatureStore:
    """Features of one encoder, of images of one size, in a folder; a file for each time that some were added.

    Args:
        folder: has a folder for each encoder and size, made when something is added.
        encoder: fingerprint of the encoder.
        size: pixels of a side to which images are brought before they are encoded.

    Raises:
        ValueError: when a file in the folder is damaged, or holds features of another encoder.
    """

    def __init__(self, folder: PathLike, encoder: str, size: int) -> None:
        self.folder, self.encoder = Path(folder) / f"{encoder[:12]}_{size}", encoder
        self.read()

    def read(self) -> None:
        """Looks at what is in the folder now, what other processes have added too."""
        self.parts: list[Path] = []
        self.place: dict[str, tuple[int, int]] = {}
        for path in sorted(self.folder.glob("features_*.safetensors")):
            known, hashes = _noted(path)
            if known.get("encoder") != self.encoder:
                raise ValueError(
                    f"{path} holds features of the encoder {str(known.get('encoder'))[:12]}, not of "
                    f"{self.encoder[:12]}. Features of different encoders are never compared; remove the file."
                )
            self._note(path, hashes)

    def _note(self, path: Path, hashes: Sequence[str]) -> None:
        self.place |= {value: (len(self.parts), row) for row, value in enumerate(hashes)}
        self.parts.append(path)

    def __contains__(self, sha256: str) -> bool:
        return sha256 in self.place

    def missing(self, records: Sequence[Record]) -> list[Record]:
        """The records whose image has not been encoded, each content once."""
        wanted = {record["sha256"]: record for record in records if record["sha256"] not in self.place}
        return list(wanted.values())

    def add(self, hashes: Sequence[str], features: torch.Tensor) -> None:
        """Writes features of images, shape (B, D), as one more file."""
        paths = (self.folder / f"features_{n:05d}_{rank():03d}.safetensors" for n in count(len(self.parts)))
        path = next(path for path in paths if not path.exists())  # an earlier one may have been removed
        content = features.float().cpu().contiguous()
        known = {"encoder": self.encoder, "sha256": json.dumps(list(hashes)), "checksum": _checksum(content.numpy())}
        save_safetensors(path, {"features": content}, known)
        self._note(path, hashes)

    def features(self, records: Sequence[Record]) -> np.ndarray:
        """The features of records in their order, shape (N, D), float64.

        Raises:
            ValueError: when an image has not been encoded, or a file is damaged; names it.
        """
        for record in records:
            if record["sha256"] not in self.place:
                raise ValueError(f"{record['image']} has not been encoded; run assess.json first.")
        arrays = []
        for path in self.parts:
            with safe_open(path, framework="np") as file:
                arrays.append(file.get_tensor("features"))
                noted = (file.metadata() or {}).get("checksum")  # files of earlier versions have none
            if noted not in (None, _checksum(arrays[-1])):
                raise _damaged(path, "its features are not those that were written")
        rows = [arrays[part][row] for part, row in (self.place[record["sha256"]] for record in records)]
        return np.asarray(rows, dtype=np.float64)


def _noted(path: Path) -> tuple[dict[str, str], list[str]]:
    """What is noted in a file of features, and the hashes of its images.

    Raises:
        ValueError: when it cannot be read, or has not one row of features for each image.
    """
    try:
        with safe_open(path, framework="np") as file:
            known = file.metadata() or {}
            hashes, rows = json.loads(known["sha256"]), file.get_slice("features").get_shape()[0]
    except (SafetensorError, ValueError, KeyError) as error:
        raise _damaged(path, f"it cannot be read: {error!r}") from error
    if len(hashes) != rows:
        raise _damaged(path, f"it notes {len(hashes)} images and has features of {rows}")
    return known, hashes


def _checksum(features: np.ndarray) -> str:
    """The SHA-256 of features' bytes."""
    return hashlib.sha256(features.tobytes()).hexdigest()


def _damaged(path: Path, what: str) -> ValueError:
    return ValueError(
        f"{path} is damaged, {what}. Remove it and run the same command again; its images are then encoded anew."
    )


def own_missing(store: FeatureStore, records: Sequence[Record]) -> Sequence[Record]:
    """This process's part of the records whose image has not been encoded, each content once."""
    missing = store.missing(records)
    wait_for_all()  # who begins to write before all have looked would make their lists differ
    return share(missing)
