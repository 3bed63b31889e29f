"""Find source files and tables by path or glob, and identify their content."""

from __future__ import annotations

import difflib
import glob
import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path, PurePath

from dlpipe.errors import BadSource, DlpipeError, SourceNotFound
from dlpipe.tables._form import RowForm
from dlpipe.tables._parquet_folders import check_is_plain, find_parquet_files, read_folder_columns
from dlpipe.tables._storage import is_remote, locate, to_one_line
from dlpipe.tables._text_files import COMPRESSED, find_ending
from dlpipe.tables._versions import TableVersion, table_at

FILE_ENDINGS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".txt": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}


@dataclass(frozen=True)
class Source:
    """One file or Delta table to read, and what identifies its content."""

    path: str
    """As it was given, or as a glob found it."""
    kind: str
    """csv, tsv, jsonl, parquet or delta."""
    split: str
    """data, train, valid or test."""
    size: int
    sha256: str
    """Of the file's bytes; for a table, the digest of the version."""
    table: TableVersion | None = None
    folders: tuple[tuple[str, str | None], ...] = ()
    """Columns and their values that stand in the names of the file's folders, such as ``sentiment=good``."""
    state: tuple[int, ...] = ()
    """Of the file before it was looked at: bytes, time of the last change, inode."""

    @property
    def unit(self) -> str:
        """What rows are counted in, for messages: the lines of a text file."""
        return "row" if self.kind in ("parquet", "delta") else "line"

    def to_record(self) -> dict[str, str | int]:
        """Return what a commit remembers of the source."""
        fields = {name: value for name, value in asdict(self).items() if name in ("split", "size", "sha256")}
        return {"name": str(self.table) if self.table else self.path, **fields}


def find_sources(given: dict[str, tuple[str, ...]]) -> list[Source]:
    """Return the sources behind paths and globs, in the order given (sorted within a glob), each once a split.

    The order is that of the rows in the table, and so part of its digest.
    """
    found: dict[tuple[str, str], Source] = {}
    for split, patterns in given.items():
        for pattern in patterns:
            for path in expand_pattern(pattern):
                identity = (split, path if is_remote(path) else os.path.realpath(path))
                if identity not in found:
                    found[identity] = _identify(path, split)
    return list(found.values())


def check_unchanged(source: Source) -> None:
    """Raise ``BadSource`` where a file is not as it was when it was found."""
    try:
        same = not source.state or _read_state(source.path) == source.state
    except OSError:
        same = False
    if not same:
        raise make_changed_error([source])


def make_changed_error(sources: Sequence[Source]) -> BadSource:
    """Return the error for sources of which one was written to meanwhile."""
    named = ", ".join(repr(source.path) for source in sources[:4])
    return BadSource(
        f"A source was changed while it was read ({named}); nothing was committed. "
        "Run again when nobody writes to it."
    )


@contextmanager
def explain_unreadable(path: str, form: RowForm | None = None) -> Iterator[None]:
    """Turn what the system says of an unreadable file into ``BadSource``; ``form`` is that of the rows in it."""
    try:
        yield
    except DlpipeError:
        raise
    except OSError as error:
        cause = error.strerror or to_one_line(error)
        raise BadSource(f"{path!r} cannot be read: {cause}. Check the file and its permissions.") from None
    except OverflowError as error:  # Python's dates end with the year 9999
        if form is None:
            raise
        raise BadSource(
            f"{path!r} holds dates where {form.name_columns()} are looked for, out of range: "
            f"{to_one_line(error)}. {form.suggest_settings()}."
        ) from None


def expand_pattern(pattern: str) -> list[str]:
    """Return the paths that ``pattern`` stands for."""
    expanded = os.path.expanduser(pattern)
    if is_remote(pattern) or os.path.lexists(expanded):
        return find_parquet_files(expanded) or [expanded]
    matches = sorted(glob.glob(expanded, recursive=True))
    if glob.has_magic(pattern):
        if files := _list_matched_files(matches):
            return files
        raise SourceNotFound(
            f"No file matches {pattern!r}{_describe_folder(expanded)} Pass a path or another glob."
        )
    raise SourceNotFound(f"There is no file {pattern!r}{_describe_folder(expanded)} Check the path.")


def _list_matched_files(matches: Sequence[str]) -> list[str]:
    """Return the files and tables that a glob has, and the Parquet files in folders of which it has no file."""
    single = dict.fromkeys(path for path in matches if os.path.isfile(path) or is_table(path))
    looked_into = {folder for path in single for folder in PurePath(path).parents}
    files: dict[str, str] = {}
    for path in matches:
        place = PurePath(path)
        if path in single:
            files.setdefault(os.path.realpath(path), path)
        elif place not in looked_into and (not place.name.startswith("_") or "=" in place.name):
            for file in find_parquet_files(path):
                files.setdefault(os.path.realpath(file), file)
    return list(files.values())


def _describe_folder(path: str) -> str:
    """Return how the sentence ends that says that nothing is at a path."""
    folder = Path(path).parent
    while glob.has_magic(str(folder)):
        folder = folder.parent
    if not folder.is_dir():
        return f"; there is no folder {str(folder)!r} either."
    names = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    near = difflib.get_close_matches(Path(path).name, names, n=1)
    if near:
        return f"; did you mean {str(folder / near[0])!r}?"
    listed = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
    return f"; {str(folder)!r} holds {listed or 'nothing'}."


def _identify(path: str, split: str) -> Source:
    if is_remote(path) or is_table(path):
        return _identify_table(path, split)
    if os.path.isdir(path):
        raise BadSource(
            f"{path!r} is a folder but not a Delta table (it has no _delta_log). "
            f"Pass a file, or a glob such as '{path.rstrip('/')}/{_suggest_glob(path)}'."
        )
    kind = find_kind(path)
    if kind == "parquet":
        check_is_plain(path)
    with explain_unreadable(path):
        state = _read_state(path)  # before the hash: a change after it would not be in it
        size = state[0]
        if not size:
            raise BadSource(f"{path!r} is empty. Pass a file with a header and rows.")
        folders = read_folder_columns(path)
        return Source(path, kind, split, size, _hash_file(path), folders=folders, state=state)


def _read_state(path: str) -> tuple[int, ...]:
    found = os.stat(path)
    return found.st_size, found.st_mtime_ns, found.st_ino


def _suggest_glob(folder: str) -> str:
    """Return a glob for the first file in a folder that can be read, or in those below it."""
    known = (file for file in sorted(Path(folder).rglob("*")) if find_ending(str(file)) in FILE_ENDINGS)
    file = next(known, Path(folder, "x.csv"))
    return f"{'' if file.parent == Path(folder) else '**/'}*{find_ending(str(file))}"


def find_kind(path: str) -> str:
    """Return the kind of a file by its ending: csv, tsv, jsonl or parquet."""
    kind = FILE_ENDINGS.get(find_ending(path))
    if kind == "parquet" and Path(path).suffix.lower() in COMPRESSED:
        raise BadSource(f"{path!r} is a compressed Parquet file, which is compressed inside already. Unpack it.")
    if kind is None:
        endings = f"{', '.join(FILE_ENDINGS)} (those of text with {', '.join(COMPRESSED)} behind them as well)"
        raise BadSource(
            f"{path!r} has an unknown ending. Known: {endings}, or a folder of a Delta table or of Parquet."
        )
    return kind


def _identify_table(path: str, split: str) -> Source:
    if is_remote(path) and find_ending(path) in FILE_ENDINGS:
        raise BadSource(f"{path!r} is a remote file; only Delta tables are read from there. Copy the file here.")
    version = table_at(locate(path if is_remote(path) else os.path.abspath(path)))
    return Source(path, "delta", split, version.rows, version.digest, version)


def is_table(path: str) -> bool:
    """Return whether a local path is that of a Delta table."""
    return os.path.isdir(os.path.join(path, "_delta_log"))


def _hash_file(path: str) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
