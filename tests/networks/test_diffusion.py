import json
import logging
import shutil

import pytest
import torch

from monai_synth.networks import LatentDiffusion
from monai_synth.networks.diffusion import StableDiffusion, StableDiffusion3, StableDiffusionXL

KINDS = ("epsilon", "v_prediction", "xl", "flow")


@pytest.fixture(params=KINDS)
def diffusion(request, miniature):
    return LatentDiffusion(str(miniature(request.param)))


@pytest.mark.parametrize(
    ("kind", "family"), zip(KINDS, (StableDiffusion, StableDiffusion, StableDiffusionXL, StableDiffusion3))
)
def test_the_family_follows_from_the_files(miniature, kind, family):
    assert type(LatentDiffusion(str(miniature(kind)))) is family


def test_every_family_fills_in_what_the_interface_leaves_open():
    assert {"predict", "target", "prediction_type"} <= LatentDiffusion.__abstractmethods__
    for family in LatentDiffusion.families.values():
        assert not family.__abstractmethods__


def test_pixels_and_latents_change_form_as_in_diffusers(diffusion, plain_pipeline):
    pipeline = plain_pipeline(diffusion.folder)
    images = torch.rand(2, 3, 32, 32)
    mean, std = diffusion.encode(images)
    scale, shift = pipeline.vae.config.scaling_factor, pipeline.vae.config.shift_factor or 0.0
    posterior = pipeline.vae.encode(pipeline.image_processor.preprocess(images)).latent_dist
    torch.testing.assert_close(mean, (posterior.mean - shift) * scale)
    torch.testing.assert_close(std, posterior.std * scale)
    with torch.no_grad():
        expected = pipeline.image_processor.postprocess(
            pipeline.vae.decode(mean / scale + shift).sample, output_type="pt"
        )
    torch.testing.assert_close(diffusion.decode(mean), expected)


def test_prompts_are_encoded_as_in_diffusers(diffusion, plain_pipeline):
    pipeline = plain_pipeline(diffusion.folder)
    given = {"prompt": ["a neutrophil"], "device": "cpu", "num_images_per_prompt": 1}
    if isinstance(diffusion, StableDiffusion3):
        given |= {"prompt_2": None, "prompt_3": None}
    parts = pipeline.encode_prompt(**given, do_classifier_free_guidance=True)
    for index, prompt in enumerate(["a neutrophil", ""]):
        found = parts[index::2]  # features, and pooled ones where the family has them
        encoded = diffusion.encode_prompts([prompt])
        assert list(encoded) == ["features", "pooled"][: len(found)]
        for name, value in zip(encoded, found):
            torch.testing.assert_close(encoded[name], value)


def test_a_prompt_that_is_cut_is_told(diffusion, caplog):
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            diffusion.token_ids(["cell " * 90 + "nucleus"])
    assert len(caplog.records) == 1  # told once
    assert "94 tokens and the text encoder sees 77" in caplog.text
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


def test_flow_matching_by_hand(miniature):
    flow = LatentDiffusion(str(miniature("flow")))
    latents, noise, timesteps = torch.full((1, 4, 1, 1), 2.0), torch.full((1, 4, 1, 1), 3.0), torch.tensor([250.0])
    torch.testing.assert_close(flow.add_noise(latents, noise, timesteps), torch.full((1, 4, 1, 1), 2.25))
    torch.testing.assert_close(flow.target(latents, noise, timesteps), torch.ones(1, 4, 1, 1))
    torch.testing.assert_close(flow.signal_to_noise(timesteps), torch.tensor([9.0], dtype=torch.float64))
    torch.manual_seed(0)
    drawn = flow.draw_timesteps(4000) / 1000
    assert drawn.dtype == torch.float32 and 0 < float(drawn.min()) and float(drawn.max()) < 1
    assert float(drawn.median()) == pytest.approx(3 * 0.5 / (1 + 2 * 0.5), abs=0.01)  # the shifted middle
    level = drawn / (3 - 2 * drawn)  # without the shift
    assert float((level / (1 - level)).log().std()) == pytest.approx(1, abs=0.01)


def test_a_batch_has_a_timestep_of_every_part_of_the_schedule(miniature):
    diffusion = LatentDiffusion(str(miniature()))
    torch.manual_seed(0)
    drawn = torch.stack([diffusion.draw_timesteps(8) for _ in range(500)])
    assert drawn.dtype == torch.int64
    assert torch.equal((drawn // 125).sort(dim=1).values, torch.arange(8).expand(500, 8))
    places = torch.stack([(drawn[:, place] // 125).bincount(minlength=8) for place in (0, 7)])
    assert 30 < int(places.min()) and int(places.max()) < 100  # no place of the batch has a part of its own
    within = (drawn % 125).flatten().double()
    assert float(within.mean()) == pytest.approx(62, abs=2) and within.min() == 0 and within.max() == 124
    alone = torch.cat([diffusion.draw_timesteps(1) for _ in range(500)])
    assert 0 <= int(alone.min()) < 20 and 980 < int(alone.max()) <= 999


def test_a_shift_by_the_size_is_refused(miniature, tmp_path):
    shutil.copytree(miniature("flow"), tmp_path / "base")
    path = tmp_path / "base" / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "use_dynamic_shifting": True}))
    with pytest.raises(ValueError, match="shifts its noise by the image's size, which cannot be used yet"):
        LatentDiffusion(str(tmp_path / "base"))


def test_a_prediction_of_another_kind_is_refused(miniature, tmp_path):
    shutil.copytree(miniature(), tmp_path / "base")
    path = tmp_path / "base" / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "prediction_type": "sample"}))
    with pytest.raises(ValueError, match="predicts 'sample'; epsilon and v_prediction can be used"):
        LatentDiffusion(str(tmp_path / "base"))


def test_sizes(diffusion):
    assert diffusion.image_size == 32 and diffusion.downsampling == 4
    assert diffusion.latent_shape(64) == (diffusion.autoencoder.config.latent_channels, 16, 16)
    with pytest.raises(ValueError, match="image_size is 36; the base .* needs a multiple of 8"):
        diffusion.latent_shape(36)


def test_everything_is_frozen(diffusion):
    for part in (diffusion.autoencoder, *diffusion.adaptable.values()):
        assert not any(parameter.requires_grad for parameter in part.parameters()) and not part.training
