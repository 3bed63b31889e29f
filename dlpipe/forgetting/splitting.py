r"""The words of a content, spelled alike however they are written.

An umlaut may be one character or two, or ``\u00e4``, a ligature its letters, and ``STRASSE`` is ``Straße``: so
tables compare texts, too.
"""

from __future__ import annotations

import html
import re
import sys
import unicodedata
from dataclasses import dataclass


def _list_marks() -> str:
    """Return the accents and vowel signs that are characters of their own, as a set of a regular expression."""
    kinds = (unicodedata.category(chr(code)) for code in range(sys.maxunicode // 8))
    return "".join(f"\\U{code:08x}" for code, kind in enumerate(kinds) if kind.startswith("M"))


MARKS = _list_marks()
PLAIN = re.compile(rf"(?P<word>\w+(?:(?![\x00-\x7f])[{MARKS}][\w{MARKS}]*)?)")  # mostly ASCII follows
ASCII_WORD = re.compile(r"\w+", re.ASCII)
CODE = (
    r"(?P<code>\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u[0-9a-fA-F]{4}"
    r"|&(?:#\d+|#[xX][0-9a-fA-F]+|[A-Za-z][A-Za-z0-9]*);)"
)
GAP = r"(?P<gap>\\[nrtbf\"\\/]|<[^<>]*>)"
MARKUP = re.compile(f"{CODE}|{GAP}|{PLAIN.pattern}")
CODE_OR_GAP = re.compile(f"{CODE}(?P<mark>[{MARKS}])?|{GAP}")
"""An accent after a code is no part of its word."""


@dataclass(frozen=True)
class Word:
    """A word of a content, as ``fold`` spells it, and where it stands."""

    text: str
    start: int
    end: int


def fold(word: str) -> str:
    """Return what all spellings of a word share.

    Examples
    --------
    >>> fold("Cafe\\u0301"), fold("Straße"), fold("ＦＩＬＭ")
    ('café', 'strasse', 'film')
    """
    if word.isascii():
        return word.lower()
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", word).casefold())


def list_words(content: str, *, markup: bool = False) -> list[str]:
    r"""Return what ``split_words`` does without where each stands, in a tenth of the time.

    Examples
    --------
    >>> list_words(r"<b>Caf\u00e9</b> &amp; bar", markup=True)
    ['café', 'bar']
    """
    if markup:
        content = CODE_OR_GAP.sub(_read_match, content)
    if content.isascii():
        return ASCII_WORD.findall(content.lower())
    lower = content.encode("utf-8", "surrogatepass").lower().decode("utf-8", "surrogatepass")  # of ASCII alone
    return [word if word.isascii() else fold(word) for word in PLAIN.findall(lower)]


def _read_match(match: re.Match[str]) -> str:
    read = _read_code(match["code"], joins=True) if match["code"] else ""
    return read + " " if match["mark"] or not read else read


def split_words(content: str, *, markup: bool = False) -> list[Word]:
    r"""Return the words of a content; with ``markup``, tags are gaps, and what codes stand for is read.

    Examples
    --------
    >>> [word.text for word in split_words(r"<b>Caf\u00e9</b> &amp; bar", markup=True)]
    ['café', 'bar']
    """
    words: list[Word] = []
    text, start, end = "", 0, -1
    for match in (MARKUP if markup else PLAIN).finditer(content):
        piece = match["word"] or ""
        joins = match.start() == end
        if markup and (code := match["code"]):
            piece = _read_code(code, joins=joins)
        if not piece:
            continue
        if not joins:
            if text:
                words.append(Word(fold(text), start, end))
            text, start = "", match.start()
        text, end = text + piece, match.end()
    return [*words, Word(fold(text), start, end)] if text else words


def _read_code(code: str, *, joins: bool) -> str:
    """Return the letters that a code stands for, or the accent of the letter before; nothing for anything else."""
    if code.startswith("\\u"):
        units = b"".join(int(unit, 16).to_bytes(2, "big") for unit in code.split("\\u")[1:])
        read = units.decode("utf-16-be", "replace")
    else:
        read = html.unescape(code)
    is_accent = joins and read and unicodedata.category(read[0]).startswith("M")
    return read if read.isalnum() or is_accent else ""
