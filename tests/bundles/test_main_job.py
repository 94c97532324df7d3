"""The main job, run as a user runs it, on a random miniature base and small images."""

import csv
import shutil
from pathlib import Path

import pytest
from diffusers import StableDiffusionPipeline
from monai.bundle import ConfigParser, ConfigWorkflow
from monai.bundle import run as run_bundle

from monai_synth.bundle.comparison import chosen_arm
from monai_synth.data import is_marked_synthetic, load_datalist, shots_and_prior
from monai_synth.utils import read_json, release_folder, sha256_of
from tests.bundles.running import CONFIGS, ROOT, files_of, root_message, run


def test_the_main_job_goes_from_a_folder_to_a_table(settings, capsys):
    run("train", settings)
    out = Path(settings["output_dir"])
    roles = {record["role"] for record in load_datalist(out / "datalist.json")}
    assert roles == {"shots", "train", "val", "test"}
    table = (out / "results.txt").read_text()
    assert "real images alone" in table and "real + synthetic" in table
    arms = {name: out / "classifier" / f"test_resnet_{name}" for name in ("none", "real+synthetic")}
    steps = {read_json(arm / "evaluation" / "metrics.json")["classifier_steps"] for arm in arms.values()}
    assert steps == {3}  # the same number for both
    tested = [list(csv.DictReader(open(arm / "evaluation" / "predictions.csv"))) for arm in arms.values()]
    assert [row["image"] for row in tested[0]] == [row["image"] for row in tested[1]]
    assert all(str(settings["dataset_dir"]) in row["image"] for row in tested[0])
    assert all(is_marked_synthetic(path) for path in (out / "synthetic").rglob("*.png"))
    assert (out / "real_and_synthetic.png").exists()
    split, *trained = (
        min(path.stat().st_mtime_ns for path in out.glob(pattern))
        for pattern in ("datalist.json", "adapter/state*", "classifier/*/*")
    )
    assert split < min(trained)  # comes first
    arms = [read_json(path)["settings"] for path in sorted((out / "classifier").glob("*/run.json"))]
    assert len(arms) == 2 and {key for key in arms[0] if arms[0][key] != arms[1].get(key)} == {"mixing"}
    known = read_json(Path(settings["model_path"]).with_suffix(".json"))
    assert known == {
        "class_names": ["benign", "malignant"],
        "classifier": "test_resnet",
        "classifier_size": 32,
        "normalize_stain": "none",
        "architecture": {"family": "timm", "name": "test_resnet"},
    }
    assert settings["base_model"] in capsys.readouterr().out.splitlines()[-1]
    drawn = StableDiffusionPipeline.from_pretrained(settings["base_model"], safety_checker=None)
    drawn.load_lora_weights(out / "adapter")  # a standard adapter

    times = {path: path.stat().st_mtime_ns for path in (out / "synthetic").rglob("*.png")}
    run("train", settings)  # nothing is made anew
    assert "Stage generate is complete" in capsys.readouterr().out
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in times.items())

    with pytest.raises(RuntimeError) as error:
        run("train", settings, rank=4)
    assert "was made with other settings" in root_message(error) and "rank: 2 -> 4" in root_message(error)
    assert f"{out / 'adapter'} was" in root_message(error)  # the first one that differs
    with pytest.raises(RuntimeError) as error:
        run("train", settings, images_per_class=9)
    assert "images_per_class: 3 -> 9" in root_message(error) and "classifier" in root_message(error)
    assert {path: path.stat().st_mtime_ns for path in (out / "synthetic").rglob("*.png")} == times  # before drawing
    with pytest.raises(RuntimeError) as error:
        run("train", settings, seed=1)
    assert "a split is made once" in root_message(error) and "seed: 0 -> 1" in root_message(error)

    run(["train", "evaluate"], settings)
    given = {key: settings[key] for key in ("dataset_dir", "model_path", "device")}
    run_bundle(config_file=str(CONFIGS / "inference.json"), output_dir=str(out / "new"), **given)
    rows = list(csv.DictReader(open(out / "new" / "predictions.csv")))
    assert len(rows) == 40 and all(
        0.99 < float(row["prob_benign"]) + float(row["prob_malignant"]) < 1.01 for row in rows
    )


def test_a_classifier_of_real_images_alone_stays_whatever_images_are_drawn_later(settings):
    folder = Path(settings["output_dir"]) / "classifier" / "test_resnet_none"
    run("train", settings, mixing="none")
    stamp = (folder / "model.pt").stat().st_mtime_ns
    more = {
        "max_steps": 4,
        "images_per_class": 2,
        "guidance_scale": 2.0,
        "prompt_template": "{phrase}",
        "amp": "bfloat16",
    }
    run("train", settings, **more)
    assert (folder / "model.pt").stat().st_mtime_ns == stamp
    assert "real + synthetic" in (folder.parents[1] / "results.txt").read_text()


def test_a_baseline_of_other_settings_is_refused_before_anything_is_trained(settings):
    run("train", settings, mixing="none")
    with pytest.raises(RuntimeError) as error:
        run("train", settings, classifier_steps=4)
    assert "test_resnet_none was made with other settings" in root_message(error)
    assert "classifier_steps: 3 -> 4" in root_message(error)
    assert not (Path(settings["output_dir"]) / "adapter").exists()


def test_folders_of_ones_own_are_for_the_main_classifier_and_its_test_images_alone(settings, tmp_path):
    own = {"arm_dir": str(tmp_path / "mine"), "evaluation_dir": str(tmp_path / "judged")}
    run("train", settings, **own)
    out, arms = Path(settings["output_dir"]), sorted(path.parent for path in tmp_path.rglob("model.pt"))
    baseline = out / "classifier" / "test_resnet_none"
    assert arms == [tmp_path / "mine", Path(settings["model_path"]).parent, baseline]
    mixings = [read_json(arm / "run.json")["settings"]["mixing"] for arm in (tmp_path / "mine", baseline)]
    assert mixings == ["real+synthetic", "none"]
    judged = [tmp_path / "judged", baseline / "evaluation", tmp_path / "mine" / "evaluation_val"]
    judged.append(baseline / "evaluation_val")
    assert sorted(path.parent for path in tmp_path.rglob("metrics.json")) == sorted(judged)
    provenance = [read_json(folder / "metrics.json")["mixing"] for folder in judged]
    assert provenance == ["real+synthetic", "none", "real+synthetic", "none"]
    chosen = chosen_arm(own["arm_dir"], settings["output_dir"])
    assert Path(chosen).resolve() in (tmp_path / "mine", baseline) and (Path(chosen) / "model.pt").is_file()


def test_inference_normalizes_stains_as_training_did(settings):
    out = Path(settings["output_dir"])
    run("train", settings, mixing="none", baseline="", normalize_stain="macenko")
    evaluation = out / "classifier" / "test_resnet_none" / "evaluation" / "predictions.csv"
    given = {"model_path": settings["model_path"], "device": "cpu", "dataset_dir": settings["dataset_dir"]}
    said = {}
    for name, more in (("as trained", {}), ("plain", {"normalize_stain": "none"})):
        run_bundle(config_file=str(CONFIGS / "inference.json"), output_dir=str(out / name), **given, **more)
        rows = csv.DictReader(open(out / name / "predictions.csv"))
        said[name] = {Path(row["image"]).name: float(row["prob_benign"]) for row in rows}
    tested = {Path(row["image"]).name: float(row["prob_benign"]) for row in csv.DictReader(open(evaluation))}
    assert {name: said["as trained"][name] for name in tested} == pytest.approx(tested, abs=1e-3)
    assert any(abs(said["plain"][name] - value) > 1e-3 for name, value in tested.items())


def test_validation_images_decide_which_classifier_is_kept(settings, monkeypatch):
    from monai_synth.bundle import comparison

    folder = Path(settings["output_dir"])
    run("train", settings)
    arms = {arm: folder / "classifier" / f"test_resnet_{arm}" for arm in ("none", "real+synthetic")}
    scores = {arm: read_json(path / "evaluation_val" / "metrics.json") for arm, path in arms.items()}
    assert {score["num_images"] for score in scores.values()} == {8}
    better = scores["real+synthetic"]["balanced_accuracy"] > scores["none"]["balanced_accuracy"]
    for kept, values in (("none", (0.7, 0.7)), ("real+synthetic", (0.7, 0.8)), ("none", (0.7, 0.6))):
        written = iter(
            [scores["none"] | {"balanced_accuracy": values[0]}] + [scores["none"] | {"balanced_accuracy": values[1]}]
        )
        with monkeypatch.context() as patch:
            patch.setattr(comparison, "read_json", lambda path: next(written))
            folders = [path / "evaluation_val" for path in arms.values()]
            said = comparison.choose_arm(list(arms), list(arms), folders, folder)
        assert f"Kept: the classifier of {kept}." in said and ("left out" in said) == (kept == "none")
        assert comparison.chosen_arm("", str(folder)) == str(arms[kept])
    shutil.rmtree(folder / "classifier")
    run("train", settings)
    chosen = arms["real+synthetic" if better else "none"]
    assert sha256_of(settings["model_path"]) == sha256_of(chosen / "model.pt")
    assert (
        f"Kept: the classifier of real {'+ synthetic' if better else 'images alone'}"
        in (folder / "results.txt").read_text()
    )


def test_the_base_draws_what_a_fine_tuning_shall_not_forget(settings):
    out = Path(settings["output_dir"])
    run("train_diffusion", settings, prior_images=4, prior_weight=0.5, adapter_scope="class")
    prior = load_datalist(out / "prior" / "datalist.json")
    assert [record["class_name"] for record in prior] == ["benign"] * 4 + ["malignant"] * 4
    assert {record["adapter"] for record in prior} == {"none"}
    stamps = {path: path.stat().st_mtime_ns for path in (out / "prior").rglob("*.png")}
    shutil.rmtree(out / "adapter")
    run("train_diffusion", settings, prior_images=4, prior_weight=0.5, adapter_scope="class")
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())  # drawn once
    learned = shots_and_prior(out / "datalist.json", ["benign"], out / "prior" / "datalist.json", 0.5)
    assert [record["weight"] for record in learned] == [1.0] * 3 + [0.5] * 4
    assert {record["class_name"] for record in learned} == {"benign"}


def test_two_runs_give_equal_files_and_single_images_do_not_depend_on_the_others(settings, tmp_path):
    """The contract of docs/determinism.md: the same seed, the same bytes; batch 1, whatever else is drawn."""
    hashes = {}
    for name, more in (("first", {}), ("again", {}), ("single", {}), ("more", {"images_per_class": 5})):
        batch = {"generation_batch_size": 1} if name in ("single", "more") else {}
        out = tmp_path / name
        run("generate", {**settings, "output_dir": str(out)}, **batch, **more)
        files = {
            **files_of(out / "synthetic"),
            "adapter": sha256_of(out / "adapter" / "pytorch_lora_weights.safetensors"),
        }
        hashes[name] = files
    assert hashes["first"] == hashes["again"] and len(hashes["first"]) == 7
    assert hashes["single"].items() <= hashes["more"].items() and len(hashes["more"]) == 11


def test_another_data_set_is_judged_at_the_end(settings, image_folder):
    other = image_folder({"benign": 5, "malignant": 4}, size=48, name="other")
    run("train", settings, external_dir=str(other))
    table = (Path(settings["output_dir"]) / "results.txt").read_text()
    assert f"On another data set, {other}" in table and "9 real test images" in table
    records = load_datalist(Path(settings["output_dir"]) / "datalist.json")
    assert sum(record["role"] == "external" for record in records) == 9
    shutil.rmtree(settings["output_dir"])
    shutil.rmtree(other / "malignant")
    with pytest.raises(Exception) as error:
        run("train", settings, external_dir=str(other))
    assert "external_dir" in root_message(error) and "--external_class_map" in root_message(error)


def test_stages_run_one_by_one_and_images_are_added(settings):
    out = Path(settings["output_dir"])
    run("train_diffusion", settings)
    assert (out / "adapter" / "samples_000003.png").exists() and not (out / "synthetic").exists()
    run("generate", settings)
    before = files_of(out / "synthetic")
    assert len(before) == 6
    run("generate", settings, images_per_class=5)
    after = files_of(out / "synthetic")
    assert len(after) == 10 and before.items() <= after.items()
    assert len(load_datalist(out / "synthetic" / "datalist.json")) == 10


def test_images_from_elsewhere_train_a_classifier(settings, tmp_path):
    run("generate", settings)
    listing = tmp_path / "out" / "synthetic" / "datalist.json"
    other = tmp_path / "other"
    run("train", settings, output_dir=str(other), synthetic_datalist=str(listing))
    assert not (other / "adapter").exists() and not (other / "synthetic").exists()
    record = read_json(other / "classifier" / "test_resnet_real+synthetic" / "run.json")
    assert set(record["upstream"]) == {"split"} and record["settings"]["synthetic_sha256"] == sha256_of(listing)
    assert record["peak_memory_mb"]["host"] > 100 and record["config"]["classifier"] == "test_resnet"
    with pytest.raises(RuntimeError) as error:
        run("train", settings, output_dir=str(tmp_path / "third"), synthetic_datalist=str(tmp_path / "gone.json"))
    assert "There is no synthetic_datalist" in root_message(error)


def test_images_drawn_for_another_split_train_no_classifier_that_their_shots_judge(settings, tmp_path, capsys):
    run("generate", settings)
    drawn = tmp_path / "out" / "synthetic"
    given = {**settings, "synthetic_datalist": str(drawn / "datalist.json")}
    shots = {r["sha256"] for r in load_datalist(tmp_path / "out" / "datalist.json") if r["role"] == "shots"}
    assert set(read_json(drawn / "fitted_on.json")["images"]) == shots
    with pytest.raises(RuntimeError) as error:
        run("train", given, output_dir=str(tmp_path / "other"), fold=2)
    assert "real images that judge here" in root_message(error)
    assert not (tmp_path / "other" / "classifier").exists()
    run("train", given, output_dir=str(tmp_path / "same"))
    told = capsys.readouterr()
    assert "could not be checked" not in told.out + told.err + (tmp_path / "same" / "results.txt").read_text()
    (drawn / "fitted_on.json").unlink()
    run("train", given, output_dir=str(tmp_path / "unknown"))
    told = capsys.readouterr()
    assert "no fitted_on.json beside it" in told.out + told.err
    assert "could not be checked" in (tmp_path / "unknown" / "results.txt").read_text()


def test_images_begun_on_shots_are_made_of_them_and_those_of_the_base_of_nothing(settings, tmp_path):
    for name, more, learned in (("base", {}, 0), ("begun", {"start_sigma": 2.0}, 6)):
        out = tmp_path / name
        run("generate", settings, output_dir=str(out), adapter_scope="none", **more)
        assert len(read_json(out / "synthetic" / "fitted_on.json")["images"]) == learned
    run(
        "train",
        settings,
        output_dir=str(tmp_path / "other"),
        fold=2,
        synthetic_datalist=str(tmp_path / "base" / "synthetic" / "datalist.json"),
    )
    assert "could not be checked" not in (tmp_path / "other" / "results.txt").read_text()


@pytest.mark.parametrize("name", ["augmentation/strong", "augmentation/cutmix", "mixing/curriculum", "mixing/all_real"])
def test_an_overlay_of_augmentation_or_mixing_trains(settings, name):
    overlay = ConfigParser.load_config_file(ROOT / "configs" / f"{name}.yaml")
    steps = {"classifier_steps": 26} if "synthetic_first" in overlay else {}  # two epochs, one of each origin
    run("train", settings, **overlay, **steps)
    out = Path(settings["output_dir"])
    assert (out / "classifier").is_dir() and "balanced_accuracy" in (out / "results.txt").read_text()


@pytest.mark.parametrize("where", ["root", "bundle"])
def test_the_bundle_finds_itself(where, monkeypatch):
    monkeypatch.chdir(ROOT if where == "root" else ROOT / "bundles" / "colon")
    config = "bundles/colon/configs/train.json" if where == "root" else "configs/train.json"
    workflow = ConfigWorkflow(config_file=config, workflow_type="train")
    workflow.parser.parse(True)

    class Probe(ConfigWorkflow):
        def ask(self):
            return self.parser.get_parsed_content("bundle_root")

    workflow.__class__ = Probe
    assert workflow.ask() == str(ROOT / "bundles" / "colon")


def test_another_bundle_root_is_taken(settings, tmp_path):
    settings.pop("model_path")
    run("train", settings, bundle_root=str(tmp_path / "elsewhere"), mixing="none", baseline="")
    assert (tmp_path / "elsewhere" / "models" / "model.pt").exists()


def test_monai_finds_its_properties(settings):
    keys = ConfigParser.load_config_file(CONFIGS / "train.json").keys()
    given = {key: value for key, value in settings.items() if key in keys}
    try:
        training = ConfigWorkflow(str(CONFIGS / "train.json"), workflow_type="train", **given)
        training.initialize()
        assert training.check_properties() == []
        training.run()
    finally:
        release_folder(settings["output_dir"])
    inference = ConfigWorkflow(
        str(CONFIGS / "inference.json"),
        workflow_type="infer",
        dataset_dir=settings["dataset_dir"],
        model_path=settings["model_path"],
        device="cpu",
    )
    inference.initialize()
    assert inference.check_properties() == []
