"""Synthetic images as DICOM files that say in their header that nobody was ever in front of the lens."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from .. import __version__
from ..utils.io import PathLike, read_json
from .exchange import accepted_images
from .images import read_image
from .records import Record
from .requests import index_of


def export_dicom(
    output_dir: PathLike, folder: PathLike, policy: str = "standard", accept_leak: bool = False
) -> dict[str, int]:
    """Writes the accepted synthetic images of a run as DICOM Secondary Capture files, a series for each class.

    SyntheticData (0008,001C) is YES and the conversion type SYN; no value comes from a source image. Unique identifiers
    follow from the run and from what is written, so that an image is the same object in every export of its run, and
    those of two runs stand in different studies.

    Args:
        output_dir: of the run.
        folder: made by this call, a sub-folder for each class.
        policy: filter that the images have passed.
        accept_leak: export although the privacy audit found a leak in the images.

    Returns:
        The number of images of each class.

    Raises:
        FileExistsError: when the folder is there.
        ModuleNotFoundError: without pydicom.
        FileNotFoundError: as `export_package`, and without the record of how the images were drawn.
        ValueError: as `export_package`.
    """
    try:
        import pydicom  # noqa: F401
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError('DICOM needs pydicom: pip install "monai_synth[dicom]".') from error
    folder = Path(folder)
    if folder.exists():
        raise FileExistsError(f"{folder} exists. Name another folder, or remove that one.")
    records, class_names, _ = accepted_images(output_dir, policy, accept_leak)
    drawn = Path(output_dir) / "synthetic" / "run.json"
    if not drawn.is_file():
        raise FileNotFoundError(
            f"There is no {drawn}, whose identity tells this run's studies from others'. generate.json writes it; put "
            "it back, or draw the images anew."
        )
    run = str(read_json(drawn)["identity"])
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        for record in records:
            target = part / record["class_name"] / f"{Path(record['image']).stem}.dcm"
            target.parent.mkdir(parents=True, exist_ok=True)
            _write(target, record, run)
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return {name: sum(record["class_name"] == name for record in records) for name in class_names}


def _write(path: Path, record: Record, run: str) -> None:
    """Writes an image as DICOM; `run` is the identity of how it was drawn: base, fine-tuning, prompts and seed."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    pixels = np.round(read_image(record["image"]).transpose(1, 2, 0) * 255).astype(np.uint8)
    adapter = str(record.get("adapter", "none"))  # trained anew, it is another one under the same identity
    header = Dataset()
    header.SOPClassUID = SecondaryCaptureImageStorage
    header.StudyInstanceUID = generate_uid(entropy_srcs=["study", run, adapter])
    header.SeriesInstanceUID = generate_uid(entropy_srcs=["series", run, adapter, record["class_name"]])
    header.SyntheticData = "YES"
    header.ConversionType = "SYN"
    header.ImageType = ["DERIVED", "SECONDARY"]
    header.PatientName, header.PatientID = "SYNTHETIC", "SYNTHETIC"
    header.PatientBirthDate = header.PatientSex = header.ReferringPhysicianName = ""
    header.StudyDate = header.StudyTime = header.StudyID = header.AccessionNumber = ""
    header.Modality = "GM"  # general microscopy
    header.Manufacturer, header.SoftwareVersions = "monai_synth", __version__
    header.SeriesDescription = record["class_name"][:64]
    header.SeriesNumber, header.InstanceNumber = int(record["label"]) + 1, index_of(record["image"]) + 1
    header.ImageComments = f"Synthetic: prompt {record['prompt']!r}, seed {record['seed']}. Not for diagnosis."
    header.BurnedInAnnotation = "NO"
    header.SpecificCharacterSet = "ISO_IR 192"
    header.SamplesPerPixel, header.PhotometricInterpretation, header.PlanarConfiguration = 3, "RGB", 0
    header.Rows, header.Columns = pixels.shape[:2]
    header.BitsAllocated = header.BitsStored = 8
    header.HighBit, header.PixelRepresentation = 7, 0
    header.SOPInstanceUID = generate_uid(entropy_srcs=["image", record["sha256"], header.to_json()])
    header.PixelData = pixels.tobytes()
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = header.SOPClassUID, header.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.file_meta = meta
    header.save_as(path, enforce_file_format=True)
