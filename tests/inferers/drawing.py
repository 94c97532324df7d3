"""Drawing a few images with a random miniature."""

from monai_synth.engines import SamplingPrepareBatch
from monai_synth.inferers import SamplingInferer
from monai_synth.networks import Denoiser


def draw(diffusion, seeds, **options):
    batch = {"seed": seeds, "prompt": [f"cell {seed}" for seed in seeds]}
    noise, _, _, features = SamplingPrepareBatch(diffusion, 32)(batch)
    return SamplingInferer(diffusion, **{"num_inference_steps": 4, **options})(noise, Denoiser(diffusion), **features)
