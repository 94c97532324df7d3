import numpy as np
import torch
from monai.transforms import Compose, RandFlipd
from PIL import Image

from monai_synth.transforms import LoadTile, LoadTiled, ResizeCrop, ResizeCropd


def test_a_tile_keeps_its_orientation(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (5, 9, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    torch.testing.assert_close(LoadTile()(tmp_path / "a.png"), torch.from_numpy(pixels).permute(2, 0, 1) / 255)
    record = LoadTiled("image")({"image": tmp_path / "a.png", "label": 1})
    assert record["image_path"] == str(tmp_path / "a.png") and record["label"] == 1


def test_resize_crop_takes_the_middle_square():
    image = torch.zeros(3, 8, 16)
    image[:, :, 4:12] = 1.0
    torch.testing.assert_close(ResizeCrop(8)(image), torch.ones(3, 8, 8))
    constant = torch.full((3, 30, 20), 0.25)
    torch.testing.assert_close(ResizeCropd("image", 8)({"image": constant})["image"], torch.full((3, 8, 8), 0.25))


def test_they_work_in_a_monai_pipeline(tmp_path):
    Image.new("RGB", (20, 10), "red").save(tmp_path / "a.png")
    pipeline = Compose([LoadTiled("image"), ResizeCropd("image", 8), RandFlipd("image", prob=1.0, spatial_axis=0)])
    assert tuple(pipeline({"image": str(tmp_path / "a.png")})["image"].shape) == (3, 8, 8)
