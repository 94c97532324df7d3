import numpy as np
import pytest

from monai_synth.metrics import unbiased_mmd
from monai_synth.metrics.quality import (
    Discrepancy,
    ImageSet,
    class_agreement,
    floor,
    frechet_or_reason,
    quality,
    scaled,
)


def images(rng, count, shift=0.0, label=0, per_group=1, spread=0.0, width=8):
    groups = np.arange(count) // per_group
    centers = rng.normal(0, spread, (count // per_group + 1, width)) if spread else np.zeros((count + 1, width))
    features = rng.normal(shift, 1.0, (count, width)) + centers[groups]
    return ImageSet(features, np.full(count, label), np.array([f"{label}/{shift}/{g}" for g in groups]))


def joined(*sets):
    return ImageSet(*(np.concatenate([getattr(s, name) for s in sets]) for name in ("features", "labels", "groups")))


def test_single_images_as_groups_give_the_usual_estimate():
    rng = np.random.default_rng(0)
    real, other = images(rng, 30), images(rng, 20, shift=0.4)
    assert Discrepancy(real, other).value() == pytest.approx(unbiased_mmd(real.features, other.features))


def test_weights_count_images_as_often_as_they_say():
    rng = np.random.default_rng(1)
    real, other = images(rng, 12), images(rng, 9, shift=0.4)
    keep = np.arange(12) < 7
    weights = [keep.astype(float), np.ones(9)]
    assert Discrepancy(real, other).value(weights) == pytest.approx(Discrepancy(real.where(keep), other).value())


def test_tiles_of_one_patient_do_not_make_real_images_far_from_others():
    rng = np.random.default_rng(2)
    values, naive = [], []
    for _ in range(60):
        real, other = (images(rng, 40, per_group=8, spread=0.7) for _ in range(2))
        values.append(Discrepancy(real, ImageSet(other.features, other.labels, other.groups)).value())
        naive.append(unbiased_mmd(real.features, other.features))
    assert abs(np.mean(values)) < 2.5 * np.std(values) / np.sqrt(60)
    assert np.mean(naive) > 3 * np.std(naive) / np.sqrt(60)  # pairs of one patient pull the usual estimate up


def test_the_interval_holds_the_distance_and_the_floor_is_about_zero():
    rng = np.random.default_rng(3)
    real, other = images(rng, 60), images(rng, 60, shift=0.5)
    distance = Discrepancy(real, other)
    low, high = distance.interval()
    assert 0 < low < distance.value() < high
    mean, top = floor(real)
    assert abs(mean) < 0.2 * distance.value() and mean <= top < distance.value()


@pytest.mark.parametrize(
    ("num_real", "num_other"), [(2, 2), (3, 40), (40, 3)], ids=["two groups each", "few real", "few others"]
)
@pytest.mark.parametrize("shared", [False, True], ids=["own groups", "groups on both sides"])
def test_every_bootstrap_sample_has_pairs_of_different_groups(num_real, num_other, shared):
    """Of equal images every pair has the kernel 8, so that every sample with pairs has the distance 8 + 8 - 2 * 8."""
    real, other = (
        ImageSet(
            np.ones((2 * count, 4)), np.zeros(2 * count, int), np.array([f"{name}/{n // 2}" for n in range(2 * count)])
        )
        for count, name in ((num_real, "a"), (num_other, "a" if shared else "b"))
    )
    assert Discrepancy(real, other).interval() == pytest.approx((0.0, 0.0), abs=1e-9)


def test_quality_reads_zero_for_the_same_and_one_for_the_wrong_class():
    rng = np.random.default_rng(4)
    real = joined(images(rng, 80), images(rng, 80, shift=1.0, label=1))
    good = joined(images(rng, 80), images(rng, 80, shift=1.0, label=1))
    swapped = ImageSet(good.features, 1 - good.labels, good.groups)
    right, wrong = (quality(real, drawn, ["a", "b"], num_samples=50) for drawn in (good, swapped))
    for name in "ab":
        assert abs(right["classes"][name]["ratio"]) < 0.15
        assert wrong["classes"][name]["ratio"] == pytest.approx(1, abs=0.15)
        assert right["classes"][name]["kid_low"] < 0.05 and wrong["classes"][name]["kid_low"] > 0.5
    assert right["classes"]["a"]["nearest_class"] == "b"
    assert right["fid"] is None and "2000 on each side are needed" in right["fid_note"]
    assert right["pooled"]["precision"] > 0.6 and right["pooled"]["num_real"] == 160


def test_less_variety_shows_in_recall_and_vendi():
    rng = np.random.default_rng(5)
    real = joined(images(rng, 60), images(rng, 60, shift=2.0, label=1))
    dull = ImageSet(real.features[rng.integers(3, size=120)] + 0.01, real.labels, np.arange(120).astype(str))
    numbers = quality(real, dull, ["a", "b"], num_samples=10)["pooled"]
    assert numbers["recall"] < 0.2 and numbers["vendi_synthetic"] < numbers["vendi_real"]


def test_too_few_images_are_said_and_not_judged():
    rng = np.random.default_rng(6)
    few = quality(images(rng, 4), images(rng, 30), ["a"], num_samples=5)
    assert few["classes"]["a"]["kid"] is None and few["classes"]["a"]["ratio"] is None
    assert "4 real images of 4 groups and 30 synthetic ones are too few" in few["notes"][0]


def test_features_of_other_encoders_are_refused():
    rng = np.random.default_rng(7)
    with pytest.raises(ValueError, match="different encoders cannot be compared"):
        quality(images(rng, 9), images(rng, 9, width=5), ["a"])
    with pytest.raises(ValueError, match="images of two groups"):
        Discrepancy(images(rng, 8, per_group=8), images(rng, 9))
    with pytest.raises(ValueError, match="need four groups, found 2"):
        floor(images(rng, 8, per_group=4))


def test_frechet_is_given_from_2000_images_on():
    rng = np.random.default_rng(8)
    value, reason = frechet_or_reason(images(rng, 2000), images(rng, 2000))
    assert reason is None and 0 < value < 0.1


def test_scaling_keeps_directions_and_sets_the_length():
    unit = scaled(ImageSet(np.array([[3.0, 4.0]]), np.array([0]), np.array(["a"])))
    np.testing.assert_allclose(unit.features, [[6.0, 8.0]])


def test_agreement_follows_the_planted_labels():
    rng = np.random.default_rng(9)
    shots = joined(images(rng, 20), images(rng, 20, shift=3.0, label=1))
    drawn = joined(images(rng, 10), images(rng, 10, shift=0.0, label=1))  # the second class looks like the first
    found = class_agreement(shots, drawn, shots, ["a", "b"])
    assert found["synthetic"] == {"a": 1.0, "b": 0.0} and found["real"]["b"] == 1.0
    assert found["probabilities"][:10].min() > 0.5 > found["probabilities"][10:].max()


def test_patients_who_have_cells_of_both_classes_leave_the_ceiling_as_it_is():
    rng, shared, apart = np.random.default_rng(0), [], []
    for _ in range(60):
        of_patient = rng.normal(0, 1.0, (12, 8))
        sets = []
        for label, patients in ((0, np.arange(6)), (1, np.arange(6)), (1, np.arange(6, 12))):
            groups = np.repeat(patients, 10)
            features = of_patient[groups] + rng.normal(0.3 * label, 0.3, (60, 8))
            sets.append(ImageSet(features, np.full(60, label), groups.astype(str)))
        shared.append(Discrepancy(sets[0], sets[1]).value())
        apart.append(Discrepancy(sets[0], sets[2]).value())
    assert np.mean(shared) == pytest.approx(np.mean(apart), abs=3 * np.std(apart) / np.sqrt(60))
    assert np.mean(np.array(shared) < 0) < 0.9


def test_what_is_pooled_does_not_measure_how_many_of_each_class_were_drawn():
    rng = np.random.default_rng(1)
    real = joined(images(rng, 200, 0), images(rng, 20, 3, label=1))
    drawn = joined(images(rng, 100, 0), images(rng, 100, 3, label=1))
    found = quality(real, drawn, ["a", "b"], num_samples=20)
    assert (found["pooled"]["num_real"], found["pooled"]["num_synthetic"]) == (220, 110)
    assert abs(found["pooled"]["kid"]) < 0.1 * Discrepancy(real, drawn).value()
    assert not found["classes"]["a"]["kid"] is None and found["classes"]["b"]["num_synthetic"] == 100


def test_a_ceiling_of_nothing_is_said():
    rng = np.random.default_rng(3)  # two samples of one class, by chance nearer than their own halves
    real = joined(images(rng, 60, 0), images(rng, 60, 0, label=1))
    found = quality(real, joined(images(rng, 60, 0), images(rng, 60, 0, label=1)), ["a", "b"], num_samples=20)
    for name in "ab":
        assert found["classes"][name]["ceiling"] < 0 and found["classes"][name]["ratio"] is None
        assert any(note.startswith(f"{name}: real images are as near") for note in found["notes"])
