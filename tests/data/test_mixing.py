from collections import Counter

import numpy as np
import pytest
import torch

from monai_synth.data import OriginSampler, RealSyntheticDataset, load_synthetic, plan_requests, requests
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


@pytest.mark.parametrize(
    ("odds", "real_draws"),
    [({"real_share": None}, 10 / 110), ({"real_share": 0.5}, 0.5), ({"real_share": 0.2}, 0.2)],
)
def test_weights_and_odds_together_make_the_stated_mixture(odds, real_draws):
    """10 real and 100 synthetic images: a draw is real with p, so that p w + (1 - p) v = 1 and p w = 0.5."""
    dataset = RealSyntheticDataset(REAL, records("synthetic", 50), real_weight=0.5, **odds)
    weight = torch.tensor([record["weight"] for record in dataset.data])
    assert float(weight[0]) == pytest.approx(0.5 / real_draws)
    share = OriginSampler(dataset.data, 1, **odds).odds() * weight
    assert [float(share[:10].sum()), float(share.sum())] == pytest.approx([0.5, 1.0])


@pytest.mark.parametrize("num_epochs", [5, 6, 3])
def test_a_curriculum_has_the_stated_mixture_over_the_whole_training(num_epochs):
    """Of 6 epochs 0.6 are 4, of 3 they are 2."""
    options = {"real_share": 0.9, "synthetic_first": 0.6, "num_epochs": num_epochs}
    dataset = RealSyntheticDataset(REAL, SYNTHETIC, real_weight=0.8, **options)
    weight = torch.tensor([record["weight"] for record in dataset.data])
    sampler, of_real, total = OriginSampler(dataset.data, 1, **options), 0.0, 0.0
    for epoch in range(1, num_epochs + 1):
        sampler.set_epoch(epoch)
        share = sampler.odds() * weight
        of_real, total = of_real + float(share[:10].sum()) / num_epochs, total + float(share.sum()) / num_epochs
    assert (of_real, total) == pytest.approx((0.8, 1.0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"real_share": 0.0}, "real_weight is 0.5, but with real_share 0.0 no real image is drawn. Set real_weight to"),
        ({"real_share": 1}, "with real_share 1 no synthetic image is drawn.*or real_share to a number between"),
        ({"synthetic_first": 1.0}, "with synthetic_first 1.0 no real image is drawn"),
    ],
)
def test_images_that_are_never_drawn_have_no_share_in_the_loss(options, message):
    with pytest.raises(ValueError, match=message):
        RealSyntheticDataset(REAL, SYNTHETIC, real_weight=0.5, **options)
    for weight in (None, float(bool(options.get("real_share")))):
        found = RealSyntheticDataset(REAL, SYNTHETIC, real_weight=weight, **options)
        assert {record["weight"] for record in found.data} == {1.0}


@pytest.mark.parametrize("options", [{}, {"seen_once": True}, {"synthetic_first": 1.0}])
def test_synthetic_images_of_some_classes_do_not_come_first(options):
    real = [*REAL[:5], *REAL[5:7]]
    options = {"synthetic_first": 0.5, "num_epochs": 4, **options}
    words = (
        f"synthetic_first is {options['synthetic_first']}, but with the mixing 'fill-up' .* Set synthetic_first to 0"
    )
    with pytest.raises(ValueError, match=words):
        RealSyntheticDataset(real, SYNTHETIC, "fill-up", **options)
    assert count(RealSyntheticDataset(real, SYNTHETIC, "fill-up", num_epochs=4))[("synthetic", "b")] == 3


@pytest.mark.parametrize(
    ("options", "share"),
    [
        ({"real_share": 0.5}, 0.5),
        ({"real_share": 0.0}, 0.0),
        ({"real_share": 0.5, "real_weight": 0.8}, 0.8),
        ({"real_share": None}, 10 / 90),
        ({"real_share": 0.5, "synthetic_first": 0.6}, 0.4),
    ],
)
def test_images_that_are_seen_once_have_their_shares_in_their_weights(options, share):
    found = RealSyntheticDataset(REAL, SYNTHETIC, seen_once=True, **{"real_weight": None, **options}).data
    assert sum(record["weight"] for record in found[:10]) / 90 == pytest.approx(share)
    assert sum(record["weight"] for record in found) / 90 == pytest.approx(1.0)


def test_fewer_synthetic_images_are_part_of_more():
    few, many = (RealSyntheticDataset(REAL, SYNTHETIC, synthetic_per_class=number) for number in (5, 15))
    assert {r["image"] for r in few.data} < {r["image"] for r in many.data}


def test_none_takes_as_many_as_the_scarcest_class_has():
    uneven = SYNTHETIC[:40] + SYNTHETIC[40:47]
    assert count(RealSyntheticDataset(REAL, uneven))[("synthetic", "a")] == 7


@pytest.mark.parametrize("mixing", ["synthetic", "real+synthetic", "fill-up"])
def test_images_of_a_run_that_counts_its_classes_otherwise_get_the_labels_of_the_real_ones(mixing):
    real = [*REAL[:5], *REAL[5:7]]
    found = RealSyntheticDataset(real, records("synthetic", 40, ("b", "a")), mixing).data
    drawn = [record for record in found if record["origin"] == "synthetic"]
    assert drawn and all(record["label"] == "ab".index(record["class_name"]) for record in drawn)


def test_a_synthetic_class_that_no_real_image_has_is_told():
    other = records("synthetic", 40, ("b", "c"))
    with pytest.raises(ValueError, match=r"of the classes \['b', 'c'\], but the real ones of \['a', 'b'\]. Name a"):
        RealSyntheticDataset(REAL, other)
    assert len(RealSyntheticDataset(REAL, other, "none")) == 10


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
