"""Whether synthetic images or an adapter give away what they were made from: tests, their power, verdicts in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.stats import norm, rankdata

from ..data.audits import LEAK
from .statistics import delong_interval, rank_test, share_interval

Array = np.ndarray
NO_LEAK, NOT_TESTABLE = "NO LEAK FOUND", "NOT TESTABLE"
LEVEL = 0.05  # of each test, one-sided
FEWEST_GROUPS = 5  # on each side


@dataclass(frozen=True)
class Membership:
    """How well a score tells the images that were used (members) from others of the same classes.

    Args:
        auc: probability that a member's score is the higher one, 0.5 for no leak.
        low: lower end of its 95 % interval.
        high: upper end.
        p_value: one-sided.
        detectable: the AUC that the test would have found with 80 % probability.
        members: groups that were used.
        others: groups that were not.
    """

    auc: float
    low: float
    high: float
    p_value: float
    detectable: float
    members: int
    others: int

    def as_dict(self) -> dict[str, Any]:
        """The numbers, for a report."""
        return asdict(self)


def detectable_auc(members: int, others: int, power: float = 0.8) -> float:
    """The AUC that a one-sided rank test at 5 % finds with a given probability, at most 1.

    Reference:
        Noether, "Sample Size Determination for Some Common Nonparametric Tests", 1987: the normal approximation with
        the variance under the null hypothesis.
    """
    spread = math.sqrt((members + others + 1) / (12 * members * others))
    return min(1.0, 0.5 + float(norm.ppf(1 - LEVEL) + norm.ppf(power)) * spread)


def group_scores(
    scores: Array, is_member: Array, labels: Array, groups: Sequence[str], seed: int = 0
) -> tuple[Array, Array]:
    """One score for each group, in (0, 1), and whether the group was used.

    The image that stands for a group in a class is drawn by chance, since the best of many would be better than the
    best of one. Scores are ranked within their class, so that a class which is easy to draw is not taken for a leak,
    and a group has the mean of its ranks: the images of a patient are alike in all classes.

    Args:
        scores: of each image, shape (N,), larger for members when there is a leak.
        is_member: whether the image was used, shape (N,).
        labels: class of each image, shape (N,).
        groups: patient or slide of each image, length N; no group may stand on both sides.
        seed: of the draw.

    Raises:
        ValueError: when a group is on both sides.
    """
    names = np.asarray(groups)
    both = set(names[is_member]) & set(names[~is_member])
    if both:
        raise ValueError(
            f"The group {str(sorted(both)[0])!r} was used and is in the holdout too; such a test says nothing."
        )
    standing: dict[tuple[str, int], int] = {}
    for place in np.random.default_rng(seed).permutation(len(names)):
        standing.setdefault((str(names[place]), int(labels[place])), int(place))
    chosen = np.array(sorted(standing.values()))
    values, kind = np.asarray(scores)[chosen], labels[chosen]
    ranks = np.empty(len(values))
    for label in np.unique(kind):
        own = kind == label
        ranks[own] = (rankdata(values[own]) - 0.5) / own.sum()
    _, first, of_group = np.unique(names[chosen], return_index=True, return_inverse=True)
    return np.bincount(of_group, ranks) / np.bincount(of_group), is_member[chosen][first]


def membership(scores: Array, is_member: Array, labels: Array, groups: Sequence[str], seed: int = 0) -> Membership:
    """Compares the scores of members and others of the same classes; a group counts once, see `group_scores`.

    Raises:
        ValueError: when a group is on both sides.
    """
    ranks, member = group_scores(scores, is_member, labels, groups, seed)
    auc, p_value = rank_test(ranks[member], ranks[~member])
    _, low, high = delong_interval(member.astype(int), ranks)
    sizes = int(member.sum()), int((~member).sum())
    return Membership(auc, low, high, p_value, detectable_auc(*sizes), *sizes)


def why_not_testable(is_member: Array, groups: Sequence[str]) -> str:
    """Why a membership test would say nothing, an empty text when it would."""
    names = np.asarray(groups)
    members, others = len(set(names[is_member])), len(set(names[~is_member]))
    if members < FEWEST_GROUPS:
        return f"Only {members} groups were used for fine-tuning; at least {FEWEST_GROUPS} are needed."
    if others < members:
        return f"The holdout has {others} groups, fewer than the {members} that were used."
    return ""


def epsilon_lower_bound(scores: Array, is_member: Array, seed: int = 0) -> float:
    """What an attack by this score shows of the epsilon of differential privacy at the least; never a guarantee.

    The threshold is the 90 % quantile of one half of the others; the other half and the members judge it, each rate by
    its exact 95 % limit.

    Args:
        scores: larger for members, shape (N,).
        is_member: shape (N,).
        seed: of the halves.

    Reference:
        Jagielski, Ullman and Oprea, "Auditing Differentially Private Machine Learning", 2020, section 4.
        https://arxiv.org/abs/2006.07709
    """
    others = np.random.default_rng(seed).permutation(np.flatnonzero(~is_member))
    tuning, judging = others[: len(others) // 2], others[len(others) // 2 :]
    if not len(tuning) or not len(judging) or not is_member.any():
        return 0.0
    threshold = np.quantile(scores[tuning], 0.9)
    found, false = int((scores[is_member] > threshold).sum()), int((scores[judging] > threshold).sum())
    low, high = share_interval(found, int(is_member.sum()))[0], share_interval(false, len(judging))[1]
    return max(0.0, math.log(low / high)) if low > 0 else 0.0


def membership_verdict(found: Membership, what: str) -> tuple[str, str]:
    """The verdict of a membership test, and what it means in a sentence.

    Args:
        found: the test.
        what: what was looked at, as the sentence's beginning: "Nearness to the synthetic images".
    """
    numbers = (
        f"AUC {found.auc:.2f} ({found.low:.2f} to {found.high:.2f}, p {found.p_value:.3g}; {found.members} groups that "
        f"were used against {found.others} that were not)"
    )
    if found.p_value < LEVEL:
        return LEAK, f"{what} tells images that were used from images that were not: {numbers}."
    return NO_LEAK, (
        f"{what} does not tell images that were used from others: {numbers}. An AUC of {found.detectable:.2f} would "
        "have been found with 80 % probability; a smaller leak would not."
    )
