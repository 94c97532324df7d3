"""Synthetic histopathology and blood-cell images for MONAI: fine-tune, generate, classify, and measure their worth."""

from __future__ import annotations

import importlib
from types import ModuleType

__version__ = "0.1.0"

_PARTS = (
    "bundle",
    "data",
    "engines",
    "handlers",
    "inferers",
    "losses",
    "metrics",
    "networks",
    "report",
    "transforms",
    "utils",
)

__all__ = ["__version__", *_PARTS]


def __getattr__(name: str) -> ModuleType:
    """Imports a part of the package when it is first used, so that `import monai_synth` stays quick."""
    if name in _PARTS:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
