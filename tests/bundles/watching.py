"""A handler for tests: what each process of a training saw first, and the weights that it ended with."""

import hashlib
from pathlib import Path

import torch
from ignite.engine import Events

from monai_synth.utils import write_json
from monai_synth.utils.processes import rank


def digest(values):
    """SHA-256 of tensors, in the order of their names."""
    found = hashlib.sha256()
    for name in sorted(values):
        if isinstance(values[name], torch.Tensor):
            found.update(name.encode() + values[name].detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


class Watch:
    """Writes `process_<rank>.json` with digests of the first batch and of the trainable weights at the end."""

    def __init__(self, folder, network):
        self.folder, self.network, self.seen = Path(folder), network, {}

    def attach(self, engine):
        engine.add_event_handler(Events.ITERATION_COMPLETED(once=1), self.note_batch)
        engine.add_event_handler(Events.COMPLETED, self)

    def note_batch(self, engine):
        self.seen["batch"] = digest(
            {key: value.float() for key, value in engine.state.output.items() if hasattr(value, "float")}
        )

    def __call__(self, engine):
        learned = {name: value for name, value in self.network.named_parameters() if value.requires_grad}
        write_json(self.folder / f"process_{rank()}.json", {**self.seen, "weights": digest(learned)})
