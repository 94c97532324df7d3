"""How much memory a base model needs, told before it is loaded."""

from __future__ import annotations

import json
from pathlib import Path

import psutil
import torch

from ..base_models import weight_files, weighted_parts

GIB = 2**30
CGROUP = Path("/sys/fs/cgroup")  # a container's own limit, version 2


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
    """Bytes that are free on a device; what a container keeps of files that were read counts as free, as elsewhere."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = psutil.virtual_memory().available
    limit, used = CGROUP / "memory.max", CGROUP / "memory.current"
    if limit.exists() and used.exists() and limit.read_text().strip().isdigit():
        free = min(free, int(limit.read_text()) - int(used.read_text()) + cached_file_bytes())
    return free


def cached_file_bytes() -> int:
    """Bytes of files that a container holds in memory and gives back where memory is asked for; 0 where it says none.

    Reference:
        "Control Group v2" of the Linux kernel's documentation, memory.stat: inactive_file and active_file.
    """
    stat = CGROUP / "memory.stat"
    lines = [line.split() for line in stat.read_text().splitlines()] if stat.exists() else []
    return sum(int(value) for key, value in lines if key in ("inactive_file", "active_file"))
