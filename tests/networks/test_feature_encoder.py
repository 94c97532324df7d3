import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torchvision.transforms.functional import pil_to_tensor
from transformers import (
    BertConfig,
    BertModel,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    Dinov2Config,
    Dinov2Model,
    ViTConfig,
    ViTImageProcessor,
    ViTModel,
)

from monai_synth.networks import FeatureEncoder
from monai_synth.networks.feature_encoder import color_histogram
from monai_synth.utils import write_json

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32, "patch_size": 8}
KINDS = {
    "vit": (ViTModel, ViTConfig(**SMALL, intermediate_size=64)),
    "dinov2": (Dinov2Model, Dinov2Config(**SMALL)),
    "clip": (CLIPVisionModelWithProjection, CLIPVisionConfig(**SMALL, intermediate_size=64, projection_dim=16)),
}
COLORS = {"image_mean": [0.7, 0.5, 0.6], "image_std": [0.2, 0.25, 0.15]}


def save(folder, kind):
    torch.manual_seed(0)
    network, config = KINDS[kind]
    model = network(config).eval()
    model.save_pretrained(folder, safe_serialization=True)
    ViTImageProcessor(size={"height": 32, "width": 32}, **COLORS).save_pretrained(folder)
    return model


@pytest.mark.parametrize("kind", KINDS)
def test_transformers_own_pipeline_gives_the_same_features(tmp_path, kind):
    model = save(tmp_path, kind)
    image = Image.effect_noise((32, 32), 60).convert("RGB")
    inputs = ViTImageProcessor.from_pretrained(tmp_path)(image, return_tensors="pt")
    with torch.no_grad():
        found = model(**inputs)
    expected = found.image_embeds if kind == "clip" else found.last_hidden_state[:, 0]
    encoder = FeatureEncoder(str(tmp_path))
    torch.testing.assert_close(encoder(pil_to_tensor(image)[None] / 255), expected, atol=1e-5, rtol=1e-5)
    assert encoder.name == tmp_path.name and encoder.fingerprint != FeatureEncoder("nano").fingerprint


def test_a_middle_square_is_what_the_preprocessor_says(tmp_path):
    save(tmp_path, "vit")
    settings = {"do_center_crop": True, "crop_size": {"height": 32, "width": 32}, "size": {"shortest_edge": 40}}
    write_json(tmp_path / "preprocessor_config.json", {**settings, **COLORS})
    assert FeatureEncoder(str(tmp_path)).size == 32


def test_what_gives_no_features_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no encoder"):
        FeatureEncoder(str(tmp_path / "nowhere"))
    save(tmp_path, "vit")
    weights = load_file(tmp_path / "model.safetensors")
    lost = "layernorm.weight"
    save_file({name: value for name, value in weights.items() if name != lost}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"lacks \['layernorm.weight'\]"):
        FeatureEncoder(str(tmp_path))
    (tmp_path / "preprocessor_config.json").unlink()
    with pytest.raises(FileNotFoundError, match="has no .*preprocessor_config.json"):
        FeatureEncoder(str(tmp_path))


def test_a_language_model_is_refused(tmp_path):
    config = BertConfig(vocab_size=30, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    BertModel(config).save_pretrained(tmp_path, safe_serialization=True)
    write_json(tmp_path / "preprocessor_config.json", {"size": 32, **COLORS})
    with pytest.raises(ValueError, match="is a bert, which is no vision transformer"):
        FeatureEncoder(str(tmp_path))


def test_color_histograms_are_numpys():
    images = torch.rand(3, 3, 20, 24, generator=torch.Generator().manual_seed(0))
    images[0, :, :4], images[1, 0] = 1.0, 0.0
    found = color_histogram(images, 5)
    for image, own in zip(images.flatten(2).numpy(), found):
        counts, _ = np.histogramdd(image.T, bins=5, range=[(0, 1)] * 3)
        np.testing.assert_allclose(own, np.sqrt(counts.flatten() / 480), rtol=1e-6)


@pytest.mark.parametrize("kind", ["nano", "folder"])
def test_colors_stand_beside_the_features_of_any_encoder_that_is_named_so(tmp_path, kind):
    name = kind
    if kind == "folder":
        save(tmp_path, "vit")
        name = str(tmp_path)
    both, plain = FeatureEncoder(name + "+colors"), FeatureEncoder(name)
    assert both.fingerprint != plain.fingerprint and both.name == plain.name + "+colors"
    images = torch.rand(4, 3, both.size, both.size, generator=torch.Generator().manual_seed(0))
    images[:, 0] = images[:, 0].square()
    features, network = both(images), plain(images)
    width = network.shape[1]
    left, right = features[:, :width], features[:, width:]
    normalize = torch.nn.functional.normalize
    torch.testing.assert_close(normalize(left), normalize(network))
    torch.testing.assert_close(normalize(right), color_histogram(images, 8))
    torch.testing.assert_close(right.norm(dim=1) / left.norm(dim=1), torch.full((4,), 1.5))
    torch.testing.assert_close(features.square().mean(dim=1), torch.ones(4))
