"""The last step of the main job: the baseline, the evaluation of both, and what came out."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigWorkflow
from torch import nn

from ..data.records import class_names_of, load_datalist, select
from ..metrics.statistics import Difference, paired_bootstrap
from ..report.figures import draw_real_and_synthetic
from ..report.study_files import read_predictions
from ..report.tables import results_table
from ..utils import processes
from ..utils.io import atomic_path, read_json, write_json, write_text
from ..utils.tensors import save_state_dict
from .nesting import nested_workflow
from .provenance import check_judges
from .stages import arm_of, baseline_of, execute, required_workflow

logger = logging.getLogger(__name__)

ARM_NAMES = {
    "none": "real images alone",
    "synthetic": "synthetic images alone",
    "real+synthetic": "real + synthetic",
    "fill-up": "filled up",
}


def compare() -> str:
    """Trains the baseline of the running config, evaluates both on the real test images, and gives the table.

    Which classifier is kept is decided by `choose_arm` on validation images. The baseline is the same config with
    another mixing policy, and nothing else. A config whose `baseline` is empty, or is its own mixing, is evaluated
    alone.

    Returns:
        The table that is also written to `results.txt`.
    """
    workflow = required_workflow("compare")
    parser = workflow.parser
    arms = [parser.get_parsed_content("mixing")]
    if (baseline := baseline_of(workflow)) is not None:
        train_arm(workflow, baseline)
        arms.insert(0, baseline)
    names = [arm_name(workflow, arm) for arm in arms]
    external_dir = parser.get_parsed_content("external_dir")
    roles = ["test", "val", *(["external"] if external_dir is not None else [])]
    folders = {role: [evaluate_arm(workflow, arm, role) for arm in arms] for role in roles}
    return processes.first_only(lambda: conclude(workflow, arms, names, folders))


def conclude(
    workflow: ConfigWorkflow, arms: Sequence[str], names: Sequence[str], folders: Mapping[str, Sequence[Path]]
) -> str:
    """Chooses between evaluated arms, writes `results.txt` and the picture, and gives the table.

    Args:
        workflow: the one that is running.
        arms: mixing policies, the baseline first where there is one.
        names: what the arms were trained on.
        folders: of each arm's evaluation, by test role.
    """
    output_dir = Path(workflow.parser.get_parsed_content("output_dir"))
    table = results_table(dict(zip(names, folders["test"])))
    table += "\n\n" + choose_arm(arms, names, folders["val"], output_dir)
    if "external" in folders:
        external_dir = workflow.parser.get_parsed_content("external_dir")
        table += f"\n\nOn another data set, {external_dir}:\n\n{results_table(dict(zip(names, folders['external'])))}"
    if any(arm != "none" for arm in arms) and (unknown := check_judges(workflow)):
        table += f"\n\n{unknown}"
    write_text(output_dir / "results.txt", table + "\n")
    summarize(workflow, output_dir, table)
    return table


def choose_arm(arms: Sequence[str], names: Sequence[str], folders: Sequence[Path], output_dir: Path) -> str:
    """Chooses the classifier to keep on the real validation images, notes it in `choice.json`, and says so.

    Synthetic images that do not carry what tells the classes apart do harm. The arm with synthetic images is kept only
    where it does better than the baseline on images that neither was trained on; test images have no say.

    Args:
        arms: mixing policies, the baseline first where there is one.
        names: what the arms were trained on.
        folders: of each arm's evaluation on validation images.
        output_dir: of the run.
    """
    scores = [read_json(folder / "metrics.json") for folder in folders]
    values = [score["balanced_accuracy"] for score in scores]
    chosen = 1 if len(arms) > 1 and values[1] > values[0] else 0
    write_json(
        output_dir / "choice.json",
        {
            "chosen": arms[chosen],
            "folder": Path(os.path.relpath(folders[chosen].parent, output_dir)).as_posix(),  # --arm_dir is anywhere
            "validation": dict(zip(arms, values)),
            "num_images": scores[0]["num_images"],
        },
    )
    if len(arms) == 1:
        return f"Kept: the classifier of {names[0]}."
    difference = difference_of_arms(folders[1], folders[0])
    judged = (
        f"On {scores[0]['num_images']} real validation images: {names[1]} {values[1]:.3f}, {names[0]} {values[0]:.3f} "
        f"(difference {round(difference.estimate, 3) + 0.0:+.3f}, 95 % {difference.low:+.3f} to "
        f"{difference.high:+.3f})."
    )
    if chosen:
        return f"{judged}\nThe synthetic images stay. Kept: the classifier of {names[1]}."
    return f"{judged}\nThe synthetic images did not help, so they are left out. Kept: the classifier of {names[0]}."


def difference_of_arms(treatment: Path, baseline: Path) -> Difference:
    """The paired difference of two evaluations on the same images, resampled over groups and images.

    Args:
        treatment: folder with its `predictions.csv`.
        baseline: the same of the other.
    """
    first, second = (read_predictions(folder / "predictions.csv") for folder in (treatment, baseline))
    return paired_bootstrap([first[0]], [second[0]], [first[1]], [first[2]])


def chosen_arm(arm_dir: str, output_dir: str) -> str:
    """The folder of the classifier that `compare` kept; `arm_dir` where nothing was compared."""
    path = Path(output_dir) / "choice.json"
    return str(Path(output_dir) / read_json(path)["folder"]) if path.is_file() else arm_dir


def arm_name(workflow: ConfigWorkflow, mixing: str) -> str:
    """What an arm was trained on: with the evaluator in the trainer's place, on nothing."""
    config: Any = workflow.parser["train"]
    return "nothing (zero-shot)" if config["trainer"] == "@validate::evaluator" else ARM_NAMES[mixing]


def train_arm(workflow: ConfigWorkflow, mixing: str) -> None:
    """Trains the running config under another mixing policy, unless that is complete."""
    nested, stage = arm_of(workflow, mixing)
    if processes.agreed(stage.complete()):
        logger.info("The arm %r is complete for these settings.", mixing)
        return
    nested.parser["run"] = ["$@train::trainer.run()"]
    execute(nested)


def evaluate_arm(workflow: ConfigWorkflow, mixing: str, test_role: str = "test") -> Path:
    """Evaluates an arm on the real images of a test role and gives the folder of its metrics."""
    nested = nested_workflow(workflow, ["train", "evaluate"], mixing=mixing, baseline="", test_role=test_role)
    execute(nested)
    return Path(nested.parser.get_parsed_content("evaluation_dir"))


def publish_model(
    network: nn.Module,
    checkpoint: str | Path,
    model_path: str | Path,
    class_names: list[str],
    classifier: str,
    classifier_size: int,
    normalize_stain: str = "none",
) -> None:
    """Puts a trained classifier where the bundle keeps its model, with what inference must know of it beside it.

    A network with a `deployed` form, such as one with adapters, is published in that form.

    Args:
        network: takes the weights of the checkpoint.
        checkpoint: of the classifier.
        model_path: where to; what is known of it goes into the JSON file of the same name.
        class_names: in the order of the labels.
        classifier: its name in this run.
        classifier_size: pixels that it sees.
        normalize_stain: what was done to its images, see `NormalizeStain`.
    """
    if not processes.is_first():
        return
    network.load_state_dict(torch.load(checkpoint, map_location="cpu", weights_only=True))
    deploy: Any = getattr(network, "deployed", None)
    published: Any = deploy() if deploy else network
    if deploy:
        save_state_dict(model_path, published.state_dict())
    else:
        with atomic_path(model_path) as temporary:
            shutil.copyfile(checkpoint, temporary)
    known: dict[str, Any] = {"class_names": class_names, "classifier": classifier, "classifier_size": classifier_size}
    known["normalize_stain"] = normalize_stain
    if hasattr(published, "describe"):  # a network of the user's own has to be named in inference.json as well
        known["architecture"] = published.describe()
    write_json(Path(model_path).with_suffix(".json"), known)


def summarize(workflow: ConfigWorkflow, output_dir: Path, table: str) -> None:
    """Draws the picture of the run and logs table, paths and base model."""
    parser = workflow.parser
    records = load_datalist(output_dir / "datalist.json")
    class_names = class_names_of(output_dir / "datalist.json")
    written = [output_dir / "results.txt", Path(parser.get_parsed_content("arm_dir"))]
    drawn = Path(parser.get_parsed_content("synthetic_datalist"))
    if drawn.exists():
        picture = output_dir / "real_and_synthetic.png"
        draw_real_and_synthetic(select(records, "shots"), load_datalist(drawn), class_names, picture)
        written += [picture, output_dir / "adapter", drawn.parent]
    logger.info("Balanced over the classes, on real images that nothing was trained on:\n\n%s\n", table)
    logger.info("Written:\n%s", "\n".join(f"  {path}" for path in written))
    logger.info(base_model_line(parser.get_parsed_content("base_model")))


def base_model_line(base_model: str) -> str:
    """One line that says which base model was used and what to think of it."""
    if base_model == "nano":
        return (
            "Base model: nano, embedded, trained on drawn phantoms, for trying out, testing and teaching. "
            "For work name a real one: --base_model stable-diffusion-v1-5/stable-diffusion-v1-5 or a folder."
        )
    return f"Base model: {base_model}."


def model_setting(model_path: str, name: str, default: Any) -> Any:
    """What training noted beside a model, or a default before any training.

    Args:
        model_path: of the model.
        name: "class_names", "classifier", "classifier_size", "normalize_stain" or "architecture".
        default: what the bundle says.
    """
    path = Path(model_path).with_suffix(".json")
    return read_json(path).get(name, default) if path.exists() else default
