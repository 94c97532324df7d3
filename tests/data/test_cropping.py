import csv
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from monai_synth.__main__ import main
from monai_synth.data import scan, write_synthetic_image
from monai_synth.data.cropping import crop_images, middle


def test_the_middle_is_cut_out():
    image = np.arange(2 * 6 * 10).reshape(2, 6, 10)
    assert np.array_equal(middle(image, 0.5), image[:, 1:4, 3:6])  # side 3 of the shorter 6
    assert middle(image, 1.0).shape == (2, 6, 6) and middle(image, 0.01).shape == (2, 1, 1)


def test_a_data_set_keeps_its_classes_and_groups_and_loses_its_rim(image_folder, tmp_path, capsys):
    source = image_folder({"a": 3, "b": 2}, size=40)
    shutil.copy(source / "a" / "a_000.png", source / "a" / "a_000.bmp")  # the same name but for its ending
    rows = [(path.relative_to(source).as_posix(), f"p{path.stem[-1]}") for path in sorted(source.rglob("*_0*"))]
    with open(source / "groups.csv", "w", newline="") as file:
        csv.writer(file).writerows([("image", "group"), *rows])
    out = tmp_path / "middle"
    assert main(["crop", str(source), str(out), "--share", "0.5"]) == 0
    assert "Wrote the middle of 6 images" in capsys.readouterr().out
    records, names = scan(out)
    assert names == ["a", "b"] and [record["group"] for record in records] == ["p0", "p0", "p1", "p2", "p0", "p1"]
    whole, cut = (np.asarray(Image.open(folder / "b" / "b_001.png")) for folder in (source, out))
    assert np.array_equal(cut, whole[10:30, 10:30])


def test_images_of_unknown_class_keep_their_folders(image_folder, tmp_path):
    source = image_folder({"ward": 2}, size=40)
    assert crop_images(source, tmp_path / "out", 0.25, labelled=False) == 2
    assert Image.open(tmp_path / "out" / "ward" / "ward_001.png").size == (10, 10)
    assert not (tmp_path / "out" / "groups.csv").exists()


@pytest.mark.parametrize("labelled", [True, False])
def test_a_synthetic_image_does_not_lose_its_mark(image_folder, tmp_path, labelled):
    source = image_folder({"a": 2, "b": 2})
    write_synthetic_image(source / "b" / "drawn.png", torch.rand(3, 32, 32))
    with pytest.raises(ValueError, match="b/drawn.png:? says in its metadata that it is synthetic"):
        crop_images(source, tmp_path / "out", 0.5, labelled=labelled)
    assert not (tmp_path / "out").exists()


def test_classes_with_a_slash_do_not_become_one(image_folder, tmp_path):
    source = image_folder({"a": 2, "b": 2})
    rows = [(f"{name}/{name}_00{i}.png", f"AML/{name}") for name in "ab" for i in (0, 1)]
    with open(source / "labels.csv", "w", newline="") as file:
        csv.writer(file).writerows([("image", "class_name"), *rows])
    with pytest.raises(ValueError, match="AML/a: cannot be the name of a folder. Rename the class: without '/'"):
        crop_images(source / "labels.csv", tmp_path / "out", 0.5)
    assert not (tmp_path / "out").exists()


def test_nothing_is_written_over_or_half(image_folder, tmp_path):
    source = image_folder({"a": 2, "b": 2})
    for share in (0.0, 1.5):
        with pytest.raises(ValueError, match=f"share is {share}.*above 0 and up to 1"):
            crop_images(source, tmp_path / "out", share)
    (tmp_path / "there").mkdir()
    with pytest.raises(FileExistsError, match="there exists. Name another folder"):
        crop_images(source, tmp_path / "there", 0.5)
    (source / "a" / "a_001.png").write_text("no image")
    with pytest.raises(ValueError, match="a_001.png"):
        crop_images(source, tmp_path / "out", 0.5)
    assert not (tmp_path / "out").exists()
