"""Rows for production: those that are known, those that come in later, and those of another kind."""

from __future__ import annotations

import csv
import itertools
import random
from pathlib import Path

KNOWN_SHARE = 0.8
"""Of the rows, what the first champion is trained on; the others come in later and are no different."""

ABOUT = ("Order", "Case", "Ticket", "Return", "Parcel", "Claim")
NOTES = {
    "positive": (
        "closed on first contact", "SLA met", "CSAT 5 of 5", "delivered before the ETA", "confirmed as working",
        "no open tasks", "credit note booked the same day", "priority lowered to P4", "sealed on arrival",
        "warranty extended by 12 months", "root cause fixed", "customer renewed the contract",
    ),
    "negative": (
        "escalated to tier 3", "SLA breached", "CSAT 1 of 5", "ETA moved for the third time", "RMA opened",
        "reopened twice", "chargeback filed", "priority raised to P1", "seal broken on arrival",
        "warranty void", "no root cause yet", "customer cancelled the contract",
    ),
}  # fmt: skip

Row = tuple[str, str]
"""A text and its label."""


def read_rows(path: Path) -> list[Row]:
    """Return texts and labels of a CSV file with the columns ``review`` and ``sentiment``."""
    with path.open(encoding="utf-8", newline="") as file:
        return [(row["review"], row["sentiment"]) for row in csv.DictReader(file)]


def split_rows(rows: list[Row]) -> tuple[list[Row], list[Row]]:
    """Return the rows that are known, and those that come in later."""
    every = round(1 / (1 - KNOWN_SHARE))
    known = [row for at, row in enumerate(rows) if at % every]
    return known, rows[::every]


def make_other_rows() -> list[Row]:
    """Return rows of another kind than reviews: the notes of a service desk, in its jargon."""
    draw = random.Random(0)
    rows = []
    for label, notes in NOTES.items():
        for first, second in itertools.permutations(notes, 2):
            rows += [(f"{about} {draw.randint(1000, 9999)}: {first}, {second}.", label) for about in ABOUT]
    draw.shuffle(rows)
    return rows


def write_rows(path: Path, rows: list[Row]) -> None:
    """Write rows as CSV."""
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("review", "sentiment"), *rows])
