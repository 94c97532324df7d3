"""Drawing a few images with a small base, where it lies."""

from monai_synth.engines import SamplingPrepareBatch
from monai_synth.inferers import SamplingInferer
from monai_synth.networks import Denoiser


def draw(diffusion, seeds, image_size=32, inferer=None, **options):
    batch = {"seed": seeds, "prompt": [f"cell {seed}" for seed in seeds]}
    noise, _, _, features = SamplingPrepareBatch(diffusion, image_size)(batch, diffusion.device)
    inferer = inferer or SamplingInferer(diffusion, **{"num_inference_steps": 4, **options})
    return inferer(noise, Denoiser(diffusion), **features)
