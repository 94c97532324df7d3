import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from monai_synth.data import check, save_datalist, scan, write_synthetic_image
from monai_synth.data.findings import Finding
from monai_synth.utils import write_json


def messages(findings, level="error"):
    return {finding.path: finding.message for finding in findings if finding.level == level}


def test_a_folder_becomes_records(image_folder):
    folder = image_folder({"b": 2, "a": 3})
    records, names = scan(folder)
    assert names == ["a", "b"]
    assert [(record["class_name"], record["label"]) for record in records] == [("a", 0)] * 3 + [("b", 1)] * 2
    assert all(os.path.isabs(record["image"]) and record["origin"] == "real" for record in records)
    assert len({record["sha256"] for record in records}) == len({record["group"] for record in records}) == 5
    assert [record["label"] for record in scan(folder, class_names=["b", "a"])[0]] == [1] * 3 + [0] * 2


def test_groups_come_from_a_file_or_a_pattern(image_folder):
    folder = image_folder({"a": 2, "b": 2})
    records, _ = scan(folder, groups=r"_(\d+)\.png")
    assert [record["group"] for record in records] == ["000", "001", "000", "001"]
    rows = [f"{name}/{name}_{index:03d}.png,p{index}" for name in "ab" for index in range(2)]
    (folder / "groups.csv").write_text("image,group\n" + "\n".join(rows))
    assert [record["group"] for record in scan(folder)[0]] == ["p0", "p1", "p0", "p1"]
    (folder / "groups.csv").write_text("image,group\n" + "\n".join(rows[:3] + ["c/gone.png,p9"]))
    findings = check(folder)
    assert "missing in groups.csv" in messages(findings)["b/b_001.png"]
    assert "not in the folder" in messages(findings, "warning")["c/gone.png"]
    (folder / "groups.csv").write_text("file,who\n")
    assert "needs the columns image and group" in messages(check(folder))["groups.csv"]
    with pytest.raises(ValueError, match="does not match the group pattern"):
        scan(folder, groups="patient_(x)")


@pytest.mark.parametrize("call", [lambda path: path.name, lambda path: path.as_posix(), lambda path: f"x/{path}"])
def test_a_line_of_groups_is_missed_only_where_no_image_has_it(image_folder, call):
    folder = image_folder({"a": 2, "b": 2})
    images = [path.relative_to(folder) for path in sorted(folder.rglob("*.png"))]
    lines = [f"{call(path)},p{index}" for index, path in enumerate(images)]
    (folder / "groups.csv").write_text("\n".join(("image,group", *lines, "gone.png,p9")))
    findings = check(folder)
    assert not messages(findings)
    told = [path for path, message in messages(findings, "warning").items() if "is not in the folder" in message]
    assert told == ["gone.png"]


@pytest.mark.parametrize(
    ("pattern", "path", "words"),
    [
        (r"(?:a_(\d+))?", "b/b_000.png", "its first group is empty there"),
        (r"_\d+", r"_\d+", "has no group in parentheses"),
        (r"_(\d+", r"_(\d+", "is no regular expression"),
    ],
)
def test_a_pattern_must_name_the_group_of_every_image(image_folder, pattern, path, words):
    assert words in messages(check(image_folder({"a": 2, "b": 2}), groups=pattern))[path]


def test_groups_of_some_rows_alone_are_refused(image_folder):
    folder = image_folder({"a": 2, "b": 1})
    rows = "image,class_name,group\na/a_000.png,a,p1\na/a_001.png,a, \nb/b_000.png,b,p2\n"
    (folder / "list.csv").write_text(rows)
    assert list(messages(check(folder / "list.csv"))) == ["a/a_001.png"]
    with pytest.raises(ValueError, match="a_001.png: has no group in list.csv, where others have one"):
        scan(folder / "list.csv")
    (folder / "groups.csv").write_text("image,group\na/a_000.png,p1\na/a_001.png,\nb/b_000.png,p2\n")
    with pytest.raises(ValueError, match="a_001.png: has no group in groups.csv; name its patient"):
        scan(folder)


def test_a_name_that_several_images_have_is_no_group(image_folder):
    folder = image_folder({"a": 1, "b": 1})
    for name in "ab":
        (folder / name / f"{name}_000.png").rename(folder / name / "0.png")
    for rows in ("0.png,p1\n0.png,p2\n", "0.png,p1\n", "a/0.png,p1\na/0.png,p2\nb/0.png,p2\n"):
        (folder / "groups.csv").write_text("image,group\n" + rows)
        assert "Give every image one line, with its path" in messages(check(folder))["a/0.png"]
    for rows, groups in (("a/0.png,p1\nb/0.png,p2\n", ["p1", "p2"]), ("0.png,p1\n0.png,p1\n", ["p1", "p1"])):
        (folder / "groups.csv").write_text("image,group\n" + rows)
        assert [record["group"] for record in scan(folder)[0]] == groups
    (folder / "groups.csv").write_text("image,group\na/0.png,p1\n")
    found = messages(check(folder))
    assert list(found) == ["b/0.png"] and "stands in groups.csv 1 times, for 2 images" in found["b/0.png"]


@pytest.mark.parametrize("name", ["drawn.png", "drawn.webp"])
def test_a_synthetic_image_is_in_no_data_set(image_folder, name):
    folder = image_folder({"a": 2, "b": 2})
    write_synthetic_image(folder / "b" / name, torch.rand(3, 32, 32))
    with pytest.raises(ValueError, match=f"b/{name}: says in its metadata that it is synthetic.*--synthetic_datalist"):
        scan(folder)
    assert list(messages(check(folder))) == [f"b/{name}"]


def test_a_datalist_of_synthetic_images_is_no_data_set(image_folder):
    folder = image_folder({"a": 1, "b": 1})
    records = [{**record, "role": "train"} for record in scan(folder)[0]]
    save_datalist(folder / "list.json", records, ["a", "b"], folder)
    assert len(scan(folder / "list.json")[0]) == 2
    records[1] = {**records[1], "origin": "synthetic"}
    save_datalist(folder / "list.json", records, ["a", "b"], folder)
    with pytest.raises(ValueError, match="b_000.png: is, by its origin in list.json, synthetic.*--synthetic_datalist"):
        scan(folder / "list.json")


def test_an_empty_csv_is_told(tmp_path):
    (tmp_path / "labels.csv").write_text("")
    (finding,) = check(tmp_path / "labels.csv")
    assert finding.level == "error" and "needs the columns image and class_name (or label), found []" in finding.message


def test_a_csv_and_a_datalist_are_scanned_too(image_folder, tmp_path):
    folder = image_folder({"a": 1, "b": 1})
    (folder / "list.csv").write_text("image,class_name,group\na/a_000.png,a,p1\nb/b_000.png,b,p2\n")
    records, names = scan(folder / "list.csv")
    assert names == ["a", "b"] and [record["group"] for record in records] == ["p1", "p2"]
    (folder / "list.csv").write_text("image,class_name\nb/b_000.png,b\na/a_000.png,a\n")
    assert [record["class_name"] for record in scan(folder / "list.csv")[0]] == ["b", "a"]  # as the lines stand
    (folder / "bad.csv").write_text("file\nx\n")
    with pytest.raises(ValueError, match="needs the columns image and class_name"):
        scan(folder / "bad.csv")


@pytest.mark.parametrize(
    ("columns", "cells", "group"),
    [
        ("patient", "p1", "p1"),
        ("slide_id,case_id", "s1,c1", "s1"),
        ("case_id,group", "c1,g1", "g1"),
        ("cluster_label", "7", "a_7"),
    ],
)
def test_a_csv_names_groups_as_tables_do(image_folder, columns, cells, group):
    folder = image_folder({"a": 1, "b": 1})
    (folder / "list.csv").write_text(f"image,class_name,{columns}\na/a_000.png,a,{cells}\nb/b_000.png,b,x,x\n")
    assert [record["group"] for record in scan(folder / "list.csv")[0]][0] == group


@pytest.mark.parametrize("cells", ["a/a_001.png,,p1", "a/a_001.png, ,p1", "a/a_001.png"])
def test_a_line_of_a_csv_without_a_class_is_told(image_folder, cells):
    folder = image_folder({"a": 2, "b": 1})
    (folder / "list.csv").write_text(f"image,label,group\na/a_000.png,a,p1\n{cells}\nb/b_000.png,b,p2\n,b,p2\n")
    found = messages(check(folder / "list.csv"))
    assert found == {
        "list.csv, line 3": "has nothing in the column label. Name the image and its class, or remove it.",
        "list.csv, line 5": "has nothing in the column image. Name the image and its class, or remove it.",
    }


def test_blanks_around_a_cell_are_no_part_of_it(image_folder):
    folder = image_folder({"a": 2, "b": 1})
    (folder / "list.csv").write_text("image,class_name\na/a_000.png,a\n a/a_001.png ,a \nb/b_000.png, b\n")
    named = [{"image": "a/a_000.png", "label": 0}, {"image": "a/a_001.png", "label": "a "}]
    content = {"class_names": ["a ", "b"], "training": [*named, {"image": "b/b_000.png", "class_name": " b"}]}
    write_json(folder / "list.json", content)
    for name in ("list.csv", "list.json"):
        records, names = scan(folder / name)
        assert names == ["a", "b"] and [record["label"] for record in records] == [0, 0, 1]


@pytest.mark.parametrize("name", ["list.csv", "list.json", ""])
def test_images_of_other_classes_than_asked_for_are_told(image_folder, name):
    folder = image_folder({"a": 1, "b": 1, "c": 2})
    images = [(f"{c}/{c}_{index:03d}.png", c) for c, index in (("a", 0), ("b", 0), ("c", 0), ("c", 1))]
    (folder / "list.csv").write_text("image,label\n" + "".join(f"{image},{c}\n" for image, c in images))
    write_json(folder / "list.json", {"training": [{"image": image, "label": c} for image, c in images]})
    told = messages(check(folder / name, class_names=["b", "a"]), "warning")["c"]
    words = "is not in class_names, ['b', 'a']: its 2 images are left out."
    assert told == words if name else told == "is not in class_names and is left out."


@pytest.mark.parametrize(
    ("more", "labels", "classes"),
    [({}, [1, 0], ["0", "1"]), ({}, ["x", "y"], ["x", "y"]), ({"class_names": ["neg", "pos"]}, [1, 0], ["neg", "pos"])],
)
def test_a_datalist_of_monai_is_a_data_set(image_folder, more, labels, classes):
    folder = image_folder({"a": 1, "b": 1})
    first = {"image": "a/a_000.png", "label": labels[0], "patient_id": 7}
    content = {**more, "training": [first], "validation": [{"image": "./b/b_000.png", "label": labels[1]}]}
    content["validation"][0]["patient_id"] = 8
    write_json(folder / "dataset.json", content)
    records, names = scan(folder / "dataset.json")
    assert names == classes and {record["group"] for record in records} == {"7", "8"}
    found = {os.path.basename(record["image"]): record["class_name"] for record in records}
    expected = [classes[label] if isinstance(label, int) else label for label in labels]
    assert found == dict(zip(("a_000.png", "b_000.png"), expected))


def test_a_record_without_a_class_is_told(image_folder):
    folder = image_folder({"a": 2, "b": 1})
    training = [{"image": "a/a_000.png", "label": 0}, {"image": "a/a_001.png"}, {"label": 1}]
    training += [{"image": "b/b_000.png", "label": 2}, {"image": "b/b_000.png", "label": [0, 1]}]
    write_json(folder / "list.json", {"class_names": ["a", "b"], "training": training, "test": ["b/b_000.png"]})
    found = messages(check(folder / "list.json", class_names=["a", "b"]))
    for where, key in (("training[1]", "label"), ("training[2]", "image"), ("training[3]", "label")):
        assert f"has no usable '{key}': " in found[f"list.json, {where}"]
    assert "training[4]" in str(found) and "'b/b_000.png'}. A record needs" in found["list.json, test[0]"]
    write_json(folder / "list.json", {"train": training})
    with pytest.raises(ValueError, match="list.json is no datalist: it needs the key 'training'"):
        scan(folder / "list.json")


def test_everything_wrong_is_listed_at_once(image_folder, tmp_path):
    folder = image_folder({"a": 3, "b": 3})
    (folder / "a" / "text.jpg").write_text("not an image")
    (folder / "b" / "empty.png").touch()
    (folder / "empty class").mkdir()
    shutil.copy(folder / "a" / "a_000.png", folder / "b" / "copy.png")
    Image.new("RGB", (8, 8)).save(tmp_path / "outside.png")
    (folder / "a" / "link.png").symlink_to(tmp_path / "outside.png")
    (folder / "a" / ".hidden.png").write_text("ignored")
    Image.new("RGB", (8, 8)).save(folder / "stray.png")
    found = messages(check(folder, shots=5))
    assert "is not an image" in found["a/text.jpg"]
    assert "is not an image" in found["b/empty.png"]
    assert "class folder without images" in found["empty class"]
    assert "in another class" in found["a/a_000.png"] and "b/copy.png" in found["a/a_000.png"]
    assert "outside the folder" in found["a/link.png"]
    assert "has 3 images, fewer than shots=5" in found["a"]
    assert not any(".hidden" in path for path in found)
    assert "not used" in messages(check(folder), "warning")["stray.png"]
    with pytest.raises(ValueError, match="(?s)cannot be used, 5 problems.*text.jpg.*"):
        scan(folder)


@pytest.mark.parametrize("class_names", [None, ["a", "b", "c"]])
def test_linked_folders_are_told(image_folder, class_names):
    folder = image_folder({"a": 1, "b": 1})
    other = image_folder({"c": 1, "d": 1}, name="other")
    (folder / "c").symlink_to(other / "c")
    (folder / "a" / "more").symlink_to(other / "d")
    (folder / "a" / "inside").symlink_to(folder / "b")
    found = check(folder, class_names=class_names)
    for path, target in (("c", "c"), ("a/more", "d")):
        message = f"is a link to {other / target}, outside the folder. Put a copy in its place."
        assert Finding("error", path, message) in found
    words = f"is a link to the folder {folder / 'b'}, and is not followed."
    assert messages(found, "warning")["a/inside"] == words
    (folder / "elsewhere").symlink_to(other)
    assert "outside the folder" in messages(check(folder, class_names=class_names))["elsewhere"]


def test_missing_empty_and_single_class_folders(tmp_path, image_folder):
    with pytest.raises(ValueError, match="does not exist. Name a folder"):
        scan(tmp_path / "gone")
    (tmp_path / "bare").mkdir()
    with pytest.raises(ValueError, match="holds no images"):
        scan(tmp_path / "bare")
    with pytest.raises(ValueError, match="is the only class"):
        scan(image_folder({"a": 2}, name="one"))
    with pytest.raises(ValueError, match="c: has no image. The classes there are \\['a', 'b'\\]"):
        scan(image_folder({"a": 2, "b": 2}, name="two"), class_names=["a", "c"])


def test_copies_within_a_class_share_a_group(image_folder):
    folder = image_folder({"a": 3, "b": 2})
    Image.open(folder / "a" / "a_001.png").save(folder / "a" / "again.bmp")
    records, _ = scan(folder)
    groups = {os.path.basename(record["image"]): record["group"] for record in records}
    assert groups["a_001.png"] == groups["again.bmp"] != groups["a_000.png"]
    assert "same pixels as" in messages(check(folder), "warning")["a/a_001.png"]


def test_unicode_spaces_and_nested_folders_are_read(image_folder):
    folder = image_folder({"klasse ä": 1, "b": 1})
    deep = folder / "b" / "slide 1"
    deep.mkdir()
    shutil.move(folder / "b" / "b_000.png", deep / "ü.png")
    records, names = scan(folder)
    assert names == ["b", "klasse ä"] and records[0]["image"].endswith("slide 1/ü.png")


CHECKING = """
import sys
from monai_synth.data import check
from monai_synth.utils.memory import peak_host_bytes
findings = check(sys.argv[1], find_duplicates=False)
assert not [finding for finding in findings if finding.level == "error"], findings[:3]
print(peak_host_bytes())
"""


@pytest.mark.slow
def test_checking_a_folder_holds_no_pixels(tmp_path):
    rng, peaks = np.random.default_rng(0), []
    for first, last in ((0, 400), (400, 4400)):
        for number in range(first, last):
            path = tmp_path / "images" / "ab"[number % 2] / f"{number:05d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(path, compress_level=0)
        done = subprocess.run(
            [sys.executable, "-c", CHECKING, str(tmp_path / "images")], capture_output=True, text=True, check=True
        )
        peaks.append(int(done.stdout) / 2**20)
    assert peaks[1] - peaks[0] < 24  # MiB for 4,000 files more; their pixels would be 47
