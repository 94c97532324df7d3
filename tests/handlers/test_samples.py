"""Handlers around a generation, on a random miniature."""

import json
import time
from collections import Counter
from pathlib import Path

import pytest
import torch
from ignite.engine import Engine, Events
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator
from PIL import Image

from monai_synth.data import is_marked_synthetic, load_datalist, pending_requests, plan_requests
from monai_synth.data import requests as plans
from monai_synth.data.requests import JOURNAL
from monai_synth.engines import SamplingPrepareBatch
from monai_synth.handlers import SampleGrid, SampleSaver, write_synthetic_datalist
from monai_synth.inferers import SamplingInferer
from monai_synth.networks import Denoiser, LatentDiffusion
from monai_synth.utils import sha256_of

REQUESTS = plan_requests(["a", "b"], {"a": "an a", "b": "a b"}, 3, seed=0)


@pytest.fixture
def run(miniature):
    diffusion = LatentDiffusion(str(miniature()))

    def run(folder, batch_size=2, requests=REQUESTS):
        SupervisedEvaluator(
            device="cpu",
            val_data_loader=DataLoader(Dataset(pending_requests(requests, folder)), batch_size=batch_size),
            network=Denoiser(diffusion),
            prepare_batch=SamplingPrepareBatch(diffusion, 32),
            inferer=SamplingInferer(diffusion, num_inference_steps=2),
            val_handlers=[SampleSaver(folder, {"guidance_scale": 2.0, "adapter": "none"})],
            decollate=False,
        ).run()
        write_synthetic_datalist(folder, ["a", "b"])
        return {path.name: sha256_of(path) for path in folder.rglob("*.png")}

    return run


def test_every_image_is_marked_and_recorded(run, tmp_path):
    hashes = run(tmp_path)
    records = load_datalist(tmp_path / "datalist.json")
    assert Counter(record["class_name"] for record in records) == {"a": 3, "b": 3}
    for record, request in zip(records, REQUESTS):
        assert record["origin"] == "synthetic" and record["guidance_scale"] == 2.0
        assert (record["seed"], record["prompt"], record["label"]) == (
            request["seed"],
            request["prompt"],
            request["label"],
        )
        assert is_marked_synthetic(record["image"])
        assert record["sha256"] == hashes[record["image"].rsplit("/", 1)[1]]


def test_images_that_no_journal_notes_are_missed_and_drawn_again(run, tmp_path):
    hashes = run(tmp_path)
    before, journal = (tmp_path / "datalist.json").read_bytes(), tmp_path / JOURNAL
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join([*lines[:3], lines[5], lines[5]]))  # two of class b are noted nowhere, one twice
    with pytest.raises(RuntimeError, match="note 1 of 'b', but 3 images of each class were asked for.*Run the same"):
        write_synthetic_datalist(tmp_path, ["a", "b"], REQUESTS)
    assert (tmp_path / "datalist.json").read_bytes() == before
    assert run(tmp_path).keys() == hashes.keys()
    write_synthetic_datalist(tmp_path, ["a", "b"], REQUESTS)
    fewer = plan_requests(["a", "b"], {"a": "an a", "b": "a b"}, 2, seed=0)
    write_synthetic_datalist(tmp_path, ["a", "b"], fewer)  # more than were asked for are no fault
    assert len(load_datalist(tmp_path / "datalist.json")) == 6


def test_any_batch_size_draws_the_same_images(run, tmp_path):
    run(tmp_path / "two")
    run(tmp_path / "five", batch_size=5)
    for path in (tmp_path / "two").rglob("*.png"):
        twin = tmp_path / "five" / path.relative_to(tmp_path / "two")
        first, second = (torch.tensor(list(Image.open(name).tobytes())) for name in (path, twin))
        assert int((first - second).abs().max()) <= 1


def test_a_killed_generation_goes_on_and_ends_with_the_same_files(run, tmp_path):
    whole = run(tmp_path / "whole", batch_size=1)
    run(tmp_path / "part", batch_size=1)
    lines = (tmp_path / "part" / JOURNAL).read_text().splitlines()
    (tmp_path / "part" / JOURNAL).write_text("\n".join(lines[:2]) + "\n" + lines[2][:30])  # torn while noting the third
    (tmp_path / "part" / "b" / "b_000002.png").unlink()
    (tmp_path / "part" / "datalist.json").unlink()
    assert run(tmp_path / "part", batch_size=1) == whole
    records = load_datalist(tmp_path / "part" / "datalist.json")
    assert sorted(record["sha256"] for record in records) == sorted(whole.values())


def test_a_longer_plan_keeps_what_is_there(run, tmp_path):
    before = run(tmp_path, batch_size=1)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.png")}
    longer = plan_requests(["a", "b"], {"a": "an a", "b": "a b"}, 4, seed=0)
    after = run(tmp_path, batch_size=1, requests=longer)
    assert len(after) == 8 and before.items() <= after.items()
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())


def test_a_writer_that_fails_stops_the_run_and_loses_nothing(run, tmp_path, monkeypatch):
    from monai_synth.handlers import sample_saver

    write, calls = sample_saver.write_synthetic_image, []

    def full(path, image):
        calls.append(path)
        if len(calls) == 4:
            raise OSError(28, "No space left on device")
        write(path, image)

    monkeypatch.setattr(sample_saver, "write_synthetic_image", full)
    with pytest.raises(OSError, match="No space left"):
        run(tmp_path, batch_size=1)
    noted = [json.loads(line) for line in (tmp_path / JOURNAL).read_text().splitlines()]
    assert noted and all(sha256_of(tmp_path / record["image"]) == record["sha256"] for record in noted)
    assert not list(tmp_path.rglob("*.part*"))
    monkeypatch.setattr(sample_saver, "write_synthetic_image", write)
    assert len(run(tmp_path, batch_size=1)) == 6


def test_images_of_further_folders_follow_in_the_datalist(run, tmp_path, monkeypatch):
    monkeypatch.setattr(plans, "IMAGES_PER_FOLDER", 2)
    run(tmp_path)
    drawn = [
        Path(record["image"]).relative_to(tmp_path).as_posix() for record in load_datalist(tmp_path / "datalist.json")
    ]
    assert drawn[:3] == ["a/a_000000.png", "a/a_000001.png", "a/0001/a_000002.png"]


def test_an_image_that_was_lost_and_drawn_anew_by_another_process_is_noted_as_it_is(run, tmp_path):
    hashes = run(tmp_path)
    lines = (tmp_path / JOURNAL).read_text().splitlines(keepends=True)
    stale = json.dumps({**json.loads(lines[0]), "sha256": "0" * 64}) + "\n"
    for name in ("journal.1.jsonl", "journal.z.jsonl"):  # before and after the true one
        (tmp_path / name).write_text(stale)
        write_synthetic_datalist(tmp_path, ["a", "b"])
        records = load_datalist(tmp_path / "datalist.json")
        assert len(records) == 6 and records[0]["sha256"] == hashes["a_000000.png"]


def test_drawing_waits_for_writers_that_cannot_keep_up(run, tmp_path, monkeypatch):
    from monai_synth.handlers import sample_saver

    fast = run(tmp_path / "fast")
    write, waiting = sample_saver.write_synthetic_image, []

    def slow(path, image):
        time.sleep(0.2)
        write(path, image)

    flush = SampleSaver.flush
    monkeypatch.setattr(sample_saver, "write_synthetic_image", slow)
    monkeypatch.setattr(SampleSaver, "flush", lambda self: waiting.append(len(self.waiting)) or flush(self))
    assert run(tmp_path / "slow") == fast
    assert max(waiting) == 2  # one batch, however far the writers lag behind


def test_the_grid_shows_the_same_seeds_every_time(miniature, tmp_path):
    diffusion = LatentDiffusion(str(miniature()))
    network = Denoiser(diffusion)
    inferer = SamplingInferer(diffusion, num_inference_steps=2)
    grid = SampleGrid(network, SamplingPrepareBatch(diffusion, 32), inferer, ["a", "b"], tmp_path, num_columns=3)
    engine = type("Engine", (), {"state": type("State", (), {"iteration": 5})})
    grid(engine)
    first = (tmp_path / "samples_000005.png").read_bytes()
    assert Image.open(tmp_path / "samples_000005.png").size == (3 * 34 + 2, 2 * 34 + 2)
    engine.state.iteration = 6
    grid(engine)
    assert (tmp_path / "samples_000006.png").read_bytes() == first


def test_no_grid_is_drawn_when_none_is_wanted():
    engine = Engine(lambda *_: None)
    SampleGrid(None, None, None, ["a"], "nowhere", every=0).attach(engine)  # would fail if it drew
    engine.run([0], max_epochs=2)


@pytest.mark.parametrize("reached, drawn", [(0, [2, 4]), (4, [2, 4]), (5, [4]), (6, [4])])
def test_a_grid_that_a_stop_prevented_is_drawn_when_the_training_goes_on(monkeypatch, reached, drawn):
    """`reached` steps of two an epoch; a grid every second epoch."""
    grids = []
    monkeypatch.setattr(SampleGrid, "__call__", lambda self, engine: grids.append(engine.state.epoch))
    engine = Engine(lambda *_: None)

    def restore(engine):
        engine.state.epoch, engine.state.iteration = reached // 2, reached

    engine.add_event_handler(Events.STARTED, restore)
    SampleGrid(None, None, None, ["a"], "nowhere", every=2).attach(engine)
    engine.run([0, 1], max_epochs=4)
    assert grids == [*drawn, 4]  # the end always gets one, which is there by then
