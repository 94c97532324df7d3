import json

from monai_synth.__main__ import main


def test_check_tells_all_and_its_status(image_folder, capsys):
    folder = image_folder({"a": 3, "b": 3})
    assert main(["check", str(folder)]) == 0
    assert "0 errors, 1 warnings" in capsys.readouterr().out
    (folder / "a" / "bad.png").write_text("x")
    assert main(["check", str(folder), "--shots", "9", "--json"]) == 1
    findings = json.loads(capsys.readouterr().out)
    assert {finding["path"] for finding in findings if finding["level"] == "error"} == {"a/bad.png", "a", "b"}


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
    assert main([*arguments[:-1], "32"]) == 2
    assert "size=32" in capsys.readouterr().err
