"""Generated images on their way to the disk."""

from __future__ import annotations

import json
from array import array
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from ignite.engine import Engine, Events
from monai.utils import CommonKeys as Keys
from torch import Tensor

from ..data.records import save_synthetic_datalist
from ..data.requests import RequestPlan, index_of, journal_lines, journal_of, journals_of
from ..data.synthetic_image import write_synthetic_image
from ..utils.io import atomic_path, sha256_of
from ..utils.processes import first_only, rank, wait_for_all

REQUEST = (
    "image",
    "class_name",
    "label",
    "prompt",
    "seed",
    "shot",
    "shot_view",
)  # what is noted of it; no name of a file


class SampleSaver:
    """Writes every generated image as a marked PNG or lossless WebP and notes it in a journal.

    The journal gets its line after the image is on the disk, so that a killed run goes on without a gap or a double.
    When all processes have drawn, `write_synthetic_datalist` makes a datalist of their journals.

    Args:
        output_dir: gets a folder for each class and `journal.jsonl`.
        settings: what all images share and the datalist states: guidance_scale, num_inference_steps, adapter, base.
        num_threads: writers beside the generator.
    """

    def __init__(self, output_dir: str | Path, settings: dict[str, Any], num_threads: int = 2) -> None:
        self.output_dir = Path(output_dir)
        self.settings = settings
        self.num_threads = num_threads
        self.pool: ThreadPoolExecutor | None = None
        self.waiting: list[Future] = []
        self.journal = journal_of(self.output_dir, 0)

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self.open)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)
        engine.add_event_handler(Events.COMPLETED, self.close)

    def open(self, engine: Engine) -> None:
        """Starts the writers, on a journal whose every line is whole."""
        self.output_dir.mkdir(parents=True, exist_ok=True)
        self.journal = journal_of(self.output_dir, rank())
        with atomic_path(self.journal) as temporary, open(temporary, "w", encoding="utf-8") as file:
            for _, record in journal_lines(self.journal):
                file.write(_line(record))
        self.pool = ThreadPoolExecutor(self.num_threads)

    def __call__(self, engine: Any) -> None:
        self.flush()  # at most one batch waits
        # one copy, while a GPU has nothing else to do: a writer's own would wait for the batch after
        batch, images = engine.state.batch, engine.state.output[Keys.PRED].cpu()
        if self.pool is None:
            raise RuntimeError("SampleSaver writes only within an engine's run.")
        for position, image in enumerate(images):
            request = {key: _plain(batch[key][position]) for key in REQUEST if key in batch}
            self.waiting.append(self.pool.submit(self.write, image, request))

    def write(self, image: Tensor, request: dict[str, Any]) -> dict[str, Any]:
        """Writes one image and gives its record."""
        path = self.output_dir / request["image"]
        write_synthetic_image(path, image)
        return {**request, "origin": "synthetic", **self.settings, "sha256": sha256_of(path)}

    def flush(self) -> None:
        """Waits for the writers and notes what they wrote; a writer's error is raised here."""
        records = [future.result() for future in self.waiting]
        self.waiting = []
        if not records:
            return
        with open(self.journal, "a", encoding="utf-8") as file:
            file.write("".join(map(_line, records)))
            file.flush()

    def close(self, engine: Engine) -> None:
        """Ends the writers."""
        self.flush()
        if self.pool is not None:
            self.pool.shutdown()
            self.pool = None


def write_synthetic_datalist(
    output_dir: str | Path, class_names: list[str], requests: RequestPlan | None = None
) -> Path:
    """Writes `datalist.json` over all images in a folder's journals when every process has drawn its own.

    Args:
        output_dir: where the journals lie.
        class_names: in the order of their labels.
        requests: all that was asked for; None takes what there is.

    Returns:
        Its path.

    Raises:
        RuntimeError: when an image that was asked for is in no journal; nothing is written.
    """
    output_dir = Path(output_dir)
    path = output_dir / "datalist.json"
    wait_for_all()
    records = drawn_in_order(output_dir)
    complete = records if requests is None else all_of(requests, records, output_dir)
    first_only(lambda: save_synthetic_datalist(path, complete, class_names))
    return path


def all_of(requests: RequestPlan, records: Iterator[dict[str, Any]], output_dir: Path) -> Iterator[dict[str, Any]]:
    """Records, each image once, and at their end the certainty that all that was asked for is among them.

    Raises:
        RuntimeError: when it is not; says how many images of each class are missing.
    """
    found: Counter[str] = Counter()
    for record in records:
        found[record["class_name"]] += index_of(record["image"]) < requests.images_per_class
        yield record
    short = [name for name, _ in requests.classes if found[name] < requests.images_per_class]
    if short:
        counts = ", ".join(f"{found[name]} of {name!r}" for name in short)
        raise RuntimeError(
            f"The journals (journal*.jsonl) in {output_dir} note {counts}, but {requests.images_per_class} images of "
            "each class were asked for. A journal was removed, or the file system does not show all of them yet. Run "
            "the same command again: what is missing is drawn."
        )


def drawn_in_order(output_dir: Path) -> Iterator[dict[str, Any]]:
    """The records of all images in a folder's journals by label and index, without holding them in memory.

    An image that was lost and drawn again stands in several lines; the one that its file agrees with counts.
    """
    journals = journals_of(output_dir)
    numbers = array("q")
    for number, journal in enumerate(journals):
        for place, record in journal_lines(journal):
            numbers.extend((record["label"], index_of(record["image"]), number, place))
    rows = np.asarray(numbers, dtype=np.int64).reshape(-1, 4)
    rows = rows[np.lexsort(rows.T[::-1])]
    files = [open(journal, "rb") for journal in journals]
    try:
        for _, same in groupby(rows, key=lambda row: (row[0], row[1])):
            lines = []
            for _, _, number, place in same:
                files[number].seek(place)
                lines.append(json.loads(files[number].readline()))
            yield lines[0] if len(lines) == 1 else _true_one(output_dir, lines)
    finally:
        for file in files:
            file.close()


def _true_one(output_dir: Path, records: list[dict[str, Any]]) -> dict[str, Any]:
    path = output_dir / records[0]["image"]
    sha256 = sha256_of(path) if path.exists() else None  # of an image that nobody asks for any more
    return next((record for record in records if record["sha256"] == sha256), records[-1])


def _line(record: dict[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, Tensor) else value
