import numpy as np
import torch
from PIL import Image

from monai_synth.data.phantom import draw_phantom
from monai_synth.transforms import MatchColorsd, match_colors
from monai_synth.transforms.reinhard import color_statistics, from_lab, to_lab


def cell(seed):
    return torch.as_tensor(draw_phantom("neutrophil", seed, size=64)).float()


def test_the_color_space_leads_back():
    image = cell(1).clamp(0.02, 1)
    torch.testing.assert_close(from_lab(to_lab(image)).float(), image, atol=2e-3, rtol=0)  # the constants are rounded
    grey = to_lab(torch.full((3, 2, 2), 0.5))
    assert grey[1:].abs().max() < 0.02  # grey is neither yellow nor red


def test_an_image_gets_the_others_colors_and_keeps_its_own_shapes():
    image, other = cell(1), cell(2)
    matched = match_colors(image, *color_statistics(other))
    for ours, theirs in zip(color_statistics(matched), color_statistics(other)):
        torch.testing.assert_close(ours, theirs, atol=0.02, rtol=0.15)  # what leaves [0, 1] is cut
    assert np.corrcoef(to_lab(matched)[0].flatten(), to_lab(image)[0].flatten())[0, 1] > 0.97
    torch.testing.assert_close(match_colors(image, *color_statistics(image)), image, atol=5e-3, rtol=0)


def test_synthetic_images_alone_are_matched_with_a_shot_of_their_class(tmp_path):
    for name, seed in (("a", 3), ("b", 4)):
        pixels = (cell(seed).permute(1, 2, 0) * 255).byte().numpy()
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    shots = [{"image": str(tmp_path / f"{name}.png"), "class_name": name} for name in "ab"]
    match = MatchColorsd("image", shots)
    image = cell(5)
    drawn = {"image": image, "origin": "synthetic", "class_name": "b", "image_path": "x/b_000001.png"}
    expected = match_colors(image, *color_statistics(cell(4)))
    torch.testing.assert_close(match(drawn)["image"], expected, atol=0.01, rtol=0)
    assert torch.equal(match(drawn)["image"], match({**drawn, "image_path": "moved/b_000001.png"})["image"])
    assert match({**drawn, "origin": "real"})["image"] is image
    assert MatchColorsd("image")(drawn)["image"] is image
