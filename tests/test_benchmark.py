"""The benchmark runs through on small numbers, and its random bases have the sizes of the published ones."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))


@pytest.mark.parametrize(("shape", "millions"), [("sd15", 859.5), ("sd21", 865.9)])
def test_a_random_base_has_as_many_weights_as_the_published_one(shape, millions):
    from benchmarks.shapes import build_unet

    with torch.device("meta"):
        assert sum(p.numel() for p in build_unet(shape).parameters()) / 1e6 == pytest.approx(millions, abs=0.1)


def test_the_arithmetic_is_that_of_the_published_shapes():
    from benchmarks.arithmetic import count_arithmetic

    rows = {
        line.split(" | ")[0].strip("| "): line.strip("| ").split(" | ")
        for line in count_arithmetic(790, (0.28, 5.42)).splitlines()
    }
    # Stable Diffusion 2.1 at 512 pixels: 804 GFLOP a call and 2.5 TFLOP to decode, as counted by others
    assert float(rows["sd21"][1]) == pytest.approx(804.3, abs=1) and float(rows["sd21"][3]) == pytest.approx(
        2514, abs=5
    )
    assert rows["sd21"][4] == "30" and rows["sd21"][6] == "29.7"
    assert float(rows["sd15"][2]) < float(rows["nano"][2]) < 1


def test_ways_are_timed_in_turns():
    from benchmarks.timing import in_turns, markdown

    order = []
    seconds = in_turns({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, repeats=3)
    assert order == ["a", "b"] * 3 and set(seconds) == {"a", "b"} and all(value >= 0 for value in seconds.values())
    assert markdown("T", ["x", "y"], [["1", "2"]]) == "**T**\n\n| x | y |\n|---|---|\n| 1 | 2 |\n"


@pytest.mark.slow
def test_the_whole_benchmark_runs(capsys):
    small = "--threads 1 --repeats 1 --shots 4 --adapter_steps 2 --images_per_class 10".split()
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "benchmark.py"), *small], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    for words in (
        "the works' way",
        "+ bfloat16",
        "scan: files",
        "Peak memory",
        "KID x 1000",
        "The whole job",
        "A batch",
        "Images at once",
        "torch.compile",
        "inner blocks in every third",
    ):
        assert words in done.stdout
