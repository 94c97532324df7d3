from collections import Counter

import pytest

from monai_synth.data import assign_roles, check_wall


def make(counts, group_size=1):
    return [
        {
            "image": f"/{name}/{index}",
            "label": label,
            "class_name": name,
            "group": f"{name}{index // group_size}",
            "origin": "real",
            "sha256": f"{name}{index}",
        }
        for label, (name, count) in enumerate(counts.items())
        for index in range(count)
    ]


def roles_of(records, role):
    return {record["image"] for record in records if record["role"] == role}


def test_groups_stay_whole_and_every_class_is_everywhere():
    records = assign_roles(make({"a": 60, "b": 40}, group_size=4), shots=3, seed=1)
    check_wall(records)
    for role in ("shots", "train", "val", "test"):
        assert {record["class_name"] for record in records if record["role"] == role} == {"a", "b"}
    assert Counter(record["class_name"] for record in records if record["role"] == "shots") == {"a": 3, "b": 3}


def test_shots_come_from_different_groups_first():
    records = assign_roles(make({"a": 50, "b": 50}, group_size=5), shots=6, seed=0)
    for class_name in "ab":
        groups = [r["group"] for r in records if r["role"] == "shots" and r["class_name"] == class_name]
        assert len(set(groups)) == 6  # of 10 groups, 6 are in the pool


def test_a_seed_redraws_the_shots_and_keeps_the_test():
    data = make({"a": 50, "b": 50})
    first, same, other = (assign_roles(data, shots=5, seed=seed) for seed in (1, 1, 2))
    assert first == same
    assert roles_of(first, "test") == roles_of(other, "test") and roles_of(first, "val") == roles_of(other, "val")
    assert roles_of(first, "shots") != roles_of(other, "shots")


def test_every_image_is_tested_in_exactly_one_fold():
    data = make({"a": 20, "b": 20})
    tested = [roles_of(assign_roles(data, shots=2, num_folds=4, fold=fold), "test") for fold in range(4)]
    assert sum(map(len, tested)) == len(set().union(*tested)) == 40


def test_classes_of_unequal_groups_are_in_equal_shares_in_every_fold():
    """Of each class one patient has 20 images and 20 have one: the large one fills a fold, the others have 5 each."""
    data = [
        {**record, "group": f"{record['class_name']}{max(0, int(record['image'].split('/')[2]) - 19)}"}
        for record in make({"a": 40, "b": 40})
    ]
    for split_seed in range(10):
        folds = Counter((r["class_name"], r["fold"]) for r in assign_roles(data, 1, split_seed=split_seed))
        for name in "ab":
            assert sorted(folds[name, fold] for fold in range(5)) == [5, 5, 5, 5, 20]


def test_fewer_shots_leave_the_folds_alone():
    data = make({"a": 30, "b": 30})
    assert roles_of(assign_roles(data, 2), "test") == roles_of(assign_roles(data, 9), "test")


def test_too_few_images_or_groups_are_refused():
    with pytest.raises(ValueError, match="The class 'b' has 6 images left for training .of 10.* fewer than shots=7"):
        assign_roles(make({"a": 50, "b": 10}), shots=7)
    with pytest.raises(ValueError, match="5 folds need each class in at least 5.*'b' has 2 .*--num_folds"):
        assign_roles(make({"a": 50, "b": 10}, group_size=5), shots=1)
