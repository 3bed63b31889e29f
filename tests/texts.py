"""Texts to test on: made-up reviews, and where the real ones lie."""

from __future__ import annotations

from pathlib import Path

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"

GOOD, BAD = ["good", "great", "lovely", "superb", "funny"], ["bad", "awful", "dull", "poor", "boring"]
THINGS = ["film", "plot", "cast", "score", "ending", "room", "soup", "phone", "story", "acting"]
FRAMES = ["the {t} was {w}", "a {w} {t} indeed", "what a {w} {t}", "i found the {t} {w}", "{w} {t} and all"]


def reviews() -> list[tuple[str, str]]:
    """250 different short texts with their labels."""
    return [
        (frame.format(t=thing, w=word), label)
        for words, label in ((GOOD, "positive"), (BAD, "negative"))
        for word in words
        for thing in THINGS
        for frame in FRAMES[: 3 if label == "positive" else 2]
    ]


def write_csv(path: Path, rows: list[tuple[str, str]], header: str = "review,sentiment") -> Path:
    """Write quoted rows under ``header`` and return the path."""
    lines = [header, *(f'"{text}","{label}"' for text, label in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
