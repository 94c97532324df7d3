"""The filter between generation and training: what is not fit is sorted out, with its reason, and replaced."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from monai.bundle import ConfigParser, ConfigWorkflow

from ..data.feature_store import FeatureStore
from ..data.images import read_image
from ..data.records import Record, by_number, class_names_of, load_datalist, save_datalist, select, turned
from ..metrics.filters import FEWEST_FOR_LABELS, FILTERS, REASONS, Limits, failing, real_limits
from ..report.tables import write_rows
from ..utils.cores import usable_cores
from ..utils.io import write_json
from .assessment import image_set
from .nesting import nested_workflow
from .stages import bring_up_to_date, required_workflow

logger = logging.getLogger(__name__)
MOST_CANDIDATES = 5  # images drawn for each one that is asked for, at the most


def filter_images() -> Path:
    """Sorts the synthetic images of the running config by its `filter` and has the missing ones drawn anew.

    Writes `datalist.json` with `images_per_class` images of each class, `filter.json` with limits and counts, and
    `rejected.csv` with the reason of every image that was sorted out.

    Returns:
        The path of the datalist.

    Raises:
        ValueError: when too few images of a class pass, even of five times as many; says what they failed by.
    """
    workflow = required_workflow("filter_images")
    parser = workflow.parser
    asked = int(parser.get_parsed_content("images_per_class"))
    steps = FILTERS[parser.get_parsed_content("filter")]
    class_names = class_names_of(parser.get_parsed_content("datalist_path"))
    candidates = asked
    while True:
        drawn = candidate_records(Path(parser.get_parsed_content("synthetic_dir")), class_names, candidates)
        store = encoded(workflow)
        verdicts, limits = judged(parser, store, drawn, steps, class_names)
        passed = Counter(record["class_name"] for record, verdict in zip(drawn, verdicts) if verdict is None)
        short = {name: passed[name] for name in class_names if passed[name] < asked}
        if not short:
            break
        if candidates >= MOST_CANDIDATES * asked:
            raise ValueError(too_few(short, asked, candidates, drawn, verdicts, parser.get_parsed_content("filter")))
        share = max(min(short.values()) / candidates, 1 / MOST_CANDIDATES)
        candidates = min(max(math.ceil(1.1 * asked / share), candidates + 1), MOST_CANDIDATES * asked)
        logger.info("Of %d images %s pass; %d of each class are drawn in all.", len(drawn), short, candidates)
        bring_up_to_date(workflow, "generate", images_per_class=candidates)
    return written(Path(parser.get_parsed_content("filter_dir")), drawn, verdicts, limits, steps, class_names, asked)


def candidate_records(synthetic_dir: Path, class_names: Sequence[str], per_class: int) -> list[Record]:
    """The first images of each class in the order in which they were drawn."""
    records = sorted(load_datalist(synthetic_dir / "datalist.json"), key=by_number)
    return [record for name in class_names for record in [r for r in records if r["class_name"] == name][:per_class]]


def encoded(workflow: ConfigWorkflow, name: str = "filter") -> FeatureStore:
    """The feature store of a config after its engine has encoded the images that are not in it yet."""
    nested = nested_workflow(workflow, [name])
    nested.parser.parse(reset=True)
    if len(nested.parser.get_parsed_content("dataset")):
        nested.parser.get_parsed_content("evaluator").run()
    return nested.parser.get_parsed_content("store")


def judged(
    parser: ConfigParser, store: FeatureStore, drawn: Sequence[Record], steps: Sequence[str], class_names: Sequence[str]
) -> tuple[list[tuple[str, float, float] | None], Limits]:
    """The verdict on each synthetic image, and the limits that the real images set."""
    real = load_datalist(parser.get_parsed_content("datalist_path"))
    shots, judges = select(real, "shots"), select(real, "val")
    sets = [image_set(store, members, class_names) for members in (shots, judges, drawn)]
    views = store.features(turned(shots))
    limits = real_limits(
        sets[0], views, sets[1], contrasts([*shots, *judges]), class_names, parser.get_parsed_content("filter_quantile")
    )
    return failing(steps, limits, sets[0], views, sets[2], contrasts(drawn), class_names), limits


def contrasts(records: Sequence[Record]) -> np.ndarray:
    """Standard deviation of the grey values of images, shape (N,), for values in [0, 1]."""
    with ThreadPoolExecutor(usable_cores()) as pool:
        values = list(pool.map(lambda record: float(read_image(record["image"]).mean(0).std()), records))
    return np.asarray(values)


def too_few(
    short: dict[str, int],
    asked: int,
    candidates: int,
    drawn: Sequence[Record],
    verdicts: Sequence[tuple[str, float, float] | None],
    policy: str,
) -> str:
    """The message for a filter that hardly any image passes."""
    name = min(short, key=lambda name: short[name])
    failed = Counter(v[0] for record, v in zip(drawn, verdicts) if v is not None and record["class_name"] == name)
    reasons = "; ".join(f"{count} are {REASONS[step]}" for step, count in failed.most_common())
    return (
        f"Of {candidates} images of {name!r} only {short[name]} pass the filter {policy!r}, but {asked} are asked for. "
        f"{reasons}. The generator does not draw this class well enough: fine-tune it longer or with more shots, lower "
        f"--filter_quantile, or use --filter copies or none. Filters are {', '.join(FILTERS)}."
    )


def left_out(steps: Sequence[str], limits: Limits, class_names: Sequence[str]) -> list[str]:
    """A sentence for each reason for which steps were left out."""
    notes = []
    if "label" in steps and limits.label is None:
        notes.append(f"The step label was left out: it needs {FEWEST_FOR_LABELS} shots of every class.")
    few = {name: int(n) for name, n, limit in zip(class_names, limits.judges, limits.radius) if np.isnan(limit)}
    without = [step for step in ("label", "radius") if step in steps and getattr(limits, step) is not None]
    if few and without:
        named = ", ".join(f"{name!r} ({count} validation images)" for name, count in few.items())
        enough = math.ceil(1000 / (min(few.values()) + 1)) / 1000
        notes.append(
            f"No limit of {' and '.join(without)} was set for {named}: one of n images refuses about one in n + 1 "
            f"real ones, which is more than filter_quantile. Add images, or set --filter_quantile to {enough} or more."
        )
    return notes


def _by_class(class_names: Sequence[str], limits: np.ndarray) -> dict[str, float | None]:
    return {name: None if np.isnan(limit) else float(limit) for name, limit in zip(class_names, limits)}


def written(
    folder: Path,
    drawn: Sequence[Record],
    verdicts: Sequence[tuple[str, float, float] | None],
    limits: Limits,
    steps: Sequence[str],
    class_names: Sequence[str],
    asked: int,
) -> Path:
    """Writes what a filter found and the datalist of the images that it lets pass."""
    accepted: list[Record] = []
    for name in class_names:
        passing = (r for r, v in zip(drawn, verdicts) if v is None and r["class_name"] == name)
        accepted += list(passing)[:asked]
    left, funnel = len(drawn), [{"step": "drawn", "left": len(drawn), "rejected": 0}]
    for step in steps:
        failed = sum(verdict is not None and verdict[0] == step for verdict in verdicts)
        left -= failed
        funnel.append({"step": step, "left": left, "rejected": failed})
    funnel.append({"step": "used", "left": len(accepted), "rejected": left - len(accepted)})
    notes = left_out(steps, limits, class_names)
    for note in notes:
        logger.warning(note)
    content = {
        "steps": {step: REASONS[step] for step in steps},
        "limits": {
            "contrast": limits.contrast,
            "copy": limits.copy,
            "label": None if limits.label is None else _by_class(class_names, limits.label),
            "radius": _by_class(class_names, limits.radius),
        },
        "judges": dict(zip(class_names, limits.judges.tolist())),
        "funnel": funnel,
        "notes": notes,
    }
    write_rows(
        folder / "rejected.csv",
        [
            {"image": Path(r["image"]).name, "class_name": r["class_name"], "step": v[0], "value": v[1], "limit": v[2]}
            for r, v in zip(drawn, verdicts)
            if v is not None
        ],
    )
    write_json(folder / "filter.json", content)
    path = folder / "datalist.json"
    save_datalist(path, accepted, class_names, folder)
    logger.info("Filter: %s.", ", ".join(f"{row['step']} {row['left']}" for row in funnel))
    return path
