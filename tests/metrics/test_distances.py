import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from monai_synth.metrics import (
    cubic_kernel,
    frechet_distance,
    gaussian_kernel,
    neighbor_scores,
    unbiased_mmd,
    vendi_score,
)

RNG = np.random.default_rng(0)


def brute_mmd(x, y, kernel):
    pairs = [kernel(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j]
    others = [kernel(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j]
    across = [kernel(a, b) for a in x for b in y]
    return np.mean(pairs) + np.mean(others) - 2 * np.mean(across)


def test_mmd_is_the_sum_over_pairs():
    x, y = RNG.normal(size=(6, 4)), RNG.normal(1.0, size=(9, 4))
    assert unbiased_mmd(x, y) == pytest.approx(brute_mmd(x, y, lambda a, b: (a @ b / 4 + 1) ** 3))
    gaussian = unbiased_mmd(x, y, gaussian_kernel(2.0))
    assert gaussian == pytest.approx(brute_mmd(x, y, lambda a, b: np.exp(-np.square(a - b).sum() / 8)))


def test_kid_agrees_with_torchmetrics():
    kid = pytest.importorskip("torchmetrics.image.kid")
    x, y = RNG.normal(size=(50, 8)), RNG.normal(0.5, size=(50, 8))
    theirs = kid.poly_mmd(torch.from_numpy(x), torch.from_numpy(y), degree=3, gamma=None, coef=1.0)
    assert unbiased_mmd(x, y) == pytest.approx(float(theirs))


@pytest.mark.parametrize("kernel", [cubic_kernel, gaussian_kernel(4.0)])
def test_equal_distributions_are_centered_on_zero_even_for_ten_images(kernel):
    values = [unbiased_mmd(RNG.normal(size=(10, 8)), RNG.normal(size=(200, 8)), kernel) for _ in range(200)]
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(200)
    assert unbiased_mmd(RNG.normal(size=(10, 8)), RNG.normal(1.0, size=(200, 8)), kernel) > 3 * np.std(values)


def test_frechet_distance_is_that_of_the_gaussians():
    x, y = RNG.normal(size=(300, 5)), RNG.normal(0.3, 1.5, size=(400, 5))
    a, b = np.cov(x.T), np.cov(y.T)
    expected = np.square(x.mean(0) - y.mean(0)).sum() + np.trace(a + b - 2 * sqrtm(a @ b).real)
    assert frechet_distance(x, y, fewest=100) == pytest.approx(expected)
    assert frechet_distance(x, x, fewest=100) == pytest.approx(0, abs=1e-8)
    with pytest.raises(ValueError, match="At least 2000 images are needed on each side, found 300 real and 400"):
        frechet_distance(x, y)


def test_scores_see_lost_variety_and_strangers():
    real = RNG.normal(size=(300, 4))
    same, narrow, far = RNG.normal(size=(500, 4)), RNG.normal(0, 0.2, size=(300, 4)), RNG.normal(20.0, size=(300, 4))
    scores = {name: neighbor_scores(real, data) for name, data in [("same", same), ("narrow", narrow), ("far", far)]}
    assert scores["same"]["density"] == pytest.approx(1.0, abs=0.15) and scores["same"]["recall"] > 0.8
    assert scores["narrow"]["precision"] > 0.95 and scores["narrow"]["recall"] < 0.3
    assert scores["far"] == {"precision": 0.0, "recall": 0.0, "density": 0.0}


def test_vendi_counts_different_images():
    assert vendi_score(np.ones((5, 3))) == pytest.approx(1.0)
    assert vendi_score(np.eye(4)) == pytest.approx(4.0)
    assert vendi_score(np.repeat(np.eye(4), 3, axis=0)) == pytest.approx(4.0)


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match="must come from one encoder"):
        unbiased_mmd(np.ones((4, 3)), np.ones((4, 2)))
    with pytest.raises(ValueError, match="At least 2 images are needed on each side, found 1 real"):
        unbiased_mmd(np.ones((1, 3)), np.ones((4, 3)))
    with pytest.raises(ValueError, match="At least 7 images"):
        neighbor_scores(np.ones((6, 3)), np.ones((9, 3)))
    with pytest.raises(ValueError, match="bandwidth is 0"):
        gaussian_kernel(0)
    with pytest.raises(ValueError, match="positive length"):
        vendi_score(np.zeros((3, 2)))
