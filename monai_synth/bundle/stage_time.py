"""How long a stage took over all its attempts, without the pauses between them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any


def begun(record: dict[str, Any] | None, folder: Path) -> dict[str, Any]:
    """What is noted of the time when a stage begins or goes on.

    Args:
        record: what its last attempt noted; None before the first.
        folder: where the stage writes.
    """
    now = time.time()
    if record is None:
        return {"began": now, "attempt_began": now, "wall_time_s": 0.0}
    seconds = round(seconds_of(record, last_written(folder)), 1)
    return {"began": record["began"], "attempt_began": now, "wall_time_s": seconds}


def ended(record: dict[str, Any] | None) -> dict[str, Any]:
    """What is noted of the time when a stage has come to its end."""
    now = time.time()
    if record is None:
        return {"began": now, "attempt_began": None, "wall_time_s": 0.0}
    return {"began": record["began"], "attempt_began": None, "wall_time_s": round(seconds_of(record, now), 1)}


def is_under_way(record: dict[str, Any]) -> bool:
    """Whether a stage has begun, or gone on, without coming to its end."""
    return not record["complete"] or record.get("attempt_began") is not None


def seconds_of(record: dict[str, Any], until: float) -> float:
    """Seconds of all attempts; one that has not come to its end counts until a moment, in seconds since the epoch."""
    earlier = record["wall_time_s"] or 0.0  # versions before noted none for a stage under way
    start = record.get("attempt_began", record["began"])
    if not is_under_way(record) or start is None:  # the attempt's end was noted
        return earlier
    return earlier + max(0.0, until - start)


def last_written(folder: Path) -> float:
    """When the newest file below a folder was written, which tells how far a killed run came; 0 without files."""
    files = (path for path in folder.rglob("*") if not path.name.startswith(".") and path.is_file())
    return max((path.stat().st_mtime for path in files), default=0.0)
