import numpy as np
import pytest
from scipy.special import softmax

from monai_synth.metrics import brier_score, expected_calibration_error, fit_temperature, with_temperature


def test_calibration_error_by_hand():
    probabilities = np.array([[0.6, 0.4], [0.7, 0.3], [0.9, 0.1], [1.0, 0.0]])
    labels = np.array([1, 0, 0, 0])  # of two bins, half and all are right
    assert expected_calibration_error(labels, probabilities, 2) == pytest.approx((abs(0.65 - 0.5) + abs(0.95 - 1)) / 2)


def test_brier_score_by_hand():
    assert brier_score([0, 1], np.array([[1.0, 0.0], [0.5, 0.5]])) == pytest.approx((0 + 0.5) / 2)
    assert brier_score([1], np.array([[1.0, 0.0]])) == 2.0


def test_the_temperature_of_overconfident_logits_is_found():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(4000, 3)) * 2
    labels = np.array([rng.choice(3, p=row) for row in softmax(logits, axis=1)])
    assert fit_temperature(labels, 3 * logits) == pytest.approx(3.0, rel=0.08)
    np.testing.assert_allclose(with_temperature(3 * logits, 3.0), softmax(logits, axis=1))
    before, after = (expected_calibration_error(labels, with_temperature(3 * logits, t)) for t in (1.0, 3.0))
    assert after < 0.03 < before
    with pytest.raises(ValueError, match="temperature is 0"):
        with_temperature(logits, 0)


def test_without_a_best_temperature_there_is_none():
    logits = np.array([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0]])
    assert fit_temperature([0, 1, 0], logits) is None  # all right: the lower, the better
    assert fit_temperature([1, 0, 1], logits) is None  # all wrong: the higher, the better
    assert fit_temperature([0, 1, 1], logits * [[1.0], [1.0], [0.3]]) > 0
