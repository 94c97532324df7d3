import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from monai_synth.metrics import (
    Difference,
    area_under_roc,
    delong_interval,
    holm,
    paired_bootstrap,
    rank_test,
    share_interval,
)


def patients(rng, num_patients=40, tiles=25, effect=0.0):
    """Right answers of two arms that vary more between patients than within, and the expected difference."""
    labels, groups = np.repeat(np.arange(num_patients) % 2, tiles), np.repeat(np.arange(num_patients), tiles)
    ease = np.repeat(np.clip(rng.normal(0.7, 0.2, num_patients), 0.02, 0.98), tiles)
    gain = np.repeat(rng.normal(effect, 0.15, num_patients), tiles)
    arms = [rng.random(len(ease)) < np.clip(p, 0, 1) for p in (ease + gain, ease)]
    return arms, labels, groups


def difference_of(arms, labels):
    of_each = [balanced_accuracy_score(labels, np.where(right, labels, 1 - labels)) for right in arms]
    return of_each[0] - of_each[1]


@pytest.mark.slow
def test_the_interval_covers_what_it_says():
    rng = np.random.default_rng(0)
    truth = np.mean([difference_of(*patients(rng)[:2]) for _ in range(2000)])
    covered = 0
    for number in range(300):
        (treatment, baseline), labels, groups = patients(rng)
        found = paired_bootstrap([treatment], [baseline], labels, groups, num_samples=300, seed=number)
        covered += found.low <= truth <= found.high
    assert covered / 300 >= 0.92


def test_an_interval_over_patients_is_wider_than_one_over_tiles():
    (treatment, baseline), labels, groups = patients(np.random.default_rng(0))
    over_patients = paired_bootstrap([treatment], [baseline], labels, groups, 300)
    over_tiles = paired_bootstrap([treatment], [baseline], labels, np.arange(len(labels)), 300)
    assert over_patients.high - over_patients.low > 1.5 * (over_tiles.high - over_tiles.low)


def test_equal_arms_differ_by_nothing_and_order_turns_the_sign():
    (treatment, baseline), labels, groups = patients(np.random.default_rng(1), effect=0.2)
    assert paired_bootstrap([treatment], [treatment], labels, groups, 50) == Difference(0.0, 0.0, 0.0, p_value=1.0)
    forth = paired_bootstrap([treatment] * 2, [baseline] * 2, labels, groups, 200)
    back = paired_bootstrap([baseline] * 2, [treatment] * 2, labels, groups, 200)
    assert forth.estimate == pytest.approx(-back.estimate) and forth.low == pytest.approx(-back.high)
    assert forth.shown and forth.sentence().startswith("Better by +0.")
    with pytest.raises(ValueError, match="Both arms need the same draws and images"):
        paired_bootstrap([treatment], [baseline[:-1]], labels, groups)


def test_the_words_claim_no_more_than_was_shown():
    assert Difference(0.02, -0.01, 0.05).sentence() == "No difference shown: +0.020 (95% interval -0.010 to +0.050)."
    assert Difference(-0.02, -0.03, -0.01).sentence().startswith("Worse by -0.020")


def test_classes_weigh_alike_and_one_that_a_sample_lacks_is_left_out():
    """The treatment alone is right, on the three images of the first class alone; each class is a patient's."""
    found = paired_bootstrap([[1, 1, 1, 0]], [[0, 0, 0, 0]], np.array([0, 0, 0, 1]), ["a", "a", "a", "b"], 200)
    assert (found.estimate, found.low, found.high) == (0.5, 0.0, 1.0)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_delong_agrees_with_the_area_and_the_bootstrap():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 60)
    scores = rng.normal(labels * 1.0)
    area, low, high = delong_interval(labels, scores)
    assert area == pytest.approx(area_under_roc(labels, np.stack([-scores, scores], axis=1)))
    samples = []
    for _ in range(400):
        chosen = np.concatenate([rng.choice(60, 60), 60 + rng.choice(60, 60)])
        samples.append(delong_interval(labels[chosen], scores[chosen])[0])
    assert high - low == pytest.approx(2 * 1.96 * np.std(samples), rel=0.15)
    with pytest.raises(ValueError, match="needs 2 images of each class, found 1 and 60"):
        delong_interval(labels[:61], scores[:61])


def test_nothing_found_in_few_still_allows_much():
    assert share_interval(0, 20)[1] == pytest.approx(1 - 0.025 ** (1 / 20))
    assert share_interval(0, 20, 0.90)[1] == pytest.approx(0.139, abs=0.001)  # 0 of 20, one-sided 95 %
    with pytest.raises(ValueError, match="0 of 0 is no share"):
        share_interval(0, 0)


def test_the_rank_test_is_level_without_a_leak_and_finds_copies():
    rng = np.random.default_rng(0)
    values = [rank_test(rng.normal(size=20), rng.normal(size=40))[1] for _ in range(400)]
    assert 0.03 < np.mean(np.array(values) < 0.05) < 0.08
    leaked = rng.normal(size=20)
    leaked[:10] += 5.0
    area, p_value = rank_test(leaked, rng.normal(size=40))
    assert area > 0.7 and p_value < 0.01


def test_draws_may_have_test_images_of_their_own():
    (treatment, baseline), labels, groups = patients(np.random.default_rng(2), effect=0.2)
    half = len(labels) // 2
    parts = [slice(None), slice(half)]
    of_each = [[values[part] for part in parts] for values in (treatment, baseline, labels, groups)]
    found = paired_bootstrap(*of_each, num_samples=200)
    alone = [difference_of((treatment[part], baseline[part]), labels[part]) for part in parts]
    assert found.estimate == pytest.approx(np.mean(alone)) and found.low < found.estimate < found.high


def test_a_difference_that_many_looks_explain_is_not_shown():
    difference = Difference(0.05, 0.01, 0.09, p_value=0.02)
    assert difference.sentence(0.02).startswith("Better by +0.050")
    assert difference.sentence(0.08).startswith("No difference shown: +0.050")


def test_draws_on_the_same_test_images_say_nothing_more_of_the_patients():
    (treatment, baseline), labels, groups = patients(np.random.default_rng(3), num_patients=8)
    one = paired_bootstrap([treatment], [baseline], labels, groups)
    five = paired_bootstrap([treatment] * 5, [baseline] * 5, labels, groups)
    assert (five.low, five.high) == pytest.approx((one.low, one.high), abs=0.02)
    elsewhere = [[f"{number}-{group}" for group in groups] for number in range(5)]  # five times as many patients
    apart = paired_bootstrap([treatment] * 5, [baseline] * 5, labels, elsewhere)
    assert apart.high - apart.low < 0.6 * (five.high - five.low)


def test_a_clear_difference_among_many_comparisons_stays_shown():
    (treatment, baseline), labels, groups = patients(np.random.default_rng(4), num_patients=60, effect=0.3)
    few = paired_bootstrap([treatment], [baseline], labels, groups)
    assert holm([few.p_value] * 175)[0] > 0.05
    many = paired_bootstrap([treatment], [baseline], labels, groups, most_samples=80 * 175)
    assert holm([many.p_value] * 175)[0] < 0.05
    (treatment, baseline), labels, groups = patients(np.random.default_rng(4))
    arms = [treatment], [baseline], labels, groups
    assert paired_bootstrap(*arms, most_samples=4000) == paired_bootstrap(*arms)  # no more than are needed
