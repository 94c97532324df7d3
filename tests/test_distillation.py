"""The consistency distillation of an adapter for few steps."""

import sys
from pathlib import Path

import pytest
import torch

from monai_synth.networks import LatentDiffusion, LoRADenoiser

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))


@pytest.fixture
def distillation(miniature):
    from distill_few_steps import Distillation

    torch.manual_seed(0)
    diffusion = LatentDiffusion(str(miniature("v_prediction")))
    return Distillation(diffusion, LoRADenoiser(diffusion, rank=8, target_modules="all"), guidance_scale=2.0)


def batch_of(diffusion, count=4):
    features, nothing = diffusion.encode_prompts(["a cell"] * count), diffusion.encode_prompts([""] * count)
    return torch.randn(count, *diffusion.latent_shape(32)), features, nothing


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_a_true_prediction_is_split_into_latents_and_noise(miniature, kind):
    from distill_few_steps import Distillation

    diffusion = LatentDiffusion(str(miniature(kind)))
    latents, noise = torch.randn(2, 3, *diffusion.latent_shape(32))
    timesteps = torch.tensor([19, 499, 999])
    noisy, target = (f(latents, noise, timesteps) for f in (diffusion.add_noise, diffusion.target))
    clean, found = Distillation(diffusion, None, 1.0).split(noisy, target, timesteps)
    torch.testing.assert_close(clean, latents, atol=2e-3, rtol=1e-3)
    torch.testing.assert_close(found, noise, atol=2e-3, rtol=1e-3)


def test_the_base_alone_leads_one_step_down(distillation):
    diffusion, network = distillation.diffusion, distillation.network
    latents, context, empty = batch_of(diffusion)
    timesteps = torch.tensor([19, 39, 499, 999])
    before = distillation.one_step_down(latents, timesteps, context, empty)
    for parameter in network.trainable_parameters():
        torch.nn.init.normal_(parameter)
    assert torch.equal(distillation.one_step_down(latents, timesteps, context, empty), before)
    told = network(latents, timesteps=timesteps, context=context)
    base = LatentDiffusion(str(diffusion.folder)).predict(latents, timesteps, context)
    assert not torch.allclose(told, base)  # the adapter is on again


def test_learning_makes_neighboring_noise_levels_agree(distillation):
    latents, context, empty = batch_of(distillation.diffusion)
    parameters = list(distillation.network.trainable_parameters())
    optimizer = torch.optim.AdamW(parameters, lr=2e-3)
    losses = []
    for _ in range(25):
        generator = torch.Generator().manual_seed(0)  # the same noise and levels every time
        loss = distillation.loss(latents, context, empty, generator)
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.8 * losses[0]
    assert all(p.grad is None for p in distillation.network.parameters() if not p.requires_grad)
