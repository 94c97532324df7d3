from pathlib import Path

import torch
from ignite.metrics import Metric
from monai.bundle import ConfigParser
from monai.engines import SupervisedEvaluator
from torch import nn

from monai_synth.handlers import BestModelSaver

SCORES = [0.5, 0.9, 0.6, 0.9, 0.95]  # of the validation of each epoch
CONFIG = Path(__file__).resolve().parents[2] / "bundles" / "colon" / "configs" / "train.json"
BETTER = ConfigParser(ConfigParser.load_config_file(CONFIG)).get_parsed_content("validate::evaluator::metric_cmp_fn")


class Scripted(Metric):
    def __init__(self, epoch):
        self.epoch = epoch
        super().__init__(output_transform=lambda output: (0, 0))

    def reset(self):
        pass

    def update(self, output):
        pass

    def compute(self):
        return SCORES[self.epoch - 1]


def validate(epoch, path, best=None):
    """Validates a network whose weight is the number of the epoch, in a process that knows the best one so far."""
    network = nn.Linear(1, 1, bias=False)
    nn.init.constant_(network.weight, epoch)
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=[{"image": torch.zeros(1, 1), "label": torch.zeros(1)}],
        network=network,
        key_val_metric={"score": Scripted(epoch)},
        metric_cmp_fn=BETTER,
        val_handlers=[BestModelSaver(network, path)],
        decollate=False,
    )
    if best is not None:
        evaluator.state.best_metric, evaluator.state.best_metric_epoch = best
    evaluator.run(epoch)
    return evaluator.state.best_metric, evaluator.state.best_metric_epoch


def saved(path):
    return int(torch.load(path, weights_only=True)["weight"])


def test_only_a_better_model_takes_the_place_of_the_saved_one_in_a_new_process_too(tmp_path):
    path, best, found = tmp_path / "model.pt", None, []
    for epoch in range(1, len(SCORES) + 1):  # every epoch in a process of its own
        best = validate(epoch, path, best)
        found.append(saved(path))
    assert found == [1, 2, 2, 4, 5] and best == (0.95, 5)  # of equal ones the one that was trained longer
    assert [file.name for file in tmp_path.iterdir()] == ["model.pt"]
    validate(5, tmp_path / "again.pt")
    assert (tmp_path / "again.pt").read_bytes() == path.read_bytes()
