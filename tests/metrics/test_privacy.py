"""Membership tests: right when nothing leaks, powerful when something does, and honest about what they could see."""

import math

import numpy as np
import pytest
from scipy.stats import binomtest, kstest, norm

from monai_synth.metrics.privacy import (
    LEAK,
    NO_LEAK,
    Membership,
    detectable_auc,
    epsilon_lower_bound,
    membership,
    membership_verdict,
    why_not_testable,
)


def simulated(rng, members=20, others=40, shift=0.0, images=2):
    """Scores of two classes whose level differs, members shifted, several images in each group."""
    is_member = np.repeat(np.arange(members + others) < members, images)
    groups = np.repeat([f"g{i}" for i in range(members + others)], images)
    labels = np.repeat(rng.integers(2, size=members + others), images)
    own = np.repeat(rng.standard_normal(members + others), images)
    return own + 0.3 * rng.standard_normal(len(own)) + 5 * labels + shift * is_member, is_member, labels, groups


def test_p_values_are_uniform_when_nothing_leaks():
    rng = np.random.default_rng(0)
    values = [membership(*simulated(rng)).p_value for _ in range(400)]
    assert kstest(values, "uniform").pvalue > 0.01
    assert binomtest(sum(value < 0.05 for value in values), 400, 0.05).pvalue > 0.01


def test_more_images_of_the_others_groups_do_not_hide_a_leak_nor_make_one():
    rng, found = np.random.default_rng(1), []
    for _ in range(300):
        few, many = simulated(rng, 20, 0, images=1), simulated(rng, 0, 40, images=6)
        scores = np.concatenate([few[0], many[0]])
        is_member = np.arange(len(scores)) < 20
        groups = [*few[3], *(f"o{name}" for name in many[3])]
        found.append(membership(scores, is_member, np.concatenate([few[2], many[2]]), groups).p_value)
    assert kstest(found, "uniform").pvalue > 0.01


def test_a_patient_who_is_in_many_classes_counts_once():
    rng, found = np.random.default_rng(3), []
    for _ in range(300):
        names, labels = np.repeat(np.arange(30), 8), np.tile(np.arange(8), 30)
        scores = rng.standard_normal(30)[names] + rng.standard_normal(240) + 5 * labels
        found.append(membership(scores, names < 10, labels, [f"g{name}" for name in names]))
    assert (found[0].members, found[0].others) == (10, 20)
    assert binomtest(sum(one.p_value < 0.05 for one in found), 300, 0.05).pvalue > 0.01


def test_power_is_what_is_said():
    rng, bound = np.random.default_rng(2), detectable_auc(20, 40)
    shift = math.sqrt(2 * 1.09) * float(norm.ppf(bound))  # two normals of variance 1.09
    found = [membership(*simulated(rng, shift=shift)).p_value < 0.05 for _ in range(300)]
    assert 0.7 < np.mean(found) < 0.9


def test_a_class_that_is_easy_is_no_leak():
    labels = np.repeat([0, 1], 20)
    is_member = np.arange(40) % 20 < np.repeat([15, 5], 20)  # most members are of the easy class
    scores = 10.0 * (labels == 0) + np.random.default_rng(0).standard_normal(40)
    found = membership(scores, is_member, labels, [f"g{i}" for i in range(40)])
    assert 0.25 < found.auc < 0.75 and found.p_value > 0.05


def test_a_group_on_both_sides_is_refused():
    with pytest.raises(ValueError, match="group 'b' was used and is in the holdout too"):
        membership(np.arange(4.0), np.array([True, True, False, False]), np.zeros(4, int), ["a", "b", "b", "c"])


def test_what_cannot_be_tested_says_why():
    member = np.arange(12) < 4
    assert "Only 4 groups were used" in why_not_testable(member, [f"g{i}" for i in range(12)])
    assert "holdout has 4 groups, fewer than the 8" in why_not_testable(~member, [f"g{i}" for i in range(12)])
    assert why_not_testable(np.arange(12) < 6, [f"g{i}" for i in range(12)]) == ""


def test_epsilon_by_hand():
    scores = np.concatenate([np.full(20, 10.0), np.arange(40.0) / 100])
    found = epsilon_lower_bound(scores, np.arange(60) < 20)
    low, high = 0.025 ** (1 / 20), 1 - 0.025 ** (
        1 / 20
    )  # 20 of 20 members; 0 of 20 others above the threshold, at best
    assert found <= math.log(low / high) + 1e-9 and found > 0.7
    assert epsilon_lower_bound(np.random.default_rng(0).standard_normal(60), np.arange(60) < 20) == 0.0
    assert epsilon_lower_bound(np.zeros(3), np.array([True, True, True])) == 0.0


def test_the_effect_that_could_have_been_seen_by_hand():
    assert detectable_auc(20, 40) == pytest.approx(0.5 + (1.6449 + 0.8416) * math.sqrt(61 / 9600), abs=1e-3)
    assert detectable_auc(5, 5) < 1 and detectable_auc(500, 500) < 0.55


def test_verdicts_in_words():
    verdict, words = membership_verdict(Membership(0.9, 0.8, 1.0, 0.001, 0.7, 10, 40), "Nearness")
    assert verdict == LEAK and "AUC 0.90 (0.80 to 1.00, p 0.001; 10 groups that were used against 40" in words
    verdict, words = membership_verdict(Membership(0.55, 0.4, 0.7, 0.3, 0.72, 10, 40), "Nearness")
    assert verdict == NO_LEAK and "An AUC of 0.72 would have been found with 80 % probability" in words
