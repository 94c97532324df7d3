"""How many cores there are to work with."""

import joblib


def usable_cores() -> int:
    """Cores that this process may use, by its affinity and its control group (a container's share) alike."""
    return int(joblib.cpu_count())
