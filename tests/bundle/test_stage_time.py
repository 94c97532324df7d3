import os
import time
from types import SimpleNamespace

import pytest

from monai_synth.bundle import stage_time
from monai_synth.bundle.stage_record import Stage
from monai_synth.utils import read_json, write_json

DAY = 86400.0


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test sets."""
    clock = SimpleNamespace(now=time.time(), time=lambda: clock.now)
    monkeypatch.setattr(stage_time, "time", clock)
    return clock


def write(path, moment):
    path.write_text("an output")
    os.utime(path, (moment, moment))


def told(stage):
    """Whether a stage is noted as complete, and its seconds."""
    record = read_json(stage.path)
    return record["complete"], record["wall_time_s"]


def pass_attempt(stage, clock, seconds):
    """A stage begins, writes for some seconds and is killed somewhat later; the next attempt comes the day after."""
    stage.open()
    os.utime(stage.path, (clock.now, clock.now))
    write(stage.folder / f"state_{clock.now}", clock.now + seconds)
    clock.now += DAY


def finish(stage, clock, seconds, begin="open"):
    """A stage begins, or goes on, and comes to its end."""
    getattr(stage, begin)()
    clock.now += seconds
    stage.close()


def test_the_attempts_of_a_stage_count_until_they_stopped_writing_and_pauses_do_not(tmp_path, clock):
    stage, began = Stage("train", tmp_path, {"rank": 4}, {}), clock.now
    pass_attempt(stage, clock, 100)
    pass_attempt(stage, clock, 20)
    finish(stage, clock, 3)
    assert told(stage) == (True, 123.0) and read_json(stage.path)["began"] == began


def test_the_record_of_a_complete_stage_stays_as_it_is_when_it_is_run_again(tmp_path, clock):
    stage = Stage("train", tmp_path, {"rank": 4}, {})
    finish(stage, clock, 5)
    before = stage.path.read_bytes()
    clock.now += DAY  # its evaluation was killed, and the job is run again
    finish(stage, clock, 60)
    assert stage.path.read_bytes() == before and told(stage) == (True, 5.0)
    (tmp_path / "model.pt").write_bytes(b"made again")  # as a classifier whose file was lost
    stage.close()
    assert told(stage) == (True, 5.0) and stage.complete()


def test_a_stage_that_grows_adds_the_seconds_of_its_growth(tmp_path, clock):
    small, large = (Stage("generate", tmp_path, {"images_per_class": number}, {}) for number in (5, 9))
    finish(small, clock, 50)
    clock.now += DAY
    pass_attempt(large, clock, 30)
    assert small.complete() and not large.complete()
    finish(small, clock, 1)
    assert told(small) == (True, 81.0)
    finish(large, clock, 10)
    assert told(large) == (True, 91.0) and large.complete()


def test_what_runs_again_with_any_settings_begins_anew_with_others_and_goes_on_with_its_own(tmp_path, clock):
    first, other = (Stage("study", tmp_path, {"grid": grid}, {}) for grid in (1, 2))
    first.start()
    write(tmp_path / "results.csv", clock.now + 40)
    clock.now += DAY
    finish(first, clock, 2, "start")
    assert told(first) == (True, 42.0)
    finish(other, clock, 7, "start")
    assert told(other) == (True, 7.0)


def test_a_stage_that_a_version_before_began_goes_on(tmp_path, clock):
    stage = Stage("train", tmp_path, {"rank": 4}, {})
    stage.open()
    record = read_json(stage.path)
    del record["attempt_began"]
    write_json(stage.path, {**record, "wall_time_s": None})
    os.utime(stage.path, (clock.now, clock.now))
    write(tmp_path / "state_0.safetensors", clock.now + 9)
    clock.now += DAY
    finish(stage, clock, 1)
    assert told(stage) == (True, 10.0)
