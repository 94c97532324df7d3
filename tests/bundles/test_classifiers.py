"""Every overlay of configs/classifiers: at its published size without memory, and in miniature as a user runs it."""

import csv
from pathlib import Path

import pytest
import torch
import yaml
from monai.bundle import ConfigParser, ckpt_export
from monai.bundle import run as run_bundle

from monai_synth.bundle.classifier_check import check_classifier, tell_beginning
from monai_synth.networks import published_classifier
from monai_synth.utils import read_json, release_folder

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "bundles" / "colon" / "configs"
OVERLAYS = sorted((ROOT / "configs" / "classifiers").glob("*.yaml"))
TIMM = {
    "resnet18": 11,
    "resnet50": 24,
    "resnet101": 43,
    "densenet121": 7,
    "efficientnet_b0": 4,
    "mobilenetv2": 2,
    "maxvit_tiny": 30,
    "swin_tiny": 28,
    "deit3_base": 86,
    "deit3_large": 303,
    "volo_d1": 26,
}


def with_overlay(path, **more):
    parser = ConfigParser()
    parser.read_config([str(CONFIGS / "train.json"), str(path)])
    parser.update(more)
    return parser


@pytest.mark.parametrize("path", OVERLAYS, ids=[path.stem for path in OVERLAYS])
def test_an_overlay_fits_its_size_and_names_its_folder(path):
    parser = with_overlay(path)
    check_classifier(parser.config)
    assert parser["classifier_size"] == (128 if "nano" in path.stem else 224)
    assert path.stem in (*TIMM, "nano") or str(parser["classifier"]).startswith(path.stem)
    known = set(ConfigParser.load_config_file(CONFIGS / "train.json"))
    assert {key.split("::")[0] for key in yaml.safe_load(path.read_text())} <= known
    if path.stem in TIMM or "clip" in path.stem and not {"zero", "nano"} & set(path.stem.split("_")):  # of both works
        assert (parser["learning_rate"], parser["batch_size"]) == (1e-4, 64)


def test_every_network_of_the_works_has_an_overlay_and_its_number_of_parameters():
    assert set(TIMM) < {path.stem for path in OVERLAYS}
    for name, millions in TIMM.items():
        with torch.device("meta"):
            network = published_classifier(
                yaml.safe_load((OVERLAYS[0].parent / f"{name}.yaml").read_text())["classifier"], 2
            )
        assert round(sum(parameter.numel() for parameter in network.parameters()) / 1e6) == millions, name


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"classifier": "a/b"}, ValueError, "classifier is 'a/b'. It names the folder of the run"),
        ({"classifier": "resnet1"}, ValueError, "timm has no model 'resnet1'. Near names are"),
        ({"classifier": "test_vit", "classifier_size": 200}, ValueError, "cannot take images of 200 pixels"),
        ({"classifier_checkpoint": "/no/such.safetensors"}, FileNotFoundError, "There is no checkpoint /no/such"),
    ],
)
def test_a_classifier_that_cannot_be_fails_before_anything_is_built(change, error, words):
    parser = with_overlay(OVERLAYS[0].parent / "resnet18.yaml", **change)
    with pytest.raises(Exception) as caught:
        check_classifier(parser.config)
    cause = caught.value
    while cause.__cause__ is not None:
        cause = cause.__cause__
    assert isinstance(cause, error) and words in str(cause)


def test_random_weights_are_told_once(caplog):
    parser = with_overlay(OVERLAYS[0].parent / "resnet18.yaml", classifier="test_efficientnet")
    tell_beginning.cache_clear()
    for _ in range(2):
        check_classifier(parser.config)
    assert caplog.text.count("Classifier test_efficientnet starts from random weights") == 1
    check_classifier({"classifier": "mine", "network_def": {"_target_": "torch.nn.Linear", "wrong": 1}})  # not ours


@pytest.fixture
def settings(image_folder, tmp_path):
    return {
        "dataset_dir": str(image_folder({"colon_aca": 12, "colon_n": 12})),
        "output_dir": str(tmp_path / "out"),
        "model_path": str(tmp_path / "models" / "model.pt"),
        "device": "cpu",
        "image_size": 32,
        "classifier_size": 32,
        "shots": 3,
        "classifier_steps": 2,
        "batch_size": 4,
        "mixing": "none",
        "baseline": "",
    }


CASES = ["resnet18", "clip_vit_b16", "clip_lora_vit_b32", "clip_zero_shot_vit_b32", "linear_probe", "knn_probe"]


@pytest.mark.parametrize("case", CASES)
def test_it_trains_saves_evaluates_exports_and_infers(case, settings, tiny_clip, tmp_path, capsys):
    name, folder = tiny_clip
    small = {"network_def::name": "test_resnet"} if case in ("resnet18", "linear_probe", "knn_probe") else {}
    if "clip" in case:
        encoder = f"open_clip:{name}" if case == "clip_vit_b16" else name
        small = {"network_def::name": encoder, "classifier_checkpoint": str(folder)}
    overlay = str(ROOT / "configs" / "classifiers" / f"{case}.yaml")
    out = Path(settings["output_dir"])
    try:
        run_bundle(config_file=[str(CONFIGS / "train.json"), overlay], **settings, **small)
    finally:
        release_folder(out)
    trained = "nothing (zero-shot)" if "zero" in case else "real images alone"
    assert trained in (out / "results.txt").read_text()
    known = read_json(Path(settings["model_path"]).with_suffix(".json"))
    assert known["architecture"]["name"] == ("test_resnet" if "clip" not in case else f"open_clip:{name}")
    arm = out / "classifier" / f"{known['classifier']}_none"
    tested = {row["image"]: row for row in csv.DictReader(open(arm / "evaluation" / "predictions.csv"))}

    inference = {key: settings[key] for key in ("dataset_dir", "model_path", "device")}
    run_bundle(config_file=str(CONFIGS / "inference.json"), output_dir=str(tmp_path / "new"), **inference)
    rows = {row["image"]: row for row in csv.DictReader(open(tmp_path / "new" / "predictions.csv"))}
    for image, row in tested.items():  # what is published says what was evaluated
        assert float(rows[image]["prob_colon_n"]) == pytest.approx(float(row["prob_colon_n"]), abs=2e-5)

    export = {"config_file": str(CONFIGS / "inference.json"), "model_path": settings["model_path"]}
    ckpt_export(
        "network_def",
        filepath=str(tmp_path / "m.ts"),
        ckpt_file=settings["model_path"],
        bundle_root=str(tmp_path),
        **export,
    )
    network = published_classifier(known["architecture"], 2, 32).eval()
    network.load_state_dict(torch.load(settings["model_path"], weights_only=True))
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(torch.jit.load(tmp_path / "m.ts")(images), network(images))
    size = (arm / "model.pt").stat().st_size
    if "lora" in case:
        assert size < Path(settings["model_path"]).stat().st_size


def test_the_baseline_has_the_overlays_network_and_a_changed_one_is_noticed(settings, miniature):
    small = {"network_def::name": "test_resnet", "base_model": str(miniature()), "rank": 2, "max_steps": 2}
    small |= {"mixing": "real+synthetic", "baseline": "none", "images_per_class": 2, "num_inference_steps": 2}
    files = [str(CONFIGS / "train.json"), str(ROOT / "configs" / "classifiers" / "knn_probe.yaml")]
    given, out = {**settings, **small}, Path(settings["output_dir"])
    try:
        run_bundle(config_file=files, **given)
        with pytest.raises(RuntimeError) as error:
            run_bundle(config_file=files, **given, **{"network_def::neighbors": 3})
    finally:
        release_folder(out)
    table = (out / "results.txt").read_text()
    assert "real images alone" in table and "real + synthetic" in table
    arms = [
        torch.load(out / "classifier" / f"knn_probe_resnet50_{name}" / "model.pt") for name in ("none", small["mixing"])
    ]
    assert [len(arm["features"]) for arm in arms] == [6, 10]  # 3 shots and 2 synthetic images of each class
    votes = arms[1]["votes"].sum(dim=1)
    assert float(votes[:6].sum()) == pytest.approx(float(votes[6:].sum()))  # real_share is 0.5
    cause = error.value
    while cause.__cause__ is not None:
        cause = cause.__cause__
    assert "was made with other settings" in str(cause) and "network_def: " in str(cause)
