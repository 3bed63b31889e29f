"""Write data/sample/tickets.csv: about 2,000 messages to a shop's support, made up by a seeded script.

    python data/make_tickets.py                  # writes data/sample/tickets.csv again, byte for byte
    python data/make_tickets.py --out other.csv --rows 500 --seed 7

The words are in data/sample/tickets.toml. A message has one sentence for each of its labels, and often others
beside them: some say nothing, some turn a label's words round ("it is not that the parcel never came").

Needs nothing but Python 3.11.
"""

from __future__ import annotations

import random
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from writing import SAMPLES, Shelf, capitalise, mistype, write_file

COLUMNS = ("message", "labels")
NO_LABELS = "[]"
"""An empty cell would be a row whose labels nobody knows."""
MOST_SENTENCES = 4
DENIED = (0, 0, 0, 0, 0, 1, 1, 1, 1, 2)
"""How many sentences turn a label round; a message draws one of these numbers."""
PLAIN = (0, 0, 0, 1, 1)
"""How many sentences say nothing that a label stands for."""
SLOT = re.compile(r"\{([a-z]+)\}")


def read_words(path: Path = SAMPLES / "tickets.toml") -> dict[str, Any]:
    """Return the grammar: `bundles`, `asserted`, `denied`, `plain`, `labels` and what fills slots."""
    return tomllib.loads(path.read_text(encoding="utf-8"))


def fill(template: str, words: Mapping[str, Any], rng: random.Random) -> str:
    """Return the template with a word in every slot."""
    return SLOT.sub(lambda slot: rng.choice(words[slot[1]]), template)


def sentence(label: str, words: Mapping[str, Any], rng: random.Random, *, asserted: bool) -> str:
    """Return a sentence that says what the label stands for, or that it is not so."""
    frames = words["asserted" if asserted else "denied"][words["labels"][label]["kind"]]
    clause = rng.choice(words["labels"][label]["clauses"])
    return fill(rng.choice(frames).replace("{clause}", clause), words, rng)


def compose(labels: tuple[str, ...], words: Mapping[str, Any], rng: random.Random) -> str:
    """Return a message with these labels, free of typing errors."""
    sentences = [sentence(label, words, rng, asserted=True) for label in labels]
    others = rng.sample(sorted({*words["labels"]} - {*labels}), rng.choice(DENIED))
    sentences += [sentence(label, words, rng, asserted=False) for label in others]
    plain = max(rng.choice(PLAIN), int(not sentences))
    sentences += [fill(text, words, rng) for text in rng.sample(words["plain"]["sentences"], plain)]
    sentences = sentences[:MOST_SENTENCES]
    rng.shuffle(sentences)
    return capitalise(" ".join(sentences))


def bundles(words: Mapping[str, Any], rows: int) -> Iterator[tuple[str, ...]]:
    """Yield the labels of each row, bundles by their share."""
    total = sum(words["bundles"].values())
    for bundle, share in words["bundles"].items():
        for _ in range(round(rows * share / total)):
            yield tuple(filter(None, bundle.split("|")))


def write_tickets(*, rows: int = 2000, seed: int = 4) -> list[tuple[str, str]]:
    """Return the made-up messages with their labels in shuffled order; the same seed gives the same ones.

    Parameters
    ----------
    rows : int
        About how many: the bundles' shares are rounded.
    seed : int
        Any whole number.
    """
    rng, words, shelf, tickets = random.Random(seed), read_words(), Shelf(), []
    for labels in bundles(words, rows):
        text = compose(labels, words, rng)
        while not shelf.take(text):
            text = compose(labels, words, rng)
        tickets.append((mistype(text, rng), "|".join(labels) or NO_LABELS))
    rng.shuffle(tickets)
    return tickets


if __name__ == "__main__":
    write_file("tickets.csv", COLUMNS, write_tickets, rows=2000, seed=4)
