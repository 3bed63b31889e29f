"""What rows have reached: tables, models, logs, features, files; found anew each time, and nothing is changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlpipe.buckets import StoredObject
from dlpipe.delta import cast_views
from dlpipe.errors import DlpipeError, TableNotFound
from dlpipe.forgetting.asked import AskedRow
from dlpipe.forgetting.choosing import FEEDBACK, REQUESTS, RowChooser
from dlpipe.forgetting.databases import count_cells, find_databases
from dlpipe.forgetting.features import find_features
from dlpipe.forgetting.files import FoundIn, OwnFile, Roots, find_kept, find_own, find_roots, find_vocabularies
from dlpipe.forgetting.learnt import LearntModel, find_learnt
from dlpipe.forgetting.leftovers import find_leftovers
from dlpipe.forgetting.own_words import find_own_words
from dlpipe.forgetting.reading import Misses
from dlpipe.forgetting.sources import find_cuttable
from dlpipe.forgetting.waiting import find_waiting
from dlpipe.scratch import find_busy_scratch

if TYPE_CHECKING:
    from dlpipe.lineage import Records
    from dlpipe.tables import FileSearch

Say = Callable[[str], None]
ORDER = ("feedback", "requests", "looks", "explanations", "predictions", "quarantine", "data")
"""In which tables are changed: labels before the requests that they are for, and last what a killed call needs to
find the rows again."""


@dataclass(frozen=True)
class ReachedTable:
    """A table that has rows.

    Attributes
    ----------
    name, location, kind : str
    rows : int
        Of its latest version.
    models : tuple of str
        Of predictions, explanations and requests: the versions of models that answered, in any of its files.
    old_files : tuple of str
        Data files that only earlier versions name, or none.
    unreadable : tuple of int
        Versions that cannot be read any more once old files are deleted, the present one among them.
    search : FileSearch
    """

    name: str
    location: str
    kind: str
    rows: int
    models: tuple[str, ...]
    old_files: tuple[str, ...]
    unreadable: tuple[int, ...]
    search: FileSearch = field(compare=False, repr=False)


@dataclass(frozen=True)
class Reach:
    """What rows have reached.

    Attributes
    ----------
    rows : tuple of AskedRow
    chooser : RowChooser
    tables : tuple of ReachedTable
        In the order in which they are to be changed.
    models : tuple of LearntModel
    features : tuple of str
        Folders of kept features, tokens among them.
    checkpoints : tuple of str
        Runs with checkpoints of a training that had the rows.
    kept : tuple of FoundIn
        Files of dlpipe, Metaflow and MLflow.
    own : tuple of OwnFile
        The user's.
    vocabularies : tuple of Path or StoredObject
        Files of models with words that only these rows have, which stay.
    databases : tuple of (Path, int)
        With how many values have something.
    waiting : int
        Files of a server's journal that are not in a table yet.
    elsewhere : tuple of str
        Stores, folders and files that were not searched.
    problems : tuple of str
        Tables that cannot be read.
    cuttable : frozenset of Path
        Those of the user's files of which lines may be taken out.
    leftovers : tuple of Path
        Temporary folders, and halves of files, of commands that were killed.
    in_use : tuple of Path
        Temporary folders of commands that are at work, which may have the rows.
    elsewhere_tables : tuple of str
        Locations of tables outside the tables root, which were named or taught a registered model.
    """

    rows: tuple[AskedRow, ...]
    chooser: RowChooser
    tables: tuple[ReachedTable, ...]
    models: tuple[LearntModel, ...]
    features: tuple[str, ...]
    checkpoints: tuple[str, ...]
    kept: tuple[FoundIn, ...]
    vocabularies: tuple[Path | StoredObject, ...]
    own: tuple[OwnFile, ...]
    databases: tuple[tuple[Path, int], ...]
    waiting: int
    elsewhere: tuple[str, ...]
    problems: tuple[str, ...]
    cuttable: frozenset[Path]
    leftovers: tuple[Path, ...]
    in_use: tuple[Path, ...]
    elsewhere_tables: tuple[str, ...]

    @property
    def is_complete(self) -> bool:
        """Whether everything was searched."""
        return not self.elsewhere and not self.problems

    @property
    def has_something(self) -> bool:
        """Whether anything was found that a purge takes the rows out of."""
        return bool(self.tables or self.kept or self.databases or self.waiting)

    @property
    def lost_models(self) -> tuple[LearntModel, ...]:
        """The models that cannot be made again once old files are deleted."""
        gone = {(table.location, version) for table in self.tables for version in table.unreadable}
        return tuple(
            model for model in self.models if (model.table, model.version) in gone and not model.made_from
        )


def find_reach(records: Records, rows: Sequence[AskedRow], *, say: Say) -> Reach:
    """Return what rows have reached.

    Parameters
    ----------
    records : Records
    rows : sequence of AskedRow
    say : callable
        Gets what is looked at next.
    """
    chooser, roots = RowChooser(rows), find_roots()
    say("looking at tables")
    elsewhere_tables = tuple(_find_elsewhere(records))
    chooser.own_words = find_own_words(records, chooser, roots.experiments)
    # before the tables: what a server brings into one meanwhile is then found twice, and not missed
    waiting = len(find_waiting(chooser))
    problems: list[str] = []
    tables = tuple(find_tables(records, chooser, problems))
    say("looking at models")
    models = tuple(find_learnt(records, rows))
    say("looking at files of runs and models")
    needles = chooser.needles
    databases = [(path, count) for path in find_databases(roots.state) if (count := count_cells(path, needles))]
    misses = Misses()
    kept = tuple(find_kept(roots, needles, misses))
    vocabularies = tuple(find_vocabularies(roots, needles))
    say("looking at your files")
    files = (file for file in roots.list_own(misses) if not any(map(file.is_relative_to, elsewhere_tables)))
    own = tuple(find_own(files, needles, misses))
    return Reach(
        tuple(rows),
        chooser,
        tables,
        models,
        tuple(find_features(records, [table.location for table in tables])),
        tuple(_find_checkpoints(models, roots)),
        kept,
        vocabularies,
        own,
        tuple(databases),
        waiting,
        (*roots.elsewhere, *misses.places),
        tuple(problems),
        find_cuttable(records, [found.path for found in own]),
        tuple(find_leftovers(roots)),
        tuple(find_busy_scratch()),
        elsewhere_tables,
    )


def _find_elsewhere(records: Records) -> Iterator[str]:
    """Yield the tables outside the tables root: those that were asked for, and those of registered models."""
    from dlpipe.tables import table_at

    named = {version.tags.get("delta.table", "").rstrip("/") for _, version in records.models.list_versions()}
    for location in sorted(named - {""}):
        try:
            table_at(location)
        except TableNotFound:  # deleted since
            continue
        except DlpipeError:  # which the catalog says, too
            pass
        records.catalog.find(location)
    root = {location for _, location in records.catalog.list_names()}
    yield from (record.location for record in records.catalog.list_records() if record.location not in root)


def find_tables(records: Records, chooser: RowChooser, problems: list[str]) -> Iterator[ReachedTable]:
    """Yield the tables that have rows, in the order in which they are to be changed."""
    from dlpipe.tables import (
        FORGOTTEN,
        FileSearch,
        count_rows_to_remove,
        explain_left,
        find_unreadable_versions,
    )

    found = [record for record in records.catalog.list_records() if record.name != FORGOTTEN]
    found.sort(key=lambda record: (ORDER.index(record.kind), record.location))
    first = {row.table for row in chooser.rows if row.table}
    # where the rows were found comes last of all
    found.sort(key=lambda record: record.location in first)
    for record in found:
        if record.kind == "requests":
            chooser.answered |= _find_answered(record.location, chooser)
    for record in found:
        search = FileSearch(record.location, chooser)
        try:
            rows, old = count_rows_to_remove(search)
            unreadable = find_unreadable_versions(search) if rows or old else []
            problems += explain_left(search)
        except DlpipeError as error:
            problems.append(str(error))
            continue
        if rows or old:
            yield ReachedTable(
                record.name,
                record.location,
                record.kind,
                rows,
                tuple(_find_models(search, record.kind)),
                tuple(old),
                tuple(unreadable),
                search,
            )
    problems += [text for location, text in records.catalog.problems.items() if location not in problems]


def _find_answered(location: str, chooser: RowChooser) -> set[tuple[str, int]]:
    """Return request and row of what a log has of the texts, in any of its files."""
    from dlpipe.tables import FileSearch

    search = FileSearch(location, chooser)
    return {(row["request_id"], row["row"]) for row in _read_hits(search, ["request_id", "row"])}


def _find_models(search: FileSearch, kind: str) -> list[str]:
    """Return the versions of models whose answers a table has for the rows, in any of its files."""
    if kind in ("predictions", "explanations"):
        found = {row["model_version"] for row in _read_hits(search, ["model_version"]) if row}
    elif kind == "requests":
        asked = _read_hits(search, ["model", "version"])
        found = {f"models:/{row['model']}/{row['version']}" for row in asked if row.get("version")}
    else:
        found = set()
    return sorted(found, key=split_version)


def split_version(uri: str) -> tuple[str, int]:
    """Return the name of a model and the number of its version, to sort by.

    Examples
    --------
    >>> split_version("models:/reviews/12")
    ('models:/reviews', 12)
    """
    name, _, number = uri.rpartition("/")
    return name, int(number) if number.isdecimal() else 0


def _read_hits(search: FileSearch, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield some columns of the rows that a search finds, in any file of its table."""
    import pyarrow.parquet as pq

    from dlpipe.tables import filesystem

    for found in search.find_all():
        with filesystem(search.location).open_input_file(found.name) as stream:
            rows = cast_views(pq.ParquetFile(stream).read(columns=columns))
            yield from rows.take(list(found.places)).to_pylist()


def _find_checkpoints(models: Sequence[LearntModel], roots: Roots) -> Iterator[str]:
    bucket = roots.metaflow_bucket
    for run in dict.fromkeys("/".join(model.run.split("/")[:2]) for model in models if model.run):
        place = f"mf.checkpoints/checkpoints/metadata/{run}"
        if (roots.metaflow / place).is_dir() or (bucket and bucket.has_folder(place)):
            yield run


__all__ = [
    "FEEDBACK",
    "REQUESTS",
    "Reach",
    "ReachedTable",
    "find_reach",
    "find_tables",
]
