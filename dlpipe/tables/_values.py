"""Write and compare texts, numbers and labels as tables have them.

What is here decides which rows are the same and how labels are spelled: tables that exist rely on it.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Iterable
from typing import Any


def normalise(text: str) -> str:
    """Return what two texts share that are the same to a reader: Unicode form, case and white space levelled.

    Examples
    --------
    >>> normalise("  Ｇreat\\u00a0\\n FILM ")
    'great film'
    """
    # twice, since case folding can undo the form
    return " ".join(unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()).split())


def hash_text(text: str) -> bytes:
    """Return the SHA-256 of the normalised text."""
    return hashlib.sha256(normalise(text).encode()).digest()


def is_number(text: str) -> bool:
    """Return whether ``text`` is a finite number as files write it.

    Examples
    --------
    >>> [is_number(text) for text in ("1.5", "-2e3", "1,5", "1_000", "inf", "")]
    [True, True, False, False, False, False]
    """
    try:
        number = float(text)
    except ValueError:
        return False
    return "_" not in text and abs(number) != float("inf") and number == number


def format_number(number: Any) -> str:
    """Return a number as labels write it; minus zero is zero."""
    return repr(float(number) + 0.0)


def format_labels(labels: Iterable[str]) -> str:
    """Return several labels as one string: sorted, each once.

    Examples
    --------
    >>> format_labels(["war", " drama", "war", ""])
    '["drama", "war"]'
    """
    return json.dumps(sorted({bare for label in labels if (bare := label.strip())}), ensure_ascii=False)
