"""Which groups are joined because of copies, and under which name."""

from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from monai_synth.data import copies
from monai_synth.data.copies import join_near_duplicates, judge_copies
from monai_synth.data.near_duplicates import NearDuplicates


def record(number, group, class_name="a"):
    return {"image": f"/set/{number}.png", "group": group, "class_name": class_name}


def judged(sets):
    """The findings' levels, with the records of each set of equal pixels changed in place."""
    findings = []
    judge_copies({str(number): same for number, same in enumerate(sets)}, Path("/set"), findings)
    return [finding.level for finding in findings]


def one_by_one(sets):
    """The group of each record when one set after another gives all records of its groups their first name."""
    groups = [record["group"] for same in sets for record in same]
    start = 0
    for same in sets:
        own = set(groups[start : start + len(same)])
        if len({record["class_name"] for record in same}) == 1:
            groups = [min(own) if group in own else group for group in groups]
        start += len(same)
    return groups


def test_groups_that_several_sets_of_copies_link_become_one_under_the_first_name():
    sets = [
        [record(0, "d"), record(1, "c")],
        [record(2, "f"), record(3, "e")],
        [record(4, "c"), record(5, "f")],  # links the two sets before
        [record(6, "b", "a"), record(7, "a", "b")],  # of two classes: an error, and no reason to join
        [record(8, "d")],  # no copy, but of a group that is joined
        [record(9, "g")],
    ]
    assert judged(sets) == ["warning", "warning", "warning", "error"]
    assert [image["group"] for same in sets for image in same] == ["c"] * 6 + ["b", "a", "c", "g"]


@pytest.mark.parametrize("seed", range(5))
def test_all_sets_at_once_give_the_groups_of_one_after_another(seed):
    rng = np.random.default_rng(seed)
    sets = [
        [record(f"{place}_{copy}", f"g{rng.integers(150):03d}", "ab"[rng.random() < 0.1]) for copy in range(size)]
        for place, size in enumerate(rng.integers(1, 4, 80))
    ]
    expected = one_by_one(sets)
    judged(sets)
    found = [image["group"] for same in sets for image in same]
    assert found == expected and 10 < len(set(found)) < 120


def test_no_copies_change_nothing():
    assert judged([]) == []
    assert judged([[one := record(0, "b")], [other := record(1, "a")]]) == []
    assert (one["group"], other["group"]) == ("b", "a")


def test_near_duplicates_join_all_images_of_their_groups(monkeypatch):
    """Two images share a group each; 3 and 4 are of one original, and so are 5 and 12, which links three groups."""
    images = [record(number, f"g{number // 2}") for number in range(20)]
    numbers = np.arange(20)
    numbers[[3, 4]], numbers[[5, 12]] = 3, 5
    monkeypatch.setattr(copies, "find_near_duplicates", lambda paths: NearDuplicates(numbers, 0.5, [], []))
    findings = join_near_duplicates(images, Path("/set"))
    assert "4 images look like" in findings[0].message and "form 2 groups" in findings[0].message
    groups = defaultdict(list)
    for number, image in enumerate(images):
        groups[image["group"]].append(number)
    assert groups.pop("g1") == [2, 3, 4, 5, 12, 13]
    assert list(groups.values()) == [[0, 1], [6, 7], [8, 9], [10, 11], [14, 15], [16, 17], [18, 19]]
