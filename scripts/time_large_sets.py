"""Times what grows with data sets and studies: prints numbers of docs/leaks.md, assessment.md, performance.md and
studies.md.

    python scripts/time_large_sets.py --parts scan grouping plan quality study
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from monai.bundle import ConfigWorkflow
from monai.engines.workflow import Workflow
from PIL import Image
from tqdm import tqdm

from monai_synth.bundle.stages import execute
from monai_synth.bundle.study import _Runs
from monai_synth.data import plan_requests
from monai_synth.data.images import look_at
from monai_synth.data.near_duplicates import ring_series
from monai_synth.data.phantom import draw_phantom, write_phantoms
from monai_synth.metrics.quality import ImageSet, quality
from monai_synth.utils.cores import usable_cores
from monai_synth.utils.memory import peak_host_bytes

ROOT = Path(__file__).resolve().parents[1]
STRONG = str(ROOT / "configs" / "augmentation" / "strong.yaml")
PARTS = ("scan", "grouping", "plan", "quality", "study")
SIBLINGS = 20  # tiles of one original
ORIGINALS = 40  # phantoms of which tiles are made by shifting


def write_tiles(folder: Path, count: int, size: int) -> list[Path]:
    """JPEG tiles of two classes, every one another."""
    rng = np.random.default_rng(0)
    drawn = [draw_phantom("colon_aca", seed, size=224).transpose(1, 2, 0) for seed in range(ORIGINALS)]
    originals = [np.asarray(Image.fromarray((x * 255).astype(np.uint8)).resize((size, size))) for x in drawn]
    paths = []
    for index in range(count):
        path = folder / "ab"[index % 2] / f"{index:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        tile = np.roll(originals[rng.integers(ORIGINALS)], rng.integers(0, size, 2), (0, 1)).copy()
        tile[:2, :8] = rng.integers(0, 255, (2, 8, 3))
        Image.fromarray(tile).save(path, quality=85)
        paths.append(path)
    return paths


def time_scan(count: int) -> None:
    """Checking a folder, near-duplicates apart; and the cost of one large tile."""
    with tempfile.TemporaryDirectory() as name:
        write_tiles(Path(name), count, 224)
        told = alone(f"from monai_synth.data import check; check({name!r}, find_duplicates=False)")
        print(f"checking {count} tiles of 224 pixels: {told}, a thread for each of {usable_cores()} cores")
    with tempfile.TemporaryDirectory() as name:
        large = write_tiles(Path(name), 80, 768)
        for what, function in (("sampling", ring_series), ("hashing", look_at)):
            start = time.perf_counter()
            for path in large:
                function(path)
            print(
                f"{what} a tile of 768 pixels: {1000 * (time.perf_counter() - start) / len(large):.1f} ms, one thread"
            )


def time_grouping(count: int) -> None:
    """Grouping `count` tiles of 768 pixels from files, 20 of each original: flipped, turned, recompressed."""
    with tempfile.TemporaryDirectory() as name:
        with ThreadPoolExecutor(2) as pool:
            written = pool.map(lambda number: write_siblings(Path(name), number), range(count // SIBLINGS))
            paths = [path for some in tqdm(written, total=count // SIBLINGS, desc="writing") for path in some]
        size, found = sum(path.stat().st_size for path in paths) / len(paths), Path(name, "groups.npy")
        code = "from pathlib import Path; import numpy as np; from monai_synth.data import near_duplicates; "
        code += f"paths = sorted(Path({name!r}).glob('*.jpg')); "
        told = alone(f"{code}np.save({str(found)!r}, near_duplicates.find_near_duplicates(paths).groups)")
        groups = np.load(found).reshape(-1, SIBLINGS)
    main_groups, sizes = zip(*(Counter(of_one.tolist()).most_common(1)[0] for of_one in groups))
    print(
        f"grouping {len(paths)} tiles of 768 pixels ({size / 1024:.0f} kB each): {told}; "
        f"{len(paths) - sum(sizes)} siblings outside their group, "
        f"{len(groups) - len(set(main_groups))} originals joined"
    )


def write_siblings(folder: Path, number: int) -> list[Path]:
    """One original and its siblings as JPEG files; grain makes them as costly to decode as a scanner's tiles."""
    rng, classes = np.random.default_rng(number), ("colon_aca", "colon_n", "lung_aca", "lung_n", "lung_scc")
    drawn = draw_phantom(classes[number % len(classes)], number, size=224).transpose(1, 2, 0)
    large = np.asarray(Image.fromarray((drawn * 255).astype(np.uint8)).resize((768, 768)), dtype=np.float32)
    original = np.clip(large + rng.normal(0, 6, large.shape), 0, 255).astype(np.uint8)
    paths = [folder / f"{number:05d}_{sibling:02d}.jpg" for sibling in range(SIBLINGS)]
    for sibling, path in enumerate(paths):
        turned = np.rot90(original, sibling % 4)
        turned = turned[:, ::-1] if sibling % 8 > 3 else turned
        Image.fromarray(np.ascontiguousarray(turned)).save(path, quality=int(rng.integers(60, 95)))
    return paths


def time_plan(count: int) -> None:
    """Planning `count` images, as generate.json does before it draws the first, and all that follows the last."""
    code = "from monai_synth.data import own_requests, plan_requests; "
    plan = f"plan_requests(['a', 'b'], {{'a': 'an a', 'b': 'a b'}}, {count // 2}, seed=0)"
    print(f"planning {count} images: {alone(f'{code}assert len(own_requests({plan}, {str(ROOT)!r})) == {count}')}")
    with tempfile.TemporaryDirectory() as name:
        journal = write_journal(Path(name), count)
        print(f"a line of the journal: {journal.stat().st_size / count:.0f} bytes")
        # no image is there, so none is hashed: that takes the time of reading them
        print(f"going on with {count} noted images: {alone(f'{code}own_requests({plan}, {name!r})')}")
        code = f"from monai_synth.handlers import write_synthetic_datalist as write; write({name!r}, ['a', 'b'])"
        print(f"the datalist of {count} images: {alone(code)}")


def write_journal(folder: Path, count: int) -> Path:
    """A journal of two classes' images, as `SampleSaver` notes them."""
    shared = {
        "origin": "synthetic",
        "guidance_scale": 2.0,
        "guidance_interval": [0.28, 5.42],
        "scheduler": "dpmsolver++",
        "num_inference_steps": 20,
        "start_sigma": None,
        "cache_interval": 1,
        **{name: "0" * 64 for name in ("adapter", "few_step_adapter", "base", "sha256")},
    }
    requests = plan_requests(["a", "b"], {"a": "H&E, a", "b": "H&E, b"}, count // 2, seed=0)
    with open(folder / "journal.jsonl", "w") as file:
        file.writelines(json.dumps({**request, **shared}) + "\n" for request in requests)
    return folder / "journal.jsonl"


def alone(code: str) -> str:
    """How long a program takes in a process of its own, and the most memory that it holds, its libraries included."""
    start = time.perf_counter()
    peak = "from monai_synth.utils.memory import peak_host_bytes; print(peak_host_bytes() or 0)"
    said = subprocess.run([sys.executable, "-c", f"{code}; {peak}"], check=True, capture_output=True, text=True).stdout
    return f"{time.perf_counter() - start:.1f} s, {int(said) / 2**20:.0f} MB at most, all libraries included"


def time_quality(count: int) -> None:
    """The quality of synthetic images whose features are at hand."""
    rng = np.random.default_rng(0)
    labels = np.arange(count) % 4
    groups = np.array([f"g{index // 5}" for index in range(count)])
    real, drawn = (ImageSet(rng.standard_normal((count, 368)) + shift, labels, groups) for shift in (0.0, 0.1))
    start = time.perf_counter()
    quality(real, drawn, ["a", "b", "c", "d"])
    print(f"quality of 2 x {count} images: {time.perf_counter() - start:.1f} s")


def time_study(draws: int) -> None:
    """What a study takes for each of its runs apart from the engines that train and evaluate, in the median."""
    engines, runs = Stopwatch(Workflow, "run"), Stopwatch(_Runs, "run")
    with tempfile.TemporaryDirectory() as name:
        data = Path(name, "data")
        write_phantoms(data, ["lymphocyte", "neutrophil"], images_per_class=40, num_patients=10, size=128)
        workflow = ConfigWorkflow(
            config_file=str(ROOT / "bundles" / "wbc" / "configs" / "study.json"),
            workflow_type="train",
            dataset_dir=str(data),
            output_dir=str(Path(name, "study")),
            grid={"fold": [0], "seed": list(range(draws)), "shots": [5], "synthetic_per_class": [0]},
            arms={"real": {"mixing": "none"}, "strong": {"mixing": "none", "overlay": STRONG}},
        )
        workflow.parser.update({"classifier_steps": 5})
        execute(workflow)
    apart = np.median(np.array(runs.spent) - np.reshape(engines.spent, (2 * draws, -1)).sum(axis=1))
    print(f"study of {2 * draws} runs, two evaluations each: {apart:.2f} s a run apart from the engines")


class Stopwatch:
    """Notes how long every call of a method takes; one within another, such as a trainer's validator, is not noted.

    Args:
        owner: class of the method, which it replaces.
        name: of the method.
    """

    def __init__(self, owner: Any, name: str) -> None:
        self.spent: list[float] = []
        self.depth = 0
        method = getattr(owner, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            start, self.depth = time.perf_counter(), self.depth + 1
            result = method(*args, **kwargs)
            self.depth -= 1
            if not self.depth:
                self.spent.append(time.perf_counter() - start)
            return result

        setattr(owner, name, timed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--tiles", type=int, default=20_000)
    parser.add_argument("--grouped", type=int, default=25_000)
    parser.add_argument("--planned", type=int, default=1_000_000, help="images to be drawn")
    parser.add_argument("--judged", type=int, default=5_000, help="images on each side")
    parser.add_argument("--draws", type=int, default=6, help="draws of the study's shots")
    options = parser.parse_args()
    parts = {
        "scan": lambda: time_scan(options.tiles),
        "grouping": lambda: time_grouping(options.grouped),
        "plan": lambda: time_plan(options.planned),
        "quality": lambda: time_quality(options.judged),
        "study": lambda: time_study(options.draws),
    }
    for part in options.parts:
        parts[part]()
    print(f"peak memory: {(peak_host_bytes() or 0) / 2**20:.0f} MB")


if __name__ == "__main__":
    main()
