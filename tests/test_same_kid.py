"""The time to the same distance, on small numbers."""

import sys
from pathlib import Path

import pytest
import torch

from monai_synth.networks.adapter_files import ADAPTER_FILE

PROMPTS = {
    "colon_aca": "H&E histopathology, colon adenocarcinoma",
    "colon_n": "H&E histopathology, benign colon tissue",
}
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))


@pytest.mark.parametrize(
    ("base", "ours", "words"),
    [
        (90.0, [(10, 40.0), (20, 30.0)], "ours after 10.0 s (10 steps): 4.0x."),
        (90.0, [(10, 60.0), (20, 52.0)], "ours after 20.0 s (20 steps): 2.0x."),
        (90.0, [(10, 80.0), (20, 70.0)], "ours never is."),
        (90.0, [(10, 52.0), (200, 30.0)], "it takes 200.0 s for 30.00 +- 5.00: 0.2x, 0.4x against their nearest."),
        (54.0, [(10, 40.0)], "there is nothing to be reached"),
    ],
    ids=["sooner", "at the end of the interval", "never", "as shipped", "no room to fall"],
)
def test_the_verdict_compares_the_times_to_the_works_best(base, ours, words):
    from benchmarks.quality import Quality
    from benchmarks.same_kid import Checkpoint, verdict

    def points(way, values):
        return [Checkpoint(way, steps, float(steps), Quality(kid, 5.0, 1.0, 1.0)) for steps, kid in values]

    # the best is 50 after 80 s; its interval ends at 55, where the works are after 40 s
    text = verdict(Quality(base, 5.0, 1.0, 1.0), points("works", [(20, 70), (40, 54), (80, 50)]), points("ours", ours))
    assert text.startswith("The works' way is nearest after 80 steps, 50.00 +- 5.00.")
    assert words in text if base < 55 else text.endswith(words)


def test_time_to_the_same_distance(miniature, tmp_path):
    from benchmarks.generation import Setting
    from benchmarks.same_kid import benchmark_same_kid

    setting = Setting(miniature(), tmp_path, PROMPTS, 64, torch.device("cpu"), tmp_path)
    table = benchmark_same_kid(setting, 2, [2, 1], 3, (0.28, 5.42), patient=4, held_out=8)
    rows = [line.strip("| ").split(" | ")[:2] for line in table.splitlines()[4:9]]
    assert rows == [["the base alone", "0"], *([way, n] for way in ("the works' way", "ours") for n in ("1", "2"))]
    adapters = [tmp_path / "patient_4" / f"{way}_{n}" / ADAPTER_FILE for n in (1, 2) for way in ("works", "ours")]
    written = [path.stat().st_mtime_ns for path in adapters]
    assert written == sorted(written)  # in turns
    assert "The works' way is nearest after" in table
    names = {path.name for path in (tmp_path / "patient_4" / "colon_n").iterdir()}
    assert names == {f"colon_n_{index:05d}.png" for index in range(10)}  # 2 shots and 8 that judge
