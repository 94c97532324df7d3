"""The processor: which it is, and how many cores there are to work with."""

import platform
from pathlib import Path

import joblib


def usable_cores() -> int:
    """Cores that this process may use, by its affinity and its control group (a container's share) alike."""
    return int(joblib.cpu_count())


def processor_name() -> str:
    """The processor's model where the system tells it, else its kind."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()
