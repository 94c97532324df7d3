"""Whether what a privacy audit said still holds for the files that are there now."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..utils.io import PathLike, read_json, sha256_of
from .records import Record, load_datalist

LEAK, NOT_TESTED = "LEAK FOUND", "NOT TESTED"
OF = {"images": ("images",), "metadata": ("images", "adapter")}  # what a channel is of; the others of the adapter
CHANGED = {"images": "The images are not those that were audited", "adapter": "It is another adapter"}


def audited(drawn: Sequence[Record], adapter_dir: PathLike) -> dict[str, str]:
    """The digests of what an audit is of: of the synthetic images, whatever their order, and of the adapter's weights.

    Args:
        drawn: records of the synthetic images.
        adapter_dir: folder of the run's adapter, or of one for each class.
    """
    from ..networks.adapter_files import ADAPTER_FILE

    weights = sorted(Path(adapter_dir).rglob(ADAPTER_FILE))
    hashes = {
        "images": sorted(record["sha256"] for record in drawn),
        "adapter": [sha256_of(path) for path in weights],
    }
    return {name: hashlib.sha256("".join(values).encode()).hexdigest() for name, values in hashes.items()}


def audit_of(output_dir: PathLike) -> dict[str, Any] | None:
    """The content of a run's `privacy.json`, None where there is none; verdicts on other files are no longer given.

    A leak that was found stays one. Any other verdict becomes `NOT_TESTED` when the images or the adapter have changed
    since, as when more images were drawn.
    """
    folder = Path(output_dir)
    path, datalist = folder / "privacy" / "privacy.json", folder / "synthetic" / "datalist.json"
    if not path.is_file():
        return None
    content = read_json(path)
    now = audited(load_datalist(datalist) if datalist.is_file() else [], folder / "adapter")
    changed = [what for what in now if content.get("audited", {}).get(what) != now[what]]
    for name, channel in content["channels"].items():
        reasons = [CHANGED[what] for what in OF.get(name, ("adapter",)) if what in changed]
        if reasons and channel["verdict"] != LEAK:
            content["channels"][name] = {"verdict": NOT_TESTED, "words": f"{reasons[0]}. Run privacy.json again."}
    return content
