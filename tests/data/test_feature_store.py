"""Features on the disk, and who encodes what is missing."""

import threading

import pytest
import torch
from safetensors.torch import save_file

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
        store = FeatureStore(tmp_path, "e", 128)
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
    features = FeatureStore(tmp_path, "e", 128).features(RECORDS)
    assert features[:, 0].tolist() == [0, 1, 0, 1, 0, 1, 0]


def test_an_image_that_nobody_encoded_is_named(tmp_path):
    store = FeatureStore(tmp_path, "e", 128)
    store.add(["0"], torch.zeros(1, 2))
    with pytest.raises(ValueError, match="1.png"):
        store.features(RECORDS[:2])


def test_what_is_added_after_a_file_was_removed_takes_the_place_of_no_other(tmp_path):
    store = FeatureStore(tmp_path, "e", 128)
    for number in range(3):
        store.add([str(number)], torch.full((1, 2), float(number)))
    sorted(store.folder.iterdir())[0].unlink()
    store = FeatureStore(tmp_path, "e", 128)
    store.add(["0"], torch.zeros(1, 2))
    for known in (store, FeatureStore(tmp_path, "e", 128)):
        assert known.features(RECORDS[:3])[:, 0].tolist() == [0, 1, 2]


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


def empty(path):
    path.write_bytes(b"")


def other_file(path):
    save_file({"w": torch.zeros(1)}, path)


def one_row_less(path):
    save_file({"features": torch.zeros(1, 2)}, path, {"encoder": "e", "sha256": '["0", "1"]'})


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (truncate, "it cannot be read"),
        (empty, "it cannot be read"),
        (other_file, "it cannot be read"),
        (one_row_less, "it notes 2 images and has features of 1"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, damage, what):
    FeatureStore(tmp_path, "e", 128).add(["0", "1"], torch.zeros(2, 2))
    damage(tmp_path / "e_128" / "features_00000_000.safetensors")
    with pytest.raises(ValueError, match=f"features_00000_000.safetensors is damaged, {what}.*Remove it and run"):
        FeatureStore(tmp_path, "e", 128)


def test_a_flipped_bit_in_the_features_is_found(tmp_path):
    store = FeatureStore(tmp_path, "e", 128)
    store.add(["0", "1"], torch.ones(2, 2))
    path = tmp_path / "e_128" / "features_00000_000.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is damaged, its features are not those that were written. Remove it and run"):
        FeatureStore(tmp_path, "e", 128).features(RECORDS[:2])


def test_files_of_earlier_versions_have_no_checksum_and_are_read(tmp_path):
    (tmp_path / "e_128").mkdir()
    known = {"encoder": "e", "sha256": '["0"]'}
    save_file({"features": torch.ones(1, 2)}, tmp_path / "e_128" / "features_00000_000.safetensors", known)
    assert FeatureStore(tmp_path, "e", 128).features(RECORDS[:1]).tolist() == [[1, 1]]


def test_encoders_and_sizes_have_folders_of_their_own(tmp_path):
    kinds = [("e", 128), ("e", 512), ("f", 128)]
    for value, (encoder, size) in enumerate(kinds):
        store = FeatureStore(tmp_path, encoder, size)
        assert store.missing(RECORDS[:1]) == RECORDS[:1]
        store.add(["0"], torch.full((1, 2), float(value)))
    values = [FeatureStore(tmp_path, *kind).features(RECORDS[:1])[0, 0] for kind in kinds]
    assert values == [0, 1, 2]
    (tmp_path / "f_128" / "features_00000_000.safetensors").rename(
        tmp_path / "e_512" / "features_00001_000.safetensors"
    )
    with pytest.raises(ValueError, match="holds features of the encoder f, not of e. Features of different encoders"):
        FeatureStore(tmp_path, "e", 512)
