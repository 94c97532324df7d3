"""Trainings that are stopped, killed or find damage go on to the same bits."""

import logging
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from ignite.engine import Events

from monai_synth.handlers import BestModelSaver, TrainingState, training_state
from monai_synth.utils import load_tensors, read_json, save_tensors, sha256_of, write_json
from monai_synth.utils.stopping import stop_request
from tests.handlers.training import kept_losses, make_trainer


def test_a_resumed_training_ends_with_the_same_bits(tmp_path):
    whole, expected, whole_optimizer = make_trainer(tmp_path / "whole", epochs=6)
    whole.run()
    make_trainer(tmp_path / "parts", epochs=2)[0].run()
    resumed, network, optimizer = make_trainer(tmp_path / "parts", epochs=6)
    resumed.run()
    for key, value in expected.state_dict().items():
        assert torch.equal(network.state_dict()[key], value)
    assert optimizer.param_groups[0]["lr"] == whole_optimizer.param_groups[0]["lr"]
    assert resumed.state.iteration == whole.state.iteration == 18


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("step", [1, 5, 6, 10])  # of 12, three in an epoch
def test_a_training_asked_to_stop_saves_the_step_and_ends_with_the_same_bits(tmp_path, caplog, step, workers):
    whole, expected, _ = make_trainer(tmp_path / "whole", workers=workers)
    losses = kept_losses(whole)
    whole.run()
    stopped, _, _ = make_trainer(tmp_path / "parts", workers=workers)
    first = kept_losses(stopped)
    stopped.add_event_handler(Events.ITERATION_STARTED(once=step), lambda engine: signal.raise_signal(signal.SIGTERM))
    stop_request.listen()
    with pytest.raises(SystemExit) as left:
        stopped.run()
    assert left.value.code == 128 + signal.SIGTERM and len(first) == step
    resumed, network, _ = make_trainer(tmp_path / "parts", workers=workers)
    rest = kept_losses(resumed)
    torch.manual_seed(99)  # another process begins with other random numbers
    with caplog.at_level(logging.INFO):
        resumed.run()
    assert f"Going on after epoch {step // 3}{f' and {step % 3} steps' if step % 3 else ''}, from" in caplog.text
    assert first + rest == losses
    assert torch.equal(network.weight, expected.weight)


def test_another_number_of_reading_processes_does_not_go_on_to_other_weights(tmp_path):
    make_trainer(tmp_path, epochs=2, workers=0)[0].run()
    with pytest.raises(ValueError, match="begun with num_workers 0 and would go on to other weights with 2.*Set num_w"):
        make_trainer(tmp_path, epochs=4, workers=2)[0].run()
    finished, _, _ = make_trainer(tmp_path, epochs=2, workers=2)  # nothing is read any more
    finished.run()
    assert finished.state.iteration == 6
    for path in tmp_path.glob("state_?.safetensors"):
        state = load_tensors(path)
        del state["num_workers"]  # of an earlier version
        save_tensors(path, state)
        write_json(path.with_suffix(".json"), {"epoch": state["epoch"], "sha256": sha256_of(path)})
    make_trainer(tmp_path, epochs=3, workers=2)[0].run()


def test_a_step_that_gathers_gradients_is_not_saved(tmp_path):
    trainer, _, _ = make_trainer(tmp_path, accumulation=2)
    trainer.add_event_handler(Events.ITERATION_STARTED(once=4), lambda engine: signal.raise_signal(signal.SIGTERM))
    stop_request.listen()
    with pytest.raises(SystemExit):
        trainer.run()
    assert read_json(tmp_path / "state_0.json")["iteration"] == 5  # where the optimizer steps
    assert read_json(tmp_path / "state_1.json")["iteration"] == 3


def test_a_request_that_comes_twice_is_one_and_a_second_does_not_wait(tmp_path, monkeypatch):
    trainer, _, _ = make_trainer(tmp_path)

    def ask_twice(engine):
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)  # from the group
        assert stop_request.wanted
        now = time.monotonic()
        monkeypatch.setattr(time, "monotonic", lambda: now + 6)
        signal.raise_signal(signal.SIGTERM)

    trainer.add_event_handler(Events.ITERATION_STARTED(once=2), ask_twice)
    stop_request.listen()
    with pytest.raises(SystemExit):
        trainer.run()
    assert not stop_request.wanted and not list(tmp_path.iterdir())


def test_a_request_that_comes_while_all_is_being_written_is_granted_then(tmp_path):
    stop_request.listen()
    stop_request.hold()
    signal.raise_signal(signal.SIGTERM)
    with pytest.raises(SystemExit):
        stop_request.release()
    stop_request.release()


def test_a_request_between_epochs_is_granted_at_once(tmp_path):
    trainer, _, _ = make_trainer(tmp_path)
    stop_request.listen()
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda engine: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(SystemExit):
        trainer.run()
    assert read_json(tmp_path / "state_1.json")["iteration"] == 3


def test_the_best_metric_and_its_epoch_are_restored(tmp_path):
    def watched(best, epoch):
        return SimpleNamespace(state=SimpleNamespace(best_metric=best, best_metric_epoch=epoch))

    trainer, network, optimizer = make_trainer(epochs=1)
    TrainingState(tmp_path, network, optimizer, watched=watched(0.875, 1)).attach(trainer)
    trainer.run()
    trainer, network, optimizer = make_trainer(epochs=2)
    anew = watched(-1, -1)
    TrainingState(tmp_path, network, optimizer, watched=anew).attach(trainer)
    trainer.add_event_handler(Events.STARTED, lambda engine: seen.append((anew.state.best_metric, engine.state.epoch)))
    seen = []
    trainer.run()
    assert seen == [(0.875, 1)] and anew.state.best_metric_epoch == 1


def make_judged(folder, epochs, scores, stop_before_file=0):
    """A training whose best weights are kept, with the score of each epoch; one epoch may end before their file."""
    trainer, network, optimizer = make_trainer(epochs=epochs)
    judge = SimpleNamespace(state=SimpleNamespace(best_metric=-1, best_metric_epoch=-1, epoch=0))
    saver = BestModelSaver(network, folder / "model.pt")

    def validate(engine):
        judge.state.epoch, score = engine.state.epoch, scores[engine.state.epoch - 1]
        if score > judge.state.best_metric:
            judge.state.best_metric, judge.state.best_metric_epoch = score, engine.state.epoch
        saver(judge)

    trainer.add_event_handler(Events.EPOCH_COMPLETED, validate)
    state = TrainingState(folder, network, optimizer, watched=judge, best_model=saver)
    if stop_before_file:
        write = saver.write
        saver.write = lambda: write() if judge.state.epoch < stop_before_file else pytest.fail("killed")
    state.attach(trainer)
    return trainer


def test_the_file_of_the_best_weights_follows_from_the_state_at_every_moment(tmp_path, caplog):
    scores = [0.5, 0.6, 0.9, 0.7]
    make_judged(tmp_path / "whole", 4, scores).run()
    whole = (tmp_path / "whole" / "model.pt").read_bytes()
    with pytest.raises(pytest.fail.Exception, match="killed"):  # the state of epoch 3 is there, its file not yet
        make_judged(tmp_path / "parts", 4, scores, stop_before_file=3).run()
    assert (tmp_path / "parts" / "model.pt").read_bytes() != whole
    with caplog.at_level(logging.INFO):
        make_judged(tmp_path / "parts", 4, scores).run()
    assert "Going on after epoch 3" in caplog.text and "damaged" not in caplog.text
    assert (tmp_path / "parts" / "model.pt").read_bytes() == whole


def test_best_weights_go_with_a_state_of_every_epoch_alone(tmp_path):
    _, network, optimizer = make_trainer()
    saver = BestModelSaver(network, tmp_path / "model.pt")
    with pytest.raises(ValueError, match="every is 2, but beside a best_model it must be 1: .* Leave every out, or"):
        TrainingState(tmp_path, network, optimizer, every=2, best_model=saver)
    trainer, network, optimizer = make_trainer(epochs=5)
    TrainingState(tmp_path, network, optimizer, every=2).attach(trainer)
    trainer.add_event_handler(Events.EPOCH_COMPLETED(once=5), lambda engine: pytest.fail("killed"))
    with pytest.raises(pytest.fail.Exception, match="killed"):
        trainer.run()
    assert sorted(read_json(path)["epoch"] for path in tmp_path.glob("state_?.json")) == [2, 4]


def lose(path):
    path.unlink()


def flip(path):
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")


@pytest.mark.parametrize("damage", [lose, flip])
@pytest.mark.parametrize(
    ("scores", "words"),
    [
        ([0.5, 0.6, 0.9, 0.7, 0.8, 0.4], "Going on after epoch 3"),
        ([0.5, 0.9, 0.6, 0.7, 0.8, 0.4], "No sound state is left"),
    ],
    ids=["best in the state before", "best before both states"],
)
def test_best_weights_that_were_lost_or_damaged_are_trained_again(tmp_path, caplog, damage, scores, words):
    make_judged(tmp_path / "whole", 6, scores).run()
    make_judged(tmp_path / "parts", 4, scores).run()
    damage(tmp_path / "parts" / "model.pt")
    with caplog.at_level(logging.INFO):
        make_judged(tmp_path / "parts", 6, scores).run()
    assert "model.pt, the best weights that" in caplog.text and words in caplog.text
    assert (tmp_path / "parts" / "model.pt").read_bytes() == (tmp_path / "whole" / "model.pt").read_bytes()


def test_best_weights_of_a_state_of_an_earlier_version_have_to_be_there(tmp_path, caplog):
    scores = [0.9, 0.5, 0.5, 0.5]
    make_judged(tmp_path, 3, scores).run()
    for path in tmp_path.glob("state_?.safetensors"):
        state = load_tensors(path)
        del state["best"]["sha256"]  # which those did not note
        save_tensors(path, state)
        write_json(path.with_suffix(".json"), {"epoch": state["epoch"], "sha256": sha256_of(path)})
    with caplog.at_level(logging.INFO):
        make_judged(tmp_path, 4, scores).run()
        assert "Going on after epoch 3" in caplog.text
        (tmp_path / "model.pt").unlink()
        make_judged(tmp_path, 4, scores).run()
    assert "No sound state is left" in caplog.text and (tmp_path / "model.pt").is_file()


def test_a_finished_training_is_not_trained_again(tmp_path):
    first, network, _ = make_trainer(tmp_path)
    first.run()
    again, other, _ = make_trainer(tmp_path)
    again.run()
    assert torch.equal(network.weight, other.weight) and again.state.iteration == 12


def test_a_damaged_state_is_recognized_and_the_one_before_is_used(tmp_path, caplog):
    make_trainer(tmp_path, epochs=3)[0].run()
    newest = tmp_path / "state_1.safetensors"  # epoch 3
    content = bytearray(newest.read_bytes())
    content[-3] ^= 1
    newest.write_bytes(bytes(content))
    whole, expected, _ = make_trainer(epochs=4)
    whole.run()
    with caplog.at_level(logging.INFO):
        resumed, network, _ = make_trainer(tmp_path, epochs=4)
        resumed.run()
    assert (
        "state_1.safetensors, or what is noted of it, is damaged" in caplog.text
        and "Going on after epoch 2" in caplog.text
    )
    assert torch.equal(network.weight, expected.weight)


@pytest.mark.parametrize("name", ["state_1.json", "state_1.safetensors"])
def test_a_truncated_file_of_a_state_is_recognized(tmp_path, caplog, name):
    make_trainer(tmp_path, epochs=3)[0].run()
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:20])
    with caplog.at_level(logging.INFO):
        resumed = make_trainer(tmp_path, epochs=4)[0]
        resumed.run()
    assert "state_1.safetensors, or what is noted of it, is damaged" in caplog.text
    assert "Going on after epoch 2" in caplog.text and resumed.state.iteration == 12


def test_processes_that_find_different_states_do_not_go_on(tmp_path, monkeypatch):
    make_trainer(tmp_path, epochs=3)[0].run()
    for own, other in ((9, 9), (9, 6)):
        monkeypatch.setattr(training_state, "gathered", lambda value: [value, other])
        trainer = make_trainer(tmp_path, epochs=4)[0]
        if own == other:
            trainer.run()
            assert trainer.state.iteration == 12
            (tmp_path / "state_0.json").unlink()  # epoch 4
        else:
            with pytest.raises(RuntimeError, match=r"found different states in .*, after \[9, 6\] steps.*Run the same"):
                trainer.run()


def test_without_a_sound_state_a_training_begins_anew_and_says_so(tmp_path, caplog):
    make_trainer(tmp_path, epochs=3)[0].run()
    for path in tmp_path.glob("state_?.safetensors"):
        path.write_bytes(b"")
    whole, expected, _ = make_trainer(epochs=4)
    whole.run()
    resumed, network, _ = make_trainer(tmp_path, epochs=4)
    resumed.run()
    assert "No sound state is left" in caplog.text and torch.equal(network.weight, expected.weight)


def test_a_full_disk_leaves_the_last_good_state(tmp_path, monkeypatch):
    make_trainer(tmp_path, epochs=2)[0].run()
    whole, expected, _ = make_trainer(epochs=4)
    whole.run()

    def full(self, content):
        with open(self, "wb") as file:
            file.write(content[:10])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr(Path, "write_bytes", full)
        make_trainer(tmp_path, epochs=4)[0].run()
    resumed, network, _ = make_trainer(tmp_path, epochs=4)
    resumed.run()
    assert torch.equal(network.weight, expected.weight) and not list(tmp_path.glob(".*"))


def test_a_request_is_granted_in_time_whatever_is_at_work(tmp_path):
    code = """
import signal, time
from monai_synth.utils import stopping
stopping.PATIENCE = 0.3
stopping.stop_request.listen()
stopping.stop_request.hold()
signal.raise_signal(signal.SIGTERM)
time.sleep(60)
"""
    result = subprocess.run([sys.executable, "-c", code], timeout=50, capture_output=True, text=True)
    assert result.returncode == 143 and "takes too long to be saved" in result.stderr
