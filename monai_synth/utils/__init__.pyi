from .io import atomic_path, read_json, sha256_of, write_json, write_text
from .lock import hold_folder, release_folder
from .memory import cached_images
from .processes import best_device, per_process, share
from .schedule import epoch_length, num_epochs
from .seeds import derived_seed
from .stopping import start_reader
from .tensors import load_tensors, save_safetensors, save_tensors

__all__ = [
    "atomic_path",
    "best_device",
    "cached_images",
    "derived_seed",
    "epoch_length",
    "hold_folder",
    "load_tensors",
    "num_epochs",
    "per_process",
    "read_json",
    "release_folder",
    "save_safetensors",
    "save_tensors",
    "sha256_of",
    "share",
    "start_reader",
    "write_json",
    "write_text",
]
