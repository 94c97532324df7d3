"""The average of an adapter, and a training with all that has a state."""

import pytest
import torch
from diffusers.training_utils import EMAModel
from ignite.engine import Events
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedTrainer

from monai_synth.engines import LatentDiffusionPrepareBatch
from monai_synth.handlers import AdapterAverage, AdapterSaver, EpochSeed, TrainingState
from monai_synth.losses import DenoisingLoss
from monai_synth.networks import LatentDiffusion, LoRADenoiser, load_adapter
from monai_synth.transforms import EncodePromptd
from monai_synth.utils import sha256_of


def make_trainer(base, folder=None, epochs=2, batch_size=2, accumulation=1, **options):
    torch.manual_seed(0)
    diffusion = LatentDiffusion(str(base))
    network = LoRADenoiser(diffusion, rank=2, **options)
    prompt = EncodePromptd("prompt", diffusion)({"prompt": "a cell"})["prompt"]
    data = Dataset([{"image": torch.randn(4, 8, 8), "prompt": prompt} for _ in range(8)])
    optimizer = torch.optim.AdamW(network.trainable_parameters(), lr=0.01)
    handlers = [EpochSeed(3), AdapterAverage(network)]
    if folder is not None:
        handlers += [AdapterSaver(network, folder, {}), TrainingState(folder, network, optimizer)]
    trainer = SupervisedTrainer(
        device="cpu",
        max_epochs=epochs,
        epoch_length=2 * accumulation,
        train_data_loader=DataLoader(data, batch_size=batch_size),
        network=network,
        optimizer=optimizer,
        loss_function=DenoisingLoss(),
        prepare_batch=LatentDiffusionPrepareBatch(diffusion, prompt_dropout=0.0, min_snr_gamma=5.0),
        train_handlers=handlers,
        accumulation_steps=accumulation,
        decollate=False,
    )
    return trainer, network


@pytest.mark.parametrize("accumulation", [1, 2])
def test_the_average_is_that_of_diffusers_over_the_optimizer_steps(miniature, accumulation):
    trainer, network = make_trainer(miniature(), epochs=3, accumulation=accumulation, ema_decay=0.3)
    expected = EMAModel(list(network.trainable_parameters()), decay=0.3)

    def step(engine):
        if engine.state.iteration % accumulation == 0:
            expected.step(network.trainable_parameters())

    trainer.add_event_handler(Events.ITERATION_COMPLETED, step)
    trainer.run()
    assert network.lora_average.model.optimization_step == 6
    own = [parameter.clone() for parameter in network.trainable_parameters()]
    with network.averaged():
        for parameter, average in zip(network.trainable_parameters(), expected.shadow_params):
            assert torch.equal(parameter, average)
    assert all(torch.equal(left, right) for left, right in zip(own, network.trainable_parameters()))
    assert any(not torch.equal(left, right) for left, right in zip(own, expected.shadow_params))


def test_the_average_is_what_is_saved(miniature, tmp_path):
    trainer, network = make_trainer(miniature(), tmp_path, ema_decay=0.9)
    trainer.run()
    x, timesteps = torch.randn(2, 4, 8, 8), torch.tensor([10, 500])
    context = network.diffusion.encode_prompts(["a", "b"])
    loaded = load_adapter(LatentDiffusion(str(miniature())), tmp_path)
    with torch.no_grad(), network.eval().averaged():
        torch.testing.assert_close(loaded(x, timesteps, context), network(x, timesteps, context), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "options",
    [
        {"ema_decay": 0.9, "accumulation": 2},
        {"init": "pissa", "ema_decay": 0.5},
        {"use_dora": True, "gradient_checkpointing": True},
    ],
    ids=str,
)
def test_a_resumed_training_ends_with_the_same_bytes(miniature, tmp_path, options):
    make_trainer(miniature(), tmp_path / "whole", epochs=4, **options)[0].run()
    make_trainer(miniature(), tmp_path / "parts", epochs=2, **options)[0].run()
    make_trainer(miniature(), tmp_path / "parts", epochs=4, **options)[0].run()
    names = ["pytorch_lora_weights.safetensors", "state_0.safetensors"]
    for name in names:
        assert sha256_of(tmp_path / "whole" / name) == sha256_of(tmp_path / "parts" / name)


def test_gathered_gradients_are_those_of_a_large_batch(miniature):
    """The loss is a mean, so two halves of a batch give the gradient of the whole when their noise is the same."""
    gradients = []
    for batch_size, accumulation in ((4, 1), (2, 2)):
        _, network = make_trainer(miniature())
        torch.manual_seed(1)
        x, target = torch.randn(4, 4, 8, 8), torch.randn(4, 4, 8, 8)
        for parameter in network.trainable_parameters():
            torch.nn.init.normal_(parameter, std=0.1)
        context = network.diffusion.encode_prompts(["a"] * batch_size)
        for start in range(0, 4, batch_size):
            rows = slice(start, start + batch_size)
            prediction = network(x[rows], torch.full((batch_size,), 500), context)
            loss = DenoisingLoss()(prediction, {"target": target[rows], "weight": torch.ones(batch_size)})
            (loss / accumulation).backward()
        gradients.append([parameter.grad for parameter in network.trainable_parameters()])
    for whole, gathered in zip(*gradients):
        torch.testing.assert_close(whole, gathered, atol=1e-6, rtol=1e-4)


def test_less_memory_gives_the_same_gradients(miniature):
    states = []
    for checkpointing in (False, True):
        trainer, network = make_trainer(miniature(), gradient_checkpointing=checkpointing)
        trainer.run()
        states.append(network.state_dict())
    for key, value in states[0].items():
        torch.testing.assert_close(states[1][key], value)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_base_in_half_precision_trains_an_adapter_in_float32(miniature, dtype):
    diffusion = LatentDiffusion(str(miniature()), dtype=dtype)
    network = LoRADenoiser(diffusion, rank=2, train_text_encoder=True).train()
    assert all(parameter.dtype == torch.float32 for parameter in network.trainable_parameters())
    prediction = network(torch.randn(1, 4, 8, 8), torch.tensor([500]), diffusion.token_ids(["a"]))
    prediction.square().mean().backward()
    assert prediction.dtype == torch.float32
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in network.trainable_parameters())
