"""Write data/sample/ratings.csv: about 2,000 reviews with a rating from 0 to 10, made up by a seeded script.

    python data/make_ratings.py                  # writes data/sample/ratings.csv again, byte for byte
    python data/make_ratings.py --out other.csv --rows 500 --seed 7

The words are in data/sample/ratings.toml, with what each adds to the rating: how strong an adjective is, what
"hardly" or "extremely" make of it, and how much the aspect counts. A little noise is added.

Needs nothing but Python 3.11.
"""

from __future__ import annotations

import random
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from writing import SAMPLES, Shelf, capitalise, mistype, write_file

COLUMNS = ("review", "rating")
MIDDLE, RATE, NOISE = 5.0, 1.9, 0.3
ASPECTS = (2, 2, 3, 3, 4)
OPENING_SHARE = 0.25


def read_words(path: Path = SAMPLES / "ratings.toml") -> dict[str, Any]:
    """Return the grammar: adjectives by strength, modes, sayings, things with their aspects."""
    return tomllib.loads(path.read_text(encoding="utf-8"))


def draw(shares: Mapping[str, float], rng: random.Random) -> str:
    """Return a name, each as often as its share says."""
    return rng.choices(list(shares), list(shares.values()))[0]


def describe(words: Mapping[str, Any], rng: random.Random) -> tuple[str, float]:
    """Return what is said of an aspect, and its strength."""
    factor, grades, ways = words["modes"][draw(words["shares"], rng)]
    grade = rng.choice(grades)
    adjective = rng.choice(words["adjectives"][grade])
    return rng.choice(ways).format(adj=adjective), factor * words["strengths"][grade]


def compose(words: Mapping[str, Any], rng: random.Random) -> tuple[str, float]:
    """Return a review, free of typing errors, and its rating, free of noise."""
    aspects = rng.sample(words["things"][rng.choice(sorted(words["things"]))], rng.choice(ASPECTS))
    text, parts = "", []
    for at, aspect in enumerate(aspects):
        weight, sayings = words["sayings"][draw(words["weights"], rng) if at else "plain"]
        said, strength = describe(words, rng)
        clause = rng.choice(sayings).format(aspect=aspect, said=said)
        text += (rng.choice(words["joints"]["joints"]) if text else "") + clause
        parts.append((weight, strength))
    mean = sum(weight * strength for weight, strength in parts) / sum(weight for weight, _ in parts)
    opening = f"{rng.choice(words['openings']['openings'])} " if rng.random() < OPENING_SHARE else ""
    return capitalise(f"{opening}{text}."), MIDDLE + RATE * mean


def write_ratings(*, rows: int = 2000, seed: int = 5) -> list[tuple[str, str]]:
    """Return the made-up reviews with their ratings; the same seed gives the same ones.

    Parameters
    ----------
    rows : int
    seed : int
        Any whole number.
    """
    rng, words, shelf, reviews = random.Random(seed), read_words(), Shelf(), []
    while len(reviews) < rows:
        text, rating = compose(words, rng)
        if shelf.take(text):
            noisy = min(10.0, max(0.0, rating + rng.gauss(0, NOISE)))
            reviews.append((mistype(text, rng), f"{noisy:.1f}"))
    return reviews


if __name__ == "__main__":
    write_file("ratings.csv", COLUMNS, write_ratings, rows=2000, seed=5)
