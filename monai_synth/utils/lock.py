"""One run per output folder."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

from filelock import FileLock, Timeout

from .io import PathLike, read_json, remove_unfinished, write_json

_held: dict[Path, FileLock] = {}


def hold_folder(folder: PathLike) -> None:
    """Holds a folder for this process until it ends; the system lets go of it when the process dies, however it dies.

    On a file system without locks a file that names host and process takes their place. One that a killed process has
    left is removed on the same host; another host cannot know, so that the error says how to.

    What a run that was killed here has left half-written is removed.

    Args:
        folder: made when it is missing.

    Raises:
        RuntimeError: when another process holds it; names the process.
        PermissionError: when the folder cannot be written.
    """
    folder = Path(folder).resolve()
    if folder in _held:
        return
    lock, since = FileLock(folder / ".lock"), time.strftime("%Y-%m-%d %H:%M:%S")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
        write_json(folder / ".lock.json", {"host": socket.gethostname(), "pid": os.getpid(), "since": since})
    except Timeout:
        holder = folder / ".lock.json"
        known = read_json(holder) if holder.exists() else {"host": "unknown", "pid": "unknown", "since": "unknown"}
        marker = folder / ".lock"
        left = f" This file system has no locks: if that process is gone, remove {marker}."
        raise RuntimeError(
            f"{folder} is being used by another run (process {known['pid']} on {known['host']}, since "
            f"{known['since']}). Wait for it, stop it, or name another --output_dir."
            + (left if marker.exists() and marker.stat().st_size else "")  # a lock of the system is an empty file
        ) from None
    except OSError as error:  # no permission, a file in the way, a read-only file system, a full disk
        lock.release()
        raise PermissionError(f"{folder} cannot be written: {error}. Name another --output_dir.") from error
    _held[folder] = lock
    remove_unfinished(folder)


def release_folder(folder: PathLike) -> None:
    """Lets go of a folder held by this process; nothing happens when it is not."""
    lock = _held.pop(Path(folder).resolve(), None)
    if lock is not None:
        lock.release()
