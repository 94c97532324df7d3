import json

from PIL import Image

from monai_synth.__main__ import main


def test_check_tells_all_and_its_status(image_folder, capsys):
    folder = image_folder({"a": 3, "b": 3})
    assert main(["check", str(folder)]) == 0
    assert "0 errors, 2 warnings" in capsys.readouterr().out
    (folder / "a" / "bad.png").write_text("x")
    assert main(["check", str(folder), "--shots", "9", "--json"]) == 1
    findings = json.loads(capsys.readouterr().out)
    assert {finding["path"] for finding in findings if finding["level"] == "error"} == {"a/bad.png", "a", "b"}


def test_copies_are_not_searched_for_where_that_would_take_hours(image_folder, monkeypatch, capsys):
    searched = []
    monkeypatch.setattr("monai_synth.data.scanning.join_near_duplicates", lambda *args: searched.append(1) or [])
    folder = str(image_folder({"a": 3, "b": 3}))
    assert main(["check", folder, "--skip_duplicates"]) == 0 and not searched
    assert main(["check", folder]) == 0 and searched == [1]


def test_phantoms_are_written(tmp_path, capsys):
    arguments = [
        "phantoms",
        str(tmp_path / "p"),
        "--set",
        "wbc",
        "--images_per_class",
        "2",
        "--num_patients",
        "2",
        "--size",
        "64",
    ]
    assert main(arguments) == 0
    assert len(list((tmp_path / "p").rglob("*.png"))) == 16
    assert main(arguments) == 2 and "exists and is not an empty folder" in capsys.readouterr().err
    assert main(["phantoms", str(tmp_path / "q"), "--size", "32"]) == 2
    assert "size=32" in capsys.readouterr().err and not (tmp_path / "q").exists()


def test_a_new_bundle_names_its_prompts(image_folder, tmp_path, capsys, monkeypatch):
    searched = []
    monkeypatch.setattr("monai_synth.data.scanning.join_near_duplicates", lambda *args: searched.append(1) or [])
    folder = image_folder({"blast": 3, "other_cell": 3})
    arguments = ["new_bundle", "cells", "--dataset_dir", str(folder), "--output_dir", str(tmp_path / "bundles")]
    assert main(arguments) == 0 and not searched
    said = capsys.readouterr().out
    assert "prompt of other_cell: H&E histopathology, other cell" in said and "2 classes" in said
    bundle = tmp_path / "bundles" / "cells"
    assert (bundle / "configs" / "train.json").exists()
    docs = (bundle / "docs" / "README.md").read_text()
    assert f"Without `--dataset_dir` it uses the images in `{folder}`," in docs
    assert "| `phantom_set`, `phantoms_per_class`, `phantom_patients` | `colon`, 120, 15 |" in docs
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
    assert metadata["data_source"].startswith("The user's own images")
    assert main(arguments) == 2 and "exists" in capsys.readouterr().err
    assert main(["new_bundle", "no name", *arguments[2:]]) == 2
    assert "cannot name a bundle" in capsys.readouterr().err


def test_a_report_needs_a_run(tmp_path, capsys):
    assert main(["report", str(tmp_path)]) == 2
    assert "There is no datalist" in capsys.readouterr().err


def test_pairs_that_may_be_copies_are_drawn(image_folder, tmp_path, capsys):
    folder = image_folder({"a": 12, "b": 12}, size=64)
    picture = tmp_path / "pairs.png"
    assert main(["check", str(folder), "--pairs", str(picture)]) == 0
    assert "no pair is in doubt" in capsys.readouterr().err and not picture.exists()
    original = Image.open(folder / "a" / "a_000.png")
    original.rotate(90).resize((70, 70)).save(folder / "b" / "turned.png")
    assert main(["check", str(folder), "--pairs", str(picture)]) == 0
    assert str(picture) in capsys.readouterr().err
    assert Image.open(picture).size[0] > 300 and len(Image.open(picture).convert("RGB").getcolors(10**6)) > 500
