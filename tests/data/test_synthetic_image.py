import numpy as np
import pytest
import torch
from PIL import Image

from monai_synth.data import is_marked_synthetic, read_image, write_synthetic_image

WEBP = {"xmp", "loop", "background"}  # the last two Pillow sets for every WebP


@pytest.mark.parametrize(("name", "info"), [("x.png", {"xmp", "XML:com.adobe.xmp"}), ("x.webp", WEBP)])
def test_the_file_says_that_it_is_synthetic_and_nothing_else(tmp_path, name, info):
    image = torch.rand(3, 8, 8)
    write_synthetic_image(tmp_path / name, image)
    assert is_marked_synthetic(tmp_path / name)
    with Image.open(tmp_path / name) as opened:
        assert set(opened.info) == info
    assert b"trainedAlgorithmicMedia" in (tmp_path / name).read_bytes()
    np.testing.assert_allclose(read_image(tmp_path / name), image.numpy(), atol=0.5 / 255 + 1e-6)


def test_a_format_that_loses_pixels_is_refused(tmp_path):
    with pytest.raises(ValueError, match="x.jpg is not one of png, webp"):
        write_synthetic_image(tmp_path / "x.jpg", torch.rand(3, 8, 8))


def test_a_plain_file_is_not_marked(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "plain.png")
    assert not is_marked_synthetic(tmp_path / "plain.png")
