"""Seeds that follow from other seeds."""

from __future__ import annotations

import hashlib


def derived_seed(*parts: int | str) -> int:
    """A seed of 63 bits that any change of any part changes.

    Args:
        parts: what the seed belongs to, such as the run's seed, a class and an index.
    """
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
