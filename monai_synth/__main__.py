"""Command line `python -m monai_synth`: `check`, `phantoms`, `tile`, `crop`, `new_bundle`, `report`, `export`,
`import`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and gives its exit status: 0 is good, 1 means that errors were found, 2 a wrong call."""
    parser = argparse.ArgumentParser(prog="python -m monai_synth", description="Tools beside the bundles.")
    commands = parser.add_subparsers(dest="command", required=True)
    _add_check(commands)
    _add_phantoms(commands)
    _add_tile(commands)
    _add_crop(commands)
    _add_new_bundle(commands)
    _add_report(commands)
    _add_export(commands)
    _add_import(commands)
    options = parser.parse_args(arguments)
    try:
        return options.run(options)
    except (ValueError, OSError, ModuleNotFoundError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2


def _add_check(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("check", help="tells all that is wrong with a data set")
    parser.add_argument("source", help="folder of class folders, CSV, or datalist JSON")
    parser.add_argument("--groups", help="pattern over the path whose first group names the patient or slide")
    parser.add_argument("--shots", type=int, help="images per class that will be asked for, beside test and validation")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--skip_duplicates",
        action="store_true",
        help="do not search for copies, which takes more than half an hour for 100,000 images",
    )
    parser.add_argument("--pairs", help="path of a PNG that shows the pairs of images that may be copies, side by side")
    parser.set_defaults(run=_check)


def _check(options: argparse.Namespace) -> int:
    from .data.findings import findings_as_json
    from .data.scanning import check

    findings = check(
        options.source, groups=options.groups, shots=options.shots, find_duplicates=not options.skip_duplicates
    )
    errors = sum(finding.level == "error" for finding in findings)
    if options.pairs:
        from .report.figures import draw_pairs

        pairs = [(finding.pair, finding.message) for finding in findings if finding.pair]
        drawn = draw_pairs(pairs, options.pairs) if pairs else "no picture, since no pair is in doubt"
        print(f"Pairs to look at: {drawn}.", file=sys.stderr)
    if options.json:
        print(json.dumps(findings_as_json(findings), indent=2, ensure_ascii=False))
    else:
        for finding in findings:
            print(f"{finding.level}: {finding.path}: {finding.message}")
        print(f"{options.source}: {errors} errors, {len(findings) - errors} warnings.")
    return 1 if errors else 0


def _add_phantoms(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("phantoms", help="draws a folder of phantom images")
    parser.add_argument("output_dir", help="is made; must not exist or be empty")
    parser.add_argument("--set", dest="phantom_set", default="colon", choices=["colon", "lung", "wbc"])
    parser.add_argument("--images_per_class", type=int, default=60)
    parser.add_argument("--num_patients", type=int, default=12)
    parser.add_argument("--size", type=int, default=128, help="side in pixels, 64 to 512")
    parser.add_argument("--seed", type=int, default=0)
    parser.set_defaults(run=_phantoms)


def _phantoms(options: argparse.Namespace) -> int:
    from .data.phantom import PHANTOM_SETS, write_phantoms

    folder = write_phantoms(
        options.output_dir,
        PHANTOM_SETS[options.phantom_set],
        options.images_per_class,
        options.num_patients,
        options.size,
        options.seed,
    )
    print(f"Wrote {options.images_per_class} phantoms of each class of {options.phantom_set} to {folder}.")
    return 0


def _add_tile(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("tile", help="cuts annotated whole-slide images into class tiles")
    parser.add_argument("source", help="folder of slides, each with a NAME.geojson of QuPath, or with a slides.csv")
    parser.add_argument("output_dir", help="is made; must not exist")
    parser.add_argument("--size", type=int, default=224, help="side of a tile in pixels")
    parser.add_argument("--level", type=int, default=0, help="of the pyramid, 0 is the finest")
    parser.add_argument("--pixel_size_um", type=float, help="micrometers per pixel, in place of the level")
    parser.add_argument("--step", type=int, help="pixels between tiles; without it they do not overlap")
    parser.add_argument("--min_tissue", type=float, default=0.5, help="share of a tile that must be tissue")
    parser.add_argument("--min_inside", type=float, default=0.75, help="share that must lie in a region of the class")
    parser.add_argument("--max_per_class", type=int, help="most tiles of a class from one slide")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--backend", help="cucim, openslide or tifffile; without it the first that is installed")
    parser.set_defaults(run=_tile)


def _tile(options: argparse.Namespace) -> int:
    from dataclasses import fields

    from .data.tiles import TilePlan, cut_tiles

    plan = TilePlan(**{field.name: getattr(options, field.name) for field in fields(TilePlan)})
    counts = cut_tiles(options.source, options.output_dir, plan, options.backend)
    print(f"Wrote {options.output_dir}: {', '.join(f'{name} {count}' for name, count in counts.items())}.")
    print(f"Then: python -m monai_synth check {options.output_dir}")
    return 0


def _add_crop(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("crop", help="cuts out the middle of every image, where cells fill a small part of it")
    parser.add_argument("source", help="folder of class folders, CSV, or datalist JSON")
    parser.add_argument("output_dir", help="is made; must not exist")
    parser.add_argument("--share", type=float, required=True, help="of the shorter side that stays, such as 0.6")
    parser.add_argument("--groups", help="pattern over the path whose first group names the patient or slide")
    parser.add_argument("--unlabelled", action="store_true", help="a folder of images of unknown class, for inference")
    parser.set_defaults(run=_crop)


def _crop(options: argparse.Namespace) -> int:
    from .data.cropping import crop_images

    labelled = not options.unlabelled
    count = crop_images(options.source, options.output_dir, options.share, options.groups, labelled)
    print(f"Wrote the middle of {count} images to {options.output_dir}.")
    if labelled:
        print(f"Then: python -m monai_synth check {options.output_dir}")
    return 0


def _add_new_bundle(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("new_bundle", help="makes a bundle for your own images")
    parser.add_argument("name", help="name of the bundle, letters, digits and underscores")
    parser.add_argument("--dataset_dir", required=True, help="folder of class folders, CSV, or datalist JSON")
    parser.add_argument("--output_dir", default="bundles", help="the bundle becomes a folder in here")
    parser.add_argument("--prompt_template", default="H&E histopathology, {phrase}")
    parser.set_defaults(run=_new_bundle)


def _new_bundle(options: argparse.Namespace) -> int:
    from pathlib import Path

    from .bundle.rendering import spec_of_folder, write_bundle
    from .data.scanning import scan

    if not options.name.isidentifier():
        raise ValueError(f"{options.name!r} cannot name a bundle; use letters, digits and underscores.")
    records, class_names = scan(options.dataset_dir, find_duplicates=False)  # only images and classes are wanted
    spec = spec_of_folder(options.name, options.dataset_dir, class_names, options.prompt_template)
    folder = write_bundle(spec, Path(options.output_dir) / options.name)
    print(f"Wrote {folder} for {len(records)} images of {len(class_names)} classes. Look at these before you run it:")
    for class_name, phrase in spec.prompts.items():
        print(f"  prompt of {class_name}: {options.prompt_template.format(phrase=phrase)}")
    print(f"  prompts and settings: {folder}/configs/train.json; licence of the images: {folder}/docs/data_license.txt")
    print(f"Then: python -m monai.bundle run --config_file {folder}/configs/train.json")
    return 0


def _add_report(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("report", help="writes report.html and report.json of a run or a study from its files")
    parser.add_argument(
        "output_dir", help="output folder of a run (train.json, and assess.json where there is one) or of a study"
    )
    parser.add_argument("--include_real_images", action="store_true", help="show real images, which are patient data")
    parser.set_defaults(run=_report)


def _report(options: argparse.Namespace) -> int:
    from .report import write_report

    print(f"Wrote {write_report(options.output_dir, options.include_real_images)}.")
    return 0


def _add_export(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("export", help="packs the accepted synthetic images of a run for others")
    parser.add_argument("output_dir", help="output folder of a run whose images filter.json has sorted")
    parser.add_argument("package", help="path of the zip that is written; with --dicom of the folder")
    parser.add_argument("--dicom", action="store_true", help="write a folder of DICOM files instead of a zip")
    parser.add_argument("--filter", default="standard", help="which filter's images")
    parser.add_argument("--export_although_leak_found", action="store_true", help="against the verdict of the audit")
    parser.set_defaults(run=_export)


def _export(options: argparse.Namespace) -> int:
    from .data.exchange import export_package

    if options.dicom:
        from .data.dicom import export_dicom

        written = export_dicom(options.output_dir, options.package, options.filter, options.export_although_leak_found)
        print(f"Wrote {options.package}: {', '.join(f'{name} {count}' for name, count in written.items())}.")
        return 0
    found = export_package(options.output_dir, options.package, options.filter, options.export_although_leak_found)
    counts = ", ".join(f"{name} {count}" for name, count in found["images"].items())
    print(f"Wrote {options.package}: {counts}. Verdict on the images: {found['verdict']}.")
    return 0


def _add_import(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("import", help="verifies and unpacks a package of `export`")
    parser.add_argument("package", help="path of the zip")
    parser.add_argument("folder", help="is made; must not exist")
    parser.set_defaults(run=_import)


def _import(options: argparse.Namespace) -> int:
    from .data.exchange import import_package

    found = import_package(options.package, options.folder)
    counts = ", ".join(f"{name} {count}" for name, count in found["images"].items())
    print(f"Every file of {options.package} is what its manifest says: {counts}.")
    print(f"Verdict on the images: {found['verdict']}.")
    print(f"To train with them: --synthetic_datalist {options.folder}/datalist.json")
    return 0


if __name__ == "__main__":
    sys.exit(main())
