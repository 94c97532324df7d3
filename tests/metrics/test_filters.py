"""Limits set by real images, and what is refused by them."""

import numpy as np
import pytest

from monai_synth.metrics.filters import FILTERS, REASONS, distances_to_nearest, failing, real_limits
from monai_synth.metrics.quality import ImageSet

NAMES = ["left", "right"]


def around(rng, angle, count, spread=0.05):
    """Directions in the plane near an angle, at random lengths, which must not matter."""
    angles = angle + spread * rng.standard_normal(count)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1) * rng.uniform(1, 3, (count, 1))


def images(rng, count, angles=(0.0, 1.5), spread=0.05):
    features = np.concatenate([around(rng, angle, count, spread) for angle in angles])
    return ImageSet(features, np.repeat([0, 1], count), np.arange(2 * count))


@pytest.fixture
def real():
    rng = np.random.default_rng(0)
    return images(rng, 12), images(rng, 100)


def limits(real, quantile=0.05):
    shots, judges = real
    return real_limits(shots, shots.features, judges, np.linspace(0.1, 0.3, 224), NAMES, quantile)


def judge(real, features, labels, contrast=None, steps=FILTERS["standard"]):
    found = ImageSet(np.asarray(features, float), np.asarray(labels), np.arange(len(labels)))
    values = np.full(len(labels), 0.2) if contrast is None else np.asarray(contrast)
    verdicts = failing(steps, limits(real), real[0], real[0].features, found, values, NAMES)
    return [None if verdict is None else verdict[0] for verdict in verdicts]


def test_distance_ignores_length():
    assert distances_to_nearest(np.array([[2.0, 0.0]]), np.array([[0.0, 5.0], [1.0, 0.0]])) == pytest.approx([0.0])
    assert distances_to_nearest(np.array([[0.0, 3.0]]), np.array([[1.0, 0.0]])) == pytest.approx([np.sqrt(2)])
    assert len(distances_to_nearest(np.zeros((0, 2)), np.ones((1, 2)))) == 0


def test_real_images_pass_but_for_the_stated_share(real):
    shots, judges = real
    found = limits(real, 0.1)
    assert found.contrast == 0.1
    for label in (0, 1):
        own = distances_to_nearest(judges.of_class(label).features, shots.of_class(label).features)
        assert np.mean(own > found.radius[label]) == pytest.approx(0.1, abs=0.011)
    nearest = distances_to_nearest(judges.features, shots.features)
    assert np.mean(nearest < found.copy) <= 0.01


@pytest.mark.parametrize(("num_judges", "nearer"), [(100, 0), (101, 1), (150, 1), (201, 2)])
def test_the_reasons_tell_the_share_of_real_images_that_sets_the_limit_of_a_copy(num_judges, nearer):
    """Real images at 1, 2, 3 ... thousandths of a turn from the only shot of their side."""
    shots = ImageSet(np.eye(2), np.array([0, 1]), np.arange(2))
    turns = 2 * np.pi * np.arange(1, num_judges + 1) / 1000
    features = np.stack([np.cos(turns), -np.sin(turns)], axis=1)
    judges = ImageSet(features, np.arange(num_judges) % 2, np.arange(num_judges))
    found = real_limits(shots, shots.features, judges, np.ones(3), NAMES, 0.05)
    distances = distances_to_nearest(judges.features, shots.features)
    assert (distances < found.copy - 1e-9).sum() == nearer <= 0.01 * num_judges
    for step in ("copy", "repeat"):
        assert "than 99% of real images of other groups are" in REASONS[step]


def test_each_fault_is_named(real):
    shots = real[0]
    copy, good = shots.features[3] * 1.7, around(np.random.default_rng(5), 0.0, 40, 0.02)
    free = distances_to_nearest(good, shots.features)
    limit = limits(real)
    inside = good[(free > 2 * limit.copy) & (free < 0.5 * limit.radius[0])][:1]
    assert len(inside) == 1
    far, wrong = [[np.cos(-0.9), np.sin(-0.9)]], [[np.cos(1.5), np.sin(1.5)]]
    assert judge(real, [copy], [0]) == ["copy"]
    assert judge(real, inside, [0], contrast=[0.05]) == ["contrast"]
    assert judge(real, inside, [0]) == [None]
    assert judge(real, np.concatenate([inside, 2 * inside]), [0, 0]) == [None, "repeat"]
    assert judge(real, far, [0]) == ["radius"]
    assert judge(real, wrong, [0], steps=("label",)) == ["label"]


def test_more_images_change_nothing_for_those_that_are_there(real):
    rng = np.random.default_rng(2)
    drawn = images(rng, 60, spread=0.1)
    order = np.argsort(np.arange(120) % 60, kind="stable")  # both classes in turn
    few = judge(real, drawn.features[order[:40]], drawn.labels[order[:40]])
    many = judge(real, drawn.features[order], drawn.labels[order])
    assert many[:40] == few and {None, "repeat"} <= set(many)


def test_few_shots_judge_no_labels():
    rng = np.random.default_rng(0)
    found = limits((images(rng, 5), images(rng, 100)))
    assert found.label is None


@pytest.mark.parametrize(("quantile", "needed"), [(0.05, 19), (0.1, 9), (0.5, 1)])
def test_a_limit_of_few_judges_would_refuse_too_many_and_is_none(quantile, needed):
    rng = np.random.default_rng(0)
    shots, judges = images(rng, 12), images(rng, 20)
    for count in (needed - 1, needed):
        if count == 0:
            continue
        kept = np.r_[:count, 20:40]
        some = ImageSet(judges.features[kept], judges.labels[kept], judges.groups[kept])
        found = real_limits(shots, shots.features, some, np.ones(3), NAMES, quantile)
        assert found.judges.tolist() == [count, 20]
        assert np.isnan([found.label[0], found.radius[0]]).all() == (count < needed)
        assert np.isfinite([found.label[1], found.radius[1]]).all()
        far = ImageSet(-shots.features[:1], np.array([0]), np.array([0]))
        verdict = failing(("label", "radius"), found, shots, shots.features, far, np.ones(1), NAMES)[0]
        assert (verdict is None) == (count < needed)


def test_no_number_of_judges_refuses_more_of_further_real_images_than_was_said():
    rng = np.random.default_rng(3)
    shots, further, refused = images(rng, 12), images(rng, 200), []
    for _ in range(300):
        judges = images(rng, 30)  # of which the second would refuse two in 31
        found = real_limits(shots, shots.features, judges, np.ones(3), NAMES, 0.05)
        for label in (0, 1):
            own = distances_to_nearest(further.of_class(label).features, shots.of_class(label).features)
            refused.append(np.mean(own > found.radius[label]))
    assert np.mean(refused) == pytest.approx(1 / 31, abs=0.01)


def test_a_class_without_judges_is_refused(real):
    shots, judges = real
    with pytest.raises(ValueError, match="class 'right' has no validation images"):
        real_limits(shots, shots.features, judges.of_class(0), np.ones(3), NAMES, 0.05)
