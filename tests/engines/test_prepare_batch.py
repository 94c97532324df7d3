import pytest
import torch

from monai_synth.engines import (
    ClassificationPrepareBatch,
    LatentDiffusionPrepareBatch,
    SamplingPrepareBatch,
    noise_of_seeds,
)
from monai_synth.networks import LatentDiffusion, LoRADenoiser


def batch_of(diffusion, count=64):
    context = diffusion.encode_prompts(["a cell"])
    context = {name: value.expand(count, *value.shape[1:]) for name, value in context.items()}
    return {"image": torch.randn(count, *diffusion.latent_shape(32)), "prompt": context}


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_noisy_latent_and_target_give_the_clean_latent_back(miniature, kind):
    diffusion = LatentDiffusion(str(miniature(kind)))
    batch = batch_of(diffusion)
    noisy, target, _, features = LatentDiffusionPrepareBatch(diffusion, prompt_dropout=0.0)(batch, "cpu")
    share = diffusion.noise_scheduler.alphas_cumprod[features["timesteps"]].view(-1, 1, 1, 1)
    if kind == "epsilon":
        clean = (noisy - (1 - share).sqrt() * target["target"]) / share.sqrt()
    else:
        clean = share.sqrt() * noisy - (1 - share).sqrt() * target["target"]
    torch.testing.assert_close(clean, batch["image"], atol=2e-3, rtol=1e-3)
    assert torch.equal(target["weight"], torch.ones(64))


def test_flow_and_noisy_latent_give_the_clean_latent_back(miniature):
    diffusion = LatentDiffusion(str(miniature("flow")))
    batch = batch_of(diffusion)
    noisy, target, _, features = LatentDiffusionPrepareBatch(diffusion)(batch, "cpu")
    sigma = features["timesteps"].view(-1, 1, 1, 1) / 1000
    torch.testing.assert_close(noisy - sigma * target["target"], batch["image"], atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="min_snr_gamma is 5.0, but .* predicts the flow.*Set min_snr_gamma to null"):
        LatentDiffusionPrepareBatch(diffusion, min_snr_gamma=5.0)


@pytest.mark.parametrize("kind", ["epsilon", "xl", "flow"])
def test_prompts_are_dropped_at_the_stated_rate(miniature, kind):
    diffusion = LatentDiffusion(str(miniature(kind)))
    torch.manual_seed(0)
    batch, empty = batch_of(diffusion, 400), diffusion.encode_prompts([""])
    for rate, low, high in [(0.0, 0, 0), (0.25, 70, 130), (1.0, 400, 400)]:
        _, _, _, features = LatentDiffusionPrepareBatch(diffusion, prompt_dropout=rate)(batch, "cpu")
        for name, value in features["context"].items():
            dropped = int((value == empty[name]).flatten(1).all(dim=1).sum())
            assert low <= dropped <= high


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_min_snr_weights_by_hand(miniature, kind):
    diffusion = LatentDiffusion(str(miniature(kind)))
    weigh = LatentDiffusionPrepareBatch(diffusion, min_snr_gamma=5.0).weight
    timesteps = torch.tensor([0, 400, 999])
    for weight, timestep in zip(weigh(timesteps), timesteps):
        share = float(diffusion.noise_scheduler.alphas_cumprod[timestep])
        ratio = share / (1 - share)
        expected = min(ratio, 5.0) / (ratio if kind == "epsilon" else ratio + 1)
        assert float(weight) == pytest.approx(expected, rel=1e-4)


def test_noise_offset_shifts_whole_channels(miniature):
    diffusion = LatentDiffusion(str(miniature()))
    torch.manual_seed(0)
    batch = batch_of(diffusion, 200)
    _, target, _, _ = LatentDiffusionPrepareBatch(diffusion, noise_offset=1.0)(batch, "cpu")
    assert float(target["target"].mean(dim=(2, 3)).std()) == pytest.approx((1 + 1 / 64) ** 0.5, rel=0.1)


def test_the_noise_of_a_seed_is_its_own():
    together = noise_of_seeds([5, 6], (4, 8, 8))
    assert torch.equal(together[1], noise_of_seeds([6], (4, 8, 8))[0])
    assert torch.equal(noise_of_seeds([2**62], (1,)), noise_of_seeds([2**62], (1,)))


def test_labels_travel_with_their_weights():
    batch = {"image": torch.rand(2, 3, 4, 4), "label": torch.tensor([0, 1]), "weight": torch.tensor([0.5, 1.5])}
    image, target = ClassificationPrepareBatch()(batch, "cpu")
    assert torch.equal(image, batch["image"])
    assert torch.equal(target["label"], batch["label"]) and torch.equal(target["weight"], batch["weight"])


@pytest.mark.parametrize("learns", [False, True])
def test_prompts_are_encoded_anew_while_the_text_encoder_learns(miniature, learns):
    diffusion = LatentDiffusion(str(miniature()))
    network = LoRADenoiser(diffusion, rank=2, train_text_encoder=learns)
    prepare = SamplingPrepareBatch(diffusion, 32)
    before = prepare.context("a cell")
    for parameter in network.trainable_parameters():
        torch.nn.init.constant_(parameter, 0.2)
    assert torch.equal(prepare.context("a cell")["features"], before["features"]) is not learns


def test_an_images_weight_multiplies_that_of_its_timestep(miniature):
    diffusion = LatentDiffusion(str(miniature()))
    prepare = LatentDiffusionPrepareBatch(diffusion, min_snr_gamma=5.0)
    batch = {"image": torch.zeros(3, 4, 8, 8), "prompt": diffusion.encode_prompts(["a", "b", "c"])}
    torch.manual_seed(0)
    plain = prepare(batch)[1]["weight"]
    torch.manual_seed(0)
    weighted = prepare({**batch, "weight": torch.tensor([1.0, 0.5, 0.0])})[1]["weight"]
    torch.testing.assert_close(weighted, plain * torch.tensor([1.0, 0.5, 0.0]))
