r"""Find texts wherever they are written, by their words: between words may stand whatever a format puts there.

In a page each word of a text may have a tag of its own, in JSON each may be a string of a list, a quote may be
``&#x27;`` and an umlaut ``\u00e4``. So contents are cut into words, and a text is found where its words follow
each other. A beginning will do where it is followed by an ellipsis, or is long: tables and cards cut texts.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

from dlpipe.forgetting.splitting import MARKS, Word, fold, list_words, split_words

BLANK = "_"
"""What stands for a word that was forgotten."""
ELLIPSIS = re.compile(r"\s*(\.\.\.|…|\\u2026|&hellip;)")
SHORT_WORDS, SHORT_CHARACTERS = 3, 15
"""A text with fewer of both may be part of any other: it is found where it is a whole value."""
ELLIPSES = (b"...", b"\xe2\x80\xa6", b"\\u2026", b"&hellip;", "…".encode("utf-16-le"))
"""As they are in bytes, also in those of an array without its zeros."""
FEWEST_BEFORE_ELLIPSIS, LONG_BEGINNING = 20, 120
"""Characters of a beginning that is found where it is cut with an ellipsis, and without one."""
WIDEST_GAP = 2
"""Characters between two words that count at most: tags are no part of a beginning."""
CUT = re.compile(r"\Z|[\"<\n]|'(?!\w)|\\+[\"nr]")
"""What stands where a text was cut; an apostrophe within a word does not."""
QUOTES = "\"'>"
END_QUOTES = "\"'<"
WIDEST_EDGE = 20
BEFORE_VALUE = re.compile(r"[^\w\s\"'<>]*[^\S\n]*\Z")
AFTER_VALUE = re.compile(r"[^\S\n]*[^\w\s\"'<>]*[^\S\n]*")
"""Signs and blanks between a value and its quotes, tags, or the ends of its line."""
ASCII_RUN = re.compile(f"[A-Za-z0-9_]+(?![{MARKS}])")
LIGATURES = re.compile("ss|ff|fi|fl|st|ij")
"""Letters that may be one: ß, ﬁ, and the like."""


@dataclass(frozen=True)
class Needle:
    """A text that is looked for.

    Attributes
    ----------
    words : tuple of str
    exact : bool
        Whether it is one word that stands for nothing else, such as a row id.
    alone : bool
        Whether it is a word that only this text has: it is found where it is a whole value, as in a list of words.
    spelled : tuple of str
        The words as they are in the text, where that is known.
    """

    words: tuple[str, ...]
    exact: bool = False
    alone: bool = False
    spelled: tuple[str, ...] = ()

    @classmethod
    def from_text(cls, text: str) -> Needle:
        """Return the needle of a text."""
        words = split_words(text)
        spelled = tuple(text[word.start : word.end] for word in words)
        return cls(tuple(word.text for word in words), spelled=spelled)

    @property
    def is_short(self) -> bool:
        """Whether it may be part of any other text."""
        return self.alone or (
            not self.exact and len(self.words) < SHORT_WORDS and sum(map(len, self.words)) < SHORT_CHARACTERS
        )

    @property
    def longest(self) -> bytes | None:
        """The longest part that any spelling of the text has; ``None`` where there is none."""
        return next(iter(self._list_parts(sum(map(len, self.words)) * 2)), None)

    def may_be_in(self, lower: bytes, *, cut: bool) -> bool:
        """Return whether bytes in lower case can have it; its beginning will do in a ``cut`` content."""
        if all(part in lower for part in self._beginning):
            return True
        return cut and all(part in lower for part in self._short_beginning)

    @cached_property
    def _beginning(self) -> tuple[bytes, ...]:
        return self._list_parts(LONG_BEGINNING)

    @cached_property
    def _short_beginning(self) -> tuple[bytes, ...]:
        return self._list_parts(FEWEST_BEFORE_ELLIPSIS)

    def _list_parts(self, room: int) -> tuple[bytes, ...]:
        """Return the parts that any spelling has of the first characters, the longest first."""
        found: set[str] = set()
        for word, spelled in zip(self.words, self.spelled or self.words, strict=True):
            if room <= 0:
                break
            if self.exact:
                found.add(spelled)
            elif spelled.isascii():
                found.update(LIGATURES.sub("  ", spelled.lower())[:room].split())
            elif len(word) <= room:
                # what only becomes ASCII when it is composed, such as a Kelvin sign, is written otherwise
                runs = ASCII_RUN.findall(unicodedata.normalize("NFC", spelled))
                parts = (run.lower() for run in runs if run in spelled)
                found.update(part for run in parts for part in LIGATURES.split(run))
            room -= len(word) + WIDEST_GAP
        return tuple(part.encode() for part in sorted(found, key=lambda part: (-len(part), part)) if part)


@dataclass(frozen=True)
class Needles:
    """All texts that are looked for at once.

    Attributes
    ----------
    needles : tuple of Needle
    originals : tuple of str
        Texts and words as they are.
    """

    needles: tuple[Needle, ...]
    originals: tuple[str, ...] = field(default=(), repr=False)

    @classmethod
    def from_texts(
        cls, texts: Collection[str], exact: Collection[str] = (), alone: Collection[str] = ()
    ) -> Needles:
        """Return needles of texts, of words that stand for nothing else, and of words that only they have."""
        made = dict.fromkeys(Needle.from_text(text) for text in texts)
        whole = dict.fromkeys(Needle((fold(word),), exact=True) for word in exact)
        words = dict.fromkeys(Needle((fold(word),), alone=True) for word in alone)
        needles = tuple(needle for needle in (*made, *whole, *words) if needle.words)
        long = (text for text in texts if not Needle.from_text(text).is_short)
        return cls(needles, tuple(dict.fromkeys([*long, *exact])))

    def without_words(self) -> Needles:
        """Return the same without the words that only these texts have."""
        return Needles(tuple(needle for needle in self.needles if not needle.alone), self.originals)

    def may_be_in(self, content: bytes) -> bool:
        """Return whether a content can have any of them.

        A quick look. It is wrong about a no only where other letters stand for ASCII ones, such as wide ones.
        """
        lower = content.lower()
        cut = any(sign in lower for sign in ELLIPSES)
        return any(needle.may_be_in(lower, cut=cut) for needle in self.needles)

    def find_spans(self, content: str) -> list[tuple[int, int]]:
        """Return where the words of what is found stand, in their order."""
        found: set[tuple[int, int]] = set()
        for markup in (False, True):
            if not self._may_match(
                list_words(content, markup=markup)
            ):  # most contents, such as pages with scripts
                continue
            words = split_words(content, markup=markup)
            for first, last in self._match(content, words):
                found |= {(word.start, word.end) for word in words[first:last]}
        return _leave_out_inner(sorted(found))

    def blank(self, content: str) -> str:
        """Return the content with each word that is found replaced by a sign.

        Examples
        --------
        >>> Needles.from_texts(["A fine film, that."]).blank('["a ", "fine ", "film, ", "that."], A fine wine')
        '["_ ", "_ ", "_, ", "_."], A fine wine'
        """
        parts, at = [], 0
        for start, end in self.find_spans(content):
            parts += [content[at:start], BLANK]
            at = end
        return "".join([*parts, content[at:]])

    @cached_property
    def _by_first(self) -> dict[str, list[Needle]]:
        made: dict[str, list[Needle]] = {}
        for needle in self.needles:
            made.setdefault(needle.words[0], []).append(needle)
        return made

    def _may_match(self, words: Sequence[str]) -> bool:
        """Return whether any of them begins somewhere, and goes on so far that ``_match`` may find it there."""
        first = self._by_first
        return any(
            _count_matching(words, at, needle) is not None
            for at, word in enumerate(words)
            if word in first
            for needle in first[word]
        )

    def _match(self, content: str, words: Sequence[Word]) -> Iterator[tuple[int, int]]:
        for at, word in enumerate(words):
            for needle in self._by_first.get(word.text, ()):
                if (last := _match_needle(content, words, at, needle)) is not None:
                    yield at, last


def _count_matching(words: Sequence[str], at: int, needle: Needle) -> int | None:
    """Return how many words from one on are the needle, or so much of its beginning that it may be cut there."""
    wanted = needle.words
    count = 0
    while count < len(wanted) and at + count < len(words) and words[at + count] == wanted[count]:
        count += 1
    if count == len(wanted):
        return count
    if needle.exact or needle.alone or not count:
        return None
    # a text may be cut in the middle of a word
    if at + count < len(words) and wanted[count].startswith(words[at + count]):
        count += 1
    longest = sum(map(len, words[at : at + count])) + WIDEST_GAP * (count - 1)
    return count if longest >= FEWEST_BEFORE_ELLIPSIS else None


def _match_needle(content: str, words: Sequence[Word], at: int, needle: Needle) -> int | None:
    """Return after which word the needle that begins at a word ends; ``None`` where it is not there."""
    there = words[at : at + len(needle.words)]
    count = _count_matching([word.text for word in there], 0, needle)
    if count is None:
        return None
    end = there[count - 1].end
    if count == len(needle.words) and there[-1].text == needle.words[-1]:
        return at + count if not needle.is_short or _is_whole_value(content, there[0].start, end) else None
    length = _measure(there[:count])
    if length >= FEWEST_BEFORE_ELLIPSIS and ELLIPSIS.match(content, end):
        return at + count
    return at + count if length >= LONG_BEGINNING and CUT.match(content, end) else None


def _measure(words: Sequence[Word]) -> int:
    """Return how many characters words are, with what is between them."""
    gaps = (min(after.start - before.end, WIDEST_GAP) for before, after in pairwise(words))
    return sum(len(word.text) for word in words) + sum(gaps)


def _is_whole_value(content: str, start: int, end: int) -> bool:
    """Return whether there is nothing else between quotes, tags, or the ends of the content."""
    head = BEFORE_VALUE.search(content, max(0, start - WIDEST_EDGE), start)
    tail = AFTER_VALUE.match(content, end, end + WIDEST_EDGE)
    first, rest = head.start() if head else start, tail.end() if tail else end
    begins = not first or content[first - 1] in f"{QUOTES}\n"
    return begins and (rest == len(content) or content[rest] in f"{END_QUOTES}\\\n")


def _leave_out_inner(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return spans that do not overlap: of two readings of one place, the one that begins first and is longer."""
    kept: list[tuple[int, int]] = []
    for start, end in sorted(spans, key=lambda span: (span[0], -span[1])):
        if not kept or start >= kept[-1][1]:
            kept.append((start, end))
    return kept
