"""Files of tensors, written whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from .io import PathLike, atomic_path


def is_waited_for(tensor: Tensor) -> bool:
    """Whether reading a tensor's numbers waits for a device beside the CPU to finish what it was given."""
    return tensor.device.type != "cpu"


def moved(tensor: Tensor, device: str | torch.device | None, non_blocking: bool = False, **kwargs: Any) -> Tensor:
    """A tensor on a device; without waiting for a GPU when `non_blocking`, since only pinned memory allows that.

    Args:
        tensor: of any shape.
        device: where to; None leaves it.
        non_blocking: copy beside the computation.
        kwargs: for `Tensor.to`.
    """
    if non_blocking and device is not None and torch.device(device).type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device=device, non_blocking=non_blocking, **kwargs)


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
    The tensors are saved from the CPU: torch loads them to where they were, which another machine may not have.
    """
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        torch.save({key: value.detach().cpu() for key, value in state.items()}, file)


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
