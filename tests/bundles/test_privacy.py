"""The privacy audit: planted copies and an over-trained adapter are found, clean runs are not accused."""

import numpy as np
import pytest
import torch

from monai_synth.bundle.adapter_privacy import denoising_losses
from monai_synth.bundle.privacy import images_channel, members_and_holdout, metadata_channel
from monai_synth.metrics.privacy import membership
from monai_synth.networks import LatentDiffusion, LoRADenoiser, save_adapter
from monai_synth.utils import read_json
from tests.bundles.running import SMALL, run


@pytest.mark.parametrize("scope", ["dataset", "class", "none"])
def test_an_audit_writes_a_verdict_for_each_channel(miniature, image_folder, tmp_path, encoder, scope):
    settings = {
        **SMALL,
        "shots": 5,
        "images_per_class": 6,
        "dataset_dir": str(image_folder({"benign": 40, "tumor": 40})),
        "output_dir": str(tmp_path / "out"),
        "base_model": str(miniature()),
        "encoder": str(encoder),
        "adapter_scope": scope,
    }
    run("privacy", settings)
    found = read_json(tmp_path / "out" / "privacy" / "privacy.json")
    assert set(found["channels"]) == {"images", "metadata"} | ({"adapter"} if scope != "none" else set())
    assert found["channels"]["metadata"]["verdict"] == "NO LEAK FOUND"
    assert found["shots"] == 10 and 10 <= found["holdout"] <= 40
    if scope != "none":
        channel = found["channels"]["adapter"]
        assert channel["verdict"] in ("LEAK FOUND", "NO LEAK FOUND", "NOT TESTABLE") and channel["words"]
        assert 0 <= channel["null_control"]["auc"] <= 1 and channel["epsilon_lower_bound"] >= 0


def records_of(count, role, start=0, group=None):
    return [
        {
            "image": f"/data/patient/{role}_{start + i:04d}.png",
            "sha256": f"{role}{start + i}",
            "group": group or f"{role}_{start + i:04d}",
            "class_name": "benign",
            "label": 0,
            "origin": "real",
            "role": role,
        }
        for i in range(count)
    ]


def test_the_holdout_is_of_other_groups_and_never_a_shot_or_a_test_image():
    records = [*records_of(5, "shots"), *records_of(60, "train"), *records_of(10, "val"), *records_of(9, "test")]
    records += records_of(3, "train", 500, group="shots_0001")
    shots, holdout = members_and_holdout(records)
    assert len(shots) == 5 and len(holdout) == 20
    assert {record["role"] for record in holdout} <= {"train", "val"}
    assert not {record["group"] for record in shots} & {record["group"] for record in holdout}
    copied = {**records[5], "sha256": "shots0"}
    with pytest.raises(ValueError, match="The holdout overlaps the shots: .*train_0000.png is .*shots_0000.png"):
        members_and_holdout([*records[:5], copied])


def channel(rng, copies):
    """The images' channel for 200 images of which some are near-copies of shots."""
    real = rng.standard_normal((60, 16))
    views = np.repeat(real, 8, axis=0) + 0.05 * rng.standard_normal((480, 16))
    drawn = rng.standard_normal((200, 16))
    sources = rng.integers(20, size=copies)
    drawn[:copies] = views[sources * 8 + 3] + 0.05 * rng.standard_normal((copies, 16))
    records = [{"image": f"s{i}.png", "class_name": "benign"} for i in range(200)]
    is_member = np.arange(60) < 20
    groups = [f"g{i}" for i in range(60)]
    return images_channel(views, drawn, records, [{}] * 60, is_member, np.zeros(60, int), groups, ["benign"], "")


def test_planted_copies_are_found_and_clean_images_are_not_accused():
    rng = np.random.default_rng(0)
    leaks = [channel(rng, copies=10) for _ in range(60)]  # 5 % of the images
    assert np.mean([found["verdict"] == "LEAK FOUND" for found in leaks]) >= 0.85
    assert all(found["num_suspects"] >= 10 for found in leaks)
    clean = [channel(rng, copies=0)["verdict"] == "LEAK FOUND" for _ in range(60)]
    assert np.mean(clean) <= 0.15
    found = images_channel(
        rng.standard_normal((80, 4)), rng.standard_normal((5, 4)), [{"image": "s.png", "class_name": "benign"}] * 5,
        [{}] * 10, np.arange(10) < 4, np.zeros(10, int), [str(i) for i in range(10)], ["benign"], "Too few.",
    )  # fmt: skip
    assert found["verdict"] == "NOT TESTABLE" and found["words"] == "Too few."


def test_an_overtrained_adapter_is_found_and_an_untrained_one_is_not(miniature, tmp_path):
    torch.manual_seed(0)
    latents = torch.randn(36, 4, 8, 8)
    diffusion = LatentDiffusion(str(miniature("v_prediction")))
    network = LoRADenoiser(diffusion, rank=8, target_modules="all")
    save_adapter(network, tmp_path / "new", {"base_fingerprint": diffusion.fingerprint})
    optimizer = torch.optim.AdamW(network.trainable_parameters(), lr=5e-3)
    context = {name: value.expand(12, -1, -1) for name, value in diffusion.encode_prompts(["a cell"]).items()}
    for _ in range(150):
        noise, timesteps = torch.randn(12, 4, 8, 8), diffusion.draw_timesteps(12)
        noisy = diffusion.add_noise(latents[:12], noise, timesteps)
        loss = (network(noisy, timesteps, context) - diffusion.target(latents[:12], noise, timesteps)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    save_adapter(network, tmp_path / "over", {"base_fingerprint": diffusion.fingerprint})
    fresh = LatentDiffusion(str(miniature("v_prediction")))

    def test_of(folder):
        base, adapted = (denoising_losses(fresh, f, latents, ["a cell"] * 36, "x") for f in (None, folder))
        groups = [f"g{i}" for i in range(36)]
        return membership(base - adapted, np.arange(36) < 12, np.zeros(36, int), groups)

    over, new = test_of(tmp_path / "over"), test_of(tmp_path / "new")
    assert over.auc > 0.9 and over.p_value < 0.001
    assert new.p_value > 0.05


def test_a_planted_name_is_found_in_the_bytes(tmp_path):
    (tmp_path / "synthetic").mkdir()
    records = [{"image": "/data/ward/smith_0815.png", "group": "patient-4711", "class_name": "benign", "role": "shots"}]
    drawn = [{"image": str(tmp_path / "synthetic" / "benign_000000.png"), "class_name": "benign"}]
    (tmp_path / "synthetic" / "benign_000000.png").write_bytes(b"\x89PNG pixels")
    assert metadata_channel(tmp_path, records, drawn)["verdict"] == "NO LEAK FOUND"
    for planted in (b"smith_0815.png", b"patient-4711", b"/data/ward"):
        (tmp_path / "synthetic" / "benign_000000.png").write_bytes(b"\x89PNG " + planted + b" pixels")
        found = metadata_channel(tmp_path, records, drawn)
        assert found["verdict"] == "LEAK FOUND" and found["found"][0]["says"] == planted.decode()
        assert "the first is synthetic/benign_000000.png" in found["words"]
