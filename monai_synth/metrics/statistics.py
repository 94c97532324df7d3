"""What a difference between two classifiers is worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest, mannwhitneyu, norm

Array = np.ndarray


@dataclass(frozen=True)
class Difference:
    """A paired difference with its interval.

    Args:
        estimate: the difference, treatment less baseline.
        low: lower end of the interval.
        high: upper end of the interval.
        level: confidence of the interval, 0 to 1.
        p_value: two-sided, by where zero lies among the bootstrap samples.
    """

    estimate: float
    low: float
    high: float
    level: float = 0.95
    p_value: float | None = None

    @property
    def shown(self) -> bool:
        """Whether the interval leaves zero out."""
        return self.low > 0 or self.high < 0

    def sentence(self, p_value: float | None = None) -> str:
        """The difference in words that claim no more than was shown.

        Args:
            p_value: adjusted for how many differences were looked at; from 0.05 on nothing is shown.
        """
        numbers = f"{self.estimate:+.3f} ({self.level:.0%} interval {self.low:+.3f} to {self.high:+.3f})"
        if not self.shown or (p_value is not None and p_value >= 0.05):
            return f"No difference shown: {numbers}."
        return f"{'Better' if self.estimate > 0 else 'Worse'} by {numbers}."


def paired_bootstrap(
    treatment: Sequence[Array] | Array,
    baseline: Sequence[Array] | Array,
    labels: Sequence[Array] | Array,
    groups: Sequence[Sequence[str]] | Sequence[str] | Array,
    num_samples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
    most_samples: int | None = None,
) -> Difference:
    """Difference in balanced accuracy with an interval over test sets, draws of the shots, groups and images.

    Test sets, then draws of the shots that share a test set, then its groups, then images within a group are drawn with
    replacement, the same ones for both arms. Draws that are tested on the same images share the sample of these: more
    draws say more of the shots, and nothing more of the patients. Intervals over images alone are far too short when
    a patient has many tiles.

    Args:
        treatment: for each draw of the shots, 1 where the arm is right on a test image, shape (N,).
        baseline: the same for the other arm, on the same images in the same order.
        labels: true classes, shape (N,); or one such array for each draw, when draws have test images of their own.
        groups: patient or slide of each image, length N; or one such sequence for each draw.
        num_samples: bootstrap samples.
        level: confidence, 0 to 1.
        seed: of the samples.
        most_samples: while fewer than 10 samples lie on one side of zero, more are drawn up to this number, so that the
            p-value can be small enough to be adjusted for many comparisons.

    Raises:
        ValueError: when the arms do not have the same draws and images.

    Reference:
        Davison and Hinkley, "Bootstrap Methods and their Application", 1997, section 3.8 (hierarchical data).
    """
    arms = [[np.asarray(draw, dtype=float) for draw in arm] for arm in (treatment, baseline)]
    truths = [np.asarray(part) for part in labels] if np.ndim(labels[0]) else [np.asarray(labels)] * len(arms[0])
    kinds = groups if len(groups) and not isinstance(groups[0], str) and np.ndim(groups[0]) else [groups] * len(arms[0])
    sizes = [[draw.shape for draw in arm] for arm in (*arms, truths, [np.asarray(part) for part in kinds])]
    if not arms[0] or any(size != sizes[0] for size in sizes):
        raise ValueError(
            f"Both arms need the same draws and images, found {sizes[0]} and {sizes[1]} for labels of {sizes[2]}."
        )
    draws_of: dict[tuple, list[int]] = {}
    for draw, (truth, kind) in enumerate(zip(truths, kinds)):
        draws_of.setdefault((*truth.tolist(), *map(str, kind)), []).append(draw)
    test_sets = [
        (np.stack([arms[0][draw] - arms[1][draw] for draw in draws]), truths[draws[0]], np.asarray(kinds[draws[0]]))
        for draws in draws_of.values()
    ]
    samples = _bootstrap_samples(test_sets, num_samples, max(num_samples, most_samples or 0), seed)
    whole = [_difference(gains, truth, np.ones(len(truth))) for gains, truth, _ in test_sets]
    low, high = np.quantile(samples, [(1 - level) / 2, (1 + level) / 2])
    p_value = min(1.0, 2 * (_smaller_side(samples) + 1) / (len(samples) + 1))
    return Difference(float(np.concatenate(whole).mean()), float(low), float(high), level, float(p_value))


def _bootstrap_samples(test_sets: Sequence[tuple[Array, Array, Array]], at_a_time: int, most: int, seed: int) -> Array:
    """Differences of bootstrap samples, from (gains, labels, groups) of each test set; see `paired_bootstrap`."""
    rng = np.random.default_rng(seed)
    members = [np.unique(kind, return_inverse=True)[1] for *_, kind in test_sets]
    samples: list[float] = []
    while not samples or (len(samples) < most and _smaller_side(np.array(samples)) < 10):
        for _ in range(min(at_a_time, most - len(samples))):
            found = []
            for number in rng.integers(len(test_sets), size=len(test_sets)):
                gains, truth, _kind = test_sets[number]
                draws = rng.integers(len(gains), size=len(gains))
                found.append(_difference(gains[draws], truth, resampled(members[number], rng)))
            samples.append(float(np.concatenate(found).mean()))
    return np.array(samples)


def _difference(gains: Array, labels: Array, weights: Array) -> Array:
    """Difference in balanced accuracy of each draw; classes without weight are left out.

    Args:
        gains: 1 where the treatment alone is right, -1 where the baseline alone is, shape (draws, N).
        labels: true classes, shape (N,).
        weights: how often each image counts, shape (N,).
    """
    total = np.bincount(labels, weights)
    share = np.divide(weights, total[labels], out=np.zeros(len(weights)), where=weights > 0)
    return gains @ share / (total > 0).sum()


def _smaller_side(samples: Array) -> int:
    """How many samples lie on the emptier side of zero, or at it."""
    return int(min((samples <= 0).sum(), (samples >= 0).sum()))


def resampled(member_of: Array, rng: np.random.Generator) -> Array:
    """How often each image counts when groups, and images within them, are drawn with replacement."""
    sizes = np.bincount(member_of)
    starts, order = np.cumsum(sizes) - sizes, np.argsort(member_of, kind="stable")
    times = np.bincount(rng.integers(len(sizes), size=len(sizes)), minlength=len(sizes))
    drawn = np.repeat(np.arange(len(sizes)), times * sizes)  # a group that came up t times gives t times its size
    places = starts[drawn] + (rng.random(len(drawn)) * sizes[drawn]).astype(int)
    return np.bincount(order[places], minlength=len(member_of)).astype(float)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted for having looked several times, in the given order.

    Reference:
        Holm, "A Simple Sequentially Rejective Multiple Test Procedure", 1979.
    """
    values = np.asarray(p_values, dtype=float)
    order = np.argsort(values)
    steps = values[order] * np.arange(len(values), 0, -1)
    adjusted = np.empty(len(values))
    adjusted[order] = np.clip(np.maximum.accumulate(steps), 0, 1)
    return adjusted.tolist()


def delong_interval(labels: Array, scores: Array, level: float = 0.95) -> tuple[float, float, float]:
    """Area under the ROC curve of a binary score with its interval.

    Args:
        labels: 1 for the positive class, 0 for the other, shape (N,).
        scores: higher for the positive class, shape (N,).
        level: confidence, 0 to 1.

    Returns:
        Area, lower and upper end, each in [0, 1].

    Raises:
        ValueError: with fewer than 2 images of a class.

    Reference:
        DeLong et al., "Comparing the Areas under Two or More Correlated ROC Curves", 1988.
    """
    labels, scores = np.asarray(labels), np.asarray(scores, dtype=float)
    positive, negative = scores[labels == 1], scores[labels == 0]
    if min(len(positive), len(negative)) < 2:
        raise ValueError(f"DeLong needs 2 images of each class, found {len(positive)} and {len(negative)}.")
    order = (positive[:, None] > negative[None]) + 0.5 * (positive[:, None] == negative[None])
    area = float(order.mean())
    variance = order.mean(axis=1).var(ddof=1) / len(positive) + order.mean(axis=0).var(ddof=1) / len(negative)
    reach = norm.ppf((1 + level) / 2) * np.sqrt(variance)
    return area, float(max(area - reach, 0.0)), float(min(area + reach, 1.0))


def share_interval(count: int, total: int, level: float = 0.95) -> tuple[float, float]:
    """Exact (Clopper-Pearson) interval of a share, each end in [0, 1].

    Raises:
        ValueError: when there is nothing to take a share of.
    """
    if total < 1 or not 0 <= count <= total:
        raise ValueError(f"{count} of {total} is no share.")
    interval = binomtest(count, total).proportion_ci(level, method="exact")
    return float(interval.low), float(interval.high)


def rank_test(inside: Array, outside: Array) -> tuple[float, float]:
    """Whether one set of similarities is larger than another: AUC and the one-sided p-value.

    For a privacy audit: `inside` are the similarities of each shot, or group of shots, to its nearest synthetic image,
    `outside` those of holdout images that the generator never saw. An AUC of 0.5 is what no leak looks like.

    Args:
        inside: shape (k,).
        outside: shape (h,).

    Reference:
        Mann and Whitney, "On a Test of Whether one of Two Random Variables is Stochastically Larger than the Other",
        1947.
    """
    result = mannwhitneyu(inside, outside, alternative="greater")
    return float(result.statistic / (len(inside) * len(outside))), float(result.pvalue)
