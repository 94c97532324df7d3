"""Files that are written whole or not at all, and their fingerprints."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows, which lets nobody remove a file that another has open
    fcntl = None  # type: ignore[assignment]

PathLike = str | os.PathLike[str]
TEMPORARY = re.compile(r"\..*\.[a-z0-9_]{8}\.part(\.[^.]*)?")
UMASK = os.umask(0)  # can be read only by setting it, for all threads: once, before there are writers
os.umask(UMASK)


@contextmanager
def atomic_path(path: PathLike) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends without an error.

    The file is flushed to the disk before it is renamed, so that after a crash the reader finds the old file or the
    new one, never a part. The folder is made when it is missing.

    Raises:
        OSError: when the disk is full or the folder cannot be written; the old file stays as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=f".part{path.suffix}", dir=path.parent)
    temporary = Path(name)
    try:
        with suppress(OSError):  # a file system without locks, where `remove_unfinished` leaves all as it is
            _lock(handle)  # as long as this process lives and writes
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~UMASK)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
        os.close(handle)


def remove_unfinished(folder: PathLike) -> None:
    """Removes the temporary files of `atomic_path` that processes which were killed while they wrote have left.

    What somebody is writing stays, and so does what is not ours to remove.

    Args:
        folder: looked through with all its folders.
    """
    for parent, _, names in os.walk(folder):
        for name in filter(TEMPORARY.fullmatch, names):
            with suppress(OSError), open(Path(parent) / name, "rb+") as file:
                _lock(file.fileno())
                (Path(parent) / name).unlink()


def _lock(handle: int) -> None:
    """Holds an open file until it is closed, which the system does when the process dies.

    Raises:
        BlockingIOError: when another process holds it.
    """
    if fcntl is not None:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def write_text(path: PathLike, text: str) -> None:
    """Writes a text file in one piece, in UTF-8."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: PathLike, content: Any) -> None:
    """Writes a JSON file in one piece, indented, with its keys in the given order."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def read_json(path: PathLike) -> Any:
    """The content of a JSON file.

    Raises:
        FileNotFoundError: when there is none.
        ValueError: when it is not JSON, with the place of the fault.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a JSON file: {error}.") from error


def sha256_of(path: PathLike) -> str:
    """The SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
