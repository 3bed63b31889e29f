"""Forget rows: take them out of tables, mark the models that learnt from them, and delete what is left of them.

Everything is done in an order in which a call that is killed anywhere can be made again with the same words, and
ends the same: first the record, by which no row comes back; then new versions of tables; then marks of models;
then what cannot be undone. The last files to go are those by which the rows are found.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dlpipe.errors import DlpipeError, MarkMoved
from dlpipe.forgetting.asked import AskedRow
from dlpipe.forgetting.databases import clean_database, find_databases
from dlpipe.forgetting.files import clean_file, find_own, find_roots
from dlpipe.forgetting.learnt import LearntModel
from dlpipe.forgetting.leftovers import delete_leftovers
from dlpipe.forgetting.reach import Reach, ReachedTable, find_tables
from dlpipe.forgetting.reading import Misses
from dlpipe.forgetting.sources import cut_lines, find_source_rows, has_lines
from dlpipe.forgetting.waiting import settle_logs

if TYPE_CHECKING:
    from dlpipe.lineage import Records
    from dlpipe.tables import Forgetting

ROUNDS = 5


@dataclass
class Forgotten:
    """What was done.

    Attributes
    ----------
    record : str
    rows : int
    tables : dict of str to int
        Rows taken out, by table.
    models : list of str
        That are marked.
    purged : dict of str to int
        What was deleted or cleaned, by kind.
    left : list of str
        The user's files that lines were to be taken out of, and that still have some.
    problems : list of str
        Why some tables still have rows.
    """

    record: str
    rows: int
    tables: dict[str, int] = field(default_factory=dict)
    models: list[str] = field(default_factory=list)
    purged: dict[str, int] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def to_plain(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        return {name: value for name, value in vars(self).items() if name != "record"}


def forget(
    records: Records,
    reach: Reach,
    *,
    who: str,
    purge: bool = False,
    sources: bool = False,
    say: Callable[[str], None],
) -> Forgotten:
    """Forget the rows of ``reach``; called again after a kill, it does the rest.

    Parameters
    ----------
    records : Records
    reach : Reach
        What ``find_reach`` returned.
    who : str
    purge : bool, optional
        Whether old data files are deleted, and files of runs and models are cleaned.
    sources : bool, optional
        Whether lines are taken out of the user's files that rows were read from.
    say : callable
        Gets what is done next.

    Raises
    ------
    ServerRefused
        When a server keeps what it was asked in its journal for a minute.
    MarkMoved
        When rows come to a table again and again.
    """
    from dlpipe.tables import begin_forgetting, end_forgetting

    told = {row.row_id: _tell(row, reach) for row in reach.rows}
    begun = begin_forgetting(told, who=who)
    done = Forgotten(begun.record, len(begun.digests))
    say(f"record {begun.record}: from now on nothing takes in {count_rows(len(begun.digests))}")
    settle_logs(reach.chooser, say=say)
    for _ in range(ROUNDS):
        tables = list(find_tables(_read_anew(records, reach), reach.chooser, []))
        stuck = _remove(tables, done, say)
        mark_models(begun, reach.models)
        done.models = sorted(model.uri for model in reach.models)
        if not purge:
            break
        try:
            cleared = _leave_out_needed(reach, tables, stuck) if stuck else tables
            _purge(_read_anew(records, reach), reach, cleared, done, sources=sources and not stuck, say=say)
            break
        except MarkMoved as error:  # rows came meanwhile, by a run that had read them before
            moved = error
    else:
        raise MarkMoved(
            f"{moved} It was tried {ROUNDS} times: end what writes them, and call this again with the same words."
        )
    _renew_pages(say)
    _keep_counts(_read_anew(records, reach), begun, done)
    missing = list(dict.fromkeys([*reach.elsewhere, *reach.problems, *done.problems]))
    # nothing came up since an earlier call that purged: it stays so
    is_purged = purge or (bool((begun.done or {}).get("purge")) and not reach.has_something)
    end_forgetting(begun, {**done.to_plain(), "purge": is_purged, "not_searched": missing}, who=who)
    return done


def _read_anew(records: Records, reach: Reach) -> Records:
    """Return records that know what is there by now, tables outside the tables root among it."""
    anew = type(records)()
    for location in reach.elsewhere_tables:
        anew.catalog.find(location)
    return anew


def _renew_pages(say: Callable[[str], None]) -> None:
    """Have the pages of models in MLflow count what is left of what they were used for."""
    from dlpipe.lineage import Records, renew_pages

    try:
        renew_pages(Records())
    except DlpipeError as error:
        say(f"The pages of models in MLflow still count what was forgotten: {error}")


def _tell(row: AskedRow, reach: Reach) -> dict[str, Any]:
    """Return what the record tells of a row: where it was found, and who learnt from it; nothing of itself."""
    models = {model.uri: model.rows[row.row_id] for model in reach.models if row.row_id in model.rows}
    where = {"table": row.table.rsplit("/", 1)[-1]} if row.table else {}
    return {**where, **({} if row.version is None else {"version": row.version}), "models": models}


def _keep_counts(records: Records, begun: Forgetting, done: Forgotten) -> None:
    """Add what an earlier call of the same record did."""
    before = begun.done or {}
    for what, count in before.get("purged", {}).items():
        done.purged[what] = done.purged.get(what, 0) + count
    # a call that was killed has told nobody how many it took out, but for the commits by which it did
    done.tables = {**before.get("tables", {}), **_count_removed(records, begun)}
    done.models = sorted({*done.models, *before.get("models", ())})


def _count_removed(records: Records, begun: Forgetting) -> dict[str, int]:
    """Return how many rows were taken out of each table for a record."""
    from dlpipe.tables import count_removed_rows

    counts: dict[str, int] = {}
    for record in records.catalog.list_records():
        if count := count_removed_rows(record.location, begun.record, since=begun.at):
            counts[record.name] = counts.get(record.name, 0) + count
    return counts


def _remove(tables: Sequence[ReachedTable], done: Forgotten, say: Callable[[str], None]) -> set[str]:
    """Take the rows out of tables, and return the locations of those where that cannot be done; others go on."""
    import pyarrow as pa

    from dlpipe.tables import remove_rows

    stuck, done.problems = set(), []
    for table in tables:
        try:
            if table.rows and (removed := remove_rows(table.search, done.record)):
                say(f"{removed.version}: {count_rows(removed.rows)} taken out")
        except (DlpipeError, OSError, pa.ArrowException) as error:
            stuck.add(table.location)
            done.problems.append(f"{table.name} still has {count_rows(table.rows)}: {error}")
            say(done.problems[-1])
    return stuck


def _leave_out_needed(reach: Reach, tables: Sequence[ReachedTable], stuck: set[str]) -> list[ReachedTable]:
    """Return the tables that can be purged while others are stuck: a later call must find the rows again."""
    needed = stuck | {row.table for row in reach.rows}
    return [table for table in tables if table.location not in needed]


def mark_models(begun: Forgetting, models: Sequence[LearntModel]) -> None:
    """Mark the versions that learnt from the rows, as their pages in MLflow say from then on."""
    from dlpipe.registry import mark_forgotten, resolve

    counts: dict[str, dict[str, int]] = {}
    for told in begun.digests.values():
        for uri, split in told["models"].items():
            splits = counts.setdefault(uri, {})
            splits[split] = splits.get(split, 0) + 1
    for model in models:
        counts.setdefault(model.uri, {})
    for uri, splits in counts.items():
        try:
            version = resolve(uri)
        except DlpipeError:  # deleted meanwhile
            continue
        mark_forgotten(version, begun.record, splits, at=begun.at)


def _purge(
    records: Records,
    reach: Reach,
    tables: Sequence[ReachedTable],
    done: Forgotten,
    *,
    sources: bool,
    say: Callable[[str], None],
) -> None:
    from dlpipe.tables import delete_folder, purge_rows

    needles = reach.chooser.needles
    if left := delete_leftovers(reach.leftovers):
        _count(done, "leftovers", left)
        say(f"leftovers of killed commands: {left:,} deleted")
    for folder in reach.features:
        delete_folder(folder)
        _count(done, "features kept")
    if reach.features:
        say(f"features kept: {len(reach.features):,} deleted")
    cleaned = [found.what for found in reach.kept if clean_file(found, needles)]
    for what in cleaned:
        _count(done, what)
    if cleaned:
        say(f"{len(cleaned):,} file{'' if len(cleaned) == 1 else 's'} of runs and models cleaned")
    for database in find_databases(find_roots().state):
        if cells := clean_database(database, needles):
            _count(done, "database values", cells)
    if sources:
        _cut_sources(records, reach, done, say)
    _delete_index()
    for table in tables:
        if files := purge_rows(table.search):
            _count(done, "data files", files)
            say(f"{table.name}: {files} old data file{'' if files == 1 else 's'} deleted")


def _delete_index() -> None:
    """Delete lineage's index, which may name rows in what it knows of commits; it is a cache."""
    from dlpipe.lineage.index import find_index_path

    if path := find_index_path():
        for file in path.parent.glob(f"{path.name}*"):
            file.unlink(missing_ok=True)


def _cut_sources(records: Records, reach: Reach, done: Forgotten, say: Callable[[str], None]) -> None:
    for source in find_source_rows(records, [row.row_id for row in reach.rows]):
        if has_lines(source.path):
            cut_lines(source)
            _count(done, "lines of sources", len(source.lines))
    done.left = []
    for found in find_own([own.path for own in reach.own], reach.chooser.needles, Misses()):
        lines = f", line {', '.join(map(str, found.lines))}," if found.lines else ""
        say(f"{found.path}{lines} still has it, for it is not as it was read: take it out yourself")
        if found.path in reach.cuttable:
            done.left.append(str(found.path))


def count_rows(rows: int) -> str:
    """Return how many rows, in words.

    Examples
    --------
    >>> count_rows(1), count_rows(1200)
    ('1 row', '1,200 rows')
    """
    return "1 row" if rows == 1 else f"{rows:,} rows"


def _count(done: Forgotten, what: str, count: int = 1) -> None:
    done.purged[what] = done.purged.get(what, 0) + count
