import torch
from monai.transforms import Compose

from monai_synth.transforms import RandStainJitter, RandStainJitterd
from monai_synth.transforms.stain import change_stains

ONES, ZEROS = torch.ones(3), torch.zeros(3)


def test_no_change_leaves_the_image():
    image = torch.rand(3, 6, 6) * 0.9 + 0.05
    torch.testing.assert_close(change_stains(image, ONES, ZEROS), image, atol=1e-5, rtol=1e-4)


def test_twice_the_hematoxylin_squares_its_transmission():
    hematoxylin = torch.tensor([0.65, 0.70, 0.29]).view(3, 1, 1).expand(3, 2, 2)
    image = torch.exp(-hematoxylin)
    twice = change_stains(image, torch.tensor([2.0, 1.0, 1.0]), ZEROS)
    torch.testing.assert_close(twice, image**2, atol=1e-5, rtol=1e-4)
    eosin_only = change_stains(image, torch.tensor([1.0, 3.0, 1.0]), ZEROS)
    torch.testing.assert_close(eosin_only, image, atol=1e-5, rtol=1e-4)


def test_jitter_is_seeded_bounded_and_off_when_told():
    image = torch.rand(3, 8, 8)
    first, same, other = (RandStainJitter(1.0).set_random_state(seed=seed)(image) for seed in (1, 1, 2))
    assert torch.equal(first, same) and not torch.equal(first, other)
    assert 0 <= first.min() and first.max() <= 1
    assert torch.equal(RandStainJitter(0.0)(image), image)


def test_all_keys_change_alike_and_a_composition_seeds_it():
    image = torch.rand(3, 8, 8)
    pipeline = Compose([RandStainJitterd(["a", "b"], prob=1.0)])
    pipeline.set_random_state(seed=3)
    first = pipeline({"a": image, "b": image})
    assert torch.equal(first["a"], first["b"]) and not torch.equal(first["a"], image)
    pipeline.set_random_state(seed=3)
    assert torch.equal(pipeline({"a": image, "b": image})["a"], first["a"])
