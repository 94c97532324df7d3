import shutil

import huggingface_hub
import pytest
from diffusers import UNet2DConditionModel

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


@pytest.mark.parametrize("name", ["models/v1-5.safetensors", "v1-5.ckpt"])
def test_a_single_file_is_refused_with_its_conversion_and_the_hub_is_not_asked(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *args, **kwargs: pytest.fail("asked"))
    (tmp_path / "models").mkdir()
    (tmp_path / name).touch()
    words = rf"{name}' is a single file, .*from_single_file\('{name}'\)\.save_pretrained\('DIR'\).*--base_model DIR"
    with pytest.raises(ValueError, match=words):
        resolve_base_model(name)


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
    folder = tmp_path / "other"
    shutil.copytree(miniature(), folder)
    index = (folder / "model_index.json").read_text()
    (folder / "model_index.json").write_text(index.replace("StableDiffusionPipeline", "FluxPipeline"))
    with pytest.raises(ValueError, match="is a FluxPipeline. Bases of these kinds can be used: .*StableDiffusionXL"):
        LatentDiffusion(str(folder))


def test_a_variant_beside_the_weights_changes_neither_fingerprint_nor_what_is_read(miniature, tmp_path):
    folder = tmp_path / "both"
    shutil.copytree(miniature(), folder)
    for part in ("unet", "vae", "text_encoder"):
        for path in (miniature() / part).glob("*.safetensors"):
            shutil.copy(path, (folder / part / path.name).with_suffix(".fp16.safetensors"))
            shutil.copy(path, (folder / part / path.name).with_suffix(".non_ema.safetensors"))
    assert fingerprint(folder) == fingerprint(miniature())
    assert LatentDiffusion(str(folder)).prediction_type == "epsilon"


@pytest.mark.parametrize(("only_half", "variant"), [(False, None), (True, None), (False, "fp16"), (True, "fp16")])
def test_an_interrupted_download_is_completed_and_only_what_is_used_is_asked_for(
    miniature, tmp_path, monkeypatch, only_half, variant
):
    """The hub is played by a folder that has what real ones have: variants and single-file checkpoints."""
    asked, remote = [], tmp_path / "remote"
    shutil.copytree(miniature(), remote)
    for part in ("unet", "vae", "text_encoder"):
        for path in list((remote / part).glob("*.safetensors")):
            (path.rename if only_half else lambda name: shutil.copy(path, name))(path.with_suffix(".fp16.safetensors"))
    (remote / "v1-5-pruned.safetensors").write_bytes(b"large")
    cache = tmp_path / "cache"
    cache.mkdir()
    shutil.copy(remote / "model_index.json", cache)  # all that an interrupted download left

    def download(repo, local_files_only=False, allow_patterns=None, ignore_patterns=None, **options):
        if not local_files_only:
            names = [str(path.relative_to(remote)) for path in remote.rglob("*") if path.is_file()]
            for name in huggingface_hub.utils.filter_repo_objects(
                names, allow_patterns=allow_patterns, ignore_patterns=ignore_patterns
            ):
                asked.append(name)
                (cache / name).parent.mkdir(exist_ok=True)
                shutil.copy(remote / name, cache / name)
        return str(cache)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert resolve_base_model("owner/model", variant) == cache
    assert LatentDiffusion("owner/model", variant=variant).prediction_type == "epsilon"
    assert any(".fp16." in name for name in asked) is (only_half or variant == "fp16")
    full = [name for name in asked if name.endswith(".safetensors") and ".fp16." not in name]
    assert bool(full) is (not only_half and variant is None)
    assert not any("pruned" in name for name in asked)
    count = len(asked)
    resolve_base_model("owner/model", variant)
    assert len(asked) == count  # whole now: the hub is not asked again


def test_a_base_whose_weights_are_divided_is_downloaded_on_until_no_file_of_them_is_missing(
    miniature, tmp_path, monkeypatch
):
    remote, cache = tmp_path / "remote", tmp_path / "cache"
    shutil.copytree(miniature(), remote)
    network = UNet2DConditionModel.from_pretrained(remote / "unet")
    shutil.rmtree(remote / "unet")
    network.save_pretrained(remote / "unet", max_shard_size="100KB")
    shards = sorted(path.name for path in (remote / "unet").glob("*-of-*.safetensors"))
    assert len(shards) > 1
    shutil.copytree(remote, cache)
    for name in shards[1:]:  # where the download was interrupted
        (cache / "unet" / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"lacks {', '.join(shards[1:])} in .*all of them are needed. Copy or"):
        resolve_base_model(str(cache))

    def download(repo, local_files_only=False, **options):
        if not local_files_only:
            shutil.copytree(remote, cache, dirs_exist_ok=True)
        return str(cache)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert resolve_base_model("owner/model") == cache
    assert fingerprint(cache) == fingerprint(remote) and LatentDiffusion("owner/model").prediction_type == "epsilon"


def test_half_precision_is_read_when_it_is_asked_for(miniature, tmp_path):
    folder = tmp_path / "both"
    shutil.copytree(miniature(), folder)
    for part in ("unet", "vae", "text_encoder"):
        for path in (miniature("epsilon", 5) / part).glob("*.safetensors"):  # told apart by their content
            shutil.copy(path, (folder / part / path.name).with_suffix(".fp16.safetensors"))
    assert fingerprint(folder, "fp16") == fingerprint(miniature("epsilon", 5)) != fingerprint(folder)
    assert LatentDiffusion(str(folder), variant="fp16").fingerprint == fingerprint(folder, "fp16")
    with pytest.raises(FileNotFoundError, match="has no weights of the variant fp16 in .*Leave --variant out"):
        LatentDiffusion(str(miniature()), variant="fp16")
