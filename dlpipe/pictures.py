"""Figures of matplotlib without pyplot, as PNG bytes, and text that the font can draw.

pyplot keeps every figure alive in a global list and picks a backend for a screen; here a figure is an object like
any other, drawn by Agg, and freed when nobody holds it.
"""

from __future__ import annotations

import functools
import io
import unicodedata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 110
INK, FAINT, GRID = "#1f2430", "#6b7280", "#e5e7eb"
MODEL, OTHER = "#1f6fb2", "#d97706"


def new_figure(width: float, height: float) -> Figure:
    """Return an empty white figure of ``width`` x ``height`` inches with an Agg canvas."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def to_png(figure: Figure) -> bytes:
    """Return ``figure`` as the bytes of a PNG file.

    Examples
    --------
    >>> to_png(new_figure(1, 1))[:4]
    b'\\x89PNG'
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def to_drawable(text: str, *, limit: int = 40) -> str:
    r"""Return ``text`` on one line, of at most ``limit`` characters, with only glyphs that the font has.

    A symbol that the font lacks is written by its name, any other such character as a box; so nothing
    vanishes and matplotlib has no missing glyph to warn of.

    Examples
    --------
    >>> to_drawable("so\n good \U0001f44e")
    'so good :thumbs down sign:'
    >>> to_drawable("a" * 50, limit=8)
    'aaaaaaa…'
    """
    line = "".join(to_drawable_character(character) for character in " ".join(text.split()))
    return line if len(line) <= limit else line[: limit - 1] + "…"


@functools.lru_cache(maxsize=4096)
def to_drawable_character(character: str) -> str:
    """Return ``character``, or its replacement if the font has no glyph for it."""
    kind = unicodedata.category(character)
    known = ord(character) in list_font_characters()
    if kind in ("Cc", "Cf") or (not known and kind in ("Mn", "Me", "Sk")):
        return ""  # joiners, variation selectors, skin tones: they only modify the character before
    if known:
        return character
    return f":{unicodedata.name(character, 'symbol').lower()}:" if kind == "So" else "□"


def measure_text(text: str, *, size: float) -> float:
    """Return how many inches wide a line of ``text`` is in a font of ``size`` points."""
    face = load_font()
    face.set_size(size, DPI)  # glyphs are fitted to the pixels, so the width depends on the resolution
    face.set_text(text, 0.0)
    return float(face.get_width_height()[0]) / 64 / DPI


@functools.cache
def list_font_characters() -> frozenset[int]:
    """Return the code points that matplotlib's own sans-serif font can draw."""
    return frozenset(load_font().get_charmap())


def load_font() -> Any:
    """Return matplotlib's own sans-serif font."""
    from matplotlib import font_manager

    return font_manager.get_font(font_manager.findfont("DejaVu Sans"))
