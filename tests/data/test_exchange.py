"""Packages of synthetic images: whole, verified, and refused when anything is amiss."""

import json
import shutil
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from monai_synth.__main__ import main
from monai_synth.data import is_marked_synthetic, load_datalist, save_datalist, write_synthetic_image
from monai_synth.data.audits import audit_of, audited
from monai_synth.data.dicom import export_dicom
from monai_synth.data.exchange import export_package, import_package
from monai_synth.utils import sha256_of, write_json


@pytest.fixture
def run_folder(tmp_path):
    """A run with four accepted images of two classes, and one that the filter has refused."""
    folder, records = tmp_path / "patient_folder", []
    for label, name in enumerate(["benign", "tumor"]):
        for index in range(3):
            path = folder / "synthetic" / name / f"{name}_{index:06d}.png"
            write_synthetic_image(path, torch.rand(3, 16, 16, generator=torch.manual_seed(10 * label + index)))
            record = {"image": str(path), "class_name": name, "label": label, "prompt": f"a {name}", "seed": index}
            records.append({**record, "origin": "synthetic", "sha256": sha256_of(path)})
    kept = [record for record in records if "000002" not in record["image"]]
    save_datalist(folder / "filter_standard" / "datalist.json", kept, ["benign", "tumor"], folder / "filter_standard")
    write_json(folder / "synthetic" / "run.json", {"identity": "0" * 64})
    learned = {"images": ["of patient_folder"], "groups": []}  # whoever has an image could look up whether it is there
    write_json(folder / "filter_standard" / "fitted_on.json", learned)
    return folder


def test_a_package_goes_there_and_comes_back(run_folder, tmp_path, capsys):
    package, target = tmp_path / "p.zip", tmp_path / "imported"
    assert main(["export", str(run_folder), str(package)]) == 0
    assert "benign 2, tumor 2. Verdict on the images: NOT TESTED" in capsys.readouterr().out
    assert main(["import", str(package), str(target)]) == 0
    assert f"--synthetic_datalist {target}/datalist.json" in capsys.readouterr().out
    records = load_datalist(target / "datalist.json")
    assert [Path(r["image"]).name for r in records] == [
        f"{n}_00000{i}.png" for n in ("benign", "tumor") for i in (0, 1)
    ]
    assert all(sha256_of(r["image"]) == r["sha256"] and is_marked_synthetic(r["image"]) for r in records)
    assert records[0]["prompt"] == "a benign"
    everything = b"".join(zipfile.ZipFile(package).read(name) for name in zipfile.ZipFile(package).namelist())
    assert b"patient_folder" not in everything  # no path of the run travels


def test_two_exports_are_equal_to_the_byte(run_folder, tmp_path):
    export_package(run_folder, tmp_path / "a.zip")
    export_package(run_folder, tmp_path / "b.zip")
    assert sha256_of(tmp_path / "a.zip") == sha256_of(tmp_path / "b.zip")


def test_a_leak_is_not_exported_unless_told_in_so_many_words(run_folder, tmp_path):
    write_json(
        run_folder / "privacy" / "privacy.json", {"channels": {"images": {"verdict": "LEAK FOUND", "words": "W."}}}
    )
    with pytest.raises(ValueError, match="says of the images: LEAK FOUND. W. They are not exported"):
        export_package(run_folder, tmp_path / "p.zip")
    assert not (tmp_path / "p.zip").exists()
    found = export_package(run_folder, tmp_path / "p.zip", accept_leak=True)
    assert found["verdict"] == "LEAK FOUND"
    assert b"LEAK FOUND" in zipfile.ZipFile(tmp_path / "p.zip").read("README.txt")


def test_a_verdict_goes_with_the_images_that_were_audited_alone(run_folder, tmp_path):
    def verdict():
        return export_package(run_folder, tmp_path / "p.zip")["verdict"], audit_of(run_folder)["channels"]

    drawn = load_datalist(run_folder / "filter_standard" / "datalist.json")
    (run_folder / "adapter").mkdir()
    (run_folder / "adapter" / "pytorch_lora_weights.safetensors").write_bytes(b"weights")
    clean = {"verdict": "NO LEAK FOUND", "words": "None."}
    content = {"channels": {"images": clean, "metadata": clean, "adapter": clean}}
    write_json(run_folder / "privacy" / "privacy.json", {**content, "audited": audited(drawn, run_folder / "adapter")})
    datalist = run_folder / "synthetic" / "datalist.json"
    save_datalist(datalist, drawn, ["benign", "tumor"], datalist.parent)
    found, channels = verdict()
    assert found == "NO LEAK FOUND" and set(map(str, channels.values())) == {str(clean)}

    (run_folder / "adapter" / "pytorch_lora_weights.safetensors").write_bytes(b"others")
    found, channels = verdict()
    assert found == "NO LEAK FOUND"
    for name in ("adapter", "metadata"):  # the adapter's files may tell of patients too
        assert channels[name]["words"] == "It is another adapter. Run privacy.json again."

    save_datalist(datalist, [*drawn, {**drawn[0], "sha256": "0" * 64}], ["benign", "tumor"], datalist.parent)
    found, channels = verdict()
    assert found == channels["metadata"]["verdict"] == "NOT TESTED"
    write_json(run_folder / "privacy" / "privacy.json", content)  # as earlier versions wrote it
    assert verdict()[0] == "NOT TESTED"


def test_only_filtered_unchanged_marked_images_are_exported(run_folder, tmp_path):
    for policy in ("none", "copies"):
        with pytest.raises(FileNotFoundError, match="Only images that a filter has passed are exported"):
            export_package(run_folder, tmp_path / "p.zip", policy)
    image = run_folder / "synthetic" / "tumor" / "tumor_000001.png"
    Image.new("RGB", (16, 16)).save(image)
    with pytest.raises(ValueError, match="tumor_000001.png is not the image that was drawn"):
        export_package(run_folder, tmp_path / "p.zip")
    listing = run_folder / "filter_standard" / "datalist.json"
    content = json.loads(listing.read_text())
    content["training"][-1]["sha256"] = sha256_of(image)
    del content["digest"]  # as if somebody had written it
    write_json(listing, content)
    with pytest.raises(ValueError, match="does not say in its metadata that it is synthetic"):
        export_package(run_folder, tmp_path / "p.zip")
    content["training"][-1]["origin"] = "real"
    write_json(listing, content)
    with pytest.raises(ValueError, match="is 'real' and not synthetic"):
        export_package(run_folder, tmp_path / "p.zip")


def tampered(package, target, change):
    """A copy of a package whose files went through `change(name, bytes)`; None leaves a file out."""
    with zipfile.ZipFile(package) as source, zipfile.ZipFile(target, "w") as archive:
        for name in source.namelist():
            content = change(name, source.read(name))
            if content is not None:
                archive.writestr(name, content)
    return target


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda name, raw: raw + b"x" if name.endswith("tumor_000000.png") else raw,
            "was changed: images/tumor/tumor_0",
        ),
        (
            lambda name, raw: raw.replace(b"a tumor", b"a tumot") if name == "datalist.json" else raw,
            "was changed: datal",
        ),
        (lambda name, raw: None if name == "README.txt" else raw, "its manifest differ: 'README.txt'"),
        (lambda name, raw: None if name == "manifest.json" else raw, "has no manifest.json"),
        (
            lambda name, raw: raw.replace(b"package 1", b"package 9") if name == "manifest.json" else raw,
            "has the format",
        ),
    ],
)
def test_a_changed_package_is_refused_and_nothing_is_unpacked(run_folder, tmp_path, change, words):
    export_package(run_folder, tmp_path / "p.zip")
    with pytest.raises(ValueError, match=words):
        import_package(tampered(tmp_path / "p.zip", tmp_path / "t.zip", change), tmp_path / "in")
    assert not (tmp_path / "in").exists() and not list(tmp_path.glob(".in*"))


def test_a_path_out_of_the_folder_a_torn_file_and_a_taken_folder_are_refused(run_folder, tmp_path):
    export_package(run_folder, tmp_path / "p.zip")
    shutil.copy(tmp_path / "p.zip", tmp_path / "t.zip")
    with zipfile.ZipFile(tmp_path / "t.zip", "a") as archive:
        archive.writestr("../evil.txt", "x")
    with pytest.raises(ValueError, match="would leave the folder"):
        import_package(tmp_path / "t.zip", tmp_path / "in")
    (tmp_path / "torn.zip").write_bytes((tmp_path / "p.zip").read_bytes()[:500])
    with pytest.raises(ValueError, match="is not a whole zip file"):
        import_package(tmp_path / "torn.zip", tmp_path / "in")
    with pytest.raises(FileExistsError, match="Name another folder"):
        import_package(tmp_path / "p.zip", tmp_path)
    assert main(["import", str(tmp_path / "torn.zip"), str(tmp_path / "in")]) == 2


def test_dicom_files_say_that_they_are_synthetic_and_nothing_of_a_patient(run_folder, tmp_path):
    pydicom = pytest.importorskip("pydicom")
    for name in ("a", "b"):
        assert main(["export", str(run_folder), str(tmp_path / name), "--dicom"]) == 0
    paths = sorted((tmp_path / "a").rglob("*.dcm"))
    assert [path.name for path in paths] == [f"{n}_00000{i}.dcm" for n in ("benign", "tumor") for i in (0, 1)]
    for path in paths:
        header = pydicom.dcmread(path)
        assert header.SyntheticData == "YES" and header.ConversionType == "SYN" and header.PatientID == "SYNTHETIC"
        source = run_folder / "synthetic" / path.parent.name / f"{path.stem}.png"
        assert (header.pixel_array == np.asarray(Image.open(source))).all()
        assert b"patient_folder" not in path.read_bytes()
        assert sha256_of(path) == sha256_of(tmp_path / "b" / path.relative_to(tmp_path / "a"))
    series = {pydicom.dcmread(path).SeriesInstanceUID for path in paths}
    assert len(series) == 2 and len({pydicom.dcmread(path).SOPInstanceUID for path in paths}) == 4
    assert main(["export", str(run_folder), str(tmp_path / "a"), "--dicom"]) == 2  # nothing is overwritten


def test_an_image_is_one_dicom_object_however_many_are_exported_and_other_runs_have_their_own(run_folder, tmp_path):
    pydicom = pytest.importorskip("pydicom")
    keys = ("SOPInstanceUID", "InstanceNumber", "SeriesInstanceUID", "StudyInstanceUID")

    def exported(name):
        export_dicom(run_folder, tmp_path / name)
        headers = {path.stem: pydicom.dcmread(path) for path in (tmp_path / name).rglob("*.dcm")}
        return {stem: [header.get(key) for key in keys] for stem, header in headers.items()}

    datalist = run_folder / "filter_standard" / "datalist.json"
    drawn = load_datalist(datalist)
    save_datalist(datalist, [drawn[1], drawn[3]], ["benign", "tumor"], datalist.parent)
    few = exported("few")
    assert {stem: values[1] for stem, values in few.items()} == {"benign_000001": 2, "tumor_000001": 2}
    save_datalist(datalist, drawn, ["benign", "tumor"], datalist.parent)
    many = exported("many")
    assert len(many) == 4 and {stem: many[stem] for stem in few} == few

    other = [{**record, "prompt": "another"} for record in drawn]  # equal pixels, another header
    save_datalist(datalist, other, ["benign", "tumor"], datalist.parent)
    found = exported("other")
    assert all(found[stem][0] != many[stem][0] and found[stem][1:] == many[stem][1:] for stem in many)
    save_datalist(datalist, drawn, ["benign", "tumor"], datalist.parent)
    write_json(run_folder / "synthetic" / "run.json", {"identity": "1" * 64})  # another seed, say
    found = exported("run")
    assert all(
        a != b for stem in many for a, b in zip(found[stem][::2] + found[stem][3:], many[stem][::2] + many[stem][3:])
    )
    (run_folder / "synthetic" / "run.json").unlink()
    with pytest.raises(FileNotFoundError, match="synthetic/run.json, whose identity tells this run's studies"):
        export_dicom(run_folder, tmp_path / "gone")
    assert not (tmp_path / "gone").exists()


def test_without_pydicom_the_extra_is_named(run_folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(ModuleNotFoundError, match="pip install .monai_synth.dicom"):
        export_dicom(run_folder, tmp_path / "d")
