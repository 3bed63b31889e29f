"""Write data/sample/claims.csv: about 2,000 insurance claims with columns and a note, made up by a seeded script.

    python data/make_claims.py                  # writes data/sample/claims.csv again, byte for byte
    python data/make_claims.py --out other.csv --rows 500 --seed 7

The words are in data/sample/claims.toml. Numbers, categories and what the note says add up to a score; with a
little luck, a claim with a score above zero is paid. Some values are missing.

Needs nothing but Python 3.11.
"""

from __future__ import annotations

import math
import random
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from writing import SAMPLES, Shelf, capitalise, mistype, write_file

COLUMNS = ("age", "amount", "days", "region", "channel", "cover", "note", "outcome")
LUCK = 0.3
"""The scale of the logistic noise of a score."""
SENTENCES = (1, 1, 2, 2, 3)
WEIGHT = 2.6
"""What a sentence of a note adds, or takes away."""
FRAMES = {"plain": 64, "asserted": 24, "turned": 12}


@dataclass(frozen=True)
class Claim:
    """What is known of a claim but its note."""

    age: int
    amount: float
    days: int
    region: str
    channel: str
    cover: str

    def score(self, words: Mapping[str, Any]) -> float:
        """Return what the columns add: dear claims, late ones and those of the young are paid less often."""
        named = sum(words["columns"][name][getattr(self, name)] for name in ("region", "channel", "cover"))
        dear = -1.4 * (math.log10(self.amount) - 2.8)
        late = -1.8 if self.days > 30 else 0.6 - self.days / 30
        young = -1.2 if self.age < 25 else 0.2
        return float(named + dear + late + young)


def read_words(path: Path = SAMPLES / "claims.toml") -> dict[str, Any]:
    """Return the grammar: `columns`, `missing`, and what a note is made of."""
    return tomllib.loads(path.read_text(encoding="utf-8"))


def draw_claim(words: Mapping[str, Any], rng: random.Random) -> Claim:
    """Return a claim."""
    names = {name: rng.choice(sorted(words["columns"][name])) for name in ("region", "channel", "cover")}
    amount = round(10 ** rng.gauss(2.8, 0.6), 2)
    return Claim(int(rng.triangular(18, 85, 35)), max(20.0, amount), int(rng.expovariate(1 / 18)), **names)


def write_note(words: Mapping[str, Any], rng: random.Random) -> tuple[str, float]:
    """Return a note, free of typing errors, and what it adds to the score."""
    slots = {name: rng.choice(words["thing"][name]) for name in ("thing", "harm", "where")}
    parts = [rng.choice(words["openings"]["openings"]).format(**slots)]
    score = 0.0
    for _ in range(rng.choice(SENTENCES)):
        sentence, sign = write_sentence(words, rng)
        parts.append(sentence)
        score += sign * WEIGHT
    return capitalise(". ".join(parts) + "."), score


def write_sentence(words: Mapping[str, Any], rng: random.Random) -> tuple[str, int]:
    """Return a sentence of a note, and whether it speaks for the claim (1) or against it (-1)."""
    side = rng.choice(("for", "against"))
    frame = rng.choices(list(FRAMES), list(FRAMES.values()))[0]
    text = rng.choice(words["frames"][frame]).format(clause=rng.choice(words["clauses"][side]))
    return text, 1 if (side == "for") != (frame == "turned") else -1


def write_claims(*, rows: int = 2000, seed: int = 6) -> list[tuple[Any, ...]]:
    """Return the made-up claims; the same seed gives the same ones. Missing values are empty.

    Parameters
    ----------
    rows : int
    seed : int
        Any whole number.
    """
    rng, words, shelf, claims = random.Random(seed), read_words(), Shelf(), []
    while len(claims) < rows:
        claim, (note, said) = draw_claim(words, rng), write_note(words, rng)
        if not shelf.take(note):
            continue
        chance = rng.random()
        luck = LUCK * math.log(chance / (1 - chance))
        outcome = "paid" if claim.score(words) + said + luck > 0 else "declined"
        known = {
            name: "" if rng.random() < words["missing"].get(name, 0) else value
            for name, value in vars(claim).items()
        }
        claims.append((*known.values(), mistype(note, rng), outcome))
    return claims


if __name__ == "__main__":
    write_file("claims.csv", COLUMNS, write_claims, rows=2000, seed=6)
