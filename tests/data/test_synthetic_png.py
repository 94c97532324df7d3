import numpy as np
import torch
from PIL import Image

from monai_synth.data import is_marked_synthetic, read_image, write_synthetic_png


def test_the_file_says_that_it_is_synthetic_and_nothing_else(tmp_path):
    image = torch.rand(3, 8, 8)
    write_synthetic_png(tmp_path / "x.png", image)
    assert is_marked_synthetic(tmp_path / "x.png")
    with Image.open(tmp_path / "x.png") as opened:
        assert set(opened.info) == {"xmp", "XML:com.adobe.xmp"}
    assert b"trainedAlgorithmicMedia" in (tmp_path / "x.png").read_bytes()
    np.testing.assert_allclose(read_image(tmp_path / "x.png"), image.numpy(), atol=0.5 / 255 + 1e-6)


def test_a_plain_file_is_not_marked(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "plain.png")
    assert not is_marked_synthetic(tmp_path / "plain.png")
