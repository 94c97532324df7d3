"""What a config asks of the machine, checked before anything is built: where to write, device, threads, compiler."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser

from ..utils import processes


def check_writable(path: str | Path, key: str) -> None:
    """Checks that a file can be written where it shall lie, hours before it is.

    Raises:
        PermissionError: when it cannot; names the key.
    """
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=Path(path).parent).close()
    except OSError as error:
        raise PermissionError(f"{path} cannot be written: {error}. Name another --{key}.") from None


def check_device(device: Any) -> None:
    """Checks that a GPU that is named is there.

    Raises:
        ValueError: when torch does not see it, or several processes shall share it.
    """
    wanted, seen = torch.device(device), torch.cuda.device_count()
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if wanted.type == "cuda" and processes.count() > 1 and wanted.index not in (None, local):
        raise ValueError(
            f"device is '{device}' in every process that torchrun has started, but each needs a GPU of its own. Leave "
            "--device out."
        )
    if wanted.type == "cuda" and (wanted.index or 0) >= seen:
        raise ValueError(
            f"device is '{device}', but torch sees {seen} GPUs here. Leave --device out to take what there is, or "
            "install the GPU's driver and a torch that was built for it."
        )


def check_threads(number: Any) -> None:
    """Checks the number of threads.

    Raises:
        ValueError: when it is neither a number of 1 or more, nor "auto", nor null.
    """
    if number in (None, "auto") or (type(number) is int and number >= 1):
        return
    raise ValueError(
        f"num_threads is {number!r}. It can be a whole number from 1, 'auto' (the cores that other programs leave "
        "free now), or null (all cores that the process may use)."
    )


def check_compile(settings: dict[str, Any], parser: ConfigParser) -> None:
    """Checks that torch.compile can be had, and that nothing is asked for that does not go with it.

    Raises:
        ValueError: with `cache_interval`, or on a CPU without a C++ compiler.
    """
    if not settings.get("compile"):
        return
    if settings["cache_interval"] > 1:
        raise ValueError(
            f"compile is true and cache_interval {settings['cache_interval']}. Blocks that are skipped cannot be "
            "compiled: leave one of them out."
        )
    compiler = os.environ.get("CXX", "g++")
    if torch.device(parser.get_parsed_content("device")).type == "cpu" and shutil.which(compiler) is None:
        raise ValueError(
            f"compile is true, but there is no C++ compiler {compiler}, which torch.compile needs on a CPU. Install "
            "g++, name another one in the environment variable CXX, or leave compile out."
        )


def check_cuda_graph(settings: dict[str, Any], parser: ConfigParser) -> None:
    """Checks that nothing is asked for that a step as a CUDA graph does not go with; some bases are found out later.

    Raises:
        ValueError: off a GPU, or with another setting that rules it out.
    """
    if settings.get("cuda_graph") is not True:
        return
    device = torch.device(parser.get_parsed_content("device"))
    obstacles = [] if device.type == "cuda" else [f"device '{device}'"]
    obstacles += ["amp 'float16'"] if settings.get("amp") == "float16" else []
    obstacles += [f"{name} true" for name in ("train_text_encoder", "gradient_checkpointing") if settings.get(name)]
    if obstacles:
        raise ValueError(
            f"cuda_graph is true, but does not go with {' and '.join(obstacles)}. Leave cuda_graph out to have a graph "
            "wherever there can be one."
        )
