from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser

from monai_synth.data import OriginSampler, RealSyntheticDataset
from monai_synth.data.sampling import realized_first
from monai_synth.handlers import EpochSeed

TRAIN = Path(__file__).resolve().parents[2] / "bundles" / "colon" / "configs" / "train.json"
RECORDS = [{"origin": "real"}] * 5 + [{"origin": "synthetic"}] * 95


def test_odds_are_what_is_asked_for():
    torch.manual_seed(0)
    for share in (0.0, 0.3, 1.0):
        drawn = list(OriginSampler(RECORDS, 4000, real_share=share))
        assert sum(index < 5 for index in drawn) / 4000 == pytest.approx(share, abs=0.03)
    every = torch.bincount(torch.tensor(list(OriginSampler(RECORDS, 20000))), minlength=100)
    assert every.min() > 120 and every.max() < 290 and len(OriginSampler(RECORDS, 7)) == 7


def test_synthetic_images_come_first_and_then_real_ones():
    sampler = OriginSampler(RECORDS, 50, synthetic_first=0.6, num_epochs=5)
    for epoch in range(1, 6):
        sampler.set_epoch(epoch)
        assert all((index >= 5) == (epoch <= 3) for index in sampler)


def test_a_baseline_of_one_origin_is_drawn_alike():
    for options in ({"real_share": 0.9}, {"synthetic_first": 0.5, "num_epochs": 4}):
        assert sorted(set(OriginSampler(RECORDS[:5], 500, **options))) == [0, 1, 2, 3, 4]


def test_a_share_out_of_range_is_refused():
    with pytest.raises(ValueError, match="real_share is 2; it must lie between 0 and 1"):
        OriginSampler(RECORDS, 5, real_share=2)


def test_a_share_of_the_epochs_is_a_part_of_them():
    assert [realized_first(share, 6) for share in (0, 0.1, 0.6, 1)] == [0, 1 / 6, 4 / 6, 1]
    for share, epochs, words in (
        (0.05, 6, "0.05, which of num_epochs 6 is 0 and not a part. Name 0.167 to 0.833, or train longer"),
        (0.9, 4, "0.9, which of num_epochs 4 is 4 and not a part. Name 0.25 to 0.75, or train longer"),
        (0.6, 1, "0.6, which of num_epochs 1 is 1 and not a part. Name 0 or 1, or train longer"),
    ):
        with pytest.raises(ValueError, match=f"synthetic_first is {words}"):
            OriginSampler(RECORDS, 5, synthetic_first=share, num_epochs=epochs)
    assert OriginSampler(RECORDS[:5], 5, synthetic_first=0.6).first_epochs == 0  # a baseline


def test_the_epoch_is_told_by_the_handler():
    class State:
        epoch = 4

    class Loader:
        dataset, sampler = None, OriginSampler(RECORDS, 5, synthetic_first=0.5, num_epochs=4)

    class Engine:
        state, data_loader = State(), Loader()

    EpochSeed(0)(Engine())
    assert Loader.sampler.epoch == 4


def record(origin, name, number):
    role = {"role": "shots"} if origin == "real" else {}
    image = f"{origin}/{name}_{number}.png"
    return {"image": image, "label": int(name == "b"), "class_name": name, "origin": origin, **role}


def test_classes_are_filled_up_to_the_largest():
    real = [record("real", "a", i) for i in range(7)] + [record("real", "b", i) for i in range(3)]
    drawn = [record("synthetic", name, i) for name in "ab" for i in range(6)]
    found = RealSyntheticDataset(real, drawn, mixing="fill-up").data
    synthetic = [row["image"] for row in found if row["origin"] == "synthetic"]
    assert synthetic == [f"synthetic/b_{i}.png" for i in range(4)] and all(row["weight"] == 1 for row in found)
    with pytest.raises(ValueError, match="'b' needs 4 synthetic images to be as large as the largest, but 2 can"):
        RealSyntheticDataset(real, drawn, mixing="fill-up", synthetic_per_class=2)


def test_classes_that_were_filled_up_are_drawn_alike():
    real = [record("real", "a", i) for i in range(7)] + [record("real", "b", i) for i in range(3)]
    drawn = [record("synthetic", "b", i) for i in range(6)]
    dataset = RealSyntheticDataset(real, drawn, mixing="fill-up", real_share=0.5)
    odds = OriginSampler(dataset.data, 10, real_share=dataset.real_share).odds()
    of_b = torch.tensor([row["label"] == 1 for row in dataset.data])
    assert float(odds[of_b].sum()) == pytest.approx(0.5)
    assert RealSyntheticDataset(real, drawn + [record("synthetic", "a", 0)], real_share=0.3).real_share == 0.3


@pytest.mark.parametrize(("mixing", "share"), [("fill-up", None), ("real+synthetic", 0.5)])
def test_the_job_draws_by_the_odds_of_its_mixing(mixing, share):
    real = [record("real", "a", i) for i in range(7)] + [record("real", "b", i) for i in range(3)]
    drawn = [record("synthetic", name, i) for name in "ab" for i in range(6)]
    parser = ConfigParser(globals={"torch": "torch", "monai_synth": "monai_synth"})
    parser.read_config(str(TRAIN))
    parser.update({"mixing": mixing, "synthetic_per_class": 6, "train::preprocessing": None})
    parser.update({"train::dataset::real": real, "train::dataset::synthetic": drawn})
    assert parser.get_parsed_content("train::sampler").real_share == share


def test_no_weight_counts_every_image_alike():
    real, drawn = [record("real", n, 0) for n in "ab"], [record("synthetic", n, i) for n in "ab" for i in range(4)]
    assert {row["weight"] for row in RealSyntheticDataset(real, drawn, real_weight=None).data} == {1.0}
