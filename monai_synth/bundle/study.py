"""A study: many runs of the job over a grid of settings and arms, each once, resumed where it stopped."""

from __future__ import annotations

import gc
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser, ConfigWorkflow
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from ..data.records import class_names_of, load_datalist, select
from ..handlers.progress import without_progress
from ..networks.feature_encoder import encoder_fingerprint, encoder_weights
from ..report.figures import draw_real_and_synthetic
from ..report.page import write_report
from ..report.study import NUMBERS, VALIDATION
from ..report.tables import write_rows
from ..utils.io import read_json
from ..utils.lock import release_folder
from .assessment import METHOD
from .controls import arms_of_study
from .nesting import nested_workflow
from .preparation import prepare_data
from .provenance import check_judges
from .session import digest, known_keys, plain_settings, with_nearest
from .settings import check_number, check_settings
from .stage_identity import FOLDERS, OF_SAMPLES, stage_of
from .stage_record import Stage
from .stages import execute, is_complete, required_workflow
from .study_plan import WITHOUT_SYNTHETIC, Cell, overlay_path, plan, pool_name, top_key

logger = logging.getLogger(__name__)

DISTANCES = ("kid", "floor", "ceiling", "ratio")  # of quality.json, for each class


def study() -> Path:
    """Runs what the running config's `grid` and `arms` span, and writes `results.csv`, tables and figures.

    Returns:
        The path of `results.csv`.

    Raises:
        ValueError: for a grid or arm that cannot be run, before anything is.
    """
    workflow = required_workflow("study")
    parser = workflow.parser
    arms, reference = arms_of_study(*(parser.get_parsed_content(key) for key in ("arms", "reference_arm", "controls")))
    cells = plan(parser.get_parsed_content("grid"), arms, overlay_root(workflow))
    folder = Path(parser.get_parsed_content("output_dir"))
    runs = _Runs(workflow, folder, cells)
    runs.check()
    settings = {**plain_settings(parser.config), "arms": arms, "reference_arm": reference}
    stage = Stage("study", folder, settings, {}, parser.config)
    stage.start()
    order = list(runs.pools)
    rows: list[dict[str, Any]] = []
    with logging_redirect_tqdm(), without_progress():
        for cell in tqdm(sorted(cells, key=lambda cell: order.index(runs.pool_of(cell))), desc="study", unit="run"):
            rows.append(runs.run(cell))
            write_rows(folder / "results.csv", rows)
        runs.draw_images()
        if parser.get_parsed_content("judge_images"):
            write_rows(folder / "distances.csv", runs.distances())
    stage.close()
    logger.info("Results of %d runs: %s", len(rows), folder / "results.csv")
    logger.info("Report: %s", write_report(folder))
    return folder / "results.csv"


def overlay_root(workflow: ConfigWorkflow) -> Path:
    """The folder whose `configs` hold the overlays: the one that the folder of the bundles lies in."""
    return workflow.config_root_path.resolve().parents[2]


def is_up_to_date(quality: Mapping[str, Any], parser: ConfigParser) -> bool:
    """Whether a pool was judged by the encoder, the method and the settings of today, and all of its images.

    Args:
        quality: content of its quality.json.
        parser: of its assess.json.
    """
    drawn = load_datalist(Path(parser.get_parsed_content("synthetic_dir")) / "datalist.json")
    judged = sum(numbers["num_synthetic"] for numbers in quality["classes"].values())
    own = encoder_fingerprint(parser.get_parsed_content("encoder"))
    asked = {"method": METHOD, "reference_roles": list(parser.get_parsed_content("reference_roles"))}
    asked["bootstrap_samples"] = parser.get_parsed_content("bootstrap_samples")
    same = quality["encoder"]["fingerprint"] == own and all(quality.get(key) == asked[key] for key in asked)
    return same and judged == len(drawn)


class _Runs:
    """The runs of a study as nested workflows; what several of them share is made once."""

    def __init__(self, workflow: ConfigWorkflow, folder: Path, cells: Sequence[Cell]) -> None:
        self.workflow, self.folder, self.cells = workflow, folder, cells
        configs = workflow.config_root_path
        tuning, drawing, train = (
            ConfigParser.load_config_file(configs / f"{name}.json") for name in ("train_diffusion", "generate", "train")
        )
        # a component that train.json has too, such as network_def, is the classifier's
        self.adapter_keys = {*plain_settings(tuning), *(set(tuning) - set(train))} - set(OF_SAMPLES)
        self.generator_keys = {*plain_settings(tuning), *plain_settings(drawing), *({*tuning, *drawing} - set(train))}
        self.generator_keys -= {"images_per_class"}
        self.base = plain_settings(train)
        self.base |= {key: value for key, value in plain_settings(workflow.parser.config).items() if key in self.base}
        self.fingerprint = cache(encoder_fingerprint)  # of files that may be large
        self.pools: dict[str, int] = {}  # the most synthetic images of a class that a run of the pool needs
        for cell in cells:
            pool = self.pool_of(cell)
            self.pools[pool] = max(self.pools.get(pool, 0), self.drawn_for(cell))

    def pool_of(self, cell: Cell) -> str:
        """Name of the folder that a run shares with others."""
        return self.shared(cell, self.generator_keys)

    @staticmethod
    def shared(cell: Cell, keys: set[str]) -> str:
        """Name of what a run shares with all that agree with it in some settings and components."""
        return pool_name({**cell.components, **cell.settings}, keys)

    def synthetic_of(self, cell: Cell) -> int:
        """Synthetic images of each class that a run needs.

        Raises:
            TypeError: for a text where a number belongs.
            ValueError: for a number out of its range.
        """
        settings = {**self.base, **cell.settings}
        if settings["mixing"] in WITHOUT_SYNTHETIC:
            return 0
        name = "synthetic_per_class" if settings["synthetic_per_class"] else "images_per_class"
        check_number(name, settings[name])  # the pool is made as large, which would be checked in its place
        return int(settings[name])

    def drawn_for(self, cell: Cell) -> int:
        """Synthetic images of each class that are drawn for a run: none where it takes images from elsewhere."""
        own = {**plain_settings(self.workflow.parser.config), **cell.settings}
        return 0 if "synthetic_datalist" in own else self.synthetic_of(cell)

    def nested(self, cell: Cell, *more: str) -> ConfigWorkflow:
        """The run's config, with `more` configs over it."""
        pool = self.folder / self.pool_of(cell)
        arm_dir = pool / "classifier" / cell.name
        folders = {"output_dir": pool, "arm_dir": arm_dir, "evaluation_dir": arm_dir / "evaluation"}
        folders |= self.own_filter(cell)
        quiet: dict[str, Any] = {"baseline": ""}
        if "sample_every" not in plain_settings(self.workflow.parser.config):
            # nobody looks at the sample grids of a hundred fine-tunings, which take as long as these themselves
            quiet["sample_every"] = 0
        settings = {**quiet, **cell.own, **cell.settings, **{key: str(value) for key, value in folders.items()}}
        if self.synthetic_of(cell):
            settings["synthetic_per_class"] = self.synthetic_of(cell)
            settings["images_per_class"] = self.pools[self.pool_of(cell)] or self.synthetic_of(cell)
        overlays = [str(overlay_path(path, overlay_root(self.workflow))) for path in cell.overlays]
        return nested_workflow(self.workflow, ["train", *overlays, *more], **settings)

    def own_filter(self, cell: Cell) -> dict[str, Path]:
        """The `filter_dir` of a run where the usual folder of its pool is that of a filter with other limits."""
        settings = {**self.base, **cell.settings}
        usual = self.folder / self.pool_of(cell) / FOLDERS["filter"].format(**settings)
        record = usual / "run.json"
        if not self.synthetic_of(cell) or settings["filter"] == "none" or not record.is_file():
            return {}
        own = {"filter_quantile": settings["filter_quantile"]}
        own["encoder_fingerprint"] = self.fingerprint(settings["encoder"])
        noted = read_json(record)["settings"]
        if all(noted.get(key) == value for key, value in own.items()):
            return {}
        return {"filter_dir": usual.with_name(f"{usual.name}_{digest(own)[:8]}")}

    def adopt_adapter(self, cell: Cell) -> None:
        """Copies the adapter of another pool of the study that was made with the same settings, where there is one."""
        target = self.folder / self.pool_of(cell) / FOLDERS["train_diffusion"]
        settings = {**self.base, **cell.settings}
        if target.exists() or not self.drawn_for(cell) or settings["adapter_scope"] == "none":
            return
        if settings["prior_images"]:  # whose images would be needed as well
            return
        for other in self.cells:
            source = self.folder / self.pool_of(other) / FOLDERS["train_diffusion"]
            same = self.shared(other, self.adapter_keys) == self.shared(cell, self.adapter_keys)
            if same and is_complete(source):
                part = target.with_name(f".{target.name}.part")
                shutil.rmtree(part, ignore_errors=True)
                shutil.copytree(source, part, ignore=shutil.ignore_patterns("state_*"))
                os.replace(part, target)
                return

    def check(self) -> None:
        """Checks the settings of every run and splits the data set for every pool before the first run begins.

        Settings of runs that differ in seed or fold alone are checked once.

        Raises:
            ValueError: for a setting that cannot be, a class with too few images for the shots, or synthetic images
                made of real ones that judge; names them.
            FileNotFoundError: for an encoder that is not there.
        """
        known = known_keys(self.workflow.config_root_path)
        seen = set()
        for cell in self.cells:
            unknown = sorted({top_key(key) for key in (*cell.settings, *cell.components)} - known)
            if unknown:
                raise ValueError(
                    f"The arm {cell.arm!r}, its overlay or the grid sets {with_nearest(unknown, known)}, which no "
                    "config of the bundle has."
                )
            settings = {key: value for key, value in cell.settings.items() if key not in ("seed", "fold")}
            kind = digest([settings, cell.overlays, cell.own])
            if kind not in seen:
                seen.add(kind)
                check_settings(self.nested(cell))
        if self.workflow.parser.get_parsed_content("judge_images"):
            for cell in self.drawing().values():
                encoder_weights(str({**self.base, **cell.settings}["encoder"]))
        for pool in self.pools:
            members = [cell for cell in self.cells if self.pool_of(cell) == pool]
            if all(is_complete(self.folder / pool / "classifier" / cell.name) for cell in members):
                continue  # nothing is left to do that the data set is needed for
            prepare_data(self.nested(members[0]))
            for cell in members:
                if self.synthetic_of(cell) and "synthetic_datalist" in cell.settings:
                    check_judges(self.nested(cell))

    def drawing(self) -> dict[str, Cell]:
        """A run of each pool that synthetic images are drawn in, by the pool's name."""
        return {self.pool_of(cell): cell for cell in self.cells if self.drawn_for(cell)}

    def draw_images(self) -> None:
        """Draws `real_and_synthetic.png` of every pool that has none yet: shots above, synthetic images below."""
        for pool in self.drawing():
            folder = self.folder / pool
            datalist, drawn = folder / "datalist.json", folder / FOLDERS["generate"] / "datalist.json"
            picture = folder / "real_and_synthetic.png"
            if drawn.is_file() and not picture.is_file():
                shots = select(load_datalist(datalist), "shots")
                draw_real_and_synthetic(shots, load_datalist(drawn), class_names_of(datalist), picture)

    def distances(self) -> list[dict[str, Any]]:
        """How far the synthetic images of every pool and class are from real ones, see `quality`."""
        rows = []
        for pool, cell in tqdm(self.drawing().items(), desc="judging images", unit="pool"):
            folders = {"output_dir": str(self.folder / pool), "feature_dir": str(self.folder / "features")}
            known = plain_settings(ConfigParser.load_config_file(self.workflow.config_root_path / "assess.json"))
            own = {key: value for key, value in cell.settings.items() if key in known}
            workflow = nested_workflow(self.workflow, ["assess"], **{**own, **folders})
            workflow.parser.parse(reset=True)
            found = Path(workflow.parser.get_parsed_content("assess_dir")) / "quality.json"
            if not found.is_file() or not is_up_to_date(read_json(found), workflow.parser):
                execute(workflow)
                release_folder(self.folder / pool)
            settings = {key: value for key, value in cell.settings.items() if key in self.generator_keys}
            for name, numbers in read_json(found)["classes"].items():
                rows.append({"pool": pool, **settings, "class_name": name, **{key: numbers[key] for key in DISTANCES}})
        return rows

    def run(self, cell: Cell) -> dict[str, Any]:
        """The row of a run's results, trained and evaluated unless that is complete."""
        workflow = self.nested(cell)
        workflow.parser.parse(reset=True)
        arm_dir = Path(workflow.parser.get_parsed_content("arm_dir"))
        external = workflow.parser.get_parsed_content("external_dir") is not None
        evaluated = {"test": arm_dir / "evaluation", "val": arm_dir / "evaluation_val"}
        if external:
            evaluated["external"] = arm_dir / "evaluation_external"
        files = {role: folder / "metrics.json" for role, folder in evaluated.items()}
        if not (stage_of(workflow, "train", arm_dir).complete() and all(path.is_file() for path in files.values())):
            self.adopt_adapter(cell)
            workflow.parser["run"] = ["$@train::trainer.run()"]
            execute(workflow)
            for role, folder in evaluated.items():
                nested = self.nested(cell, "evaluate")
                nested.parser.update({"test_role": role, "evaluation_dir": str(folder)})
                execute(nested)
            release_folder(self.folder / self.pool_of(cell))
            gc.collect()  # MONAI's engines refer to themselves and would hold the images of many runs
        metrics = read_json(files["test"])
        judged_elsewhere = read_json(files["external"]) if external else {}
        settings = {"synthetic_per_class": self.synthetic_of(cell), **cell.settings}
        return {
            "arm": cell.arm,
            **{key: value for key, value in settings.items() if key != "mixing"},
            **{name: metrics[name] for name in NUMBERS},
            VALIDATION: read_json(files["val"])["balanced_accuracy"],
            **{f"external_{name}": judged_elsewhere[name] for name in NUMBERS if external},
            "seconds": read_json(arm_dir / "run.json")["wall_time_s"],
            "folder": arm_dir.relative_to(self.folder).as_posix(),
        }
