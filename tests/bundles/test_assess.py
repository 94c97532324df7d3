"""The assessment of a run on a random miniature base, with a random encoder."""

import shutil
from pathlib import Path

import pytest
import timm
from PIL import Image

from monai_synth.report import write_report
from monai_synth.utils import read_json, save_safetensors
from tests.bundles.running import SMALL, root_message, run


@pytest.fixture
def settings(miniature, image_folder, tmp_path, encoder):
    folder = image_folder({"benign": 30, "<script>alert(1)</script>".replace("/", "-"): 30})
    return {
        **SMALL,
        "shots": 4,
        "images_per_class": 8,
        "bootstrap_samples": 10,
        "dataset_dir": str(folder),
        "output_dir": str(tmp_path / "out"),
        "base_model": str(miniature()),
        "encoder": str(encoder),
    }


def test_an_assessment_judges_and_reports(settings, encoder, tmp_path):
    run("assess", settings)
    out = Path(settings["output_dir"])
    found = read_json(out / "assess" / "quality.json")
    assert set(found["classes"]) == {"benign", "<script>alert(1)<-script>"}
    assert found["classes"]["benign"]["num_synthetic"] == 8 and found["classes"]["benign"]["kid"] is not None
    datalist = read_json(out / "datalist.json")
    reference = sum(r["role"] in ("train", "val") for part in ("training", "validation") for r in datalist[part])
    assert found["pooled"]["num_real"] == reference
    assert read_json(out / "assess" / "run.json")["wall_time_s"] > 0
    assert (found["reference_roles"], found["bootstrap_samples"]) == (["train", "val"], 10)
    page = (out / "report.html").read_text()
    assert "<script" not in page and "&lt;script&gt;" in page
    assert "http" not in page.replace("https://arxiv.org", "") and "not tested" in page
    assert "Nearest real images" not in page  # patient data, on request alone
    for record in datalist["training"]:
        assert Path(record["image"]).name not in page

    stamp = next((out / "features").glob("*/*.safetensors")).stat().st_mtime_ns
    run(
        "assess",
        {key: settings[key] for key in ("output_dir", "encoder", "device", "image_size")},
        include_real_images=True,
    )
    assert "Nearest real images" in (out / "report.html").read_text()
    parts = list((out / "features").glob("*/*.safetensors"))
    assert len(parts) == 1 and parts[0].stat().st_mtime_ns == stamp  # every image was encoded once

    other = shutil.copytree(encoder, tmp_path / "other")
    weights = timm.create_model("test_resnet", pretrained=False, num_classes=0).state_dict()
    save_safetensors(other / "model.safetensors", weights, {"format": "pt"})
    run("assess", settings, encoder=str(other))
    assert read_json(out / "assess" / "quality.json")["encoder"]["fingerprint"] != found["encoder"]["fingerprint"]
    assert len(list((out / "features").iterdir())) == 2  # of each encoder its own


def test_images_are_judged_at_the_size_at_which_they_were_drawn(settings):
    run("assess", settings)
    known = {key: settings[key] for key in ("output_dir", "encoder", "device")}
    with pytest.raises(RuntimeError) as error:
        run("assess", known, image_size=2 * settings["image_size"])
    assert f"were drawn with image_size {settings['image_size']}, and would be judged at" in root_message(error)
    assert f"Add --image_size {settings['image_size']}." in root_message(error)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"reference_roles": ["test"]}, "reference_roles is ['test']. It is a list of 'train', 'val' or both: test"),
        ({"reference_roles": ["shots", "val"]}, "the shots guided the generator, so they cannot judge its images"),
        ({"reference_roles": ["validation"]}, "reference_roles is ['validation']. It is a list of 'train', 'val'"),
        ({"reference_roles": "val"}, "reference_roles is 'val'. It is a list of"),
        ({"reference_roles": "$['shots']"}, "reference_roles is ['shots']. It is a list of"),
        ({"reference_roles": []}, "reference_roles is []. It is a list of"),
        ({"bootstrap_samples": 9}, "bootstrap_samples is 9. It must lie between 10 and 1e+06"),
        ({"encoder_batch_size": 0}, "encoder_batch_size is 0. It must lie between 1 and 4096"),
        ({"phantoms_per_class": 0}, "phantoms_per_class is 0. It must lie between 1 and"),
        ({"phantom_patients": 2.5}, "phantom_patients is 2.5. It must be a whole number from 1"),
        ({"encoder": "dino"}, "There is no encoder 'dino'"),
    ],
)
def test_a_wrong_assessment_is_refused(settings, change, words):
    with pytest.raises(RuntimeError) as error:
        run("assess", settings, **change)
    assert words in root_message(error)
    assert "encoder" in change or not list(Path(settings["output_dir"]).rglob("datalist.json"))


def test_an_encoder_without_safetensors_is_refused(settings, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(RuntimeError) as error:
        run("assess", settings, encoder=str(tmp_path / "empty"))
    assert "Only safetensors weights are read" in root_message(error)


def test_a_folder_without_a_run_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no datalist"):
        write_report(tmp_path)


def test_thumbnails_carry_no_metadata(tmp_path):
    import base64
    import io

    from monai_synth.report.page import thumbnail

    image = Image.new("RGB", (200, 200), (200, 100, 150))
    image.save(tmp_path / "a.jpg", comment=b"PATIENT-NAME")
    raw = base64.b64decode(thumbnail(tmp_path / "a.jpg").split(",")[1])
    assert b"PATIENT" not in raw and Image.open(io.BytesIO(raw)).size == (112, 112)
