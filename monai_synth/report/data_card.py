"""The data card of a set of synthetic images, along the seven questions of the "7 Cs" scorecard."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def data_card(content: Mapping[str, Any]) -> list[dict[str, str]]:
    """Question and answer for each C, the answers from the numbers of a run; what was not looked at is said.

    Args:
        content: of `report.json`, without the card.

    Reference:
        Zamzmi et al., "Scorecards for Synthetic Medical Data Evaluation and Reporting", 2024.
        https://arxiv.org/abs/2406.11143
    """
    quality, data = content["quality"], content["data"]
    pooled = quality["pooled"] if quality else None
    unknown = "Not assessed: run assess.json."
    counts = ", ".join(f"{name} {row['synthetic']}" for name, row in data["classes"].items())
    privacy = content["privacy"]
    answers = {
        "Congruence": _congruence(quality) if quality else unknown,
        "Coverage": (
            f"Recall {_number(pooled['recall'])} at equal n (real images within reach of a synthetic one), Vendi score "
            f"{_number(pooled['vendi_synthetic'], 1)} against {_number(pooled['vendi_real'], 1)} of the real images."
            if pooled
            else unknown
        ),
        "Constraint": _agreement(quality) if quality else unknown,
        "Completeness": f"Images per class: {counts}. Each has prompt, seed, steps, guidance, adapter, base and "
        "SHA-256 in the datalist.",
        "Compliance": (
            "; ".join(f"{name}: {row['verdict']}" for name, row in privacy["channels"].items())
            if privacy
            else "Not tested for leaks. The adapter and the images must be treated as patient data."
        ),
        "Comprehension": "Every image is marked as synthetic in its metadata (IPTC digital source type), and can be "
        "drawn again from its record.",
        "Consistency": "Each image has a seed of its own; batch size and order do not change it.",
    }
    questions = {
        "Congruence": "Do they look like real images of their class?",
        "Coverage": "Is the variety of real images there?",
        "Constraint": "Does each show the class that it claims?",
        "Completeness": "Is everything there, for every class?",
        "Compliance": "Does it give patients away?",
        "Comprehension": "Can one tell what it is and where it comes from?",
        "Consistency": "Does the same request give the same image?",
    }
    return [{"name": name, "question": questions[name], "answer": answers[name]} for name in questions]


def _number(value: float | None, digits: int = 2) -> str:
    return "not to be had" if value is None else f"{value:.{digits}f}"


def _congruence(quality: Mapping[str, Any]) -> str:
    ratios = [
        f"{name} {numbers['ratio']:.2f}" for name, numbers in quality["classes"].items() if numbers["ratio"] is not None
    ]
    if not ratios:
        return "Too few real images to say."
    return (
        f"KID over between-class KID: {', '.join(ratios)} (0 is as good as other real images, 1 as far off as the "
        f"nearest wrong class), encoder {quality['encoder']['name']}."
    )


def _agreement(quality: Mapping[str, Any]) -> str:
    found = quality["agreement"]
    parts = []
    for name, share in found["synthetic"].items():
        real = found["real"][name] if found["real"] else None
        parts.append(f"{name} {_number(share)} (real images {_number(real)})")
    return "A linear classifier of the shots' features agrees with the claimed class for " + ", ".join(parts) + "."
