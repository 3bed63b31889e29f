"""How the samples are written: capitals, typing errors, no near copies, CSV.

What the scripts of this folder share. Needs nothing but Python 3.11.
"""

from __future__ import annotations

import argparse
import csv
import io
import os
import random
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

SAMPLES = Path(__file__).resolve().parent / "sample"
MOST_SHARED = 0.7  # of the words of two texts together (Jaccard), before typing errors
CAPITALS_SHARE, SLIP_SHARE = 0.06, 0.12
# A slip in one of these could turn the meaning round.
TURNING = (
    "never nobody nothing without hardly unlike although though despite even wrong right "
    "opposite worse better mistaken anything ignore instead"
)
KEPT_WHOLE = frozenset(TURNING.split())


def capitalise(text: str) -> str:
    """Return the text with a capital at the start of every sentence.

    >>> capitalise("what a mess. the soup? cold.")
    'What a mess. The soup? Cold.'
    """
    return re.sub(r"(^|[.!?] )([a-z])", lambda start: start[1] + start[2].upper(), text)


def misspell(word: str, rng: random.Random) -> str:
    """Return the word with two letters swapped, one dropped or one doubled; never the first."""
    at = rng.randrange(1, len(word) - 1)
    slips = (
        word[:at] + word[at + 1] + word[at] + word[at + 2 :],
        word[:at] + word[at + 1 :],
        word[:at] + word[at] + word[at:],
    )
    return rng.choice(slips)


def mistype(text: str, rng: random.Random) -> str:
    """Return the text as hasty fingers leave it: some rows without capitals, some with a misspelt word or two."""
    if rng.random() < CAPITALS_SHARE:
        text = text.lower().rstrip(".")
    if rng.random() < SLIP_SHARE:
        for _ in range(rng.choice((1, 1, 2))):
            text = slip(text, rng)
    return text


def slip(text: str, rng: random.Random) -> str:
    """Return the text with one of its longer words misspelt, but none that carries the turn of the sentence."""
    words = text.split(" ")
    long = [i for i, word in enumerate(words) if re.fullmatch(r"[a-z]{5,}", word) and word not in KEPT_WHOLE]
    if long:
        at = rng.choice(long)
        words[at] = misspell(words[at], rng)
    return " ".join(words)


class Shelf:
    """The word sets of the texts taken so far, as bit masks: comparing two is one AND."""

    def __init__(self, most_shared: float = MOST_SHARED) -> None:
        self.most_shared = most_shared
        self.bits: dict[str, int] = {}
        self.masks: list[int] = []

    def take(self, text: str) -> bool:
        """Add the text and return True, or return False where an earlier one shares too many words with it."""
        words = set(re.findall(r"[a-z']+", text.lower()))
        mask = sum(1 << self.bits.setdefault(word, len(self.bits)) for word in words)
        near = any((mask & seen).bit_count() > self.most_shared * (mask | seen).bit_count() for seen in self.masks)
        if not near:
            self.masks.append(mask)
        return not near


def as_csv(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    """Return the rows as UTF-8 CSV, every field quoted."""
    out = io.StringIO()
    writer = csv.writer(out, quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return out.getvalue().encode("utf-8")


def write_file(
    name: str, columns: Sequence[str], make: Callable[..., list[Sequence[Any]]], *, rows: int, seed: int
) -> None:
    """Write a sample as the command line asks; nothing half-written is left behind.

    Parameters
    ----------
    name : str
        Of the file in the folder ``sample``.
    columns : sequence of str
    make : callable
        Takes ``rows`` and ``seed`` and returns the rows of the file.
    rows, seed : int
        Those of the file that ships.
    """
    parser = argparse.ArgumentParser(description=f"Write {name}, which a script made up.")
    parser.add_argument("--out", type=Path, default=SAMPLES / name)
    parser.add_argument("--rows", type=int, default=rows)
    parser.add_argument("--seed", type=int, default=seed)
    args = parser.parse_args()
    made = make(rows=args.rows, seed=args.seed)
    half = args.out.with_name(args.out.name + ".part")
    half.write_bytes(as_csv(columns, made))
    os.replace(half, args.out)
    print(f"{args.out}: {len(made)} rows")
