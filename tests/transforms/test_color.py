import io

import numpy as np
import pytest
import torch
from monai.transforms import Compose
from PIL import Image

from monai_synth.transforms import RandHSVJitterd, RandJPEGd, RandPolicyd
from monai_synth.transforms.color import compressed

RANDOM = [RandHSVJitterd(["a", "b"], 1.0), RandJPEGd(["a", "b"], 1.0), RandPolicyd(["a", "b"], "trivial")]
RANDOM += [RandPolicyd(["a", "b"], "rand")]


@pytest.mark.parametrize("transform", RANDOM, ids=lambda t: type(t).__name__)
def test_keys_change_alike_by_the_seed_alone(transform):
    image = torch.rand(3, 32, 32, generator=torch.manual_seed(0))
    pipeline, found = Compose([transform]), []
    for seed in range(6):
        for _ in range(2):
            pipeline.set_random_state(seed=seed)
            torch.manual_seed(np.random.randint(1000))  # torch's own numbers are nothing to it
            result = pipeline({"a": image, "b": image})
            assert torch.equal(result["a"], result["b"]) and 0 <= result["a"].min() and result["a"].max() <= 1
            assert result["a"].shape == image.shape and result["a"].dtype == torch.float32
            found.append(result["a"])
        assert torch.equal(found[-1], found[-2])
    assert any(not torch.equal(found[0], other) for other in found[2:])


def test_torchs_numbers_are_left_alone():
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    RandPolicyd("a").set_random_state(seed=0)({"a": torch.rand(3, 8, 8, generator=torch.Generator())})
    assert torch.equal(torch.rand(4), expected)


def test_no_strength_or_probability_changes_nothing():
    image = torch.rand(3, 16, 16)
    same = RandHSVJitterd("a", 1.0, hue=0.0, saturation=0.0, value=0.0)({"a": image})["a"]
    torch.testing.assert_close(same, image, atol=1e-5, rtol=0)
    for transform in (RandHSVJitterd("a", 0.0), RandJPEGd("a", 0.0), RandPolicyd("a", prob=0.0)):
        assert torch.equal(transform({"a": image})["a"], image)


def test_brightness_scales_and_grey_has_no_hue():
    grey = torch.full((3, 4, 4), 0.4)
    changed = RandHSVJitterd("a", 1.0, hue=0.5, saturation=1.0, value=0.0).set_random_state(seed=1)({"a": grey})["a"]
    torch.testing.assert_close(changed, grey, atol=1e-4, rtol=0)
    jitter = RandHSVJitterd("a", 1.0, hue=0.0, saturation=0.0, value=0.5).set_random_state(seed=1)
    factor = jitter({"a": grey})["a"] / grey
    torch.testing.assert_close(factor, torch.full_like(factor, float(factor[0, 0, 0])))
    assert 0.5 <= factor[0, 0, 0] <= 1.5 and factor[0, 0, 0] != 1


def test_compression_is_what_a_file_would_hold():
    image = torch.rand(3, 24, 24)
    buffer = io.BytesIO()
    pixels = (image * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=50)
    expected = torch.from_numpy(np.asarray(Image.open(buffer)).copy()).permute(2, 0, 1) / 255
    torch.testing.assert_close(compressed(image, 50), expected)
    errors = [(compressed(image, quality) - image).abs().mean() for quality in (10, 50, 95)]
    assert errors[0] > errors[1] > errors[2]


def test_what_is_out_of_range_is_refused():
    with pytest.raises(ValueError, match="Hue may be 0 to 0.5"):
        RandHSVJitterd("a", hue=0.7)
    with pytest.raises(ValueError, match="a lowest and a highest value from 1 to 100"):
        RandJPEGd("a", quality=(90, 40))
    with pytest.raises(ValueError, match="policy is 'auto'. It can be 'trivial', 'rand'"):
        RandPolicyd("a", "auto")
