"""Files, locks and seeds."""

from .io import (
    atomic_path,
    load_tensors,
    read_json,
    save_safetensors,
    save_tensors,
    sha256_of,
    write_json,
    write_text,
)
from .lock import hold_folder, release_folder
from .schedule import epoch_length, num_epochs
from .seeds import derived_seed

__all__ = [
    "atomic_path",
    "derived_seed",
    "epoch_length",
    "hold_folder",
    "load_tensors",
    "num_epochs",
    "read_json",
    "release_folder",
    "save_safetensors",
    "save_tensors",
    "sha256_of",
    "write_json",
    "write_text",
]
