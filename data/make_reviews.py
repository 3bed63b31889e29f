"""Write data/sample/reviews.csv: about 3,000 short reviews, made up by a seeded script.

    python data/make_reviews.py                  # writes data/sample/reviews.csv again, byte for byte
    python data/make_reviews.py --out other.csv --rows 500 --seed 7

The words are in data/sample/reviews.toml: domains (film, hotel, ...) with words for either side, and frames
(negation, contrast, ...) with templates. A review is one template of one frame, filled with the words of one
domain. A review that shares too many words with an earlier one is thrown away, so that no near copy can
straddle train and test.

Needs nothing but Python 3.11.
"""

from __future__ import annotations

import random
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from writing import SAMPLES, Shelf, capitalise, mistype, write_file

SIDES = {"positive": "good", "negative": "bad"}
CONTEXT_SHARE = 0.08
SLOT = re.compile(r"\{(!?)([a-z]+?)(2?)\}")


@dataclass(frozen=True)
class Review:
    """A made-up review, with what it was made from."""

    text: str
    sentiment: str
    domain: str
    frame: str


def read_words(path: Path = SAMPLES / "reviews.toml") -> dict[str, Any]:
    """Return the grammar: `who`, `when`, `very`, `verdict`, `frames`, `domains`."""
    return tomllib.loads(path.read_text(encoding="utf-8"))


class Filler:
    """Fills the slots of one template: no word twice, `{adj}` always of the aspect that stands beside it."""

    def __init__(self, words: Mapping[str, Any], domain: Mapping[str, Any], sentiment: str, rng: random.Random):
        self.words, self.domain, self.sentiment, self.rng = words, domain, sentiment, rng
        self.aspects = rng.sample(sorted(domain["aspects"]), 2)
        self.used: set[str] = set()

    def fill(self, template: str) -> str:
        """Return the template with a word in every slot."""
        return SLOT.sub(lambda slot: self.word(slot[2], flipped=bool(slot[1]), second=bool(slot[3])), template)

    def word(self, slot: str, *, flipped: bool, second: bool) -> str:
        """Return a word for the slot that this review does not use yet."""
        aspect = self.aspects[second]
        if slot == "aspect":
            return aspect
        fresh = [word for word in self.choices(slot, self.side(flipped), aspect) if word not in self.used]
        word = self.rng.choice(fresh)
        self.used.add(word)
        return word

    def side(self, flipped: bool) -> str:
        """Return 'good' or 'bad': the label's side, or the other one."""
        return SIDES[self.sentiment] if not flipped else "bad" if self.sentiment == "positive" else "good"

    def choices(self, slot: str, side: str, aspect: str) -> Sequence[str]:
        """Return all words that may stand in the slot."""
        if slot == "adj":
            return self.domain["aspects"][aspect][side]
        if slot == "verdict":
            return self.words["verdict"][side]
        if slot in self.domain[side]:
            return self.domain[side][slot]
        return self.domain[slot] if slot in self.domain else self.words[slot]


def compose(words: Mapping[str, Any], review: Review, rng: random.Random) -> str:
    """Return the text of a review of that domain, frame and sentiment, free of typing errors."""
    domain, frame = words["domains"][review.domain], words["frames"][review.frame]
    template = rng.choice(frame.get("both", []) + frame.get(review.sentiment, []))
    body = Filler(words, domain, review.sentiment, rng).fill(template)
    opening = f"{rng.choice(domain['context'])} " if rng.random() < CONTEXT_SHARE else ""
    return capitalise(opening + body)


def outlines(words: Mapping[str, Any], rows: int, rng: random.Random) -> Iterator[Review]:
    """Yield what each row is to be: frames by their share, domains in turn, labels in equal parts."""
    frames = words["frames"]
    total = sum(frame["share"] for frame in frames.values())
    cells = [(domain, label) for domain in words["domains"] for label in SIDES]
    for name, frame in frames.items():
        for i in range(round(rows * frame["share"] / total)):
            # Every frame starts its round elsewhere, or the first domain would get all the remainders.
            domain, label = cells[i % len(cells)] if i >= len(cells) else rng.choice(cells)
            yield Review("", label, domain, name)


def write_reviews(*, rows: int = 3000, seed: int = 2) -> list[Review]:
    """Return the made-up reviews in shuffled order; the same seed gives the same ones.

    Parameters
    ----------
    rows : int
        About how many: the frames' shares are rounded.
    seed : int
        Any whole number.
    """
    rng, words, shelf, reviews = random.Random(seed), read_words(), Shelf(), []
    for outline in outlines(words, rows, rng):
        text = fresh_text(words, outline, shelf, rng)
        reviews.append(Review(mistype(text, rng), outline.sentiment, outline.domain, outline.frame))
    rng.shuffle(reviews)
    return reviews


def fresh_text(words: Mapping[str, Any], outline: Review, shelf: Shelf, rng: random.Random) -> str:
    """Return a text for the outline that is no near copy of an earlier one."""
    for _ in range(500):
        text = compose(words, outline, rng)
        if shelf.take(text):
            return text
    raise SystemExit(
        f"make_reviews: no new review left for {outline.domain}/{outline.frame}; ask for fewer --rows."
    )


def make_rows(*, rows: int, seed: int) -> list[tuple[str, str]]:
    """Return text and sentiment of each review."""
    return [(review.text, review.sentiment) for review in write_reviews(rows=rows, seed=seed)]


if __name__ == "__main__":
    write_file("reviews.csv", ("review", "sentiment"), make_rows, rows=3000, seed=2)
