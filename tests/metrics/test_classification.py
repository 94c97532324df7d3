import numpy as np
import pytest

from monai_synth.metrics import area_under_roc, classification_metrics


def test_numbers_by_hand():
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4], [0.2, 0.8]])
    metrics = classification_metrics([0, 0, 0, 1, 1], probabilities, ["a", "b"])
    assert metrics["recall"] == {"a": pytest.approx(2 / 3), "b": 0.5}
    assert metrics["balanced_accuracy"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert metrics["accuracy"] == 0.6 and metrics["majority_share"] == 0.6
    assert metrics["macro_f1"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert metrics["auroc"] == pytest.approx(5 / 6)  # of 6 pairs, 5 are ordered right
    assert metrics["confusion_matrix"] == [[2, 1], [1, 1]]


def test_area_counts_ordered_pairs():
    rng = np.random.default_rng(0)
    labels, scores = rng.integers(0, 2, 40), rng.random(40)
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[labels == 1] for b in scores[labels == 0]]
    assert area_under_roc(labels, np.stack([1 - scores, scores], axis=1)) == pytest.approx(np.mean(pairs))


def test_a_class_without_images_is_left_out():
    metrics = classification_metrics([0, 1], np.eye(3)[:2], ["a", "b", "c"])
    assert metrics["recall"]["c"] is None and metrics["auroc"] is None and metrics["balanced_accuracy"] == 1.0


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="Expected probabilities of shape .2, 2."):
        classification_metrics([0, 1], np.ones((2, 3)), ["a", "b"])
    with pytest.raises(ValueError, match="not finite"):
        classification_metrics([0, 1], np.full((2, 2), np.nan), ["a", "b"])
