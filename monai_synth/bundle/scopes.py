"""One adapter for the data set, one for each class, or none."""

from __future__ import annotations

import logging
from pathlib import Path

from ..utils import processes
from .nesting import nested_workflow
from .stages import current_stage, execute, required_workflow, run_pending

logger = logging.getLogger(__name__)


def adapter_of(adapter_scope: str, adapter_dir: str) -> str | None:
    """The folder of the adapter that is drawn with; None for the base alone."""
    return None if adapter_scope == "none" else adapter_dir


def fine_tune() -> None:
    """Trains the adapter of the running config, or one after another those of its classes, by `adapter_scope`.

    Each class's adapter lies in a folder of its own below `adapter_dir`. An adapter that is complete is passed over,
    and the base is loaded once for all the others.

    Raises:
        ValueError: for the scope "none", or when weights of a complete adapter are not the ones that were written.
    """
    workflow = required_workflow("fine_tune")
    parser = workflow.parser
    if parser.get_parsed_content("adapter_scope") == "none":
        raise ValueError("adapter_scope is 'none', so there is nothing to fine-tune. Run generate.json or train.json.")
    folder = Path(parser.get_parsed_content("adapter_dir"))
    if processes.agreed(current_stage("train_diffusion", folder).complete()):
        logger.info("The adapter in %s is complete for these settings.", folder)
        return
    if parser.get_parsed_content("adapter_scope") == "dataset":
        parser.get_parsed_content("train::trainer").run()
        return
    for class_name in parser.get_parsed_content("class_names"):
        execute(
            nested_workflow(
                workflow,
                ["train_diffusion"],
                adapter_scope="dataset",
                adapter_classes=[class_name],
                adapter_dir=str(folder / class_name),
            )
        )


def generate() -> None:
    """Draws the images that the running config lacks, each class with its own adapter when there is one.

    The base is loaded once, and one adapter after another is written into it.
    """
    workflow = required_workflow("generate")
    parser = workflow.parser
    if parser.get_parsed_content("adapter_scope") != "class":
        run_pending("dataset", "evaluator")
        return
    folder = Path(parser.get_parsed_content("adapter_dir"))
    for class_name in parser.get_parsed_content("class_names"):
        nested = nested_workflow(
            workflow,
            ["generate"],
            adapter_scope="dataset",
            requested_classes=[class_name],
            adapter_dir=str(folder / class_name),
        )
        # the stage is the outer one's, and so is the datalist
        nested.parser.update({"initialize": [], "run": ["$monai_synth.bundle.generate()"], "finalize": []})
        execute(nested)
