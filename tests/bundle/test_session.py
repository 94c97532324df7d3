import sys
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigWorkflow

from monai_synth.bundle import errors
from monai_synth.bundle.errors import raised_by_us, root_cause
from monai_synth.bundle.session import bundle_root, changed_parts, check_kept, check_keys, is_plain, plain_settings
from monai_synth.utils import read_json, write_json


@pytest.fixture
def workflow(tmp_path):
    def make(**override):
        config = {"imports": ["$import monai_synth"], "root": "$monai_synth.bundle.bundle_root()", "batch_size": 4}
        write_json(tmp_path / "configs" / "train.json", {**config, "train": {"trainer": {"_target_": "X"}}})
        write_json(tmp_path / "configs" / "evaluate.json", {"validate::handlers": []})
        return ConfigWorkflow(str(tmp_path / "configs" / "train.json"), logging_file=False, **override)

    return make


def test_a_bundle_knows_where_it_lies(workflow, tmp_path):
    running = workflow()
    running.parser.parse(True)
    running.run_id = "root"
    assert running.run() == [str(tmp_path)]
    assert bundle_root() == "."


def test_unknown_keys_name_the_nearest(workflow):
    check_keys(workflow(batch_size=8))
    check_keys(workflow(validate={"handlers": []}))
    with pytest.raises(ValueError, match="has the key 'batchsize' .did you mean 'batch_size'?"):
        check_keys(workflow(batchsize=8))
    with pytest.raises(ValueError, match="has the key 'zzz'. What may be set stands at the top"):
        check_keys(workflow(zzz=8))


def test_settings_are_what_builds_nothing():
    config = {
        "a": 1,
        "b": "$x",
        "c": "@a",
        "d": [1, "x"],
        "e": {"_target_": "X"},
        "f": {"g": None},
        "run": [],
        "h": ["$x"],
    }
    assert plain_settings(config) == {"a": 1, "d": [1, "x"], "f": {"g": None}}
    assert not is_plain(object())


def test_values_that_would_be_dropped_are_refused(workflow):
    check_kept(workflow(batch_size="$2 * 2", train={"trainer": object()}))  # an expression, and no setting
    for value in ({"phrase"}, ("a", {"phrase"}), {"a": [Path("x")]}):
        with pytest.raises(TypeError, match="(?s)batch_size is .* quoted twice on the command line"):
            check_kept(workflow(batch_size=value))


def test_the_first_error_of_a_chain_is_told():
    try:
        try:
            read_json(__file__)
        except ValueError as inner:
            raise RuntimeError("Failed to evaluate") from inner
    except RuntimeError as error:
        cause = root_cause(error)
    assert "is not a JSON file" in str(cause)  # not the JSON library's own words
    try:
        int("x")
    except ValueError as error:
        assert not raised_by_us(error)
    assert sys.excepthook is sys.__excepthook__  # nothing changes when MONAI is used from Python


def test_a_gpu_that_is_too_small_is_told_what_to_lower(capsys):
    try:
        try:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nmore")
        except torch.OutOfMemoryError as error:
            raise RuntimeError("Failed to evaluate 'train::trainer.run()'") from error
    except RuntimeError as error:
        errors._say(RuntimeError, error, error.__traceback__)
    said = capsys.readouterr().err
    assert said.startswith("\nError: CUDA out of memory. Tried to allocate 2 GiB. Of a classifier's training lower --b")


def test_only_the_parts_of_a_component_that_an_overlay_changes_count():
    own = {"dataset": {"_target_": "A", "size": 1}, "trainer": {"_target_": "B"}}
    changed = {"dataset": {"_target_": "A", "size": 2}, "trainer": {"_target_": "B"}}
    assert changed_parts(changed, own) == {"dataset": {"size": 2}}
    later = {key: {**value, "added": 0} for key, value in own.items()}  # the bundle of another version
    assert changed_parts({**later, "dataset": {**later["dataset"], "size": 2}}, later) == {"dataset": {"size": 2}}
    assert changed_parts({"trainer": {}}, own) == {"trainer": {"_target_": None}, "dataset": None}
    assert changed_parts([1], own) == [1]
