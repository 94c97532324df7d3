import pytest

from monai_synth.networks import LatentDiffusion


@pytest.fixture
def diffusion(miniature):
    return LatentDiffusion(str(miniature()))
