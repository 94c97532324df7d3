from pathlib import Path

import pytest
from monai.bundle import ConfigParser

from monai_synth.bundle.arms_check import check_arms
from monai_synth.data import save_datalist

CONFIGS = Path(__file__).resolve().parents[2] / "bundles" / "colon" / "configs"


def config(folder, *names, **settings):
    parser = ConfigParser()
    parser.read_config([str(CONFIGS / f"{name}.json") for name in names or ("train",)])
    parser.update({"output_dir": str(folder), **settings})
    return parser


def draw(folder, **counts):
    records = [
        {"image": str(folder / f"{name}_{i}.png"), "label": label, "class_name": name, "origin": "synthetic"}
        for label, (name, count) in enumerate(counts.items())
        for i in range(count)
    ]
    save_datalist(folder / "datalist.json", records, list(counts), folder)
    return folder


def test_images_that_are_there_are_enough_and_those_of_the_scarcest_class_count(tmp_path):
    draw(tmp_path / "synthetic", benign=7, malignant=9)
    check_arms(config(tmp_path, images_per_class=3, synthetic_per_class=7))
    with pytest.raises(ValueError, match="synthetic_per_class is 8, but of each class 3 images would be drawn"):
        check_arms(config(tmp_path, images_per_class=3, synthetic_per_class=8))


@pytest.mark.parametrize(
    "settings",
    [
        {"mixing": "none", "baseline": ""},
        {"mixing": "none", "baseline": None},
        {"mixing": "fill-up"},  # which takes no more than each class needs
        {"synthetic_datalist": "/elsewhere/datalist.json", "filter": "standard", "encoder": "nowhere"},
    ],
)
def test_a_number_that_is_a_limit_or_unused_may_be_larger_than_what_is_drawn(tmp_path, settings):
    check_arms(config(tmp_path, images_per_class=3, synthetic_per_class=500, **settings))


def test_the_baselines_images_and_roles_count_as_well(tmp_path):
    check_arms(config(tmp_path, real_roles="shots", baseline="synthetic", synthetic_per_class=100))
    with pytest.raises(ValueError, match="synthetic_per_class is 101, but of each class 100 images"):
        check_arms(config(tmp_path, mixing="none", baseline="synthetic", synthetic_per_class=101))


def test_an_encoder_is_looked_for_where_it_encodes(tmp_path):
    check_arms(config(tmp_path, encoder="nowhere"))  # filter is none
    check_arms(config(tmp_path, "train", "evaluate", filter="standard", encoder="nowhere"))
    check_arms(config(tmp_path, "assess", encoder="mine", network_def={"_target_": "my.Encoder"}))
    for name in ("assess", "filter", "privacy"):
        with pytest.raises(FileNotFoundError, match="There is no encoder 'nowhere'"):
            check_arms(config(tmp_path, name, encoder="nowhere"))
