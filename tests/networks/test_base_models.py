import shutil

import pytest

from monai_synth.networks import LatentDiffusion, fingerprint, resolve_base_model


def test_a_folder_is_found_and_its_fingerprint_follows_the_weights_alone(miniature, tmp_path):
    base = miniature()
    assert resolve_base_model(str(base)) == base
    copy = tmp_path / "elsewhere"
    shutil.copytree(base, copy)
    assert fingerprint(copy) == fingerprint(base) != fingerprint(miniature("epsilon", 5))


def test_the_embedded_model_loads_in_plain_diffusers():
    folder = resolve_base_model("nano")
    assert (folder / "model_index.json").is_file()
    assert sum(path.stat().st_size for path in folder.rglob("*")) < 60e6
    assert all(path.stat().st_size < 25e6 for path in folder.rglob("*"))


def test_what_is_no_base_is_refused_at_once(miniature, tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="There is no base model 'nanno'.*neither one of \\['nano'\\]"):
        resolve_base_model("nanno")
    with pytest.raises(FileNotFoundError, match="There is no base model"):
        resolve_base_model("/no/such/folder")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="has no model_index.json"):
        resolve_base_model(str(tmp_path / "empty"))
    pickled = tmp_path / "pickled"
    shutil.copytree(miniature(), pickled)
    for path in (pickled / "unet").glob("*.safetensors"):
        path.rename(path.with_suffix(".bin"))
    with pytest.raises(FileNotFoundError, match="no safetensors weights in .*unet. Pickled weights .* are never read"):
        resolve_base_model(str(pickled))


def test_a_hub_id_without_a_network_is_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(RuntimeError, match="'owner/model' is not on this machine and the hub could not give it"):
        resolve_base_model("owner/model")


def test_fp16_variants_are_read(miniature, tmp_path):
    folder = tmp_path / "variant"
    shutil.copytree(miniature(), folder)
    for part in ("unet", "vae", "text_encoder"):
        for path in (folder / part).glob("*.safetensors"):
            path.rename(path.with_suffix("").with_suffix(".fp16.safetensors"))
    assert LatentDiffusion(str(folder)).prediction_type == "epsilon"


def test_another_kind_of_pipeline_is_refused(miniature, tmp_path):
    folder = tmp_path / "xl"
    shutil.copytree(miniature(), folder)
    (folder / "text_encoder_2").mkdir()
    with pytest.raises(ValueError, match="is not a Stable Diffusion 1.x or 2.x"):
        LatentDiffusion(str(folder))
