"""Trainings as CUDA graphs on a GPU; skipped where torch sees none."""

import pytest
import torch
from monai.engines import SupervisedTrainer

from monai_synth.engines import LatentDiffusionPrepareBatch
from monai_synth.inferers import InPartsInferer
from monai_synth.losses import DenoisingLoss
from monai_synth.networks import LatentDiffusion, LoRADenoiser, remove_adapter

DEVICE = torch.device("cuda", 0)
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"),
]


@pytest.mark.parametrize("kind", ["epsilon", "xl"])
@pytest.mark.parametrize("accumulated", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_training_learns_with_a_graph_what_it_learns_without(miniature, kind, accumulated, dtype):
    diffusion = LatentDiffusion(str(miniature(kind)), device=DEVICE, dtype=dtype)
    context = {name: value.cpu() for name, value in diffusion.encode_prompts(["a cell"] * 8).items()}
    sizes = [8, 8, 5, 8]  # one does not fit the graph
    latents = [
        torch.randn(size, *diffusion.latent_shape(32), generator=torch.Generator().manual_seed(size)) for size in sizes
    ]
    batches = [
        {"image": one, "prompt": {name: value[: len(one)] for name, value in context.items()}} for one in latents
    ]

    def learned(cuda_graph):
        torch.manual_seed(0)
        network = LoRADenoiser(diffusion, rank=4, target_modules="all")
        inferer = InPartsInferer(cuda_graph)
        trainer = SupervisedTrainer(
            device=DEVICE,
            max_epochs=2,
            train_data_loader=batches,
            network=network,
            optimizer=torch.optim.SGD(network.trainable_parameters(), lr=0.5),
            loss_function=DenoisingLoss(),
            prepare_batch=LatentDiffusionPrepareBatch(diffusion),
            inferer=inferer,
            iteration_update=inferer.iteration,
            accumulation_steps=accumulated,
            decollate=False,
        )
        start = torch.cat([parameter.detach().flatten() for parameter in network.trainable_parameters()])
        torch.manual_seed(0)
        trainer.run()
        moved = torch.cat([parameter.detach().flatten() for parameter in network.trainable_parameters()]) - start
        remove_adapter(diffusion)
        return moved, inferer

    expected, without = learned(False)
    found, inferer = learned(None)
    assert without.graph is None and inferer.graph.recorded is not None and expected.norm() > 0
    assert (found - expected).norm() < (0.001 if dtype == torch.float32 else 0.05) * expected.norm()


def test_a_graph_is_not_for_every_training(miniature):
    flow = LoRADenoiser(LatentDiffusion(str(miniature("flow")), device=DEVICE))
    with pytest.raises(ValueError, match="predicts the flow"):
        InPartsInferer(True)(torch.randn(2, 16, 8, 8, device=DEVICE), flow)
    diffusion = LatentDiffusion(str(miniature()), device=DEVICE)
    inputs = torch.randn(2, *diffusion.latent_shape(32), device=DEVICE)
    keywords = {"timesteps": torch.tensor([1, 2], device=DEVICE), "context": diffusion.encode_prompts(["a", "b"])}
    network = LoRADenoiser(diffusion, gradient_checkpointing=True).train()
    with pytest.raises(ValueError, match="gradient_checkpointing"):
        InPartsInferer(True)(inputs, network, **keywords)
    inferer = InPartsInferer(None)
    assert inferer(inputs, network, **keywords).isfinite().all() and inferer.graph is None
    remove_adapter(diffusion)
    network = LoRADenoiser(diffusion).train()
    with pytest.raises(ValueError, match="float16"), torch.autocast("cuda", torch.float16):
        InPartsInferer(True)(inputs, network, **keywords)
