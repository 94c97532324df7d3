import json
from collections import Counter

import numpy as np
import pytest
import torch
from torch.utils.data import Subset

from monai_synth.data import pending_requests, plan_requests, prompts_of, requests, write_synthetic_image
from monai_synth.data.prompts import check_attributes
from monai_synth.data.requests import JOURNAL, index_of
from monai_synth.utils import derived_seed, sha256_of

PROMPTS = {"a": "an a", "b": "a b"}


def test_a_longer_plan_begins_with_a_shorter_one():
    short, long = (plan_requests(["a", "b"], PROMPTS, number, seed=1) for number in (2, 5))
    assert [row for row in long if row["index"] < 2] == list(short)
    assert len({row["seed"] for row in long}) == 10
    assert long[5]["image"] == "b/b_000000.png" and long[5]["label"] == 1


def test_a_seed_does_not_depend_on_the_other_classes():
    alone = plan_requests(["a", "b"], PROMPTS, 3, seed=1, requested=["b"])
    assert list(alone) == list(plan_requests(["a", "b"], PROMPTS, 3, seed=1)[3:])
    assert derived_seed(1, "a", 0) != derived_seed(2, "a", 0) != derived_seed(1, "b", 0)
    assert derived_seed(1, "a1", 0) != derived_seed(1, "a", 10)


def test_a_class_without_a_prompt_is_named():
    with pytest.raises(KeyError, match="There is no prompt for \\['c'\\]"):
        plan_requests(["a", "c"], PROMPTS, 1, seed=0)


def test_attributes_are_drawn_by_the_seed_of_each_image():
    stains = {"stain": ["pale stain", "strong stain"]}
    plan = plan_requests(["a", "b"], PROMPTS, 40, seed=1, attributes=stains)
    assert list(plan) == list(plan_requests(["a", "b"], PROMPTS, 40, seed=1, attributes=stains))
    counts = Counter(row["prompt"] for row in plan)
    assert set(counts) == {f"{prompt}, {stain}" for prompt in PROMPTS.values() for stain in stains["stain"]}
    assert min(counts.values()) > 8
    more = plan_requests(["a", "b"], PROMPTS, 40, seed=1, attributes={**stains, "power": ["40x", "100x"]})
    for row, longer in zip(plan, more):
        assert longer["prompt"].rsplit(", ", 1)[0] == row["prompt"] and longer["seed"] == row["seed"]


@pytest.mark.parametrize("attributes", [["pale"], {"stain": "pale"}, {"stain": []}, {"stain": [""]}, {"stain": [3]}])
def test_attributes_are_lists_of_phrases(attributes):
    with pytest.raises(ValueError, match="must give a list of phrases for each name, such as"):
        check_attributes(attributes)


def test_each_class_may_have_a_template_of_its_own():
    templates = {"a": "a smear with {phrase}", "b": "{phrase} in tissue"}
    prompts = prompts_of(["a", "b"], {"a": "x", "b": "y"}, templates)
    assert prompts == {"a": "a smear with x", "b": "y in tissue"}
    with pytest.raises(ValueError, match="prompt_template has no text for \\['c'\\]"):
        prompts_of(["a", "c"], {}, templates)


def test_a_class_name_cannot_lead_out_of_the_folder():
    with pytest.raises(ValueError, match="The class name 'a/b' cannot be the name of a folder. Rename the class"):
        plan_requests(["a/b", "c"], {"a/b": "p", "c": "p"}, 1, seed=0)


def test_only_whole_and_unchanged_images_count_as_done(tmp_path):
    plan = plan_requests(["a"], PROMPTS, 5, seed=0)
    lines = []
    for request in plan[:4]:
        write_synthetic_image(tmp_path / request["image"], torch.rand(3, 8, 8))
        lines.append(json.dumps({**request, "sha256": sha256_of(tmp_path / request["image"])}))
    (tmp_path / plan[1]["image"]).unlink()  # lost
    (tmp_path / plan[2]["image"]).write_bytes(b"torn")  # changed
    lines[3] = lines[3][:40]  # killed while noting it
    (tmp_path / JOURNAL).write_text("\n".join(lines) + "\n")
    assert [row["index"] for row in pending_requests(plan, tmp_path)] == [1, 2, 3, 4]
    other_prompt = plan_requests(["a"], {"a": "another"}, 1, seed=0)
    assert list(pending_requests(other_prompt, tmp_path)) == list(other_prompt)
    assert [row["index"] for row in pending_requests(plan[::2], tmp_path)] == [2, 4]
    assert [row["index"] for row in pending_requests(plan_requests(["b", "a"], PROMPTS, 2, seed=0), tmp_path)] == [
        0,
        1,
        1,
    ]


def test_a_plan_is_a_sequence_that_takes_no_memory(tmp_path):
    plan = plan_requests(["a", "b"], PROMPTS, 10**9, seed=0)
    assert len(plan) == 2 * 10**9 and plan[-1]["index"] == 10**9 - 1 and plan[-1]["class_name"] == "b"
    part = plan[1::4]
    assert len(part) == 5 * 10**8 and part[2] == plan[9] and list(part[1:3]) == [plan[5], plan[9]]
    with pytest.raises(IndexError):
        plan[2 * 10**9]
    few = plan_requests(["a"], PROMPTS, 4, seed=0)
    pending = pending_requests(few[::2], tmp_path)
    assert len(pending) == 2 and list(pending) == [few[0], few[2]]


def test_what_is_missing_is_shared_anew(tmp_path, monkeypatch):
    """Of ten images in two processes, the first one's five are there."""
    plan = plan_requests(["a"], PROMPTS, 10, seed=0)
    parts, said = [], []
    for process, places in ((0, []), (1, [0, 1, 2, 3, 4])):  # in its part of the plan
        monkeypatch.setattr(requests, "rank", lambda: process)
        monkeypatch.setattr(requests, "count", lambda: 2)
        monkeypatch.setattr(
            requests, "gathered", lambda value: said.append(value.tolist()) or [np.arange(0), np.array([1, 3, 5, 7, 9])]
        )
        monkeypatch.setattr(
            requests, "pending_requests", lambda part, folder: parts.append(part) or Subset(part, places)
        )
        drawn = [row["index"] for row in requests.own_requests(plan, tmp_path)]
        assert drawn == [[1, 5, 9], [3, 7]][process]
        assert list(parts[process]) == list(plan[process::2])
    assert said == [[], [1, 3, 5, 7, 9]]  # in the whole of it


def test_classes_of_different_sizes_are_shared_evenly(tmp_path, monkeypatch):
    """Nine images of class a and two of b are missing; of three processes two draw four and one three."""
    plan = plan_requests(["a", "b"], PROMPTS | {"b": "a b"}, 9, seed=0)
    there = set(range(11, 18))  # the last seven of b
    missing = [np.array([place for place in range(process, 18, 3) if place not in there]) for process in range(3)]
    monkeypatch.setattr(requests, "count", lambda: 3)
    monkeypatch.setattr(requests, "gathered", lambda value: missing)
    drawn = []
    for process in range(3):
        monkeypatch.setattr(requests, "rank", lambda: process)
        drawn.append([(row["class_name"], row["index"]) for row in requests.own_requests(plan, tmp_path)])
    assert [len(part) for part in drawn] == [4, 4, 3]
    assert sorted(sum(drawn, [])) == [("a", index) for index in range(9)] + [("b", 0), ("b", 1)]


def test_a_folder_holds_five_thousand_images_at_most():
    plan = plan_requests(["a"], PROMPTS, 2_000_000, seed=0)
    places = (0, 4_999, 5_000, 1_999_999)
    paths = ["a/a_000000.png", "a/a_004999.png", "a/0001/a_005000.png", "a/0399/a_1999999.png"]
    assert [plan[place]["image"] for place in places] == paths
    assert tuple(map(index_of, paths)) == places


def test_prompts_of_known_and_unknown_classes():
    template = "H&E, {phrase}"
    assert prompts_of(["colon_aca", "my_class"], {}, template) == {
        "colon_aca": "H&E, colon adenocarcinoma",
        "my_class": "H&E, my class",
    }
    assert prompts_of(["a"], {"a": "first"}) == {"a": "first"}
    with pytest.raises(ValueError, match="must hold the field {phrase}"):
        prompts_of(["a"], {}, "no field")
    with pytest.raises(ValueError, match="Two classes have the same prompt"):
        prompts_of(["a", "b"], {"a": "x", "b": "x"})
