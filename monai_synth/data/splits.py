"""Who trains and who judges: roles by group, decided before anything is trained."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from .records import Record

logger = logging.getLogger(__name__)

ATTEMPTS = 50  # shuffles that are tried until every class is in every fold


def assign_roles(
    records: Sequence[Record], shots: int, num_folds: int = 5, fold: int = 0, seed: int = 0, split_seed: int = 0
) -> list[Record]:
    """The records with their role and the fold they are tested in.

    Groups stay whole. One fold is the test, the next is for validation, and from the rest `shots` images of each class
    are drawn, from as many groups as there are; what remains is more real training data. Another `seed` draws other
    shots for the same test images.

    Args:
        records: from `scan`.
        shots: images of each class that guide the generator and train the classifier.
        num_folds: number of folds, 3 or more.
        fold: which fold is the test, counted from 0.
        seed: decides the shots.
        split_seed: decides the folds.

    Returns:
        New records with "role" and "fold".

    Raises:
        ValueError: when a class has too few groups for the folds or too few images for the shots.
    """
    folds = assign_folds(records, num_folds, split_seed)
    validation = (fold + 1) % num_folds
    roles = ["test" if place == fold else "val" if place == validation else "train" for place in folds]
    result = [{**record, "role": role, "fold": place} for record, role, place in zip(records, roles, folds)]
    pool = [record for record in result if record["role"] == "train"]
    for class_name in sorted({record["class_name"] for record in records}):
        candidates = [record for record in pool if record["class_name"] == class_name]
        if len(candidates) < shots:
            total = sum(record["class_name"] == class_name for record in records)
            raise ValueError(
                f"The class {class_name!r} has {len(candidates)} images left for training (of {total}; the rest is "
                f"for test and validation), fewer than shots={shots}. Add images or ask for fewer shots."
            )
        for record in draw_shots(candidates, shots, np.random.default_rng([seed, len(candidates)])):
            record["role"] = "shots"
    return result


def assign_folds(records: Sequence[Record], num_folds: int, seed: int) -> list[int]:
    """The fold of each record: groups whole, classes in equal shares, every class in every fold.

    Raises:
        ValueError: when no such division is found; names the class with the fewest groups.
    """
    labels = np.array([record["label"] for record in records])
    groups = np.array([record["group"] for record in records])
    counts = {name: len({r["group"] for r in records if r["class_name"] == name}) for name in _names(records)}
    scarcest = min(counts, key=lambda name: counts[name])
    if counts[scarcest] >= num_folds:
        for attempt in range(ATTEMPTS):
            folds = np.zeros(len(records), dtype=int)
            splitter = StratifiedGroupKFold(num_folds, shuffle=True, random_state=seed + 1000 * attempt)
            for number, (_, members) in enumerate(splitter.split(labels, labels, groups)):
                folds[members] = number
            if all(len(set(labels[folds == number])) == len(counts) for number in range(num_folds)):
                return [int(number) for number in folds]
    raise ValueError(
        f"{num_folds} folds need each class in at least {num_folds} patients, slides or images that can be kept apart. "
        f"The class {scarcest!r} has {counts[scarcest]} (groups per class: {counts}). "
        "Ask for fewer folds (--num_folds, 3 or more) or add groups."
    )


def _names(records: Sequence[Record]) -> list[str]:
    return sorted({record["class_name"] for record in records})


def draw_shots(candidates: Sequence[Record], shots: int, rng: np.random.Generator) -> list[Record]:
    """Some of the candidates, one from each group before a second one from any."""
    by_group: dict[str, list[Record]] = defaultdict(list)
    for index in rng.permutation(len(candidates)):
        by_group[candidates[index]["group"]].append(candidates[index])
    turns = [(turn, record) for members in by_group.values() for turn, record in enumerate(members)]
    order = rng.permutation(len(turns))
    ranked = sorted((turns[index] for index in order), key=lambda item: item[0])
    return [record for _, record in ranked[:shots]]
