"""The stages of a bundle: which comes before which, whether one is complete, and running what is missing."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser, ConfigWorkflow
from monai.utils import set_determinism

from ..networks.sharing import release_diffusion
from ..utils import processes
from ..utils.io import read_json
from ..utils.lock import hold_folder
from ..utils.stopping import stop_request
from .errors import speak_plainly
from .machine import use_device, use_threads
from .nesting import nested_workflow
from .pool import check_drawn
from .session import check_keys, check_own_keys, plain_settings, running_workflow
from .stage_identity import FOLDERS, folder_of, stage_of, upstream_of
from .stage_record import Stage

logger = logging.getLogger(__name__)


def current_stage(name: str, folder: str | Path) -> Stage:
    """The stage of the config that is running.

    Args:
        name: name of the stage.
        folder: where it writes.
    """
    return stage_of(required_workflow("finish"), name, Path(folder))


def required_workflow(caller: str) -> ConfigWorkflow:
    """The running workflow.

    Raises:
        RuntimeError: outside of one.
    """
    workflow = running_workflow()
    if workflow is None:
        raise RuntimeError(f"{caller}() belongs into a bundle config that is being run.")
    return workflow


# In place of the settings for an adapter of few steps where none draws, as the sampler of train_diffusion.json has it.
WITHOUT_FEW_STEPS: dict[str, Any] = {"num_inference_steps": 20, "guidance_scale": 1.5, "scheduler": "dpmsolver++"}
ONE_PROCESS = ("filter", "privacy", "study")  # what cannot be divided


def begin(name: str, folder: str) -> None:
    """First call of every config: checks the keys, holds the output folder, brings earlier stages up to date.

    Args:
        name: the stage that the config is.
        folder: where it writes, under `output_dir`.

    Raises:
        ValueError: for an unknown key, data that cannot be used, a folder made with other settings or another adapter,
            that of the baseline too, or synthetic images made of real ones that judge.
        RuntimeError: when another run holds the output folder.
    """
    workflow = required_workflow("begin")
    speak_plainly()
    stop_request.listen()
    check_keys(workflow)
    vars(workflow)["stage"] = name
    parser = workflow.parser
    processes.join(parser.get_parsed_content("device", default="cpu"))  # a study, which has none, is refused there
    if name in ONE_PROCESS:
        processes.alone(f"{name}.json")
    output_dir = parser.get_parsed_content("output_dir")
    processes.first_only(lambda: hold_folder(output_dir))
    if not Path(folder).resolve().is_relative_to(Path(output_dir).resolve()):  # --synthetic_dir, --arm_dir and the like
        processes.first_only(lambda: hold_folder(folder))
    from .machine_check import check_writable
    from .settings import check_settings, check_values

    if name == "study":  # its runs begin one by one, and are checked by `study`
        check_values(workflow)
        return
    set_determinism(seed=int(parser.get_parsed_content("seed")))
    from .preparation import prepare_data
    from .provenance import check_judges, note_fitted_images

    check_settings(workflow)
    if "publish_model" in str(parser["run"]):  # which writes it hours later
        check_writable(parser.get_parsed_content("model_path"), "model_path")
    use_device(parser.get_parsed_content("device"))
    use_threads(plain_settings(parser.config).get("num_threads"))
    if name == "assess" and is_complete(Path(parser.get_parsed_content("synthetic_dir"))):
        check_size(parser)  # judges what is there, whatever else it was made with
        processes.first_only(stage_of(workflow, name, Path(folder)).start)
        return
    processes.first_only(lambda: prepare_data(workflow))
    own = None if name == "assess" else stage_of(workflow, name, Path(folder))
    if name == "train" and (baseline := baseline_of(workflow)) is not None:
        processes.first_only(arm_of(workflow, baseline)[1].compare)  # trained after all else
    for parent in upstream_of(name, plain_settings(parser.config)):
        bring_up_to_date(workflow, parent, own)
    if name not in FOLDERS:
        release_diffusion()  # what follows needs the memory and not the base
    set_determinism(seed=int(parser.get_parsed_content("seed")))  # again: stages that have run here drew numbers
    stage = stage_of(workflow, name, Path(folder))
    if name == "train" and parser.get_parsed_content("mixing") != "none" and (unknown := check_judges(workflow)):
        logger.warning(unknown)
    processes.first_only(stage.start if name == "assess" else stage.open)
    if name == "generate":
        processes.first_only(lambda: check_drawn(workflow, Path(folder)))
    if name in ("generate", "filter"):
        processes.first_only(lambda: note_fitted_images(workflow, name, Path(folder)))


def baseline_of(workflow: ConfigWorkflow) -> str | None:
    """The mixing policy that the running config is compared with; None where it is its own or there is none."""
    mixing, baseline = (workflow.parser.get_parsed_content(key) for key in ("mixing", "baseline"))
    return baseline if baseline and baseline != mixing else None


def arm_of(workflow: ConfigWorkflow, mixing: str) -> tuple[ConfigWorkflow, Stage]:
    """The running config under another mixing policy and nothing else, and the stage that it is."""
    nested = nested_workflow(workflow, ["train"], mixing=mixing, baseline="")
    nested.parser.parse(reset=True)
    return nested, stage_of(nested, "train", Path(nested.parser.get_parsed_content("arm_dir")))


def is_complete(folder: Path) -> bool:
    """Whether a stage has written all its outputs into a folder, with whatever settings."""
    return (folder / "run.json").is_file() and bool(read_json(folder / "run.json")["complete"])


def check_size(parser: ConfigParser) -> None:
    """Checks that images are judged at the size at which they were drawn, where that is known.

    Raises:
        ValueError: when `image_size` is another; names both.
    """
    folder, size = Path(parser.get_parsed_content("synthetic_dir")), parser.get_parsed_content("image_size")
    drawn = read_json(folder / "run.json")["settings"].get("image_size", size)
    if drawn != size:
        raise ValueError(
            f"The images in {folder} were drawn with image_size {drawn}, and would be judged at {size} pixels, where "
            f"their detail is lost or made up. Add --image_size {drawn}."
        )


def finish(name: str, folder: str) -> None:
    """Last call of every config: notes that the stage is complete, once it is in every process."""
    processes.wait_for_all()
    stage = current_stage(name, folder)
    processes.first_only(stage.close)


def bring_up_to_date(workflow: ConfigWorkflow, name: str, later: Stage | None = None, **override: Any) -> None:
    """Runs a stage with the settings of the running config unless its outputs are complete for them.

    Args:
        workflow: the one that is running.
        name: of the stage.
        later: what needs it, and is compared before hours are spent here.
        override: settings that differ.

    Raises:
        ValueError: when a folder, or that of what comes later, was made with other settings, or images with another
            adapter.
    """
    if name == "prior":
        bring_prior_up_to_date(workflow)
        return
    nested = nested_workflow(workflow, [name], **override)
    nested.parser.parse(reset=True)
    folder = Path(nested.parser.get_parsed_content("output_dir")) / folder_of(
        name, plain_settings(nested.parser.config)
    )
    for parent in upstream_of(name, plain_settings(nested.parser.config)):
        bring_up_to_date(workflow, parent, later)
    stage = stage_of(nested, name, folder)
    if processes.agreed(stage.complete()):
        if name == "generate":
            processes.first_only(lambda: check_drawn(nested, folder))
        logger.info("Stage %s is complete for these settings; its outputs in %s are used.", name, folder)
        return
    for known in filter(None, (stage, later)):
        processes.first_only(known.compare)
    logger.info("Stage %s begins.", name)
    execute(nested)


def bring_prior_up_to_date(workflow: ConfigWorkflow) -> None:
    """Draws the images of the base without an adapter that a fine-tuning learns along, unless they are there.

    They are what the base itself draws for the prompts that are learned: no attributes, and no adapter of few steps.
    """
    folder = Path(workflow.parser.get_parsed_content("output_dir")) / FOLDERS["prior"]
    settings = plain_settings(workflow.parser.config)
    count = settings["prior_images"]
    nested = nested_workflow(
        workflow,
        ["generate"],
        adapter_scope="none",
        images_per_class=count,
        synthetic_dir=str(folder),
        start_sigma=None,
        attributes={},
        few_step_adapter=None,
        **(WITHOUT_FEW_STEPS if settings.get("few_step_adapter") else {}),  # assess.json does not have it
    )
    nested.parser.parse(reset=True)
    if not processes.agreed(stage_of(nested, "generate", folder).complete()):
        logger.info("The base draws %d images of each class, so that it forgets less of what it knew.", count)
        execute(nested)


def execute(workflow: ConfigWorkflow) -> None:
    """Initializes, runs and finalizes a workflow."""
    workflow.initialize()
    workflow.run()
    workflow.finalize()


def begin_inference(model_path: str) -> None:
    """First call of inference.json: checks keys and values, and that there is a model.

    Raises:
        TypeError: for a text where a number belongs.
        ValueError: for a key that inference.json does not have, or a value that cannot be.
        FileNotFoundError: when the bundle has no model yet.
    """
    from .machine_check import check_device, check_threads
    from .settings import check_values

    speak_plainly()
    workflow = running_workflow()
    if workflow is not None:
        check_own_keys(workflow, "inference")
        check_values(workflow)
        number = plain_settings(workflow.parser.config).get("num_threads")
        check_threads(number)
        check_device(workflow.parser.get_parsed_content("device"))
        use_threads(number)
    if not Path(model_path).is_file():
        raise FileNotFoundError(f"There is no model {model_path}. Run train.json first, or name one with --model_path.")


def run_pending(dataset_id: str, engine_id: str) -> None:
    """Runs an engine of the running config unless its data set is empty, which Ignite would refuse.

    Args:
        dataset_id: id of the data set in the config.
        engine_id: id of the engine.
    """
    workflow = required_workflow("run_pending")
    if len(workflow.parser.get_parsed_content(dataset_id)) == 0:
        logger.info("Nothing is left to do: all requested images are there.")
        return
    workflow.parser.get_parsed_content(engine_id).run()
