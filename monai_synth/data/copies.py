"""Images of one original share a group, so that a split keeps them together."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from .findings import SHOWN, Finding
from .near_duplicates import FEWEST, find_near_duplicates
from .records import Record


def judge_copies(by_pixels: dict[str, list[Record]], base: Path, findings: list[Finding]) -> None:
    """Copies in one class share a group, so that a split keeps them together; in two classes they are an error."""
    together: list[list[Record]] = []
    for copies in by_pixels.values():
        if len(copies) < 2:
            continue
        files = [os.path.relpath(record["image"], base) for record in copies]
        if len({record["class_name"] for record in copies}) > 1:
            message = f"has the same pixels as {', '.join(files[1:])}, in another class. Keep the right one."
            findings.append(Finding("error", files[0], message))
            continue
        findings.append(Finding("warning", files[0], f"has the same pixels as {', '.join(files[1:])}."))
        together.append(copies)
    _join_groups([record for copies in by_pixels.values() for record in copies], together)


def _join_groups(records: Sequence[Record], together: Sequence[Sequence[Record]]) -> None:
    """Makes the groups of images that belong together one, for all records of these groups, under their first name.

    Args:
        records: changed in place.
        together: some of them, in lists of those that belong together. Groups that several lists name are joined too.
    """
    if not together:
        return
    names = sorted({record["group"] for record in records})
    places = {name: place for place, name in enumerate(names)}
    pairs = [(places[same[0]["group"]], places[record["group"]]) for same in together for record in same[1:]]
    first, second = np.array(pairs, dtype=int).reshape(-1, 2).T
    links = coo_matrix((np.ones(len(pairs)), (first, second)), (len(names),) * 2)
    joined = connected_components(links, directed=False)[1]
    name_of = {number: name for number, name in zip(joined[::-1], names[::-1])}  # the first name comes last and stays
    for record in records:
        record["group"] = name_of[joined[places[record["group"]]]]


def join_near_duplicates(records: list[Record], base: Path) -> list[Finding]:
    """Gives the images of one original one group, and says what was found.

    Args:
        records: changed in place.
        base: folder that the findings name the images in.
    """
    if len(records) < FEWEST:
        message = f"fewer than {FEWEST} images: turned, flipped or zoomed copies were not searched for. Look yourself."
        return [Finding("warning", str(base), message)]
    found = find_near_duplicates([record["image"] for record in records])
    members: dict[int, list[Record]] = defaultdict(list)
    for record, number in zip(records, found.groups):
        members[int(number)].append(record)
    together = [same for same in members.values() if len(same) > 1]
    _join_groups(records, together)

    def names(pair: tuple[int, int, float]) -> tuple[str, str]:
        first, second = (os.path.relpath(records[place]["image"], base) for place in pair[:2])
        return first, second

    def paths(pair: tuple[int, int, float]) -> tuple[str, str]:
        return records[pair[0]]["image"], records[pair[1]]["image"]

    findings = []
    if together:
        count = sum(map(len, together))
        message = (
            f"{count} images look like turned, flipped, zoomed or compressed copies of each other and form "
            f"{len(together)} groups, which stay on one side of the split (similarity from {found.threshold:.2f} on)."
        )
        findings.append(Finding("warning", str(base), message))
    for pair in found.pairs:
        if records[pair[0]]["class_name"] != records[pair[1]]["class_name"]:
            first, second = names(pair)
            message = f"looks like {second} (similarity {pair[2]:.2f}), which is in another class. Look at both."
            findings.append(Finding("warning", first, message, paths(pair)))
    for pair in sorted(found.borderline, key=lambda pair: abs(pair[2] - found.threshold))[:SHOWN]:
        first, second = names(pair)
        kept = "together with" if pair[2] >= found.threshold else "apart from"
        message = f"is borderline: similarity {pair[2]:.2f}, kept {kept} {second}."
        findings.append(Finding("warning", first, message, paths(pair)))
    return findings
