"""Command line: `python -m monai_synth check DIR`, `phantoms DIR`, `new_bundle NAME`."""

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
    _add_new_bundle(commands)
    options = parser.parse_args(arguments)
    try:
        return options.run(options)
    except (ValueError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2


def _add_check(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("check", help="tells all that is wrong with a data set")
    parser.add_argument("source", help="folder of class folders, CSV, or datalist JSON")
    parser.add_argument("--groups", help="pattern over the path whose first group names the patient or slide")
    parser.add_argument("--shots", type=int, help="images per class that will be asked for")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_check)


def _check(options: argparse.Namespace) -> int:
    from .data.scan import check, findings_as_json

    findings = check(options.source, groups=options.groups, shots=options.shots)
    errors = sum(finding.level == "error" for finding in findings)
    if options.json:
        print(json.dumps(findings_as_json(findings), indent=2, ensure_ascii=False))
    else:
        for finding in findings:
            print(f"{finding.level}: {finding.path}: {finding.message}")
        print(f"{options.source}: {errors} errors, {len(findings) - errors} warnings.")
    return 1 if errors else 0


def _add_phantoms(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("phantoms", help="draws a folder of phantom images")
    parser.add_argument("output_dir")
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
    from .data.scan import scan

    if not options.name.isidentifier():
        raise ValueError(f"{options.name!r} cannot name a bundle; use letters, digits and underscores.")
    records, class_names = scan(options.dataset_dir)
    spec = spec_of_folder(options.name, options.dataset_dir, class_names, options.prompt_template)
    folder = write_bundle(spec, Path(options.output_dir) / options.name)
    print(f"Wrote {folder} for {len(records)} images of {len(class_names)} classes. Look at these before you run it:")
    for class_name, phrase in spec.prompts.items():
        print(f"  prompt of {class_name}: {options.prompt_template.format(phrase=phrase)}")
    print(f"  prompts and settings: {folder}/configs/train.json; licence of the images: {folder}/docs/data_license.txt")
    print(f"Then: python -m monai.bundle run --config_file {folder}/configs/train.json")
    return 0


if __name__ == "__main__":
    sys.exit(main())
