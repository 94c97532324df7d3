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
    """

    estimate: float
    low: float
    high: float
    level: float = 0.95

    @property
    def shown(self) -> bool:
        """Whether the interval leaves zero out."""
        return self.low > 0 or self.high < 0

    def sentence(self) -> str:
        """The difference in words that claim no more than was shown."""
        numbers = f"{self.estimate:+.3f} ({self.level:.0%} interval {self.low:+.3f} to {self.high:+.3f})"
        if not self.shown:
            return f"No difference shown: {numbers}."
        return f"{'Better' if self.estimate > 0 else 'Worse'} by {numbers}."


def balanced_accuracy_of(correct: Array, labels: Array, weights: Array | None = None) -> float:
    """Mean over the classes of the (weighted) share of right answers; classes without weight are left out.

    Args:
        correct: 1 for a right answer, shape (N,).
        labels: true classes, shape (N,).
        weights: how often each image counts, shape (N,); None is once.
    """
    weights = np.ones(len(labels)) if weights is None else weights
    total = np.bincount(labels, weights)
    right = np.bincount(labels, weights * correct, minlength=len(total))
    return float((right[total > 0] / total[total > 0]).mean())


def paired_bootstrap(
    treatment: Sequence[Array] | Array,
    baseline: Sequence[Array] | Array,
    labels: Array,
    groups: Sequence[str] | Array,
    num_samples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Difference:
    """Difference in balanced accuracy with an interval over draws of the shots, groups and images.

    Draws, then groups within a draw, then images within a group are drawn with replacement, the same ones for both
    arms. Intervals over images alone are far too short when a patient has many tiles.

    Args:
        treatment: for each draw of the shots, 1 where the arm is right on a test image, shape (N,).
        baseline: the same for the other arm, on the same images in the same order.
        labels: true classes, shape (N,).
        groups: patient or slide of each image, length N.
        num_samples: bootstrap samples.
        level: confidence, 0 to 1.
        seed: of the samples.

    Raises:
        ValueError: when the arms do not have the same draws and images.

    Reference:
        Davison and Hinkley, "Bootstrap Methods and their Application", 1997, section 3.8 (hierarchical data).
    """
    treatment, baseline = (np.asarray(arm, dtype=float) for arm in (treatment, baseline))
    labels = np.asarray(labels)
    if treatment.shape != baseline.shape or treatment.ndim != 2 or treatment.shape[1] != len(labels):
        raise ValueError(
            f"Both arms need the same draws and images, found {treatment.shape} and {baseline.shape} for "
            f"{len(labels)} labels."
        )
    rng = np.random.default_rng(seed)
    _, member_of = np.unique(np.asarray(groups), return_inverse=True)
    samples = np.empty(num_samples)
    for number in range(num_samples):
        differences = []
        for draw in rng.integers(len(treatment), size=len(treatment)):
            weights = _resampled(member_of, rng)
            both = (balanced_accuracy_of(arm[draw], labels, weights) for arm in (treatment, baseline))
            differences.append(next(both) - next(both))
        samples[number] = np.mean(differences)
    estimate = np.mean(
        [balanced_accuracy_of(a, labels) - balanced_accuracy_of(b, labels) for a, b in zip(treatment, baseline)]
    )
    low, high = np.quantile(samples, [(1 - level) / 2, (1 + level) / 2])
    return Difference(float(estimate), float(low), float(high), level)


def _resampled(member_of: Array, rng: np.random.Generator) -> Array:
    """How often each image counts when groups, and images within them, are drawn with replacement."""
    num_groups = member_of.max() + 1
    times = np.bincount(rng.integers(num_groups, size=num_groups), minlength=num_groups)
    weights = np.zeros(len(member_of))
    for group in np.nonzero(times)[0]:
        members = np.nonzero(member_of == group)[0]
        weights[members] = rng.multinomial(times[group] * len(members), np.full(len(members), 1 / len(members)))
    return weights


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
