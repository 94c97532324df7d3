import pytest
import torch

from monai_synth.data.phantom import draw_patient, draw_phantom
from monai_synth.transforms import NormalizeStain, NormalizeStaind, normalize_stain, tissue_share
from monai_synth.transforms.macenko import LIGHT, REFERENCE, optical_density, stain_matrix


def stained(stains, strength=(1.6, 0.9), seed=0):
    """A tile whose left half is mostly the first stain and whose right half mostly the second."""
    generator = torch.Generator().manual_seed(seed)
    amounts = torch.rand(2, 48, 48, generator=generator, dtype=torch.float64)
    amounts[0, :, 24:] *= 0.02
    amounts[1, :, :24] *= 0.02
    amounts = 0.3 + amounts * torch.tensor(strength).view(2, 1, 1) * (amounts > 0.02)
    amounts = torch.stack([amounts[0] * (amounts[0] > 0.34), amounts[1] * (amounts[1] > 0.34)])
    return (LIGHT * torch.exp(-torch.einsum("shw,sc->chw", amounts, stains))).float()


def test_the_stains_of_a_tile_are_found():
    truth = torch.nn.functional.normalize(torch.tensor([[0.55, 0.75, 0.35], [0.15, 0.85, 0.40]]).double(), dim=1)
    found = stain_matrix(optical_density(stained(truth)))
    torch.testing.assert_close(found, truth, atol=0.03, rtol=0)
    assert torch.allclose(stain_matrix(optical_density(stained(truth.flip(0)))), found, atol=0.05)  # hematoxylin first


@pytest.mark.parametrize("blue", [0.29, 0.0])
def test_blue_light_does_not_decide_which_stain_is_which(blue):
    """In very blue slides neither stain absorbs blue; the ratio of red and blue would swap them."""
    truth = torch.nn.functional.normalize(torch.tensor([[0.65, 0.70, 0.29], [0.25, 0.95, blue]]).double(), dim=1)
    found = stain_matrix(optical_density(stained(truth) * torch.tensor([1.0, 1.0, 1.0]).view(3, 1, 1)))
    assert found is None or found[0, 0] > found[1, 0]


def test_two_laboratories_look_alike_afterwards():
    images = [
        torch.as_tensor(draw_phantom("colon_n", 5, draw_patient("he", number), 128)).float() for number in (1, 2, 3, 4)
    ]
    after = [normalize_stain(image) for image in images]
    assert all(0 <= image.min() <= image.max() <= 1 for image in after)

    def spread(tiles):
        found = torch.stack([stain_matrix(optical_density(tile)) for tile in tiles])
        return (found - REFERENCE).abs().mean()

    assert spread(after) < 0.6 * spread(images)


def test_white_and_single_stained_tiles_stay_as_they_are(caplog):
    white = torch.ones(3, 32, 32)
    grey = torch.full((3, 32, 32), 0.4)
    normalize = NormalizeStain()
    assert torch.equal(normalize(white), white) and torch.equal(normalize(grey), grey)
    assert caplog.text.count("stays as it is") == 1
    assert tissue_share(white) == 0 and tissue_share(grey) == 1
    assert tissue_share(torch.zeros(3, 8, 8)) == 0  # nothing was scanned there
    near_black = torch.tensor([6.0, 3.0, 8.0]).view(3, 1, 1).expand(3, 8, 8) / 255
    assert tissue_share(near_black) == 0  # as JPEG leaves it
    assert tissue_share(near_black + torch.tensor([20.0, 0.0, 30.0]).view(3, 1, 1) / 255) == 1  # a dark nucleus


def test_none_changes_nothing_and_other_words_are_refused():
    image = torch.rand(3, 16, 16)
    assert NormalizeStaind("image", "none")({"image": image})["image"] is image
    with pytest.raises(ValueError, match="normalize_stain is 'vahadane'. It can be 'none' or 'macenko'"):
        NormalizeStain("vahadane")
