"""A study on a random miniature base: every run once, gone on with, and told in words."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest

from monai_synth.bundle import filtering
from monai_synth.report import write_report
from monai_synth.utils import read_json, write_json
from tests.bundles.running import CONFIGS, SMALL, root_message, run


@pytest.fixture
def settings(miniature, image_folder, tmp_path):
    return {
        **SMALL,
        "dataset_dir": str(image_folder({"benign": 20, "malignant": 20})),
        "output_dir": str(tmp_path / "study"),
        "base_model": str(miniature()),
        "grid": {"seed": [0, 1], "synthetic_per_class": [0, 2, 3], "classifier": ["test_resnet"]},
    }


def rows_of(folder, name="results.csv"):
    return list(csv.DictReader(open(folder / name, newline="")))


def test_arms_that_differ_in_drawing_alone_share_one_adapter(settings):
    folder = Path(settings["output_dir"])
    drawn = {"mixing": "real+synthetic"}
    arms = {
        "real": {"mixing": "none"},
        "plain": drawn,
        "guided": {**drawn, "guidance_scale": 4.0, "guidance_interval": None},
    }
    arms |= {"other rank": {**drawn, "rank": 3}, "on shots": {**drawn, "start_sigma": 1.0}}
    run("study", {**settings, "grid": {"seed": [0], "synthetic_per_class": [2]}}, classifier="test_resnet", arms=arms)
    began = [read_json(path)["began"] for path in sorted(folder.glob("*/adapter/run.json"))]
    assert len(began) == 4 and len(set(began)) == 2  # three pools of one adapter, and one of another
    pools = {row["arm"]: (folder / row["folder"]).parents[1] for row in rows_of(folder)}
    images = [next(pools[arm].glob("synthetic/*/*.png")) for arm in arms if arm != "real"]
    assert len({path.read_bytes() for path in images}) == 4


def test_a_study_runs_shares_and_goes_on(settings):
    folder = Path(settings["output_dir"])
    run("study", settings)
    rows = rows_of(folder)
    assert len(rows) == 2 * (1 + 2 + 2)  # per seed: real, and two arms at two numbers
    assert {row["arm"] for row in rows} == {"real", "real + synthetic", "synthetic"}
    assert sorted(path.name for path in folder.glob("seed*")) == ["seed0", "seed1"]  # one adapter for all arms
    assert len(list(folder.glob("*/adapter/pytorch_lora_weights.safetensors"))) == 2
    assert len(list((folder / "seed0" / "synthetic").rglob("*.png"))) == 2 * 3
    row = next(row for row in rows if row["arm"] == "real + synthetic" and row["synthetic_per_class"] == "2")
    metrics = read_json(folder / row["folder"] / "evaluation" / "metrics.json")
    assert float(row["balanced_accuracy"]) == metrics["balanced_accuracy"] and metrics["classifier_steps"] == 2
    assert read_json(folder / row["folder"] / "run.json")["settings"]["synthetic_per_class"] == 2
    compared = rows_of(folder, "comparison.csv")
    assert len(compared) == 4 and all(row["draws"] == "2" for row in compared)
    assert all((folder / pool / "real_and_synthetic.png").stat().st_size > 1000 for pool in ("seed0", "seed1"))
    for name in ("accuracy_against_synthetic_per_class.png", "differences.png", "confusion_real.png", "summary.txt"):
        assert (folder / name).stat().st_size > 200
    record, report = read_json(folder / "run.json"), read_json(folder / "report.json")
    assert record["complete"] and record["settings"]["reference_arm"] == report["reference_arm"] == "real"
    assert len(report["runs"]) == 10 and report["num_draws"] == 2 and len(report["summary"]) == 5
    assert report["comparison"][0]["low"] == float(compared[0]["low"])
    page = (folder / "report.html").read_text()
    assert "accuracy_against" not in page and page.count("data:image/png") >= 2 + 3 + 4  # figures, arms, images
    for row in compared:
        assert f"{float(row['difference']):+.3f} ({float(row['low']):+.3f} to {float(row['high']):+.3f})" in page
    assert "<script" not in page and "http" not in page
    assert 0 < record["wall_time_s"] < 600
    assert "Shots and synthetic images" not in page  # patient data, on request alone
    write_report(folder, include_real_images=True)
    assert "Shots and synthetic images" in (folder / "report.html").read_text()

    times = {path: path.stat().st_mtime_ns for path in folder.rglob("model.pt")}
    (folder / rows[-1]["folder"] / "run.json").unlink()  # as if it had been stopped in the last run
    record["complete"] = False
    write_json(folder / "run.json", record)  # as it is until the end
    with pytest.raises(FileNotFoundError, match="has not come to its end. Run the same command"):
        write_report(folder)
    run("study", settings)
    assert read_json(folder / "run.json")["began"] == record["began"]
    again = {path: path.stat().st_mtime_ns for path in folder.rglob("model.pt")}
    assert [row["balanced_accuracy"] for row in rows_of(folder)] == [row["balanced_accuracy"] for row in rows]
    assert sum(times[path] != again[path] for path in times) <= 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"grid": {"shots": 5}}, "must be a list of values"),
        ({"grid": {"shot": [5]}}, "sets 'shot' (did you mean 'shots'?), which no config"),
        ({"grid": {"rank": [0]}}, "rank is 0. It must lie between 1 and 1024"),
        ({"grid": {"synthetic_per_class": [-5]}}, "synthetic_per_class is -5. It must lie between 1 and 1e+07"),
        ({"grid": {"synthetic_per_class": ["all"]}}, "synthetic_per_class is 'all'. It must be a whole number from 1"),
        ({"controls": "false"}, "controls is 'false'. It can be False, True"),
        ({"bootstrap_samples": "many"}, "bootstrap_samples is 'many'. It must be a whole number from 10"),
        ({"judge_images": True, "encoder": "dino"}, "There is no encoder 'dino'"),
        (
            {
                "arms": {
                    name: {"mixing": "none", "network_def::name": network}
                    for name, network in (("real", "test_resnet"), ("other network", "resnet1"))
                }
            },
            "timm has no model 'resnet1'",
        ),
        ({"reference_arm": "nothing"}, "reference_arm is 'nothing', but the arms are 'real'"),
        ({"arms": {"real": {"mixing": "none", "overlay": "no.yaml"}}}, "There is no overlay no.yaml"),
    ],
)
def test_a_wrong_study_stops_before_its_first_run(settings, change, words):
    with pytest.raises(RuntimeError) as error:
        run("study", settings, **change)
    assert words in root_message(error)
    assert not list(Path(settings["output_dir"]).rglob("datalist.json"))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (
            "shot: 5",
            "The arm 'real', its overlay or the grid sets 'shot' (did you mean 'shots'?), which no config",
        ),
        ("trian::random_transforms: []", "did you mean 'train'?"),
        ("rank: 0", "rank is 0. It must lie between 1 and 1024"),
    ],
)
def test_a_wrong_overlay_stops_a_study_before_its_first_run(settings, tmp_path, line, words):
    (tmp_path / "wrong.yaml").write_text(line)
    with pytest.raises(RuntimeError) as error:
        run("study", settings, arms={"real": {"mixing": "none", "overlay": str(tmp_path / "wrong.yaml")}})
    assert words in root_message(error)
    assert not list(Path(settings["output_dir"]).rglob("datalist.json"))


def test_a_class_with_too_few_images_for_some_shots_stops_a_study_before_its_first_run(settings, image_folder):
    settings["dataset_dir"] = str(image_folder({"benign": 20, "malignant": 5}, name="few"))
    with pytest.raises(RuntimeError) as error:
        run("study", settings, grid={"shots": [1, 4], "classifier": ["test_resnet"], "synthetic_per_class": [2]})
    assert "'malignant' has 3 images left for training (of 5" in root_message(error)
    assert "fewer than shots=4" in root_message(error)
    assert not list(Path(settings["output_dir"]).rglob("run.json"))


def test_a_study_says_what_is_wrong_in_one_line(settings, tmp_path):
    write_json(tmp_path / "more.json", {"grid": {"fold": [9], "seed": [0]}})
    command = [
        sys.executable,
        "-m",
        "monai.bundle",
        "run",
        "--config_file",
        f"['{CONFIGS / 'study.json'}','{tmp_path / 'more.json'}']",
    ]
    done = subprocess.run([*command, "--output_dir", str(tmp_path / "out")], capture_output=True, text=True)
    assert done.returncode == 1 and "Error: fold is 9, but there are 5 folds" in done.stderr


def test_a_study_judges_on_another_data_set_and_its_images_too(settings, image_folder, encoder, monkeypatch):
    for name in ("FEWEST", "FEWEST_GROUPS"):
        monkeypatch.setattr(f"monai_synth.metrics.quality.{name}", 2)
    folder = Path(settings["output_dir"])
    other = image_folder({"B": 6, "M": 6, "extra": 3}, size=40, name="other")
    names = {"B": "benign", "M": "malignant"}
    given = {
        **{"external_dir": str(other), "external_class_map": names, "images_per_class": 4},
        **{"judge_images": True, "encoder": str(encoder)},
        "grid": {"seed": [0, 1], "shots": [3, 4], "classifier": ["test_resnet"]},
    }
    run("study", settings, **given)
    rows = rows_of(folder)
    assert {row["external_num_images"] for row in rows} == {"12"} and {row["num_images"] for row in rows} == {"8"}
    predictions = rows_of(folder / rows[0]["folder"] / "evaluation_external", "predictions.csv")
    assert sorted(Path(row["image"]).parent.name for row in predictions) == ["B"] * 6 + ["M"] * 6
    right = [row["class_name"] == row["predicted"] for row in predictions]
    assert float(rows[0]["external_accuracy"]) == pytest.approx(sum(right) / 12)
    compared = rows_of(folder, "comparison.csv")
    values = {(row["arm"], row["seed"], row["shots"]): row for row in rows}
    for row in compared:  # the choice by hand, from the runs' own numbers
        pairs = [(values[row["arm"], seed, row["shots"]], values["real", seed, row["shots"]]) for seed in "01"]
        kept = [float(arm["val_balanced_accuracy"]) > float(real["val_balanced_accuracy"]) for arm, real in pairs]
        chosen = [float(pair[0 if keep else 1]["balanced_accuracy"]) for pair, keep in zip(pairs, kept)]
        assert row["kept"] == f"{sum(kept)} of 2" and float(row["chosen"]) == pytest.approx(sum(chosen) / 2, abs=1e-4)
    assert (folder / "differences_external.png").is_file() and "On the other data set" in (
        folder / "summary.txt"
    ).read_text()
    distances = rows_of(folder, "distances.csv")
    assert {(row["seed"], row["shots"], row["class_name"]) for row in distances} == {
        (seed, shots, name) for seed in "01" for shots in "34" for name in ("benign", "malignant")
    }
    quality = read_json(folder / distances[0]["pool"] / "assess" / "quality.json")["classes"]
    assert float(distances[0]["kid"]) == pytest.approx(quality[distances[0]["class_name"]]["kid"])
    assert (folder / "distance_per_class.png").is_file()
    judged = {path: read_json(path) for path in sorted(folder.glob("*/assess/quality.json"))}
    first, second, *others = judged
    changed = [judged[first] | {"encoder": {"name": "older", "fingerprint": "0"}}, {**judged[second], "marked": 1}]
    for path, content in zip((first, second), changed):
        write_json(path, content)
    run("study", settings, **given)  # judges anew what another version of the encoder has judged, and nothing else
    assert read_json(first) == judged[first] and read_json(second)["marked"] == 1


def test_filters_of_other_limits_have_folders_of_their_own_in_one_pool(settings, encoder, monkeypatch):
    monkeypatch.setattr(filtering, "failing", lambda *args: [None] * len(args[4].labels))  # all pass
    folder = Path(settings["output_dir"])
    arms = {"real": {"mixing": "none"}, "filtered": {"mixing": "synthetic", "filter": "copies"}}
    given = {"arms": arms, "encoder": str(encoder)}
    given["grid"] = {"seed": [0], "filter_quantile": [0.05, 0.2], "synthetic_per_class": [2]}
    run("study", settings, **given)
    rows = [row for row in rows_of(folder) if row["arm"] == "filtered"]
    assert [row["filter_quantile"] for row in rows] == ["0.05", "0.2"]
    notes = {path: read_json(path) for path in folder.glob("*/filter_copies*/run.json")}
    assert {note["settings"]["filter_quantile"] for note in notes.values()} == {0.05, 0.2} and len(notes) == 2
    identities = {note["settings"]["filter_quantile"]: note["identity"] for note in notes.values()}
    for row in rows:  # each has learned from the images of its own filter
        record = read_json(folder / row["folder"] / "run.json")
        assert record["upstream"]["filter"] == identities[float(row["filter_quantile"])]
    run("study", settings, **given)  # makes nothing anew
    assert {path: read_json(path) for path in notes} == notes


def test_an_overlay_wins_over_grid_and_study_and_draws_its_own_pool(settings, tmp_path):
    folder = Path(settings["output_dir"])
    (tmp_path / "own.yaml").write_text("classifier: test_efficientnet\nlearning_rate: 0.02\nnum_inference_steps: 3\n")
    drawn = {"mixing": "real+synthetic"}
    arms = {"real": {"mixing": "none"}, "plain": drawn, "own": {**drawn, "overlay": str(tmp_path / "own.yaml")}}
    grid = {"seed": [0], "synthetic_per_class": [2], "classifier": ["test_resnet"]}
    run("study", {**settings, "grid": grid, "arms": arms}, learning_rate=0.005)
    rows = {row["arm"]: row for row in rows_of(folder)}
    records = {arm: read_json(folder / row["folder"] / "run.json")["settings"] for arm, row in rows.items()}
    asked = {arm: (record["classifier"], record["learning_rate"]) for arm, record in records.items()}
    assert asked == {
        "real": ("test_resnet", 0.005),
        "plain": ("test_resnet", 0.005),
        "own": ("test_efficientnet", 0.02),
    }
    pools = {arm: (folder / row["folder"]).parents[1] for arm, row in rows.items()}
    assert pools["real"] == pools["plain"] != pools["own"]
    steps = [read_json(pools[arm] / "synthetic" / "run.json")["settings"]["num_inference_steps"] for arm in arms]
    assert steps == [2, 2, 3]
    adapters = [read_json(pools[arm] / "adapter" / "run.json")["began"] for arm in arms]
    assert len(set(adapters)) == 1  # which drawing leaves as it is
    compared = {row["arm"]: row for row in rows_of(folder, "comparison.csv")}
    assert compared["own"]["against"] == "classifier test_resnet" and compared["plain"]["against"] == ""
