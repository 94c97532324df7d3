"""Features on their way to the disk."""

import signal

import pytest
import torch
from ignite.engine import Engine, Events
from monai.utils import CommonKeys as Keys

from monai_synth.data import FeatureStore
from monai_synth.handlers import FeatureSaver
from monai_synth.utils.stopping import stop_request

RECORDS = [{"image": f"{number}.png", "sha256": str(number)} for number in range(7)]


def encoding(store, part_size):
    """An engine that encodes an image at a time, as its number."""

    def encode(engine, batch):
        engine.state.output = {Keys.PRED: torch.tensor([[float(value)] for value in batch["sha256"]])}
        return engine.state.output

    engine = Engine(encode)
    FeatureSaver(store, part_size).attach(engine)
    return engine


def batches(store):
    return [{"sha256": [record["sha256"]]} for record in store.missing(RECORDS)]


def test_a_stopped_extraction_has_all_that_it_encoded_on_the_disk_and_goes_on(tmp_path):
    stop_request.listen()
    store = FeatureStore(tmp_path, "e", 128)
    engine = encoding(store, part_size=4)
    engine.add_event_handler(Events.ITERATION_STARTED(once=6), lambda engine: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(SystemExit) as left:
        engine.run(batches(store))
    assert left.value.code == 128 + signal.SIGTERM
    again = FeatureStore(tmp_path, "e", 128)
    assert [record["sha256"] for record in again.missing(RECORDS)] == ["6"]
    encoding(again, part_size=4).run(batches(again))
    assert FeatureStore(tmp_path, "e", 128).features(RECORDS)[:, 0].tolist() == list(range(7))
    with pytest.raises(SystemExit):  # nothing is held any longer
        signal.raise_signal(signal.SIGTERM)
