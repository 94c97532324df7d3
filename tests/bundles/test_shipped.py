"""What every shipped bundle must be for MONAI and its zoo."""

import json
import re
import shutil
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import torch
import yaml
from monai.bundle import ConfigParser, ckpt_export, verify_metadata, verify_net_in_out
from PIL import Image

from monai_synth.bundle.rendering import SHIPPED, rendered, spec_of_folder, write_bundle
from monai_synth.bundle.session import plain_settings
from monai_synth.transforms import LoadTile, ResizeCrop
from monai_synth.utils import read_json
from tests.bundles.running import root_message

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ("train", "train_diffusion", "generate", "assess", "study", "inference")


@pytest.fixture(params=list(SHIPPED))
def bundle(request):
    return ROOT / "bundles" / request.param


def test_a_shipped_bundle_is_what_the_template_renders(bundle):
    for name, text in rendered(SHIPPED[bundle.name]).items():
        assert (bundle / name).read_text(encoding="utf-8") == text, f"{name}: run scripts/render_bundles.py"
    there = {path.relative_to(bundle).as_posix() for path in bundle.rglob("*") if path.is_file()}
    kept = {name for name in there if name.split("/")[0] not in ("output", "study", "models")}
    assert kept == set(rendered(SHIPPED[bundle.name]))


@pytest.mark.parametrize("name", CONFIGS)
def test_a_name_means_the_same_in_every_config(bundle, name):
    configs = {key: ConfigParser.load_config_file(bundle / "configs" / f"{key}.json") for key in ("train", name)}
    for key in plain_settings(configs["train"]).keys() & plain_settings(configs[name]).keys():
        assert configs[name][key] == configs["train"][key], key
    assert json.loads((bundle / "configs" / f"{name}.json").read_text())["_desc_"]


def test_settings_stand_above_components(bundle):
    for name in CONFIGS:
        config = ConfigParser.load_config_file(bundle / "configs" / f"{name}.json")
        keys = list(config)
        settings = [key for key in plain_settings(config) if key != "val_interval"]  # MONAI's, not the user's
        first = next(key for key in keys if key in ("network_def", "initialize"))
        assert max(map(keys.index, settings)) < keys.index(first)


def test_the_classifier_matches_its_metadata_and_exports(bundle, tmp_path):
    files = {name: str(bundle / "configs" / f"{name}.json") for name in ("inference", "metadata")}
    names = SHIPPED[bundle.name].class_names
    given = {"config_file": files["inference"], "meta_file": files["metadata"], "class_names": names}
    verify_net_in_out("network_def", device="cpu", **given)
    parser = ConfigParser()
    parser.read_config(files["inference"])
    parser["class_names"] = names
    network = parser.get_parsed_content("network_def").eval()
    torch.save(network.state_dict(), tmp_path / "model.pt")
    ckpt_export("network_def", filepath=str(tmp_path / "model.ts"), ckpt_file=str(tmp_path / "model.pt"), **given)
    images = torch.rand(2, 3, 128, 128)
    with torch.no_grad():
        torch.testing.assert_close(torch.jit.load(tmp_path / "model.ts")(images), network(images))


@pytest.mark.parametrize(("name", "handlers"), [("inference", "handlers"), ("evaluate", "validate::handlers")])
def test_weights_that_a_gpu_saved_are_loaded_to_the_device_in_use(bundle, name, handlers):
    config = ConfigParser.load_config_file(bundle / "configs" / f"{name}.json")
    loaders = [handler for handler in config[handlers] if handler["_target_"] == "CheckpointLoader"]
    assert [loader["map_location"] for loader in loaders] == ["@device"]


def test_inference_reads_images_as_training_does(bundle, tmp_path):
    grey = np.random.default_rng(0).integers(0, 65536, (150, 140), dtype=np.uint16)
    Image.fromarray(grey).save(tmp_path / "deep.png")
    Image.new("1", (10_000, 6_000)).save(tmp_path / "slide.png")
    pages = [Image.new("RGB", (140, 140), color) for color in ("red", "lime")]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    parser = ConfigParser(globals={"monai_synth": "monai_synth"})
    parser.read_config(str(bundle / "configs" / "inference.json"))
    parser.update({"classifier_size": 128, "normalize_stain": "none"})
    read = parser.get_parsed_content("preprocessing")
    expected = ResizeCrop(128)(LoadTile()(tmp_path / "deep.png"))
    torch.testing.assert_close(read({"image": str(tmp_path / "deep.png")})["image"], expected)
    for name, words in (("slide.png", "has 10000 x 6000 pixels"), ("pages.tif", "has 2 pages")):
        with pytest.raises(RuntimeError) as error:
            read({"image": str(tmp_path / name)})
        assert f"{name} {words}" in root_message(error)


def test_the_metadata_follows_the_schema(bundle, tmp_path):
    schema = read_json(Path(__file__).with_name("meta_schema.json"))
    metadata = read_json(bundle / "configs" / "metadata.json")
    shutil.copy(Path(__file__).with_name("meta_schema.json"), tmp_path / "schema.json")  # MONAI finds it "downloaded"
    verify_metadata(meta_file=str(bundle / "configs" / "metadata.json"), filepath=str(tmp_path / "schema.json"))
    assert metadata["version"] in metadata["changelog"]
    assert metadata["schema"].endswith("meta_schema_20240725.json")
    assert list(metadata["network_data_format"]["outputs"]["pred"]["channel_def"].values()) == (
        SHIPPED[bundle.name].class_names
    )
    for key in ("changelog", "network_data_format", "required_packages_version"):
        with pytest.raises(jsonschema.ValidationError, match=key):
            jsonschema.validate({name: value for name, value in metadata.items() if name != key}, schema)


def test_the_metadata_has_the_shapes_of_the_embedded_generator(bundle):
    base = ROOT / "monai_synth" / "assets" / "nano"
    data_format = read_json(bundle / "configs" / "metadata.json")["generator_data_format"]
    denoiser, text = (read_json(base / part / "config.json") for part in ("unet", "text_encoder"))
    latent = {"num_channels": denoiser["in_channels"], "spatial_shape": 2 * [denoiser["sample_size"]]}
    for found in (data_format["inputs"]["latent"], data_format["outputs"]["pred"]):
        assert {key: found[key] for key in latent} == latent
    condition = data_format["inputs"]["condition"]
    assert condition["num_channels"] == text["max_position_embeddings"]
    assert condition["spatial_shape"] == [text["hidden_size"]]


def test_the_key_table_tells_the_defaults_of_the_configs(bundle):
    configs = [read_json(bundle / "configs" / f"{name}.json") for name in ("train", "generate", "train_diffusion")]
    settings = {key: value for config in configs for key, value in config.items()}
    table = (bundle / "docs" / "README.md").read_text()
    checked = set()
    for keys, defaults in re.findall(r"^\| (`.+?) \| (.+?) \| .+\|$", table, re.M):
        names = re.findall(r"`(\w+)`", keys)
        values = re.split(r", (?![^\[]*\])", defaults)  # not within a list
        for name, words in zip(names, values):
            default = settings.get(name, "@elsewhere")
            is_value = re.fullmatch(r"none|null|true|false|[\d\[].*|`.+`", words) and words.strip("`") not in settings
            if is_value and not str(default).startswith(("@", "$")):
                told = None if words == "none" else yaml.safe_load(words.strip("`"))
                assert default == told or (not default and not told), name
                checked.add(name)
    expected = {"guidance_scale", "guidance_interval", "max_steps", "shots", "scheduler", "filter_quantile", "amp"}
    assert expected <= checked


def test_the_classes_of_the_defaults_have_prompts(bundle):
    config = ConfigParser.load_config_file(bundle / "configs" / "train.json")
    assert list(config["prompts"]) == SHIPPED[bundle.name].class_names
    assert config["phantom_set"] == bundle.name


def test_a_bundle_of_ones_own_is_complete_and_nothing_is_overwritten(tmp_path):
    spec = spec_of_folder("my_cells", tmp_path, ["blast", "not_blast"], "Giemsa blood smear, {phrase}")
    folder = write_bundle(spec, tmp_path / "my_cells")
    config = ConfigParser.load_config_file(folder / "configs" / "train.json")
    assert config["prompts"] == {"blast": "blast", "not_blast": "not blast"}
    assert config["dataset_dir"] == str(tmp_path.resolve())
    assert "['blast', 'not_blast']" in (folder / "configs" / "inference.json").read_text()
    jsonschema.validate(
        read_json(folder / "configs" / "metadata.json"), read_json(Path(__file__).with_name("meta_schema.json"))
    )
    with pytest.raises(FileExistsError, match="my_cells exists"):
        write_bundle(spec, tmp_path / "my_cells")
    with pytest.raises(ValueError, match="Two classes have the same prompt"):
        spec_of_folder("x", tmp_path, ["a_b", "a-b"], "{phrase}")
