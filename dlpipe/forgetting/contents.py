"""Take texts out of the content of a file, whatever the file is, and leave the rest as it is.

Text, JSON and pages; the data of Metaflow's cards, in Base64; pickles, without loading them; Parquet; all of these
packed with gzip, zip or tar. In anything else, such as arrays, the bytes of a text are overwritten.
"""

from __future__ import annotations

import base64
import binascii
import gzip
import io
import lzma
import pickletools
import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from dlpipe.forgetting.parquet import PARQUET, blank_parquet
from dlpipe.forgetting.reading import NotSearched
from dlpipe.forgetting.words import BLANK, Needles

BASE64 = re.compile(r"[A-Za-z0-9+/]{80,}={0,2}")
BASE64_BYTES = re.compile(BASE64.pattern.encode())
GZIP, ZIP, PICKLE = b"\x1f\x8b\x08", b"PK\x03\x04", b"\x80"
UNPACKING_ERRORS = (
    ValueError,
    OSError,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    zipfile.BadZipFile,
    RuntimeError,
    struct.error,
    IndexError,
    KeyError,
)
VALUES = re.compile("[^\x00]+")
DEEPEST = 5
STRINGS = ("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE")
BYTES = ("SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8")
GETS, PUTS = ("BINGET", "LONG_BINGET", "GET"), ("BINPUT", "LONG_BINPUT", "PUT")


def blank_content(content: bytes, needles: Needles, *, depth: int = 0) -> bytes:
    """Return the content without what is looked for; the same object where it has nothing of it.

    Raises
    ------
    NotSearched
        When it is packed, and cannot be unpacked.

    Examples
    --------
    >>> import pickle
    >>> needles = Needles.from_texts(["a fine old film"])
    >>> pickle.loads(blank_content(pickle.dumps({"worst": ["A fine old film!", "soup"]}), needles))
    {'worst': ['_ _ _ _!', 'soup']}
    """
    if depth > DEEPEST:
        raise NotSearched(f"packed more than {DEEPEST} times")
    for begins, blank in ((GZIP, _blank_gzip), (ZIP, _blank_zip)):
        if content.startswith(begins):
            try:
                return blank(content, needles, depth)
            except UNPACKING_ERRORS as error:
                raise NotSearched(_explain(error)) from None
    if content.startswith(PARQUET):
        return blank_parquet(content, needles, lambda value: blank_content(value, needles, depth=depth + 1))
    if content.startswith(PICKLE):
        with suppress(ValueError, EOFError, struct.error, IndexError):  # it only looks like one
            return _blank_pickle(content, needles, depth)
    if content[257:262] == b"ustar":
        with suppress(tarfile.TarError, ValueError, OSError, EOFError):  # its files are in it as they are
            return _blank_tar(content, needles, depth)
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return _overwrite(content, needles)
    if "\x00" in text[:4096]:
        return _overwrite(content, needles)
    return _blank_text(text, content, needles)


def overwrite_plain(content: bytes, needles: Needles) -> bytes | None:
    """Return the content with each word that is found overwritten, byte for byte; ``None`` where it is packed.

    The same object where it has nothing of what is looked for.

    Examples
    --------
    >>> overwrite_plain(b"bad row: A fine old film!", Needles.from_texts(["a fine old film"]))
    b'bad row: _ ____ ___ ____!'
    """
    if content.startswith((GZIP, ZIP, PARQUET, PICKLE)) or content[257:262] == b"ustar":
        return None
    made = BASE64_BYTES.sub(lambda match: _overwrite_base64(match[0], needles), content)
    made = _overwrite(made, needles)
    return content if made == content else made


def _overwrite_base64(packed: bytes, needles: Needles) -> bytes:
    try:
        content = base64.b64decode(packed, validate=True)
        content.decode()
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return packed
    made = _overwrite(content, needles)
    return packed if made == content else base64.b64encode(made)


def _explain(error: Exception) -> str:
    """Return why a file cannot be unpacked, without what it may quote."""
    if isinstance(error, NotImplementedError):
        return "packed in a way that Python cannot read"
    return "packed with a password" if isinstance(error, RuntimeError) else "packed, and damaged"


def _blank_text(text: str, content: bytes, needles: Needles) -> bytes:
    made = BASE64.sub(lambda match: _blank_base64(match[0], needles), text)
    if needles.may_be_in(content):
        made = needles.blank(made)
    return content if made == text else made.encode()


def _blank_base64(packed: str, needles: Needles) -> str:
    try:
        content = base64.b64decode(packed, validate=True)
        inside = content.decode()
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return packed
    if not needles.may_be_in(content):
        return packed
    made = needles.blank(inside)
    return packed if made == inside else base64.b64encode(made.encode()).decode()


def _blank_gzip(content: bytes, needles: Needles, depth: int) -> bytes:
    inside = gzip.decompress(content)
    made = blank_content(inside, needles, depth=depth + 1)
    return content if made is inside else gzip.compress(made, compresslevel=3, mtime=0)


def _blank_zip(content: bytes, needles: Needles, depth: int) -> bytes:
    with zipfile.ZipFile(io.BytesIO(content)) as packed:
        members = [(info, packed.read(info)) for info in packed.infolist()]
    made = [blank_content(inside, needles, depth=depth + 1) for _, inside in members]
    if all(after is inside for after, (_, inside) in zip(made, members, strict=True)):
        return content
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as target:
        for after, (info, _) in zip(made, members, strict=True):
            target.writestr(info, after, compress_type=info.compress_type)
    return out.getvalue()


def _blank_tar(content: bytes, needles: Needles, depth: int) -> bytes:
    out, changed = io.BytesIO(), False
    with tarfile.open(fileobj=io.BytesIO(content)) as packed, tarfile.open(fileobj=out, mode="w") as target:
        for member in packed.getmembers():
            stream = packed.extractfile(member) if member.isfile() else None
            if stream is None:
                target.addfile(member)
                continue
            inside = stream.read()
            made = blank_content(inside, needles, depth=depth + 1)
            changed |= made is not inside
            member.size = len(made)
            target.addfile(member, io.BytesIO(made))
    return out.getvalue() if changed else content


def _overwrite(content: bytes, needles: Needles) -> bytes:
    """Return bytes in which the words of texts are overwritten, as many as there were."""
    content = _overwrite_wide(content, needles)
    if not needles.may_be_in(content):
        return content
    # each byte that begins no character stands as one that is part of no word
    text = content.decode("utf-8", "surrogateescape")
    parts, at = [], 0
    for start, end in needles.find_spans(text):
        parts += [text[at:start], BLANK * len(text[start:end].encode("utf-8", "surrogateescape"))]
        at = end
    return "".join([*parts, text[at:]]).encode("utf-8", "surrogateescape") if parts else content


def _overwrite_wide(content: bytes, needles: Needles) -> bytes:
    """Do so for arrays of texts, which NumPy writes with four bytes a character, and fills with zeros."""
    if len(content) % 4 or not needles.may_be_in(content.replace(b"\x00", b"")):
        return content
    text = content.decode("utf-32-le", "replace")
    made = bytearray(content)

    def write(start: int, end: int, blank: str) -> None:
        made[4 * start : 4 * end] = blank.ljust(end - start, "\x00").encode("utf-32-le", "surrogatepass")

    # one that is as long as there is room has nothing between it and the next: first each as it is
    for whole in needles.originals:
        start = text.find(whole)
        while start >= 0:
            write(start, start + len(whole), needles.blank(whole))
            start = text.find(whole, start + len(whole))
    text = bytes(made).decode("utf-32-le", "replace")
    spans = needles.find_spans(text)
    for value in VALUES.finditer(text) if spans else ():
        start, end = value.span()
        parts, at = [], start
        for first, last in spans:
            if start <= first < end:
                parts += [text[at:first], BLANK]
                at = last
        if parts:
            write(start, end, "".join([*parts, text[at:end]]))
    return content if made == content else bytes(made)


# -- pickles ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Instruction:
    """One instruction of a pickle, with its argument, and where it stands."""

    name: str
    argument: object
    start: int
    end: int


def _blank_pickle(content: bytes, needles: Needles, depth: int) -> bytes:
    """Return a pickle with other strings; nothing of it is run.

    The words of a text may be strings of their own, one after the other: all strings together are one content.
    """
    instructions, end = _read_instructions(content)
    strings = _list_strings(instructions)
    joined = "\n".join(string.text for string in strings)
    spans = needles.find_spans(joined) if needles.may_be_in(content) else []
    changed = _blank_strings(strings, spans)
    for at, instruction in enumerate(instructions):
        if instruction.name in BYTES and isinstance(instruction.argument, bytes | bytearray):
            inside = bytes(instruction.argument)
            if (made := blank_content(inside, needles, depth=depth + 1)) is not inside:
                changed[at] = _write_bytes(instruction.name, made)
    if not changed:
        return content
    parts = []
    for at, instruction in enumerate(instructions):
        if instruction.name != "FRAME":  # says how long what follows is; readers need none
            parts.append(changed.get(at, content[instruction.start : instruction.end]))
    return b"".join([*parts, content[end:]])


def _read_instructions(content: bytes) -> tuple[list[_Instruction], int]:
    read = [(code.name, argument, place or 0) for code, argument, place in pickletools.genops(content)]
    end = (read[-1][2] if read else 0) + 1
    ends = [place for _, _, place in read[1:]] + [end]
    return [_Instruction(*one, ends[at]) for at, one in enumerate(read)], end


@dataclass(frozen=True)
class _String:
    """A string of a pickle.

    Attributes
    ----------
    at : int
        The instruction that puts it there.
    source : int
        The instruction that made it: an earlier one where a string is repeated.
    text : str
    """

    at: int
    source: int
    text: str


def _list_strings(instructions: list[_Instruction]) -> list[_String]:
    """Return the strings in their order, repeated ones as often as they are."""
    memo: dict[int, _String | None] = {}
    found: list[_String] = []
    last: _String | None = None
    for at, instruction in enumerate(instructions):
        if instruction.name in STRINGS:
            last = _String(at, at, str(instruction.argument))
            found.append(last)
        elif instruction.name == "MEMOIZE":
            memo[len(memo)], last = last, None
        elif instruction.name in PUTS:
            memo[int(str(instruction.argument))], last = last, None
        elif instruction.name in GETS:
            if again := memo.get(int(str(instruction.argument))):
                found.append(_String(at, again.source, again.text))
            last = None
        elif instruction.name != "FRAME":  # may stand between a string and its place in the memo
            last = None
    return found


def _blank_strings(strings: list[_String], spans: list[tuple[int, int]]) -> dict[int, bytes]:
    """Return what is written instead of the instructions of strings in which spans are."""
    made: dict[int, str] = {}
    changed: dict[int, bytes] = {}
    first, at = 0, 0
    for string in strings:
        parts, place = [], 0
        while at < len(spans) and spans[at][0] < first + len(string.text):
            start, end = spans[at]
            parts += [string.text[place : start - first], BLANK]
            place, at = end - first, at + 1
        made[string.at] = wanted = "".join([*parts, string.text[place:]])
        # one that is repeated may be part of a text here, and of something else there
        read = string.text if string.at == string.source else made[string.source]
        if wanted != read:
            changed[string.at] = _write_string(wanted)
        first += len(string.text) + 1
    return changed


def _write_string(text: str) -> bytes:
    encoded = text.encode("utf-8", "surrogatepass")
    if len(encoded) < 256:
        return b"\x8c" + struct.pack("<B", len(encoded)) + encoded
    return b"X" + struct.pack("<I", len(encoded)) + encoded


WRITERS: dict[str, Callable[[bytes], bytes]] = {
    "BYTEARRAY8": lambda content: b"\x96" + struct.pack("<Q", len(content)) + content,
    "BINBYTES8": lambda content: b"\x8e" + struct.pack("<Q", len(content)) + content,
}


def _write_bytes(name: str, content: bytes) -> bytes:
    if name in WRITERS:
        return WRITERS[name](content)
    if len(content) < 256:
        return b"C" + struct.pack("<B", len(content)) + content
    return b"B" + struct.pack("<I", len(content)) + content
