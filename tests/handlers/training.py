"""A training of a few numbers, and what its steps lose."""

import torch
from ignite.engine import Events
from monai.data import DataLoader, Dataset
from monai.engines import IterationEvents, SupervisedTrainer
from monai.transforms import Compose, RandGaussianNoised
from torch import nn

from monai_synth.handlers import EpochSeed, TrainingState


class SquaredError(nn.Module):
    """With noise of the process's generator, as the noise of a diffusion is drawn."""

    def forward(self, prediction, target):
        prediction = prediction + 0.1 * torch.randn_like(prediction)
        return (prediction - target).square().mean()


def kept_losses(trainer):
    losses = []
    trainer.add_event_handler(
        IterationEvents.LOSS_COMPLETED, lambda engine: losses.append(engine.state.output["loss"].item())
    )
    return losses


def make_trainer(folder=None, epochs=4, learning_rate=0.1, extra=(), accumulation=1, scale=1.0, workers=0):
    torch.manual_seed(0)
    network = nn.Linear(2, 1)
    optimizer = torch.optim.AdamW(network.parameters(), lr=learning_rate)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 40)
    records = [{"image": torch.randn(2) * scale, "label": torch.randn(1)} for _ in range(8)]
    data = Dataset(records, Compose([RandGaussianNoised("image", prob=1.0)]))
    sampler = torch.utils.data.RandomSampler(data, replacement=True, num_samples=6)
    handlers = [EpochSeed(7), *extra]
    if folder is not None:
        handlers.append(TrainingState(folder, network, optimizer, scheduler))
    trainer = SupervisedTrainer(
        device="cpu",
        max_epochs=epochs,
        epoch_length=3,
        train_data_loader=DataLoader(data, batch_size=2, sampler=sampler, num_workers=workers),
        network=network,
        optimizer=optimizer,
        loss_function=SquaredError(),
        train_handlers=handlers,
        accumulation_steps=accumulation,
        decollate=False,
    )
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: scheduler.step())
    return trainer, network, optimizer
