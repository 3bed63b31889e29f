"""Write data/sample/questions.csv: 2,400 pairs of questions, made up by a seeded script.

    python data/make_questions.py                  # writes data/sample/questions.csv again, byte for byte
    python data/make_questions.py --out other.csv --rows 500 --seed 7

The words are in data/sample/questions.toml. Half of the pairs ask the same in other words; of the others, most
differ in one thing (what is asked, the act, the circumstances) and share the rest of their words.

Needs nothing but Python 3.11.
"""

from __future__ import annotations

import random
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from writing import SAMPLES, Shelf, capitalise, mistype, write_file

COLUMNS = ("question", "other", "duplicate")
BARE_SHARE = 0.35  # questions without circumstances
REWORD_SHARE = 0.6  # parts of a pair that are worded anew
SORTS = {"same": 50, "ask": 11, "act": 15, "around": 10, "unrelated": 14}
"""In what the two questions of a pair differ, in percent of the pairs."""


@dataclass(frozen=True)
class Meaning:
    """What a question asks: names in questions.toml. ``around`` is empty where there are no circumstances."""

    ask: str
    act: tuple[str, str]
    around: tuple[str, str] | tuple[()]


@dataclass(frozen=True)
class Wording:
    """Which of its words each part of a question takes."""

    ask: str
    act: str
    around: str


def read_words(path: Path = SAMPLES / "questions.toml") -> dict[str, Any]:
    """Return the grammar: ``ask``, ``around``, ``acts``."""
    return tomllib.loads(path.read_text(encoding="utf-8"))


def draw_meaning(words: Mapping[str, Any], rng: random.Random) -> Meaning:
    """Return something to ask."""
    domain, group = rng.choice(sorted(words["acts"])), rng.choice(sorted(words["around"]))
    act = domain, rng.choice(sorted(words["acts"][domain]))
    around = (group, rng.choice(sorted(words["around"][group])))
    return Meaning(rng.choice(sorted(words["ask"])), act, () if rng.random() < BARE_SHARE else around)


def change(meaning: Meaning, sort: str, words: Mapping[str, Any], rng: random.Random) -> Meaning:
    """Return a meaning that differs from this one in that sort of thing, and is near it otherwise."""
    if sort == "ask":
        return replace(meaning, ask=rng.choice(sorted({*words["ask"]} - {meaning.ask})))
    if sort == "act":
        domain, act = meaning.act
        return replace(meaning, act=(domain, rng.choice(sorted({*words["acts"][domain]} - {act}))))
    if sort == "around" and meaning.around:
        group, around = meaning.around
        return replace(meaning, around=(group, rng.choice(sorted({*words["around"][group]} - {around}))))
    other = meaning
    while sort == "unrelated" and other.act[0] == meaning.act[0]:
        other = draw_meaning(words, rng)
    return other


def choices(meaning: Meaning, words: Mapping[str, Any]) -> tuple[Sequence[str], Sequence[str], Sequence[str]]:
    """Return the ways to word each part of a meaning."""
    (domain, act), around = meaning.act, meaning.around
    circumstances = [f" {text}" for text in words["around"][around[0]][around[1]]] if around else [""]
    return words["ask"][meaning.ask], words["acts"][domain][act], circumstances


def word(meaning: Meaning, words: Mapping[str, Any], rng: random.Random) -> Wording:
    """Return words for each part of a meaning."""
    return Wording(*map(rng.choice, choices(meaning, words)))


def reword(
    first: Wording, meaning: Meaning, words: Mapping[str, Any], rng: random.Random, *, all_new: bool
) -> Wording:
    """Return other words for most parts of a meaning; a part that means the same may keep its words."""
    parts = []
    for before, ways in zip((first.ask, first.act, first.around), choices(meaning, words), strict=True):
        keep = before in ways and not all_new and rng.random() > REWORD_SHARE
        fresh = [way for way in ways if way != before]
        parts.append(before if keep or not fresh else rng.choice(fresh))
    return Wording(*parts)


def spell(wording: Wording) -> str:
    """Return the question, free of typing errors."""
    return capitalise(wording.ask.format(act=wording.act, around=wording.around))


def make_pair(sort: str, words: Mapping[str, Any], rng: random.Random) -> tuple[str, str]:
    """Return two questions that differ in that sort of thing."""
    meaning = draw_meaning(words, rng)
    while sort == "around" and not meaning.around:
        meaning = draw_meaning(words, rng)
    other = meaning
    while sort != "same" and other == meaning:
        other = change(meaning, sort, words, rng)
    first = word(meaning, words, rng)
    second = reword(first, other, words, rng, all_new=False)
    if sort == "same" and second.act == first.act:  # at least the act is worded anew
        second = reword(first, other, words, rng, all_new=True)
    return spell(first), spell(second)


def write_questions(*, rows: int = 2400, seed: int = 3) -> list[tuple[str, str, str]]:
    """Return the made-up pairs in shuffled order; the same seed gives the same ones.

    Parameters
    ----------
    rows : int
    seed : int
        Any whole number.
    """
    rng, words, shelf, pairs = random.Random(seed), read_words(), Shelf(), []
    seen: set[str] = set()
    for sort in (sort for sort, share in SORTS.items() for _ in range(rows * share // 100)):
        pair = make_pair(sort, words, rng)
        # a question stands in one pair only: no split knows the questions of another
        while seen & {*pair} or not shelf.take(" ".join(pair)):
            pair = make_pair(sort, words, rng)
        seen |= {*pair}
        first, second = (mistype(text, rng) for text in pair)
        pairs.append((first, second, "duplicate" if sort == "same" else "different"))
    rng.shuffle(pairs)
    return pairs


if __name__ == "__main__":
    write_file("questions.csv", COLUMNS, write_questions, rows=2400, seed=3)
