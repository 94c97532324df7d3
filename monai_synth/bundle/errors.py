"""Errors as one sentence for whoever runs a config."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import TracebackType

SPOKEN = (ValueError, TypeError, KeyError, FileNotFoundError, PermissionError, RuntimeError, OSError, MemoryError)
PACKAGE = str(Path(__file__).resolve().parents[1])


def root_cause(error: BaseException) -> BaseException:
    """The error to be told of a chain, since MONAI wraps each in "Failed to evaluate ...".

    It is the outermost one of ours, whose message is written for users, or else the first of the chain.
    """
    while error.__cause__ is not None and not raised_by_us(error):
        error = error.__cause__
    return error


def raised_by_us(error: BaseException) -> bool:
    """Whether an error was raised on purpose in this package."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and trace.tb_frame.f_code.co_filename.startswith(PACKAGE)


def kind_of_memory(error: BaseException) -> bool:
    """Whether the memory of a GPU did not suffice; known by its name, since torch need not be imported for it."""
    return type(error).__name__ == "OutOfMemoryError"


def speak_plainly() -> None:
    """From now on an error of ours ends `python -m monai.bundle` with its message alone.

    The whole traceback is shown when MONAI_SYNTH_TRACEBACK=1, and for every error that is not ours. Nothing changes
    when MONAI is used from Python.
    """
    main = getattr(sys.modules.get("__main__"), "__spec__", None)
    if main is None or not main.name.startswith("monai.bundle") or os.environ.get("MONAI_SYNTH_TRACEBACK") == "1":
        return
    sys.excepthook = _say


def _say(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    cause = root_cause(error)
    if kind_of_memory(cause):
        print(
            f"\nError: {str(cause).splitlines()[0]} Of a classifier's training lower --batch_size or "
            "--classifier_size, in another --output_dir; everything else goes on with smaller batches by itself until "
            "one image does not fit. What was written before is whole.",
            file=sys.stderr,
        )
        return
    if not isinstance(cause, SPOKEN) or not raised_by_us(cause):
        if isinstance(cause, OSError) and cause.errno is not None:
            print(
                f"\nError: {cause}. What was written before is whole; run the same command to go on.", file=sys.stderr
            )
            return
        sys.__excepthook__(kind, error, trace)
        return
    message = cause.args[0] if isinstance(cause, KeyError) and cause.args else cause
    print(f"\nError: {message}", file=sys.stderr)
