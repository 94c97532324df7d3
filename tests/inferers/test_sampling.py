import math
import shutil

import numpy as np
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline
from PIL import Image

from monai_synth.engines import SamplingPrepareBatch, noise_of_seeds
from monai_synth.inferers import SamplingInferer
from monai_synth.networks import Denoiser, LatentDiffusion
from monai_synth.networks.diffusion.stable_diffusion import karras_timesteps
from monai_synth.utils import read_json, write_json
from tests.inferers.drawing import draw


@pytest.mark.parametrize(
    ("kind", "scheduler"),
    [
        *(("epsilon", name) for name in ("dpmsolver++", "dpmsolver++_trailing", "unipc", "ddim", "pndm", "lcm")),
        *(("flow", name) for name in ("dpmsolver++", "unipc", "euler")),
        ("xl", "dpmsolver++"),
    ],
)
def test_no_image_depends_on_its_batch(miniature, kind, scheduler):
    diffusion = LatentDiffusion(str(miniature(kind)))
    together = draw(diffusion, [1, 2, 3], scheduler=scheduler)
    for index, seed in enumerate([1, 2, 3]):
        torch.testing.assert_close(draw(diffusion, [seed], scheduler=scheduler)[0], together[index], atol=1e-5, rtol=0)
    assert (together[0] - together[1]).abs().max() > 0.01


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_same_batch_gives_the_same_bits(miniature, dtype):
    first, again = (draw(LatentDiffusion(str(miniature()), dtype=dtype), [7, 8, 9]) for _ in range(2))
    assert torch.equal(first, again)
    assert (first[0] - first[1]).abs().max() > 0.01


def test_the_default_solver_draws_what_diffusers_draws(diffusion):
    pipeline = StableDiffusionPipeline.from_pretrained(diffusion.folder, safety_checker=None)
    options = {"algorithm_type": "dpmsolver++", "timestep_spacing": "trailing"}
    pipeline.scheduler = DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config, **options)
    pipeline.set_progress_bar_config(disable=True)
    for name, steps in (
        ("dpmsolver++_trailing", {"num_inference_steps": 4}),
        ("dpmsolver++", {"timesteps": diffusion.solver_timesteps("dpmsolver++", 4)}),
    ):
        given = {"latents": noise_of_seeds([1], (4, 8, 8)), "guidance_scale": 2.0, "output_type": "pt"}
        expected = pipeline(["cell 1"], **given, **steps).images
        torch.testing.assert_close(draw(diffusion, [1], scheduler=name), expected.float(), atol=2e-5, rtol=0)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *(("epsilon", name) for name in ("dpmsolver++", "dpmsolver++_trailing", "unipc")),
        *(("flow", name) for name in ("dpmsolver++", "unipc")),
    ],
)
def test_a_way_of_drawing_is_the_same_whatever_solver_the_base_was_saved_with(miniature, tmp_path, kind, name):
    shutil.copytree(miniature(kind), tmp_path / "base")
    path = tmp_path / "base" / "scheduler" / "scheduler_config.json"
    saved = {"use_karras_sigmas": True, "final_sigmas_type": "sigma_min", "solver_order": 1, "thresholding": True}
    saved |= {"lower_order_final": False, "euler_at_final": True, "predict_x0": False, "disable_corrector": [0, 1]}
    write_json(path, read_json(path) | saved)
    expected, drawn = (
        draw(LatentDiffusion(str(base)), [1], scheduler=name) for base in (miniature(kind), tmp_path / "base")
    )
    assert torch.equal(drawn, expected)


def test_guidance_one_and_an_empty_interval_ask_the_network_once(diffusion):
    calls = []

    class Counting(Denoiser):
        def forward(self, x, timesteps=None, context=None):
            calls.append(len(x))
            return super().forward(x, timesteps, context)

    batch = {"seed": [1], "prompt": ["cell 1"]}
    noise, _, _, features = SamplingPrepareBatch(diffusion, 32)(batch)
    network = Counting(diffusion)
    free = SamplingInferer(diffusion, 4, guidance_scale=1.0)(noise, network, **features)
    nowhere = SamplingInferer(diffusion, 4, guidance_scale=5.0, guidance_interval=(1e6, 2e6))(
        noise, network, **features
    )
    assert calls == [1] * 8
    torch.testing.assert_close(free, nowhere)
    everywhere = SamplingInferer(diffusion, 4, guidance_scale=5.0, guidance_interval=(0, 1e6))(
        noise, network, **features
    )
    torch.testing.assert_close(
        everywhere, SamplingInferer(diffusion, 4, guidance_scale=5.0)(noise, network, **features)
    )
    assert calls[8:] == [2] * 8


def test_an_unknown_scheduler_is_refused(diffusion):
    with pytest.raises(ValueError, match="no scheduler 'euler'. Choose one of dpmsolver"):
        SamplingInferer(diffusion, scheduler="euler")


def test_pndm_is_refused_where_it_would_draw_something_else(diffusion):
    allowed = r"Choose dpmsolver\+\+, dpmsolver\+\+_trailing, unipc or ddim, or set start_sigma to null"
    with pytest.raises(ValueError, match=f"start_sigma is 2.0, but the scheduler 'pndm' cannot begin.*{allowed}"):
        SamplingInferer(diffusion, scheduler="pndm", start_sigma=2.0)
    diffusion.noise_scheduler.register_to_config(rescale_betas_zero_snr=True)
    with pytest.raises(ValueError, match="ends in pure noise, as that of .*Choose one of dpmsolver.*, ddim, lcm.$"):
        SamplingInferer(diffusion, scheduler="pndm")
    SamplingInferer(diffusion, scheduler="ddim", start_sigma=2.0)


def test_noise_on_the_way_needs_seeds(diffusion):
    noise, _, _, features = SamplingPrepareBatch(diffusion, 32)({"seed": [1], "prompt": ["a"]})
    features.pop("seeds")
    with pytest.raises(ValueError, match="needs the seed of each image"):
        SamplingInferer(diffusion, 2, scheduler="lcm")(noise, Denoiser(diffusion), **features)


def test_images_that_are_no_numbers_are_not_given_out(diffusion):
    class Diverged(Denoiser):
        def forward(self, x, timesteps=None, context=None):
            return super().forward(x, timesteps, context) * float("nan")

    noise, _, _, features = SamplingPrepareBatch(diffusion, 32)({"seed": [1, 2], "prompt": ["a", "b"]})
    with pytest.raises(RuntimeError, match="2 of 2 images hold numbers that are not finite. The adapter has diverged"):
        SamplingInferer(diffusion, 2)(noise, Diverged(diffusion), **features)


@pytest.mark.parametrize(("top", "last"), [(14.5, 14.6), (40.0, float("inf"))], ids=["as published", "to pure noise"])
def test_timesteps_are_spaced_as_karras_says(top, last):
    sigmas = torch.cat([torch.logspace(-1.5, math.log10(top), 999).double(), torch.tensor([last]).double()])
    timesteps = karras_timesteps(sigmas, 12)
    assert len(timesteps) == 12 and timesteps[0] == 999 and timesteps == sorted(timesteps, reverse=True)
    levels = sigmas[timesteps]
    assert levels[-1] == pytest.approx(0.05, rel=0.02)
    roots = levels[1:] ** (1 / 7)  # the seventh roots are evenly spaced
    assert torch.allclose(roots.diff(), roots.diff().mean().expand(10), rtol=0.15)
    assert karras_timesteps(sigmas, 1) == [999]


def test_a_batch_that_does_not_fit_is_drawn_in_halves_and_so_are_those_that_follow(diffusion, caplog):
    sizes = []

    class Small(Denoiser):
        def forward(self, x, timesteps=None, context=None):
            sizes.append(len(x))
            if len(x) > 4:  # guidance doubles the batch
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().forward(x, timesteps, context)

    seeds = [1, 2, 3, 4, 5]
    noise, _, _, features = SamplingPrepareBatch(diffusion, 32)({"seed": seeds, "prompt": [f"cell {s}" for s in seeds]})
    inferer, network = SamplingInferer(diffusion, 4), Small(diffusion)
    images = inferer(noise, network, **features)
    torch.testing.assert_close(images, draw(diffusion, seeds), atol=1e-5, rtol=0)
    assert max(sizes[1:]) <= 4 and "now 2 at once" in caplog.text
    sizes.clear()
    assert torch.equal(inferer(noise, network, **features), images)
    assert max(sizes) <= 4  # what fits is found once

    class Tiny(Denoiser):
        def forward(self, x, timesteps=None, context=None):
            raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        SamplingInferer(diffusion, 4)(noise, Tiny(diffusion), **features)


@pytest.mark.parametrize("kind", ["epsilon", "flow"])
def test_drawing_that_begins_on_a_shot_keeps_as_much_of_it_as_its_noise_level_says(miniature, tmp_path, kind):
    diffusion = LatentDiffusion(str(miniature(kind)))
    shots = [{"class_name": "cell", "image": str(tmp_path / f"{number}.png")} for number in range(2)]
    for number, shot in enumerate(shots):
        pixels = np.random.default_rng(number).integers(0, 255, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(shot["image"])
    prepare = SamplingPrepareBatch(diffusion, 32, shots)
    batch = {"seed": [5, 6], "prompt": ["a", "a"], "class_name": ["cell"] * 2, "shot": [1, 1], "shot_view": [0, 4]}
    noise, _, _, features = prepare(batch)
    image = torch.tensor(np.asarray(Image.open(shots[1]["image"]))).permute(2, 0, 1)[None] / 255
    kept = diffusion.encode(torch.cat([image, image.flip(-1)]))[0]
    torch.testing.assert_close(features["start"], kept, atol=1e-5, rtol=1e-5)

    def distance(sigma):
        sampler = SamplingInferer(diffusion, num_inference_steps=20, guidance_scale=1.0, start_sigma=sigma)
        drawn = sampler(noise, Denoiser(diffusion), **features)
        return (drawn - diffusion.decode(kept)).abs().mean().item()

    distances = [distance(sigma) for sigma in (0.06, 1.0, 10.0)]
    assert distances == sorted(distances) and distances[0] < 0.8 * distances[-1]


def test_steps_above_the_start_are_left_out(diffusion):
    sampler = SamplingInferer(diffusion, num_inference_steps=20, guidance_scale=1.0, start_sigma=1.0)
    timesteps = sampler.late(sampler.build_scheduler().timesteps)
    assert 0 < len(timesteps) < 20 and sampler.sigma(timesteps[0]) <= 1.0
    sampler.start_sigma = 1e-9
    assert len(sampler.late(timesteps)) == 1
