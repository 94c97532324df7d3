"""What there is to say about a data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

SHOWN = 20  # problems of a kind that are listed in full


@dataclass(frozen=True)
class Finding:
    """One thing about a data set that its owner should know.

    Args:
        level: "error" stops every run; "warning" does not.
        path: file, folder or class it is about.
        message: what it is and what to do.
        pair: paths of the two images that it is about, where they are to be looked at side by side.
    """

    level: str
    path: str
    message: str
    pair: tuple[str, str] | None = None


def findings_as_json(findings: Sequence[Finding]) -> list[dict[str, str]]:
    """Findings as plain dictionaries."""
    return [{"level": finding.level, "path": finding.path, "message": finding.message} for finding in findings]
