"""Requests: what shall be drawn, with a seed for each image, and what of it is there already."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from torch.utils.data import Subset

from ..utils.io import sha256_of
from ..utils.processes import count, gathered, rank
from ..utils.seeds import derived_seed
from .class_names import unfit_class_names
from .prompts import with_attributes

logger = logging.getLogger(__name__)

JOURNAL = "journal.jsonl"
IMAGES_PER_FOLDER = 5000


class RequestPlan(Sequence):
    """One request for every image to be drawn, each made when it is asked for, so that a million take no memory.

    Args:
        class_names: the classes to be drawn, with their labels.
        prompts: prompt of each class.
        images_per_class: number of images of each class.
        seed: of the run.
        attributes: see `with_attributes`.
        num_shots: of each class, for drawing that begins on shots; empty begins with noise.
        image_format: "png" or "webp".
        places: which of all requests these are; None is all of them.
    """

    def __init__(
        self,
        class_names: Mapping[str, int],
        prompts: Mapping[str, str],
        images_per_class: int,
        seed: int,
        attributes: Mapping[str, Sequence[str]] | None,
        num_shots: Mapping[str, int],
        image_format: str,
        places: range | None = None,
    ) -> None:
        self.what = (class_names, prompts, images_per_class, seed, attributes, num_shots, image_format)
        self.classes = list(class_names.items())
        self.images_per_class = images_per_class
        self.places = range(len(self.classes) * images_per_class) if places is None else places

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, item: Any) -> Any:
        """The request at a place, or the plan of a slice."""
        if isinstance(item, slice):
            return RequestPlan(*self.what, self.places[item])
        _, prompts, _, seed, attributes, num_shots, image_format = self.what
        number, index = divmod(self.places[item], self.images_per_class)
        class_name, label = self.classes[number]
        own = derived_seed(seed, class_name, index)
        request = {
            "class_name": class_name,
            "label": label,
            "index": index,
            "prompt": with_attributes(prompts[class_name], attributes, own),
            "seed": own,
            "image": image_path(class_name, index, image_format),
        }
        if num_shots:
            request["shot"] = index % num_shots[class_name]
            request["shot_view"] = derived_seed(seed, class_name, index, "view") % 8
        return request

    def place_of(self, record: Mapping[str, Any]) -> int | None:
        """Where in the plan an image was asked for; None when it was not, or with another prompt or seed."""
        names = [name for name, _ in self.classes]
        if record["class_name"] not in names:
            return None
        index = index_of(record["image"])
        place = names.index(record["class_name"]) * self.images_per_class + index
        if index >= self.images_per_class or place not in self.places:
            return None
        position = self.places.index(place)
        request = self[position]
        return position if all(record[key] == request[key] for key in ("image", "prompt", "seed")) else None


def image_path(class_name: str, index: int, image_format: str) -> str:
    """Path of an image relative to the output folder.

    A class's first 5,000 images lie in its folder, every further 5,000 in one within it, since listing a folder of
    hundreds of thousands takes minutes on a shared file system. The path does not depend on how many are drawn.
    """
    number = index // IMAGES_PER_FOLDER
    folder = f"{class_name}/{number:04d}" if number else class_name
    return f"{folder}/{class_name}_{index:06d}.{image_format}"


def index_of(path: str) -> int:
    """The index of an image within its class, from its path."""
    return int(PurePosixPath(path).stem.rpartition("_")[2])


def plan_requests(
    class_names: Sequence[str],
    prompts: Mapping[str, str],
    images_per_class: int,
    seed: int,
    requested: Sequence[str] | None = None,
    attributes: Mapping[str, Sequence[str]] | None = None,
    shots: Sequence[Mapping[str, Any]] = (),
    image_format: str = "png",
) -> RequestPlan:
    """One request for every image to be drawn.

    An image's seed depends on the run's seed, its class and its index, so a longer plan begins with a shorter one.

    Args:
        class_names: in the order of their labels.
        prompts: prompt of each class.
        images_per_class: number of images of each class.
        seed: of the run.
        requested: the classes to be drawn; None is all of them.
        attributes: phrases of which one of each kind is added to a prompt, see `with_attributes`.
        shots: records of real images that drawing begins on, each class on its own in turn; none begins with noise.
        image_format: "png", or "webp" (lossless).

    Returns:
        Records with class_name, label, index, prompt, seed and the image's path relative to the output folder; with
        shots also "shot", which of its class's it is, and "shot_view", which of its 8 flips and quarter turns.

    Raises:
        KeyError: for a class without a prompt.
        ValueError: for a class name that `unfit_class_names` finds, or a class without a shot where others have some.
    """
    unfit = unfit_class_names(class_names)
    if unfit:
        raise ValueError("\n".join(f"The class name {name!r} {message}" for name, message in unfit.items()))
    wanted = class_names if requested is None else requested
    missing = [name for name in wanted if name not in prompts]
    if missing:
        raise KeyError(f"There is no prompt for {missing}. Prompts are known for {sorted(prompts)}.")

    num_shots = Counter(shot["class_name"] for shot in shots)
    without = [name for name in wanted if num_shots and not num_shots[name]]
    if without:
        raise ValueError(f"There are no shots of {without} to begin on. Set start_sigma to null to begin with noise.")
    labels = {name: label for label, name in enumerate(class_names) if name in wanted}
    return RequestPlan(labels, prompts, images_per_class, seed, attributes, num_shots, image_format)


def journal_of(output_dir: str | Path, process: int) -> Path:
    """The journal that a process writes; each has its own, so that no line is torn by another."""
    return Path(output_dir) / (JOURNAL if process == 0 else f"journal.{process}.jsonl")


def journals_of(output_dir: str | Path) -> list[Path]:
    """The journals of all processes that have drawn into a folder."""
    return sorted(Path(output_dir).glob("journal*.jsonl"))


def journal_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The records of one journal, each with the place of its line in bytes; a torn line is passed over."""
    if not path.exists():
        return
    with open(path, "rb") as file:
        place = 0
        for line in file:
            try:
                yield place, json.loads(line)
            except ValueError:  # no JSON, or half of a letter
                logger.warning("%s has a torn line; its image is drawn again.", path)
            place += len(line)


def pending_requests(requests: RequestPlan, output_dir: str | Path) -> Subset:
    """The requests whose image is not there yet, whole and as it was written.

    Nine bytes of memory for each image; the journals are read line by line.

    Args:
        requests: from `plan_requests`, or a slice of them.
        output_dir: where `SampleSaver` writes.
    """
    done = np.zeros(len(requests), dtype=bool)
    for journal in journals_of(output_dir):
        for _, record in journal_lines(journal):
            place = requests.place_of(record)
            if place is not None and not done[place]:
                path = Path(output_dir) / record["image"]
                done[place] = path.exists() and sha256_of(path) == record["sha256"]
    return Subset(requests, np.flatnonzero(~done))  # type: ignore[arg-type]  # any sequence will do


def own_requests(requests: RequestPlan, output_dir: str | Path) -> Subset:
    """This process's part of the requests whose image is not there yet.

    Each process looks for its part of the images, and what is missing is shared anew, so that after a restart none has
    nothing to do while another draws alone.

    Args:
        requests: all of them, from `plan_requests`.
        output_dir: where `SampleSaver` writes.
    """
    part = RequestPlan(*requests.what, requests.places[rank() :: count()])
    missing = rank() + count() * np.asarray(pending_requests(part, output_dir).indices, dtype=np.int64)
    everywhere = np.sort(np.concatenate(gathered(missing)))
    return Subset(requests, everywhere[rank() :: count()])  # type: ignore[arg-type]  # any sequence will do
