"""Synthetic histopathology and blood-cell images for MONAI: fine-tune, generate, classify, and measure their worth."""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=[
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
    ],
)
