"""One adapter for the data set, or one for each class."""

from __future__ import annotations

from pathlib import Path

from .stages import execute, nested_workflow, required_workflow, run_pending


def fine_tune() -> None:
    """Trains the adapter of the running config, or one after another those of its classes, by `adapter_scope`.

    Each class's adapter lies in a folder of its own below `adapter_dir` and is passed over when it is complete.
    """
    workflow = required_workflow("fine_tune")
    parser = workflow.parser
    if parser.get_parsed_content("adapter_scope") == "dataset":
        parser.get_parsed_content("train::trainer").run()
        return
    folder = Path(parser.get_parsed_content("adapter_dir"))
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
    """Draws the images that the running config lacks, each class with its own adapter when there is one."""
    workflow = required_workflow("generate")
    parser = workflow.parser
    if parser.get_parsed_content("adapter_scope") == "dataset":
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
        nested.parser["initialize"], nested.parser["finalize"] = [], []  # the stage is the outer one's
        execute(nested)
