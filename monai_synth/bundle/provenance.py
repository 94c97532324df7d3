"""What synthetic images were made of is noted when they are drawn and checked before a classifier learns from them."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from monai.bundle import ConfigWorkflow

from ..data.fitted_images import NOTE, check_fitted_images, unchecked, write_fitted_images
from ..data.records import load_datalist, select
from ..utils.io import atomic_path
from .stage_identity import FOLDERS

logger = logging.getLogger(__name__)


def note_fitted_images(workflow: ConfigWorkflow, name: str, folder: Path) -> None:
    """Writes `fitted_on.json` beside the images of generate.json, or hands it on to the filter's folder.

    An adapter that is not the run's own has learned from images that are not known here, so nothing is written.

    Args:
        workflow: of the stage.
        name: of the stage.
        folder: where it writes.
    """
    parser = workflow.parser
    if name == "filter":
        source = Path(parser.get_parsed_content("synthetic_dir")) / NOTE
        if source.is_file():
            with atomic_path(folder / NOTE) as temporary:
                shutil.copyfile(source, temporary)
        return
    output_dir, adapter = (parser.get_parsed_content(key) for key in ("output_dir", "adapter"))
    own = Path(output_dir) / FOLDERS["train_diffusion"]
    if adapter is not None and Path(adapter).resolve() != own.resolve():
        return
    records = load_datalist(Path(output_dir) / "datalist.json")
    fitted = adapter is not None or parser.get_parsed_content("start_sigma")
    write_fitted_images(folder, select(records, "shots") if fitted else [], records)


def check_judges(workflow: ConfigWorkflow) -> str | None:
    """Checks that the generator of a config's synthetic images has learned nothing that judges the classifier.

    Returns:
        What could not be checked, for images without `fitted_on.json`; None when all is known.

    Raises:
        ValueError: when an image that judges, or its group, was learned.
    """
    parser = workflow.parser
    output_dir = Path(parser.get_parsed_content("output_dir"))
    path = Path(parser.get_parsed_content("synthetic_datalist"))
    check_fitted_images(path, load_datalist(output_dir / "datalist.json"))
    return unchecked(path)
