"""The user's own files that rows were read from: their lines, taken out only where that is asked for."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dlpipe.durable import write_beside
from dlpipe.errors import DlpipeError

if TYPE_CHECKING:
    from dlpipe.lineage import Records
    from dlpipe.tables import SourceLine

LINES = (".csv", ".tsv", ".tab", ".txt", ".jsonl", ".ndjson")


@dataclass(frozen=True)
class SourceRows:
    """The lines of a source on which rows stand.

    Attributes
    ----------
    path : Path
    lines : tuple of (int, int)
        Where a row begins, and where the next one does; 0 for the end of the file.
    """

    path: Path
    lines: tuple[tuple[int, int], ...]


def find_source_rows(records: Records, ids: Sequence[str]) -> Iterator[SourceRows]:
    """Yield the files that tables were read from, with the lines of rows with these ids.

    A file that was changed since, such as by a call before this one, is read as it was read then.
    """
    found: dict[str, set[tuple[int, int]]] = {}
    for name, lines in _read_sources(records):
        with suppress(DlpipeError, OSError):  # what stays in it is said by whoever looks again
            found.setdefault(name, set()).update(_find_lines(lines, set(ids)))
    yield from (SourceRows(Path(name), tuple(sorted(lines))) for name, lines in found.items() if lines)


def find_source_inputs(records: Records, ids: Collection[str]) -> dict[str, SourceLine]:
    """Return the lines of rows with these ids, as far as they still stand in files that tables were read from."""
    found: dict[str, SourceLine] = {}
    for _, lines in _read_sources(records):
        with suppress(DlpipeError, OSError):
            found |= {line.row_id: line for line in lines if line.row_id in ids}
    return found


def _read_sources(records: Records) -> Iterator[tuple[str, Iterator[SourceLine]]]:
    """Yield the name and the lines of each file that is there, once for each way in which it was read."""
    from dlpipe.tables import read_source_lines

    read: set[tuple[str, str]] = set()
    for record in records.catalog.list_records("data", "quarantine"):
        for version, commit in record.commits.items():
            if "form" not in commit:
                continue
            form = repr((commit["form"], commit.get("settings")))
            for source in record.list_sources(version):
                name = str(source["name"])
                if (name, form) not in read and Path(name).is_file():
                    read.add((name, form))
                    yield name, read_source_lines(source, commit, changed=True)


def _find_lines(lines: Iterable[SourceLine], ids: set[str]) -> Iterator[tuple[int, int]]:
    begun = 0
    for line in lines:
        if begun:
            yield begun, line.number
        begun = line.number if line.row_id in ids else 0
    if begun:
        yield begun, 0


def find_cuttable(records: Records, paths: Sequence[Path]) -> frozenset[Path]:
    """Return those of the user's files of which lines may be taken out: plain text that tables were read from."""
    plain = [path for path in paths if has_lines(path)]
    named = {
        Path(source["name"]).absolute()
        for record in (records.catalog.list_records("data", "quarantine") if plain else ())
        for version in record.commits
        for source in record.list_sources(version)
    }
    return frozenset(path for path in plain if path.absolute() in named)


def has_lines(path: Path) -> bool:
    """Return whether lines can be taken out of a file: it is plain text, with a row on a line or several."""
    return path.suffix.lower() in LINES


def cut_lines(source: SourceRows) -> None:
    """Take the lines of rows out of a file, in one step."""
    lines = source.path.read_bytes().splitlines(keepends=True)
    gone = {number for begin, end in source.lines for number in range(begin, end or len(lines) + 1)}
    kept = [line for number, line in enumerate(lines, 1) if number not in gone]
    with write_beside(source.path) as beside:
        beside.write_bytes(b"".join(kept))
        beside.chmod(source.path.stat().st_mode & 0o777)
