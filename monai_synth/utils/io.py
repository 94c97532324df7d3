"""Files that are written whole or not at all, and their fingerprints."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

PathLike = str | os.PathLike[str]


@contextmanager
def atomic_path(path: PathLike) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends without an error.

    The file is flushed to the disk before it is renamed, so that after a crash the reader finds the old file or the
    new one, never a part. The folder is made when it is missing.

    Raises:
        OSError: when the disk is full or the folder cannot be written; the old file stays as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=f".part{path.suffix}", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(path: PathLike, text: str) -> None:
    """Writes a text file in one piece, in UTF-8."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: PathLike, content: Any) -> None:
    """Writes a JSON file in one piece, indented, with its keys in the given order."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def read_json(path: PathLike) -> Any:
    """The content of a JSON file.

    Raises:
        FileNotFoundError: when there is none.
        ValueError: when it is not JSON, with the place of the fault.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a JSON file: {error}.") from error


def sha256_of(path: PathLike) -> str:
    """The SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def save_safetensors(path: PathLike, tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
    """Writes a safetensors file in one piece, equal bytes for equal content.

    The library orders the header's metadata at random, so that two equal files would have different hashes; here it is
    sorted.
    """
    content = save(tensors, metadata)
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text = text.ljust(-(-len(text) // 8) * 8)
    with atomic_path(path) as temporary:
        temporary.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])


def save_state_dict(path: PathLike, state: Mapping[str, Tensor]) -> None:
    """Writes a state dict as torch does, for MONAI's `model.pt`: whole or not at all, equal bytes for equal weights.

    torch puts a path's name into the file, and a temporary file has another name every time; so it gets the open file.
    """
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        torch.save(dict(state), file)


def save_tensors(path: PathLike, tree: dict[str, Any]) -> None:
    """Writes nested dictionaries and lists of tensors and plain values as one safetensors file.

    Plain values (numbers, texts, None) go into the file's metadata as JSON, so that nothing needs unpickling.

    Raises:
        TypeError: for a value that is neither a tensor nor plain.
    """
    tensors: dict[str, torch.Tensor] = {}

    def strip(value: Any, name: str) -> Any:
        if isinstance(value, torch.Tensor):
            tensors[name] = value.detach().cpu().contiguous().clone()
            return {"__tensor__": name}
        if isinstance(value, dict):
            return {
                "__dict__": [[key, strip(item, f"{name}/{key}" if name else str(key))] for key, item in value.items()]
            }
        if isinstance(value, (list, tuple)):
            return [strip(item, f"{name}/{index}") for index, item in enumerate(value)]
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        raise TypeError(f"{name} is a {type(value).__name__}; only tensors and plain values can be stored in {path}.")

    outline = json.dumps(strip(tree, ""))
    save_safetensors(path, tensors, {"outline": outline})


def load_tensors(path: PathLike) -> dict[str, Any]:
    """What `save_tensors` wrote, tensors on the CPU.

    Raises:
        ValueError: when the file was not written by `save_tensors`.
    """
    with safe_open(path, framework="pt") as file:
        outline = (file.metadata() or {}).get("outline")
        if outline is None:
            raise ValueError(f"{path} is a safetensors file but not one of this program's states.")

        def restore(value: Any) -> Any:
            if isinstance(value, list):
                return [restore(item) for item in value]
            if not isinstance(value, dict):
                return value
            if "__tensor__" in value:
                return file.get_tensor(value["__tensor__"])
            return {key: restore(item) for key, item in value["__dict__"]}

        return restore(json.loads(outline))
