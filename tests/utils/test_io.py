import hashlib
import os
import threading

import pytest
import torch

from monai_synth.utils import atomic_path, load_tensors, read_json, save_tensors, sha256_of, write_json, write_text
from monai_synth.utils.tensors import save_state_dict


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    write_text(tmp_path / "a.txt", "old")
    with pytest.raises(OSError, match="No space left"):
        with atomic_path(tmp_path / "a.txt") as temporary:
            temporary.write_text("half")
            raise OSError(28, "No space left on device")
    assert (tmp_path / "a.txt").read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_reader_never_sees_a_part(tmp_path):
    path, stop, seen = tmp_path / "deep" / "a.json", threading.Event(), set()
    write_json(path, ["x"] * 5000)

    def read():
        while not stop.is_set():
            seen.add(len(read_json(path)))

    reader = threading.Thread(target=read)
    reader.start()
    for count in (5000, 1, 5000, 1, 5000):
        write_json(path, ["x"] * count)
    stop.set()
    reader.join()
    assert seen <= {1, 5000}


def test_files_get_the_usual_rights_and_no_writer_touches_those_of_the_process(tmp_path, monkeypatch):
    """The umask is one for all threads: two that set it to read it could leave the process with none."""
    (tmp_path / "usual.txt").touch()
    monkeypatch.setattr(os, "umask", lambda mask: pytest.fail("the umask of the process was set"))
    write_text(tmp_path / "own.txt", "all")
    assert (tmp_path / "own.txt").stat().st_mode == (tmp_path / "usual.txt").stat().st_mode


def test_states_come_back_as_they_were(tmp_path):
    shared = torch.arange(6.0).view(2, 3)
    plain = {"epoch": 3, "rate": 0.5, "none": None, "names": ["a", "b"], "flag": True}
    moments = {0: {"step": torch.tensor(7.0), "exp_avg": shared.t()}, 1: {}}
    state = {**plain, "optimizer": {"state": moments, "groups": [{"lr": 1}]}}
    save_tensors(tmp_path / "state.safetensors", state)
    back = load_tensors(tmp_path / "state.safetensors")
    assert torch.equal(back["optimizer"]["state"][0].pop("exp_avg"), shared.t())
    assert torch.equal(back["optimizer"]["state"][0].pop("step"), torch.tensor(7.0))
    assert back == {**plain, "optimizer": {"state": {0: {}, 1: {}}, "groups": [{"lr": 1}]}}


def test_what_is_not_plain_is_not_stored(tmp_path):
    with pytest.raises(TypeError, match="a/b is a set; only tensors and plain values"):
        save_tensors(tmp_path / "x.safetensors", {"a": {"b": {1}}})
    from safetensors.torch import save_file

    save_file({"w": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="not one of this program's states"):
        load_tensors(tmp_path / "other.safetensors")


def test_the_hash_is_that_of_the_bytes(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    assert sha256_of(tmp_path / "x") == hashlib.sha256(b"abc").hexdigest()


class OnAGPU:
    """A weight that lies elsewhere until it is asked to the CPU."""

    def detach(self):
        return self

    def cpu(self):
        return torch.arange(3.0)


def test_weights_are_saved_from_the_cpu_so_that_a_machine_without_a_gpu_can_load_them(tmp_path):
    save_state_dict(tmp_path / "model.pt", {"weight": OnAGPU()})
    assert torch.equal(torch.load(tmp_path / "model.pt", weights_only=True)["weight"], torch.arange(3.0))
