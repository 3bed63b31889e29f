"""Clean-up of texts as they come from web pages and exports, in time that grows with their length only."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from typing import Literal

from dlpipe.task.requests import is_missing

Status = Literal["ok", "cut", "no letters", "other language", "empty", "not text"]
UNREADABLE: tuple[Status, ...] = ("empty", "not text")
"""The statuses of rows that get no prediction."""

# left out with all that is between their tags
UNSEEN = (("<script", "</script>"), ("<style", "</style>"), ("<!--", "-->"))
TAG = re.compile(r"</?[a-zA-Z][^<>]*>")
LETTER = re.compile(r"[^\W\d_]")
# control characters other than white space, soft hyphens, zero-width spaces, byte order marks; joiners stay,
# emoji and several scripts need them
INVISIBLE = re.compile("[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u00ad\u200b\u2060\ufeff]")


@dataclass(frozen=True)
class Cleaning:
    """Which steps of the clean-up are done.

    Attributes
    ----------
    repair_encoding : bool
        Undo mojibake, such as ``cafÃ©``.
    strip_html : bool
        Leave out tags and comments, and resolve entities.
    strip_controls : bool
        Leave out characters that nobody sees, and make white space one space.
    max_characters : int
        What comes after so many characters is cut off first.
    """

    repair_encoding: bool = True
    strip_html: bool = True
    strip_controls: bool = True
    max_characters: int = 100_000


def clean(row: object, how: Cleaning) -> tuple[str, Status]:
    """Return a row's text, cleaned, and its status; never raises.

    Examples
    --------
    >>> clean("<b>A cafÃ© &amp; bar</b><br />", Cleaning())
    ('A café & bar', 'ok')
    >>> clean(None, Cleaning()), clean(3, Cleaning()), clean("<br>", Cleaning()), clean("5/5", Cleaning())
    (('', 'empty'), ('', 'not text'), ('', 'empty'), ('5/5', 'no letters'))
    """
    if is_missing(row):
        return "", "empty"
    if not isinstance(row, str):
        return "", "not text"
    text = _clean_text(row[: how.max_characters], how)
    if not text.strip():
        return "", "empty"
    if not LETTER.search(text):
        return text, "no letters"
    return text, "cut" if len(row) > how.max_characters else "ok"


def _clean_text(text: str, how: Cleaning) -> str:
    # half a surrogate pair cannot be encoded, and JSON can hold one
    text = text.encode("utf-8", "replace").decode()
    if how.repair_encoding:
        text = repair_encoding(text)
    if how.strip_html:
        text = strip_html(text)
    if how.strip_controls:
        text = " ".join(INVISIBLE.sub("", text).split())
    return text


def repair_encoding(text: str) -> str:
    """Return ``text`` with its encoding repaired and nothing else changed.

    Examples
    --------
    >>> repair_encoding("cafÃ© “crÃ¨me”")
    'café “crème”'
    """
    from ftfy import TextFixerConfig, fix_text

    only = TextFixerConfig(unescape_html=False, uncurl_quotes=False, fix_latin_ligatures=False, explain=False)
    return fix_text(text, only)


def strip_html(text: str) -> str:
    """Return ``text`` without tags, scripts, styles and comments, and with entities resolved.

    Examples
    --------
    >>> strip_html("one<br />two &lt;3 <!-- three --> 4 < 5")
    'one two <3   4 < 5'
    """
    if "<" in text:
        for opening, closing in UNSEEN:
            text = _cut_out(text, opening, closing)
        text = TAG.sub(" ", text)
    return html.unescape(text) if "&" in text else text


def _cut_out(text: str, opening: str, closing: str) -> str:
    """Return ``text`` without everything from each ``opening`` to its ``closing``; an unclosed ``opening`` stays.

    Two searches a block; a regular expression would search the rest of the text again for each ``opening`` that is
    never closed, and a hostile text would take longer than another of its length.
    """
    kept, at, low = [], 0, text.lower()
    if len(low) != len(text):  # some letters have two in lower case; such a text keeps its scripts
        low = text
    while (start := low.find(opening, at)) >= 0 and (end := low.find(closing, start)) >= 0:
        kept += [text[at:start], " "]
        at = end + len(closing)
    return "".join([*kept, text[at:]])
