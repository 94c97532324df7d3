import json
import os
import shutil
from types import SimpleNamespace

import pytest
import torch
from monai.bundle import ConfigParser
from PIL import Image

from monai_synth.bundle.preparation import listing, prepare_data
from monai_synth.data import load_datalist, phantom, write_synthetic_image
from monai_synth.utils import read_json

CHANGES = {"label": lambda label: 1 - label, "group": lambda group: f"{group}x", "role": lambda role: "train"}


def prepare(folder, **settings):
    given = {"dataset_dir": str(folder), "output_dir": str(folder.parent / "out"), "external_dir": None}
    given |= {"shots": 2, "num_folds": 3, "fold": 0, "seed": 0, "find_duplicates": False, **settings}
    return prepare_data(SimpleNamespace(parser=ConfigParser(given)))


def write_groups(folder, group_of):
    names = [f"{name}/{name}_{index:03d}.png" for name in "ab" for index in range(9)]
    (folder / "groups.csv").write_text("image,group\n" + "".join(f"{name},{group_of(name)}\n" for name in names))


@pytest.mark.parametrize("table", ["annotations.dat", "groups.csv", "elsewhere.csv"])
def test_a_corrected_table_of_the_same_length_is_another_data_set(image_folder, tmp_path, table):
    folder = image_folder({"a": 1})
    path = (tmp_path if table == "elsewhere.csv" else folder) / table
    options = {"annotations": "annotations.dat", "groups": str(path) if table == "elsewhere.csv" else None}
    path.write_text("image,group\na/a_000.png,p1\n")
    before = listing(folder, **options)
    assert listing(folder, **options) == before
    path.write_text("image,group\na/a_000.png,p2\n")
    assert listing(folder, **options) != before


def test_what_the_scan_passes_over_makes_no_other_data_set(image_folder):
    folder = image_folder({"a": 9, "b": 9})
    path = prepare(folder)
    for name in (".DS_Store", "a/.DS_Store", "a/Thumbs.db", "a/._a_000.png", "notes.txt", ".cache/x.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"by a file manager")
    assert prepare(folder) == path
    shutil.copy(folder / "a" / "a_000.png", folder / "a" / "more.png")
    with pytest.raises(ValueError, match="(?s)What differs:.*files"):
        prepare(folder)


@pytest.mark.parametrize("key", ["dataset_dir", "external_dir"])
def test_an_output_folder_in_a_data_set_is_refused(image_folder, key):
    folder, other = image_folder({"a": 9, "b": 9}), image_folder({"a": 1, "b": 1}, name="other")
    given = {"dataset_dir": str(folder), "external_dir": str(other)}
    output = f"{given[key]}/runs/first"
    with pytest.raises(ValueError, match=f"output_dir {output} lies in {key} {given[key]}, .*Name an --output_dir"):
        prepare(folder, **given, output_dir=output)


def test_a_name_that_is_not_utf8_is_told(image_folder):
    folder = image_folder({"a": 9, "b": 9})
    (folder / "c").mkdir()
    for name in (b"a/gr\xfcn.png", b"c/x.png"):
        shutil.copy(folder / "a" / "a_000.png", os.fsencode(folder) + b"/" + name)
    os.rename(folder / "c", os.fsencode(folder) + b"/\xfc")
    with pytest.raises(
        ValueError, match=r"(?s)2 problems:.*a/gr\\xfcn.png: has a name that is not UTF-8.*  \\xfc: has"
    ):
        prepare(folder)


def test_corrected_groups_are_told_and_reach_every_stage_after_the_split(image_folder):
    folder = image_folder({"a": 9, "b": 9})
    write_groups(folder, lambda name: f"p{name[4:7]}")
    path = prepare(folder)
    assert prepare(folder) == path
    identity = read_json(path)["identity"]
    write_groups(folder, lambda name: f"{name[0]}{name[4:7]}")
    with pytest.raises(ValueError, match="(?s)a split is made once. What differs:.*files"):
        prepare(folder)
    path.unlink()
    assert read_json(prepare(folder))["identity"] != identity
    assert {record["group"][0] for record in load_datalist(path)} == {"a", "b"}


def test_another_data_set_is_named_and_no_phantom_is_drawn(image_folder, tmp_path, monkeypatch):
    folder = image_folder({"a": 9, "b": 9})
    prepare(folder)
    monkeypatch.setattr(phantom, "write_phantoms", lambda *args, **kwargs: pytest.fail("drawn"))
    words = f"out holds the split of another data set, whose images lie in {folder}, .*Add --dataset_dir .*{folder}"
    with pytest.raises(ValueError, match=words):
        prepare(folder, dataset_dir="phantom", phantom_set="colon")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["datalist.json"]


def test_phantoms_with_other_settings_are_refused_before_they_are_drawn_again(tmp_path, monkeypatch):
    given = {"dataset_dir": "phantom", "phantom_set": "colon", "phantom_patients": 9, "image_size": 64}
    path = prepare(tmp_path / "none", **given, phantoms_per_class=9)
    assert prepare(tmp_path / "none", **given, phantoms_per_class=9) == path
    shutil.rmtree(path.parent / "phantoms")
    monkeypatch.setattr(phantom, "write_phantoms", lambda *args, **kwargs: pytest.fail("drawn"))
    with pytest.raises(ValueError, match="(?s)What differs:\n  phantoms_per_class: 9 -> 12\nName another"):
        prepare(tmp_path / "none", **given, phantoms_per_class=12)


def test_phantoms_of_a_run_that_was_stopped_are_drawn_anew_with_other_settings(tmp_path, monkeypatch):
    given = {"dataset_dir": "phantom", "phantom_set": "colon", "phantom_patients": 9, "phantoms_per_class": 9}
    with pytest.raises(ValueError, match="fewer than shots=99"):
        prepare(tmp_path / "none", **given, image_size=64, shots=99)
    with monkeypatch.context() as patch:
        patch.setattr(phantom, "write_phantoms", lambda *args, **kwargs: pytest.fail("drawn"))
        with pytest.raises(ValueError, match="fewer than shots=98"):
            prepare(tmp_path / "none", **given, image_size=64, shots=98)
    path = prepare(tmp_path / "none", **given, image_size=96)
    assert {Image.open(record["image"]).size for record in load_datalist(path)} == {(96, 96)}
    assert read_json(path.parent / "phantoms" / "phantoms.json")["image_size"] == 96
    assert prepare(tmp_path / "none", **given, image_size=96) == path
    path.unlink()
    (path.parent / "phantoms" / "phantoms.json").unlink()
    with pytest.raises(ValueError, match="phantoms has no phantoms.json, .*Remove the folder so that they are drawn"):
        prepare(tmp_path / "none", **given, image_size=96)


def test_what_is_made_of_the_images_is_in_the_identity(image_folder, monkeypatch):
    """Labels, groups and roles count even where files and settings are the same."""
    from monai_synth import data

    folder = image_folder({"a": 9, "b": 9})
    identities = set()
    for key in (None, *CHANGES):
        path = folder.parent / "out" / "datalist.json"
        path.unlink(missing_ok=True)
        with monkeypatch.context() as patch:
            if key is not None:
                original, change = data.assign_roles, CHANGES[key]
                patch.setattr(
                    data, "assign_roles", lambda *a, **k: [{**r, key: change(r[key])} for r in original(*a, **k)]
                )
            prepare(folder)
        identities.add(json.loads(path.read_text())["identity"])
    assert len(identities) == 4


def test_another_data_set_of_synthetic_images_is_refused(image_folder):
    folder, other = image_folder({"a": 9, "b": 9}), image_folder({"a": 1, "b": 1}, name="other")
    write_synthetic_image(other / "a" / "drawn.png", torch.rand(3, 32, 32))
    with pytest.raises(ValueError, match="(?s)external_dir: .*a/drawn.png: says in its metadata that it is synthetic"):
        prepare(folder, external_dir=str(other), external_class_map=None)
