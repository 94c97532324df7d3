import csv

import numpy as np
import pytest

from monai_synth.data.fitted_images import write_fitted_images
from monai_synth.report import write_report
from monai_synth.report.study import compare_arms
from monai_synth.report.study_files import read_predictions, read_results, rows_if_any
from monai_synth.report.study_report import curves_of, draw_distances, labels_of, write_study_report
from monai_synth.report.tables import text_table, write_rows
from monai_synth.utils import write_json


def write_run(folder, name, correct, seed, arm, **settings):
    """A run whose answers are known: four groups of test images of two classes."""
    evaluation = folder / name / "evaluation"
    evaluation.mkdir(parents=True)
    truth = ["a", "b"] * (len(correct) // 2)
    with open(evaluation / "predictions.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, ["image", "group", "class_name", "predicted"])
        writer.writeheader()
        for index, (right, name_of) in enumerate(zip(correct, truth)):
            said = name_of if right else {"a": "b", "b": "a"}[name_of]
            row = {"image": f"{index:03d}.png", "group": f"g{index // 4}", "class_name": name_of, "predicted": said}
            writer.writerow(row)
    confusion = [[int(sum(r for r, t in zip(correct, truth) if t == c)), 0] for c in "ab"]
    write_json(evaluation / "metrics.json", {"confusion_matrix": confusion, "recall": {"a": 1, "b": 1}})
    accuracy = float(np.mean(correct))
    numbers = {"balanced_accuracy": accuracy, "accuracy": accuracy, "majority_share": 0.5}
    numbers["val_balanced_accuracy"] = {"real": 0.5, "better": 0.6}.get(arm, 0.5)
    return {"arm": arm, "seed": seed, **settings, **numbers, "folder": name}


@pytest.fixture
def study(tmp_path):
    def make(shares, num_draws=6, num_images=80):
        rng = np.random.default_rng(0)
        rows = []
        for seed in range(num_draws):
            for arm, share in shares.items():
                correct = (rng.random(num_images) < share).astype(int)
                settings = {"shots": 5, "synthetic_per_class": 0 if arm == "real" else 50}
                rows.append(write_run(tmp_path, f"{arm}_{seed}", correct, seed, arm, **settings))
        write_rows(tmp_path / "results.csv", rows)
        return tmp_path

    return make


def test_a_planted_gain_is_shown_and_none_is_not(study):
    folder = study({"real": 0.6, "better": 0.85, "same": 0.6})
    compared = {row["arm"]: row for row in compare_arms(folder, read_results(folder), "real")}
    assert compared["better"]["draws"] == 6 and compared["better"]["low"] > 0
    assert compared["better"]["verdict"].startswith("Better by")
    assert compared["same"]["verdict"].startswith("No difference shown")
    assert compared["better"]["p_holm"] >= compared["better"]["p"]
    assert compared["better"]["kept"] == "6 of 6" and compared["same"]["kept"] == "0 of 6"
    assert compared["better"]["chosen_difference"] == compared["better"]["difference"]
    assert compared["same"]["chosen_difference"] == compared["same"]["chosen_low"] == 0  # never worse than without


def test_one_draw_shows_nothing(study):
    folder = study({"real": 0.5, "better": 0.95}, num_draws=1)
    (row,) = compare_arms(folder, read_results(folder), "real")
    assert row["verdict"] == "One draw of the shots: nothing can be said."


def test_no_gain_below_the_majority(study):
    folder = study({"real": 0.1, "better": 0.45})
    (row,) = compare_arms(folder, read_results(folder), "real")
    assert row["low"] > 0 and row["verdict"].endswith("no gain.")


def test_the_report_is_written_from_files(study):
    folder = study({"real": 0.6, "better": 0.85})
    written = write_study_report(folder, "real")
    assert {path.name for path in written} >= {"summary.txt", "comparison.csv", "differences.png", "confusion_real.png"}
    assert "Better by" in (folder / "summary.txt").read_text()


def test_images_of_unknown_origin_are_told_in_the_summary(study, tmp_path):
    folder = study({"real": 0.6, "better": 0.85}, num_draws=2)
    known, unknown = tmp_path / "known" / "datalist.json", tmp_path / "unknown" / "datalist.json"
    known.parent.mkdir()
    write_fitted_images(known.parent, [], [])
    rows = read_results(folder)
    for row in rows:
        row["synthetic_datalist"] = "" if row["arm"] == "real" else str(known if row["seed"] == "0" else unknown)
    write_rows(folder / "results.csv", rows)
    write_study_report(folder, "real")
    summary = (folder / "summary.txt").read_text()
    assert f"the generator of {unknown} has learned" in summary and str(known) not in summary.split("It could not")[1]


def test_curves_keep_other_settings_apart():
    rows = [
        {"arm": "x", "shots": s, "classifier": c, "seed": "0", "balanced_accuracy": "0.5"} for s in "57" for c in "ab"
    ]
    curves = curves_of(rows, "shots")
    assert curves == {"x, classifier a": {5.0: [0.5], 7.0: [0.5]}, "x, classifier b": {5.0: [0.5], 7.0: [0.5]}}


def test_curves_tell_numbers_of_images_apart_that_the_first_arm_does_not_have():
    runs = [("real", "0", "0.5"), ("both", "50", "0.6"), ("both", "100", "0.7")]
    rows = [
        {"arm": arm, "shots": shots, "synthetic_per_class": number, "balanced_accuracy": accuracy}
        for shots in ("5", "10")
        for arm, number, accuracy in runs
    ]
    assert curves_of(rows, "shots") == {
        "real": {5.0: [0.5], 10.0: [0.5]},
        "both, synthetic_per_class 50": {5.0: [0.6], 10.0: [0.6]},
        "both, synthetic_per_class 100": {5.0: [0.7], 10.0: [0.7]},
    }


@pytest.mark.parametrize("shots", [("5",), ("5", "10")], ids=["dots", "curves"])
def test_distances_of_other_generators_are_no_draws_of_one(tmp_path, monkeypatch, shots):
    rows = [
        {"pool": f"{s}{fold}{rank}", "shots": s, "fold": fold, "rank": rank, "class_name": name, "kid": kid}
        | {"floor": 0.001, "ceiling": 0.05, "ratio": 1.0}
        for s in shots
        for fold in "01"
        for rank, kid in (("", 0.01), ("4", 0.03))
        for name in ("benign", "malignant")
    ]
    write_rows(tmp_path / "distances.csv", rows)
    assert draw_distances(tmp_path)[0].stat().st_size > 1000
    drawn = {}
    for name in ("draw_curves", "draw_distance_dots"):
        monkeypatch.setattr(f"monai_synth.report.study_report.{name}", lambda values, *_: drawn.update(values))
    draw_distances(tmp_path)
    by_shots = {label: values if len(shots) > 1 else {5.0: values} for label, values in drawn.items()}
    expected = {"benign": 10.0, "benign, rank 4": 30.0, "malignant": 10.0, "malignant, rank 4": 30.0}
    assert by_shots == {label: {float(s): [kid, kid] for s in shots} for label, kid in expected.items()}


def test_a_missing_study_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match="Run study.json first"):
        read_results(tmp_path)


def test_a_table_has_every_column():
    assert text_table([{"a": 1}, {"b": "xx"}]) == "| a | b  |\n|---|----|\n| 1 |    |\n|   | xx |\n"


def test_an_arms_own_settings_do_not_keep_it_from_its_reference(study):
    folder = study({"real": 0.6, "better": 0.85})
    rows = [{**row, "filter": "standard" if row["arm"] == "better" else ""} for row in read_results(folder)]
    (compared,) = compare_arms(folder, rows, "real")
    assert compared["filter"] == "standard" and compared["draws"] == 6
    # but a setting of the grid does: every arm is compared at its own point
    doubled = [{**row, "rank": rank} for row in rows for rank in ("4", "8")]
    assert [(row["rank"], row["draws"]) for row in compare_arms(folder, doubled, "real")] == [("4", 6), ("8", 6)]


def test_an_arm_is_compared_with_its_reference_at_the_same_number_of_synthetic_images(tmp_path):
    """Right answers per 80 images: an arm is 8 better than its reference at 50 images, and 16 at 100."""
    right = {("all", 50): 40, ("all", 100): 56, ("filtered", 50): 48, ("filtered", 100): 72, ("real", 0): 32}
    rows = []
    for seed in range(3):
        for (arm, count), number in right.items():
            correct = np.roll(np.arange(80) < number, seed).astype(int)
            rows.append(write_run(tmp_path, f"{arm}_{count}_{seed}", correct, seed, arm, synthetic_per_class=count))
    write_rows(tmp_path / "results.csv", rows)
    rows = read_results(tmp_path)

    def differences(reference):
        return {
            (row["arm"], row["synthetic_per_class"], row.get("against", "")): (row["difference"], row["draws"])
            for row in compare_arms(tmp_path, rows, reference)
        }

    assert differences("all") == {
        ("filtered", "50", ""): (0.1, 3),
        ("filtered", "100", ""): (0.2, 3),
        ("real", "0", "synthetic_per_class 50"): (-0.1, 3),
        ("real", "0", "synthetic_per_class 100"): (-0.3, 3),
    }
    assert differences("real") == {
        ("all", "50", ""): (0.1, 3),
        ("all", "100", ""): (0.3, 3),
        ("filtered", "50", ""): (0.2, 3),
        ("filtered", "100", ""): (0.5, 3),
    }


def test_an_arm_with_another_classifier_than_the_grids_is_compared_with_each_of_them(study):
    folder = study({"real": 0.6, "better": 0.85, "same": 0.6})
    rows = [{**row, "classifier": name} for row in read_results(folder) for name in ("resnet18", "resnet50")]
    rows = [row for row in rows if row["arm"] != "better" or row["classifier"] == "resnet18"]
    rows = [{**row, "classifier": "probe"} if row["arm"] == "better" else row for row in rows]  # as an overlay does
    compared = {(row["arm"], row["classifier"], row["against"]): row for row in compare_arms(folder, rows, "real")}
    probe = [("better", "probe", f"classifier {name}") for name in ("resnet18", "resnet50")]
    assert set(compared) == {*probe, ("same", "resnet18", ""), ("same", "resnet50", "")}
    assert all(row["draws"] == 6 for row in compared.values())
    assert labels_of(list(compared.values()))[:2] == [
        "better, classifier probe, against classifier resnet18",
        "better, classifier probe, against classifier resnet50",
    ]


def test_tables_that_must_be_there_are_missed_and_others_are_not(tmp_path):
    with pytest.raises(FileNotFoundError, match="predictions.csv"):
        read_predictions(tmp_path / "predictions.csv")
    assert rows_if_any(tmp_path / "distances.csv") == []


def test_a_page_says_what_was_shown_and_names_stay_text(study):
    folder = study({"real": 0.6, "better": 0.85})
    rows = read_results(folder)
    for row in rows:
        row["folder"], row["seconds"] = f"pool/{row['folder']}", "1.0"
        if row["arm"] == "better":
            row["arm"] = "<script>alert(1)</script>"
    (folder / "pool").mkdir()
    for path in list(folder.iterdir()):
        if path.is_dir() and path.name != "pool":
            path.rename(folder / "pool" / path.name)
    write_rows(folder / "results.csv", rows)
    real = [{"image": "x.png", "class_name": name, "role": "test", "group": name} for name in "ab"]
    write_json(folder / "pool" / "datalist.json", {"class_names": ["a", "b"], "training": real})
    machine = {"device": "x86", "cores": 2, "system": "Linux"}
    arms = {row["arm"]: {} for row in rows}
    settings = {"grid": {"seed": [0]}, "arms": arms, "reference_arm": "real"}
    notes = {"began": 0, "identity": "", "machine": machine, "versions": {}, "peak_memory_mb": {}}
    write_json(folder / "run.json", {"complete": True, "settings": settings, **notes})
    page = write_report(folder).read_text()
    assert "<script" not in page and "&lt;script&gt;alert(1)" in page
    assert "shown to be better: 1; shown to be worse: 0" in page and ">Better<" in page
    assert "there is no learning curve to draw" in page
