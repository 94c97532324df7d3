"""The embedded models: there, small enough, and knowing something."""

from pathlib import Path

import pytest
import torch

import monai_synth
from monai_synth.data import prompts_of
from monai_synth.data.phantom import draw_patient, draw_phantom, phantom_caption
from monai_synth.data.phantom.catalog import stains_of
from monai_synth.engines import SamplingPrepareBatch
from monai_synth.inferers import SamplingInferer
from monai_synth.networks import FeatureEncoder, ImageClassifier, LatentDiffusion, load_adapter, zero_shot_clip
from tests.inferers.drawing import draw

PACKAGE = Path(monai_synth.__file__).parent
ASSETS = PACKAGE / "assets"


def phantoms(names, count, first):
    images = [
        draw_phantom(n, first + i, draw_patient(stains_of(n), first + i), 128) for n in names for i in range(count)
    ]
    return torch.stack([torch.as_tensor(image) for image in images]).float()


def test_the_package_stays_small():
    files = [path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    sizes = [path.stat().st_size for path in files]
    assert sum(sizes) < 60e6 and max(sizes) < 25e6
    for name in ("nano_encoder", "nano_clip"):
        assert sum(path.stat().st_size for path in (ASSETS / name).iterdir()) < 12e6


def test_the_encoder_tells_phantoms_apart_that_it_has_not_seen():
    names = ["colon_n", "lung_n", "lymphocyte", "eosinophil"]
    encoder = FeatureEncoder("nano")
    known, new = encoder(phantoms(names, 5, 100)), encoder(phantoms(names, 5, 900))
    assert known.shape == (20, 368)
    centers = torch.nn.functional.normalize(known, dim=1).view(4, 5, -1).mean(dim=1)
    said = (torch.nn.functional.normalize(new, dim=1) @ centers.T).argmax(dim=1)
    assert (said == torch.arange(4).repeat_interleave(5)).float().mean() >= 0.9


def test_the_classifier_takes_the_encoders_weights():
    classifier = ImageClassifier("regnetx_002", 3, checkpoint="nano", image_size=128)
    names = dict(classifier.named_parameters())
    loaded = dict(FeatureEncoder("nano").network.named_parameters())
    stem = next(name for name in loaded if "stem" in name and loaded[name].ndim == 4)
    match = [value for name, value in names.items() if name.endswith(stem)]
    assert len(match) == 1 and torch.equal(match[0], loaded[stem].float())


@pytest.mark.parametrize("color", [(190, 179, 177), (205, 205, 195), (240, 240, 240), (180, 200, 180), (150, 150, 150)])
def test_the_autoencoder_keeps_colors_that_no_phantom_has(color):
    diffusion = LatentDiffusion("nano")
    image = torch.tensor(color).view(1, 3, 1, 1).expand(1, 3, 128, 128) / 255
    kept = diffusion.decode(diffusion.encode(image)[0]).mean(dim=(0, 2, 3)) * 255
    assert (kept - torch.tensor(color)).abs().max() < 4


def test_the_autoencoder_keeps_more_detail_than_phantoms_have():
    diffusion = LatentDiffusion("nano")
    whole = phantoms(["colon_n", "lung_scc", "lymphocyte"], 4, 500)
    small = torch.nn.functional.avg_pool2d(whole, 2)  # all that is in an image, on a quarter of it
    for images, least in ((whole, 27.0), (small.repeat(1, 1, 2, 2), 25.0)):
        error = (diffusion.decode(diffusion.encode(images)[0]) - images).square().mean(dim=(1, 2, 3))
        assert float(-10 * error.log10().mean()) > least


def test_the_encoder_of_the_base_is_linear():
    diffusion = LatentDiffusion("nano")
    first, second = torch.rand(2, 1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    parts, middle = [diffusion.encode(image)[0] for image in (first, second)], diffusion.encode((first + second) / 2)[0]
    torch.testing.assert_close(middle, (parts[0] + parts[1]) / 2, atol=5e-3, rtol=5e-3)
    assert parts[0].std() > 0.1


def test_auto_is_the_embedded_weights_where_there_are_any():
    begun, random = (ImageClassifier("regnetx_002", 2, checkpoint=c, image_size=128) for c in ("auto", None))
    named = ImageClassifier("regnetx_002", 2, checkpoint="nano", image_size=128)
    stem = "backbone.stem.conv.weight"
    assert torch.equal(begun.state_dict()[stem], named.state_dict()[stem])
    assert not torch.equal(begun.state_dict()[stem], random.state_dict()[stem])
    assert ImageClassifier("test_resnet", 2, checkpoint="auto", image_size=32) is not None  # has none, and needs none


@pytest.mark.parametrize(
    ("names", "template", "least"),
    [
        (["colon_aca", "colon_n", "lung_aca", "lung_n"], "H&E histopathology, {phrase}", 0.8),
        (["lymphocyte", "eosinophil", "erythroblast", "platelet"], "Giemsa blood smear, {phrase}", 0.8),
    ],
)
def test_the_clip_finds_the_prompt_of_phantoms_that_it_has_not_seen(names, template, least):
    prompts = list(prompts_of(names, template=template).values())
    network = zero_shot_clip("nano-clip", prompts, "auto", 128).eval()
    labels = torch.arange(4).repeat_interleave(8)
    with torch.no_grad():
        said = network(phantoms(names, 8, 700)).argmax(dim=1)
    assert (said == labels).float().mean() >= least
    random = zero_shot_clip("nano-clip", prompts, None, 128).eval()
    with torch.no_grad():
        assert (random(phantoms(names, 8, 700)).argmax(dim=1) == labels).float().mean() < 0.6


def test_the_clip_is_an_encoder_too():
    assert FeatureEncoder("nano-clip")(phantoms(["colon_n"], 2, 3)).shape == (2, 128)


def test_four_steps_with_the_adapter_arrive_where_many_arrive_without():
    options = {"image_size": 128, "scheduler": "ddim"}
    guided = {"guidance_scale": 2.0, "guidance_interval": (0.28, 5.42)}
    diffusion = LatentDiffusion("nano")
    expected = draw(diffusion, [1, 2], num_inference_steps=30, **guided, **options)
    alone = draw(diffusion, [1, 2], num_inference_steps=4, **guided, **options)
    load_adapter(diffusion, None, "nano_few_step")
    images = draw(diffusion, [1, 2], num_inference_steps=4, guidance_scale=1.0, **options)
    assert (images - expected).abs().mean() < 0.6 * (alone - expected).abs().mean()


def test_the_base_follows_the_words_for_stain_background_and_magnification():
    diffusion = LatentDiffusion("nano")
    network, prepare = load_adapter(diffusion, None), SamplingPrepareBatch(diffusion, 128)
    inferer = SamplingInferer(diffusion, 8, guidance_interval=(0.28, 5.42))

    def channels(class_name, words):
        """The mean of each channel over three images, from the same noise for all words."""
        prompt = f"{phantom_caption(class_name)}, {words}"
        noise, _, _, features = prepare({"seed": [0, 1, 2], "prompt": [prompt] * 3})
        return inferer(noise, network, **features).mean(dim=(0, 2, 3)) * 255

    assert (channels("colon_n", "pale stain") - channels("colon_n", "dark stain")).min() > 10
    yellow, blue = channels("neutrophil", "yellow background"), channels("neutrophil", "blue background")
    assert yellow[0] - blue[0] > 20 and blue[2] - yellow[2] > 20
    assert channels("colon_n", "purple hue")[0] - channels("colon_n", "blue hue")[0] > 5
    # a larger cell covers more of the bright background
    assert (channels("neutrophil", "low magnification") - channels("neutrophil", "high magnification")).mean() > 5
