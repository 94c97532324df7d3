"""Command line: `python -m monai_synth check DIR`, `python -m monai_synth phantoms DIR`."""

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


if __name__ == "__main__":
    sys.exit(main())
