"""The filter between generation and training, on a random miniature base with a random encoder."""

import csv
from collections import Counter
from pathlib import Path

import pytest

from monai_synth.bundle import filtering
from monai_synth.utils import read_json
from tests.bundles.running import CONFIGS, SMALL, run


@pytest.fixture
def settings(miniature, image_folder, tmp_path, encoder):
    return {
        **SMALL,
        "shots": 4,
        "images_per_class": 6,
        "dataset_dir": str(image_folder({"benign": 30, "tumor": 30})),
        "output_dir": str(tmp_path / "out"),
        "base_model": str(miniature()),
        "encoder": str(encoder),
    }


true_failing = filtering.failing


def refusing_every_third(steps, limits, shots, views, images, contrasts, class_names):
    """Verdicts that images of a random base would never get; the true ones are only checked to come."""
    found = true_failing(steps, limits, shots, views, images, contrasts, class_names)
    assert len(found) == len(images.labels) and {v[0] for v in found if v} <= {"contrast", "copy", "repeat", "radius"}
    places = Counter()
    verdicts = []
    for label in images.labels:
        verdicts.append(("copy", 0.1, 0.2) if places[label] % 3 == 0 else None)
        places[label] += 1
    return verdicts


def images_of(path):
    return [Path(record["image"]).name for record in read_json(path)["training"]]


def test_what_is_sorted_out_is_replaced_and_the_classifier_sees_the_rest(settings, monkeypatch):
    monkeypatch.setattr(filtering, "failing", refusing_every_third)
    run("train", settings, filter="standard")
    out = Path(settings["output_dir"])
    kept = images_of(out / "filter_standard" / "datalist.json")
    wanted = [f"{name}_{index:06d}.png" for name in ("benign", "tumor") for index in (1, 2, 4, 5, 7, 8)]
    assert kept == wanted
    found = read_json(out / "filter_standard" / "filter.json")
    assert found["funnel"][0]["left"] == found["funnel"][2]["left"] + found["funnel"][2]["rejected"]
    assert found["judges"] == {"benign": 6, "tumor": 6} and found["limits"]["radius"] == {"benign": None, "tumor": None}
    assert found["notes"][0] == "The step label was left out: it needs 10 shots of every class."
    few = "'benign' (6 validation images), 'tumor' (6 validation images)"
    assert found["notes"][1].startswith(f"No limit of radius was set for {few}: one of n images")
    assert "set --filter_quantile to 0.143 or more" in found["notes"][1]
    rejected = list(csv.DictReader(open(out / "filter_standard" / "rejected.csv")))
    assert {"benign_000000.png", "tumor_000003.png"} <= {row["image"] for row in rejected}
    assert {row["step"] for row in rejected} == {"copy"}
    record = read_json(out / "classifier" / "test_resnet_real+synthetic" / "run.json")
    assert set(record["upstream"]) == {"split", "filter"}
    notes = [read_json(out / name / "fitted_on.json") for name in ("synthetic", "filter_standard")]
    assert notes[0] == notes[1] and notes[0]["images"]

    stamp = (out / "filter_standard" / "filter.json").stat().st_mtime_ns
    run("train", settings, filter="standard")
    assert (out / "filter_standard" / "filter.json").stat().st_mtime_ns == stamp  # complete, so not made again
    with pytest.raises(RuntimeError) as error:
        run("train", settings, filter="none")
    assert "filter: 'standard' -> 'none'" in str(error.value.__cause__.__cause__ or error.value.__cause__)


def test_without_a_filter_the_first_images_are_used_however_many_there_are(settings):
    run("generate", settings, images_per_class=9)  # settings of the classifier are nothing to it
    run("train", settings, baseline="")
    from monai.bundle import ConfigWorkflow

    workflow = ConfigWorkflow(str(CONFIGS / "train.json"), logging_file=False)
    workflow.parser.update({**settings, "filter": "none"})
    used = [r["image"] for r in workflow.parser.get_parsed_content("train::dataset").data if r["origin"] == "synthetic"]
    assert sorted({Path(image).name[-10:] for image in used}) == [f"{index:06d}.png" for index in range(6)]


def test_a_filter_that_hardly_any_image_passes_says_why(settings, monkeypatch):
    def refusing_all(steps, limits, shots, views, images, contrasts, class_names):
        return [("radius", 2.0, 1.0)] * len(images.labels)

    monkeypatch.setattr(filtering, "failing", refusing_all)
    with pytest.raises(RuntimeError) as error:
        run("filter", settings, filter="standard")
    words = str(error.value.__cause__.__cause__ or error.value.__cause__)
    assert "Of 30 images of 'benign' only 0 pass the filter 'standard', but 6 are asked for" in words
    assert "30 are further from all shots of its class" in words
    assert not (Path(settings["output_dir"]) / "filter_standard" / "datalist.json").exists()


def test_an_unknown_filter_is_refused(settings):
    with pytest.raises(RuntimeError) as error:
        run("train", settings, filter="strict")
    assert "filter is 'strict'. It can be 'none', 'copies', 'standard'" in str(
        error.value.__cause__.__cause__ or error.value.__cause__
    )
