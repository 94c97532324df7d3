"""Pictures on the pages show what the engines saw."""

import base64
import io

import nibabel
import numpy as np
import pytest
from PIL import Image

from monai_synth.data import read_image
from monai_synth.report.html import thumbnail


def write_image(path):
    """An image of a kind that Pillow alone would show wrongly or not at all."""
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3) * 5
    if path.suffix == ".nii":
        nibabel.save(nibabel.Nifti1Image(pixels.transpose(1, 0, 2), np.eye(4)), path)
    elif path.stem == "deep":
        Image.fromarray(pixels[..., 0].astype(np.uint16) * 257).save(path)
    elif path.stem == "clear":
        Image.fromarray(np.concatenate([pixels, np.zeros((4, 4, 1), np.uint8)], axis=2)).save(path)
    else:
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.fromarray(pixels).save(path, exif=exif)


@pytest.mark.parametrize("name", ["plane.nii", "deep.png", "turned.png", "clear.png"])
def test_a_thumbnail_shows_what_is_read(tmp_path, name):
    write_image(tmp_path / name)
    content = base64.b64decode(thumbnail(tmp_path / name).removeprefix("data:image/png;base64,"))
    shown = np.asarray(Image.open(io.BytesIO(content)))
    assert np.array_equal(shown, np.round(read_image(tmp_path / name).transpose(1, 2, 0) * 255))
