import logging

import pytest
import torch
from diffusers import StableDiffusionPipeline

from monai_synth.networks import LatentDiffusion


@pytest.fixture(params=["epsilon", "v_prediction"])
def diffusion(request, miniature):
    return LatentDiffusion(str(miniature(request.param)))


def test_pixels_and_latents_change_form_as_in_diffusers(diffusion):
    pipeline = StableDiffusionPipeline.from_pretrained(diffusion.folder)
    images = torch.rand(2, 3, 32, 32)
    mean, std = diffusion.encode(images)
    scale = pipeline.vae.config.scaling_factor
    posterior = pipeline.vae.encode(pipeline.image_processor.preprocess(images)).latent_dist
    torch.testing.assert_close(mean, posterior.mean * scale)
    torch.testing.assert_close(std, posterior.std * scale)
    with torch.no_grad():
        expected = pipeline.image_processor.postprocess(pipeline.vae.decode(mean / scale).sample, output_type="pt")
    torch.testing.assert_close(diffusion.decode(mean), expected)


def test_prompts_are_encoded_as_in_diffusers(diffusion):
    pipeline = StableDiffusionPipeline.from_pretrained(diffusion.folder)
    expected, empty = pipeline.encode_prompt(["a neutrophil"], "cpu", 1, True)
    torch.testing.assert_close(diffusion.encode_prompts(["a neutrophil"]), expected)
    torch.testing.assert_close(diffusion.encode_prompts([""]), empty)


def test_a_prompt_that_is_cut_is_told(diffusion, caplog):
    with caplog.at_level(logging.WARNING):
        diffusion.token_ids(["cell " * 90 + "nucleus"])
    assert "92" in caplog.text or "93" in caplog.text
    assert "nucleus" in caplog.text


def test_targets_by_hand(miniature):
    latents, noise, timesteps = torch.full((1, 4, 1, 1), 2.0), torch.full((1, 4, 1, 1), 3.0), torch.tensor([500])
    epsilon = LatentDiffusion(str(miniature("epsilon")))
    torch.testing.assert_close(epsilon.target(latents, noise, timesteps), noise)
    velocity = LatentDiffusion(str(miniature("v_prediction")))
    share = velocity.noise_scheduler.alphas_cumprod[500]
    expected = share.sqrt() * noise - (1 - share).sqrt() * latents
    torch.testing.assert_close(velocity.target(latents, noise, timesteps), expected)
    torch.testing.assert_close(velocity.signal_to_noise(timesteps), (share.double() / (1 - share.double()))[None])


def test_sizes(diffusion):
    assert diffusion.image_size == 32 and diffusion.downsampling == 4
    assert diffusion.latent_shape(64) == (4, 16, 16)
    with pytest.raises(ValueError, match="image_size is 36; the base .* needs a multiple of 8"):
        diffusion.latent_shape(36)


def test_everything_is_frozen(diffusion):
    for part in (diffusion.autoencoder, diffusion.unet, diffusion.text_encoder):
        assert not any(parameter.requires_grad for parameter in part.parameters()) and not part.training
