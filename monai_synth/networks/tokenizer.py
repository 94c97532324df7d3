"""Stable Diffusion's own tokenizer, without a download."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import open_clip
from transformers import CLIPTokenizer


def clip_tokenizer() -> CLIPTokenizer:
    """CLIP's byte-pair tokenizer with the ids of Stable Diffusion 1.x, built from the merges inside open_clip.

    Returns:
        A tokenizer of 49,408 tokens that pads to 77 with the end-of-text token.

    Reference:
        Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", 2021.
    """
    path = Path(open_clip.__file__).parent / "bpe_simple_vocab_16e6.txt.gz"
    lines = gzip.open(path, "rt", encoding="utf-8").read().split("\n")
    merges: Any = [tuple(line.split()) for line in lines[1 : 49152 - 256 - 2 + 1]]
    letters = _byte_letters()
    words = letters + [letter + "</w>" for letter in letters] + ["".join(pair) for pair in merges]
    vocabulary = {word: index for index, word in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}
    return CLIPTokenizer(
        vocab=vocabulary,
        merges=merges,
        unk_token="<|endoftext|>",
        bos_token="<|startoftext|>",
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        model_max_length=77,
    )


def _byte_letters() -> list[str]:
    """A printable letter for each of the 256 bytes, in the order of CLIP's vocabulary."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    rest = [byte for byte in range(256) if byte not in plain]
    return [chr(byte) for byte in plain] + [chr(256 + number) for number in range(len(rest))]
