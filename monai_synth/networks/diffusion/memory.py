"""How much memory a base model needs, told before it is loaded."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from ...utils.memory import free_host_bytes
from ..base_models import weight_files, weighted_parts

GIB = 2**30


def check_memory(folder: Path, name: str, device: torch.device, dtype: torch.dtype, variant: str | None = None) -> None:
    """Compares a base model's size with the free memory.

    Only the weights are counted, which is what surely does not fit; training needs some more.

    Raises:
        MemoryError: when the weights alone are larger than the free memory; says what to do.
    """
    needed, free = weight_bytes(folder, dtype, variant), free_bytes(device)
    if needed <= free:
        return
    half = " Load it in half precision with --amp bfloat16, which takes half of that." * (dtype == torch.float32)
    raise MemoryError(
        f"The base model {name!r} needs {needed / GIB:.1f} GiB for its weights in {str(dtype).removeprefix('torch.')}, "
        f"but {free / GIB:.1f} GiB are free on {device}.{half} Or choose a smaller base or a larger device, or end "
        "other programs."
    )


def weight_bytes(folder: Path, dtype: torch.dtype, variant: str | None = None) -> int:
    """Bytes of a base's weights once loaded, from the headers of its files; the autoencoder's stay in float32."""
    total = 0
    for part in weighted_parts(folder):
        size = 4 if part == "vae" else dtype.itemsize
        total += size * sum(count_weights(path) for path in weight_files(folder / part, variant))
    return total


def count_weights(path: Path) -> int:
    """The number of weights in a safetensors file, read from its header alone."""
    with open(path, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    shapes = [entry["shape"] for key, entry in header.items() if key != "__metadata__"]
    return sum(int(torch.Size(shape).numel()) for shape in shapes)


def free_bytes(device: torch.device) -> int:
    """Bytes that are free on a device."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else free_host_bytes()
