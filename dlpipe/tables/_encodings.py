"""Propose encodings for bytes that are no UTF-8, by the looks of the text that each makes of them.

Most of these encodings read every byte as something, so a wrong one does not fail: it gives text that no language
writes. On short texts a detector's best guess is wrong about half of the time, so all that fit are named.
"""

from __future__ import annotations

import codecs
import re
import unicodedata
from collections.abc import Iterator

WINDOWS = ("cp1252", "cp1250", "cp1254", "cp1257")
# where two make the same text of the bytes, the first one stands for it
ENCODINGS = [*WINDOWS, "cp1251", "koi8_r", "cp1253", "cp1255", "cp1256", "cp874", "cp437", "cp850", "mac_roman"]
ENCODINGS += ["cp866", "shift_jis", "euc_jp", "gb18030", "big5", "euc_kr"]
CENTRAL_EUROPE = frozenset(b"\x8a\x8c\x8d\x8e\x8f\x9a\x9c\x9d\x9e\x9f\xa3\xa5\xaf\xb3\xb9\xbf")
TURKISH = frozenset(b"\xd0\xdd\xde\xf0\xfd\xfe")
WESTERN = frozenset("àáâãäåæçèéêëìíîïñòóôõöøœùúûüýÿßšªº")
LETTERS = {
    "cp1250": frozenset("áäąâăčćçďđéęěëíîľłĺňńóöőôřŕšśşťţúůüűýžźżß"),
    "cp1254": frozenset("çğıi̇öşüâîû"),
    "cp1257": frozenset("āčēģīķļņšūžąęėįųõäöü"),
    **dict.fromkeys(("cp1252", "cp437", "cp850", "mac_roman"), WESTERN),
}
# the first bytes of the characters that are in daily use; the others of the set are rare
DAILY = {
    "shift_jis": frozenset([*range(0x81, 0x84), *range(0x88, 0x98)]),
    "euc_jp": frozenset([0xA1, 0xA4, 0xA5, *range(0xB0, 0xD0)]),
    "gb18030": frozenset([0xA1, 0xA3, *range(0xB0, 0xD8)]),
    "big5": frozenset([0xA1, *range(0xA4, 0xC7)]),
    "euc_kr": frozenset([0xA1, 0xA3, *range(0xB0, 0xC9)]),
}
VOWELS = {**dict.fromkeys(("cp1251", "koi8_r", "cp866"), "аеёиоуыэюяіїє"), "cp1253": "αεηιουωάέήίόύώϊϋΐΰ"}
# of these, a text of some length has several
COMMON = {
    **dict.fromkeys(
        ("gb18030", "big5"),
        "的一是不了在人有我他这這个個们們来來大为為你说說就和要也得会會可去能对對多都好看很没沒电電影片",
    ),
    **dict.fromkeys(("shift_jis", "euc_jp"), "".join(map(chr, range(0x3041, 0x30FF)))),
    "euc_kr": "이다는을가의에한고지도은하로그사기나어아리라서자인대시정해수영화",
    "cp874": "".join(map(chr, [*range(0x0E30, 0x0E3B), *range(0x0E40, 0x0E4F)])),
    "cp1256": "اليونمرتب",
}
LEAST_COMMON = {"cp874": 0.2, "cp1256": 0.4}
LONG_ENOUGH = 8
ONLY_AT_THE_END = "ךםןףץςةىๆ"
ONLY_BEFORE_OTHERS, ONLY_AFTER_OTHERS = "เแโใไ", "ะาำๆฯ"
MOST_FAULTS = 0.12
MOST_CAPITALS = 0.6
MOST_SIGNS = 0.3
PLAIN_SIGNS = "“”„‘’–—…£€°©®™¡¿"
SAMPLE, SHOWN, MOST_SHOWN = 2**13, 24, 5


def propose_encodings(odd: bytes) -> list[tuple[str, str]]:
    """Return the encodings that may be that of lines that are no UTF-8, each with some words as it reads them.

    One alone is likely; of several, a person sees which one reads right. None fits bytes that are no text.

    Examples
    --------
    >>> propose_encodings("Ça a été très bien".encode("cp1252"))
    [('cp1252', 'Ça été très')]
    >>> propose_encodings("Фильм хороший".encode("cp1251"))
    [('cp1251', 'Фильм хороший')]
    """
    odd = odd[:SAMPLE]
    texts = {encoding: codecs.getincrementaldecoder(encoding)("replace").decode(odd) for encoding in ENCODINGS}
    fit = {encoding: text for encoding, text in texts.items() if _is_plausible(encoding, text)}
    if plain := [encoding for encoding, text in fit.items() if _measure_capitals(text) <= MOST_CAPITALS]:
        fit = {encoding: fit[encoding] for encoding in plain}
    fit = _choose_region(fit, odd)
    first: dict[str, str] = {}
    for encoding, text in fit.items():
        first.setdefault(text, encoding)
    return [(encoding, _quote_words(text)) for text, encoding in first.items()]


def describe_encodings(odd: bytes, *, how: str = "pass --encoding {}", otherwise: str) -> str:
    """Return what to tell a person of the encoding of some bytes.

    Parameters
    ----------
    odd : bytes
        Lines that are no UTF-8.
    how : str
        How to name the encoding, with ``{}`` in its place, for one that is likely.
    otherwise : str
        The sentence where nothing fits, or too much.
    """
    found = propose_encodings(odd)
    if not found or len(found) > MOST_SHOWN:
        return otherwise
    if len(found) == 1:
        return f"It is likely {found[0][0]}: {how.format(found[0][0])}."
    listed = ", ".join(f"{encoding} ({words!r})" for encoding, words in found)
    return f"It may be {listed}. Pass the one that reads right with --encoding."


def _choose_region(fit: dict[str, str], odd: bytes) -> dict[str, str]:
    """Return the encodings with one of Windows' Latin ones: each reads the others' letters as some of its own."""
    high = [byte for byte in odd if byte >= 0x80] or [0]
    central, turkish = (sum(byte in some for byte in high) / len(high) for some in (CENTRAL_EUROPE, TURKISH))
    region = "cp1250" if central >= 0.15 else "cp1254" if turkish >= 0.15 else "cp1252"
    if region not in fit:
        return fit
    return {encoding: text for encoding, text in fit.items() if encoding not in WINDOWS or encoding == region}


def _is_plausible(encoding: str, text: str) -> bool:
    odd = [char for char in text if not char.isascii() and not char.isspace()]
    signs = sum(unicodedata.category(char)[0] in "PSN" and char not in PLAIN_SIGNS for char in odd)
    if not odd or sum(_count_faults(encoding, text)) > MOST_FAULTS * len(odd):
        return False
    if encoding in COMMON and len(set(odd)) >= LONG_ENOUGH:
        common = sum(char in COMMON[encoding] for char in odd)
        if common < LEAST_COMMON.get(encoding, 0.08) * len(odd):
            return False
    letters = [char.lower() for char in odd if char.isalpha()]
    vowels = sum(char in VOWELS.get(encoding, "") for char in letters)
    sounds = encoding not in VOWELS or 0.3 * len(letters) <= vowels <= 0.7 * len(letters)
    wide = encoding in DAILY
    return sounds and (wide or signs <= MOST_SIGNS * len(odd)) and odd.count("\ufffd") <= 0.01 * len(odd)


def _count_faults(encoding: str, text: str) -> Iterator[int]:
    """Yield what a text in a language has seldom: a count for each word with such a thing."""
    for word in re.findall(r"\S*[^\s\x00-\x7f]\S*", text):
        around = f" {word} "
        yield sum(_is_fault(encoding, *around[at : at + 3]) for at in range(len(word)) if not word[at].isascii())
        letters = "".join(char for char in word if char.isalpha())
        # a word without any plain letter is one of another script
        if encoding in LETTERS and len(letters) > 2 and not any(char.isascii() for char in letters):
            yield len(letters)


def _is_fault(encoding: str, before: str, char: str, after: str) -> bool:
    category = unicodedata.category(char)
    if category in ("Cc", "Cn", "Co", "Cs") or char == "\ufffd" or "\u2500" <= char <= "\u25ff":
        return True
    if encoding in DAILY:
        return _is_rare(encoding, char) or any(other.isascii() and other.islower() for other in (before, after))
    if category == "Mn":
        return not (before.isalpha() or unicodedata.category(before) == "Mn") or before.isascii()
    if not char.isalpha():
        beside = [other.isalpha() for other in (before, after)]
        return (all(beside) and char not in "’‘'-–—·") or (any(beside) and category in ("Sm", "Sc", "Nd"))
    if unicodedata.category(after) == "Mn" and _find_script(after) != _find_script(char):
        return True
    if encoding in LETTERS and char.lower() not in LETTERS[encoding]:
        return True
    if any(other.isalpha() and _find_script(other) != _find_script(char) for other in (before, after)):
        return True
    flips = (before.islower() and char.isupper()) or (char.islower() and after.isupper())
    misplaced = (
        (char in ONLY_AT_THE_END and after.isalpha())
        or (char in ONLY_BEFORE_OTHERS and not after.isalpha())
        or (char in ONLY_AFTER_OTHERS and not (before.isalpha() or unicodedata.category(before) == "Mn"))
    )
    return flips or misplaced


def _is_rare(encoding: str, char: str) -> bool:
    code = char.encode(encoding, "replace")
    # the second bytes below are those of characters that came with GBK
    return code[0] not in DAILY[encoding] or len(code) < 2 or (encoding == "gb18030" and code[1] < 0xA1)


def _find_script(char: str) -> str:
    return unicodedata.name(char, "").partition(" ")[0]


def _measure_capitals(text: str) -> float:
    cased = [char for char in text if not char.isascii() and (char.isupper() or char.islower())]
    return sum(char.isupper() for char in cased) / max(len(cased), 1)


def _quote_words(text: str) -> str:
    """Return the first words with characters that are no ASCII."""
    words = " ".join(re.findall(r"[^\W\d_]*[^\s\x00-\x7f][^\W\d_]*", text[:999]))
    return words if len(words) <= SHOWN else f"{words[: SHOWN - 3]}..."
