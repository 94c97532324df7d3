import pytest
import torch

from monai_synth.inferers import SamplingInferer
from monai_synth.networks import LatentDiffusion
from tests.inferers.drawing import draw


@pytest.fixture
def calls(diffusion):
    """Sizes of the batches for which the innermost and the outermost block were computed."""
    sizes = {"inner": [], "outer": []}
    for name, block in (("inner", diffusion.denoiser.mid_block), ("outer", diffusion.denoiser.up_blocks[-1])):
        for layer in block.resnets[:1]:
            layer.register_forward_pre_hook(lambda _, args, name=name: sizes[name].append(len(args[0])))
    return sizes


@pytest.mark.parametrize(("interval", "count"), [(1, 6), (2, 3), (3, 2), (100, 1)])
def test_inner_blocks_are_computed_in_every_so_many_steps(diffusion, calls, interval, count):
    draw(diffusion, [1], num_inference_steps=6, guidance_scale=1.0, cache_interval=interval)
    assert len(calls["inner"]) == count and len(calls["outer"]) == 6
    assert "forward" not in vars(diffusion.denoiser.mid_block)


def test_guidance_that_begins_or_ends_computes_them_anew(diffusion, calls):
    inferer = SamplingInferer(diffusion, 6)
    levels = [inferer.sigma(timestep) for timestep in inferer.build_scheduler().timesteps]
    interval = (levels[4] * 0.9, levels[1] * 1.1)
    draw(diffusion, [1, 2], num_inference_steps=6, guidance_interval=interval, cache_interval=100)
    assert calls == {"inner": [2, 4, 2], "outer": [2, 4, 4, 4, 4, 2]}


def test_kept_features_change_an_image_less_than_its_seed(diffusion):
    exact, other = draw(diffusion, [1]), draw(diffusion, [2])
    kept = draw(diffusion, [1], cache_interval=2)
    assert 0 < (kept - exact).abs().mean() < 0.5 * (other - exact).abs().mean()
    together = draw(diffusion, [2, 1], cache_interval=2)
    torch.testing.assert_close(together[1:], kept, atol=1e-5, rtol=0)
    assert torch.equal(draw(diffusion, [1]), exact)


def test_a_base_without_a_u_net_is_refused(miniature):
    with pytest.raises(ValueError, match="cache_interval is 2, but this base has no U-Net. It must be 1"):
        draw(LatentDiffusion(str(miniature("flow"))), [1], cache_interval=2)
