from collections import Counter

import numpy as np
import pytest

from monai_synth.data import RealSyntheticDataset, load_synthetic, plan_requests, requests
from monai_synth.data.mixing import choose_synthetic, fill_up


def records(origin, count, classes=("a", "b"), **fields):
    return [
        {"image": f"{origin}/{name}/{index:03d}", "label": label, "class_name": name, "origin": origin, **fields}
        for label, name in enumerate(classes)
        for index in range(count)
    ]


REAL, SYNTHETIC = records("real", 5, role="shots"), records("synthetic", 40)


def count(dataset):
    return Counter((record["origin"], record["class_name"]) for record in dataset.data)


def test_policies_take_what_they_say():
    assert count(RealSyntheticDataset(REAL, SYNTHETIC, "none")) == {("real", "a"): 5, ("real", "b"): 5}
    assert count(RealSyntheticDataset(REAL, SYNTHETIC, "synthetic", 10)) == {
        ("synthetic", "a"): 10,
        ("synthetic", "b"): 10,
    }
    both = RealSyntheticDataset(REAL, SYNTHETIC, "real+synthetic", 10)
    assert count(both) == {("real", "a"): 5, ("real", "b"): 5, ("synthetic", "a"): 10, ("synthetic", "b"): 10}


def test_weights_make_the_loss_the_stated_mixture():
    dataset = RealSyntheticDataset(REAL, SYNTHETIC, synthetic_per_class=20, real_weight=0.8)
    loss = {"real": 2.0, "synthetic": 7.0}  # of each image
    mean = np.mean([record["weight"] * loss[record["origin"]] for record in dataset.data])
    np.testing.assert_allclose(mean, 0.8 * 2.0 + 0.2 * 7.0)
    assert {record["weight"] for record in RealSyntheticDataset(REAL, mixing="none").data} == {1.0}


def test_fewer_synthetic_images_are_part_of_more():
    few, many = (RealSyntheticDataset(REAL, SYNTHETIC, synthetic_per_class=number) for number in (5, 15))
    assert {r["image"] for r in few.data} < {r["image"] for r in many.data}


def test_none_takes_as_many_as_the_scarcest_class_has():
    uneven = SYNTHETIC[:40] + SYNTHETIC[40:47]
    assert count(RealSyntheticDataset(REAL, uneven))[("synthetic", "a")] == 7


def test_the_transform_is_applied():
    dataset = RealSyntheticDataset(REAL, mixing="none", transform=lambda record: record["label"])
    assert [dataset[0], dataset[9]] == [0, 1]


@pytest.mark.parametrize(
    ("real", "synthetic", "options", "message"),
    [
        (REAL, SYNTHETIC, {"mixing": "all"}, "no mixing policy 'all'. Choose one of none, synthetic, real\\+synthetic"),
        (REAL, SYNTHETIC, {"real_weight": 1.5}, "real_weight is 1.5"),
        (REAL, SYNTHETIC, {"synthetic_per_class": 41}, "'a' has 40 synthetic images, but 41 .*--images_per_class"),
        (REAL, [], {}, "has 0 synthetic images"),
        (SYNTHETIC, SYNTHETIC, {}, "Only real images with the role shots or train may train"),
        (records("real", 2, role="test"), SYNTHETIC, {}, "role 'test'. Only real images"),
        (records("real", 2, role="val"), SYNTHETIC, {}, "role 'val'. Only real images"),
        (REAL, REAL, {}, "named among the synthetic training images"),
        (REAL, records("synthetic", 2, role="test"), {}, "named among the synthetic training images"),
    ],
)
def test_the_wall_holds_at_the_mixture(real, synthetic, options, message):
    with pytest.raises(ValueError, match=message):
        RealSyntheticDataset(real, synthetic, **options)


def test_the_baseline_needs_no_generator(tmp_path):
    assert load_synthetic(tmp_path / "gone.json", "none") == []
    with pytest.raises(FileNotFoundError, match="There is no datalist"):
        load_synthetic(tmp_path / "gone.json", "real+synthetic")


def test_images_added_later_do_not_change_which_are_used():
    assert choose_synthetic(REAL, SYNTHETIC, 3) == choose_synthetic(REAL, records("synthetic", 60), 3)


def test_the_first_images_are_those_that_were_asked_for_first_in_whatever_folder(monkeypatch):
    monkeypatch.setattr(requests, "IMAGES_PER_FOLDER", 2)
    plan = plan_requests(["a"], {"a": "a"}, 6, seed=0)
    drawn = [{**request, "image": f"/out/{request['image']}", "origin": "synthetic"} for request in plan]
    real = [{"class_name": "a"}, *[{"class_name": "b"}] * 5]
    for chosen in (choose_synthetic(real[:1], drawn[::-1], 4), fill_up(real, drawn[::-1], None)):
        assert [record["index"] for record in chosen] == [0, 1, 2, 3]
