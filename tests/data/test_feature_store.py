"""Features on the disk, and who encodes what is missing."""

import threading

import pytest
import torch

from monai_synth.data import FeatureStore, feature_store, own_missing
from monai_synth.utils import processes

RECORDS = [{"image": f"{number}.png", "sha256": str(number)} for number in range(7)]


def test_each_image_is_encoded_by_one_process_even_when_another_has_already_begun(tmp_path, monkeypatch):
    """Two processes as threads; the second looks late, and the first must not have written before."""
    local, both = threading.local(), threading.Barrier(2, timeout=20)
    monkeypatch.setattr(processes, "rank", lambda: local.rank)
    monkeypatch.setattr(feature_store, "rank", lambda: local.rank)
    monkeypatch.setattr(processes, "count", lambda: 2)
    monkeypatch.setattr(feature_store, "wait_for_all", both.wait)
    looked, parts = threading.Event(), {}

    def encode(rank):
        local.rank = rank
        store = FeatureStore(tmp_path, "e")
        if rank == 1:
            looked.wait(0.5)  # the first would have written by now if nobody held it
        parts[rank] = [record["sha256"] for record in own_missing(store, RECORDS)]
        store.add(parts[rank], torch.full((len(parts[rank]), 2), float(rank)))
        looked.set()

    threads = [threading.Thread(target=encode, args=(rank,)) for rank in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert parts == {0: ["0", "2", "4", "6"], 1: ["1", "3", "5"]}
    features = FeatureStore(tmp_path, "e").features(RECORDS)
    assert features[:, 0].tolist() == [0, 1, 0, 1, 0, 1, 0]


def test_an_image_that_nobody_encoded_is_named(tmp_path):
    store = FeatureStore(tmp_path, "e")
    store.add(["0"], torch.zeros(1, 2))
    with pytest.raises(ValueError, match="1.png"):
        store.features(RECORDS[:2])
