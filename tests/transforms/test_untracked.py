import torch
from monai.data import MetaTensor, get_track_meta
from monai.transforms import Compose, RandAffined, RandFlipd, RandRotate90d

from monai_synth.transforms import UntrackedCompose


def test_the_numbers_are_those_of_compose_and_tracking_stays_as_it_was():
    def transforms():
        affine = RandAffined("image", prob=1.0, rotate_range=1.0, scale_range=0.2, padding_mode="reflection")
        return [RandFlipd("image", prob=0.5), RandRotate90d("image", prob=0.5), affine]

    plain, untracked = Compose(transforms()), UntrackedCompose(transforms())
    for number in range(5):
        image = torch.rand(3, 16, 16)
        expected = plain.set_random_state(number)({"image": image})["image"]
        found = untracked.set_random_state(number)({"image": image})["image"]
        assert isinstance(expected, MetaTensor) and type(found) is torch.Tensor
        assert torch.equal(found, expected.as_tensor())
    assert get_track_meta()


def test_tracking_is_on_again_after_an_error():
    try:
        UntrackedCompose([lambda _: 1 / 0])({"image": torch.rand(3, 4, 4)})
    except (ZeroDivisionError, RuntimeError):
        pass
    assert get_track_meta()
