"""The lines of docs/determinism.md that need a whole config, and those that hold on every machine."""

import hashlib
import json

import torch

from monai_synth.data import assign_roles, plan_requests
from monai_synth.utils import derived_seed, sha256_of
from tests.bundles.running import files_of, run

SEEDS = [7016595872699611864, 2734557988904418680]
REQUESTS = "7f1d0ac04861a423760e1d64aa37c5e8537f65abd02296dc7f41603518812170"
ROLES = "74f0c9d37edc4cfceccaf71502c2cc909118f61e6841ae89a572a525d24b45f1"


def digest(content):
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def test_seeds_and_requests_are_the_same_on_every_machine():
    """Their values as they were first written down: hashes of texts, and no arithmetic that a machine could round."""
    assert [derived_seed(0, "colon_aca", 0), derived_seed(7, "epoch", 3)] == SEEDS
    plan = plan_requests(
        ["a", "b"],
        {"a": "an a", "b": "a b"},
        500,
        seed=7,
        attributes={"stain": ["pale", "strong"], "power": ["10x", "20x", "40x"]},
        shots=[{"class_name": name} for name in "aabbb"],
    )
    assert digest(list(plan)) == REQUESTS


def test_a_split_is_the_same_on_every_machine():
    """With numpy 2.4 and scikit-learn 1.9, which shuffle whole numbers; other versions may shuffle otherwise."""
    records = [
        {"class_name": name, "label": label, "group": f"{name}{index // 3}"}
        for label, name in enumerate("abc")
        for index in range(60)
    ]
    roles = [
        [record["role"] for record in assign_roles(records, shots=5, fold=fold, seed=seed)]
        for fold, seed in ((0, 0), (3, 11))
    ]
    assert digest(roles) == ROLES


def test_half_precision_draws_the_same_files_again(settings, tmp_path):
    hashes = []
    for name in ("first", "again"):
        out = tmp_path / name
        run("generate", {**settings, "output_dir": str(out)}, amp="bfloat16")
        hashes.append([files_of(out / "synthetic"), sha256_of(out / "adapter" / "pytorch_lora_weights.safetensors")])
    assert hashes[0] == hashes[1] and len(hashes[0][0]) == 6


def test_a_classifier_does_not_depend_on_whether_its_images_were_drawn_in_the_same_run(settings, tmp_path):
    """With a reading process: without one, MONAI's loader puts the generator back to where it began."""
    settings |= {"baseline": "", "num_workers": 1}
    run("train", settings, output_dir=str(tmp_path / "whole"))
    run("generate", settings, output_dir=str(tmp_path / "parts"))
    run("train", settings, output_dir=str(tmp_path / "parts"))
    name = "classifier/test_resnet_real+synthetic/model.pt"
    assert sha256_of(tmp_path / "whole" / name) == sha256_of(tmp_path / "parts" / name)


def test_a_run_asks_cudnn_for_kernels_that_repeat_and_torch_for_no_more(settings, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", False)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    run("generate", settings, adapter_scope="none", images_per_class=1)
    assert torch.backends.cudnn.deterministic and not torch.backends.cudnn.benchmark
    assert not torch.are_deterministic_algorithms_enabled()
