from pathlib import Path

import pytest
from monai.bundle import ConfigWorkflow

from monai_synth.bundle.settings import check_values

CONFIGS = Path(__file__).resolve().parents[2] / "bundles" / "colon" / "configs"


def workflow(name="train", **settings):
    found = ConfigWorkflow(str(CONFIGS / f"{name}.json"), logging_file=False)
    found.parser.update(settings)
    return found


def test_an_arm_without_synthetic_images_may_say_that_there_are_none():
    check_values(workflow(mixing="none", synthetic_per_class=0))
    check_values(workflow(synthetic_per_class=None, min_snr_gamma=None))
    with pytest.raises(ValueError, match="synthetic_per_class is 0. It must lie between 1 and"):
        check_values(workflow(mixing="fill-up", synthetic_per_class=0))


@pytest.mark.parametrize("value", [0, 1, 1.0])
@pytest.mark.parametrize("name", ["find_duplicates", "cuda_graph", "match_colors"])
def test_a_number_is_no_truth_value(name, value):
    for known in (False, True):
        check_values(workflow(**{name: known}))
    with pytest.raises(ValueError, match=rf"{name} is {value}. It can be (None, )?False, True\."):
        check_values(workflow(**{name: value}))
