"""Explain rows of a table version, appended to a table of explanations: a sample, or every row of a split."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from dlpipe.explain.explaining import compare_methods, explain_rows
from dlpipe.explain.explanations import (
    ExplainSettings,
    Explanations,
    NamedRow,
    choose_rows,
    make_explanation_schema,
)
from dlpipe.explain.slices import SLICE_ROWS, SliceExplainer, list_columns, make_key, name_rows
from dlpipe.parts import RowProgress, Slice, cut_slices, stage_missing
from dlpipe.tables import (
    TableVersion,
    check_split,
    check_target,
    commit_parts,
    decode_texts,
    find_commit,
    read_table,
    stream_table,
    to_split_key,
    write_table,
)
from dlpipe.task import Predictor, Row

Each = Callable[[Callable[[Slice], int], Sequence[Slice]], Iterable[int]]


@dataclass(frozen=True)
class ExplainedTable:
    """What explaining a table did.

    Attributes
    ----------
    table : TableVersion
        The explanations table at the version that holds these rows.
    rows : int
        The rows of the source whose parts have numbers.
    new_rows : int
        Those explained now; the others had been before.
    sample : Explanations
        The first ``settings.rows`` of the source that were explained, one slice at most, to look at.
    """

    table: TableVersion
    rows: int
    new_rows: int
    sample: Explanations


def explain_table(
    predictor: Predictor,
    source: TableVersion,
    *,
    mistakes: Sequence[str] = (),
    model: str,
    target: str,
    settings: ExplainSettings,
    among: Sequence[str] | None = None,
) -> tuple[Explanations, TableVersion]:
    """Explain a sample of the test split of ``source`` and of ``mistakes``; return it and the table that has it.

    Parameters
    ----------
    predictor : Predictor
    source : TableVersion
        A table with ``row_id`` and the columns that the model reads (and ``split``).
    mistakes : sequence of str, optional
        Ids of rows of ``source``; the first ``settings.mistakes`` of them are explained.
    among : sequence of str, optional
        Ids of the rows from which the sample is drawn, instead of the test split.
    model : str
        URI of the model version that ``predictor`` holds.
    target : str
        Path of the Delta table that the attributions are appended to, in one commit. The same model, table
        version, settings and mistakes again are not written again.

    Raises
    ------
    NoRows
        When there are neither test rows nor mistakes; nothing is committed.
    SchemaMismatch
        When the table at ``target`` has other columns; nothing is computed.
    """
    check_target(target, make_explanation_schema())  # before the work, not at its end
    if among is None and not mistakes:
        check_split(source, "test", whole="explain_all(..., split=None)")
    rows = read_test_rows(source, predictor) if among is None else read_named_rows(source, among, predictor)
    worst = find_mistakes(rows, mistakes[: settings.mistakes], source, predictor)
    chosen = choose_rows(rows, mistakes=worst, settings=settings)
    # before the key is looked up: the card shows the explanations, also where the table has them already
    made = explain_sample(predictor, chosen, settings)
    key = {**make_key(source, model, settings), "rows": " ".join(row_id for row_id, _ in chosen)}
    table = made.to_table(model=model, source=source)
    return made, find_commit(target, key) or write_table(target, table, mode="append", key=key)


def read_test_rows(source: TableVersion, predictor: Predictor) -> list[NamedRow]:
    """Return the rows of the test split."""
    rows = read_table(source, split="test", columns=list_columns(predictor, source))
    return name_rows(decode_texts(rows, of=source), predictor)


def find_mistakes(
    rows: Sequence[NamedRow], names: Sequence[str], source: TableVersion, predictor: Predictor
) -> list[NamedRow]:
    """Return the rows with these ids, the worst mistake first.

    Parameters
    ----------
    rows : sequence of (row_id, row)
        Rows that are read already. A mistake that is not among them, such as of another split, is read.
    names : sequence of str
        Row ids in the order wanted; one that the table does not have is left out.
    source : TableVersion
    predictor : Predictor
        Says which columns a row is made of.
    """
    wanted = set(names)
    found = {row_id: row for row_id, row in rows if row_id in wanted}
    if missing := [name for name in names if name not in found]:
        found |= read_named_rows(source, missing, predictor)
    return [(name, found[name]) for name in names if name in found]


def read_named_rows(source: TableVersion, names: Sequence[str], predictor: Predictor) -> list[NamedRow]:
    """Return the rows with these ids, in the order of the table; of an id that comes twice, the first.

    That is also the row that scoring answers. The table is streamed: ids are few, and the table may be large.

    Parameters
    ----------
    source : TableVersion
    names : sequence of str
        Row ids; one that the table does not have is left out.
    predictor : Predictor
        Says which columns a row is made of.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    wanted = pa.array(list(names), pa.string())
    found: dict[str, Row] = {}
    for batch in stream_table(source, columns=list_columns(predictor, source)):
        rows = decode_texts(batch, of=source)
        for row_id, row in name_rows(rows.filter(pc.is_in(rows["row_id"], wanted)), predictor):
            found.setdefault(row_id, row)
    return list(found.items())


def explain_all(
    predictor: Predictor,
    source: TableVersion,
    *,
    split: str | None = "test",
    model: str,
    target: str,
    settings: ExplainSettings,
    each: Each = map,
    say: Callable[[str], None] | None = print,
) -> ExplainedTable:
    """Explain every row of a split of ``source``, or of all splits; append the attributions in one commit.

    The work is done in slices of some rows, each staged beside ``target`` when it is done: after a kill, the same
    call resumes after the last of them and ends with the same rows. The same model, table version, split and
    settings again make no new rows. Memory does not grow with the table.

    Parameters
    ----------
    predictor : Predictor
        Of ``model``; it travels to other processes with ``each``.
    source : TableVersion
        A table with ``row_id`` and the columns that the model reads (and ``split``).
    split : str or None
        The split to explain; ``None`` means all of them.
    model, target : str
        As for ``explain_table``.
    each : callable
        Calls its first argument, which can be pickled, with each item of the second, in any order and on any
        machine that sees both tables. By default ``map``.
    say : callable, optional
        Gets a line every ten seconds where there is no terminal for a bar; None keeps silent.

    Raises
    ------
    NoRows
        When there is no row to explain; nothing is committed.
    SchemaMismatch
        When the table at ``target`` has other columns; nothing is computed.
    """
    check_split(source, split, whole="split=None")
    check_target(target, make_explanation_schema())
    key = {**make_key(source, model, settings), "split": to_split_key(split)}
    slices, cut = cut_slices(source, split, rows=SLICE_ROWS)
    explainer = SliceExplainer(predictor, source, model, target, settings, key, cut)
    new_rows = 0 if find_commit(target, key) else explain_missing(explainer, slices, each, say)
    # where the key is committed already, this removes what a process left that was killed after its commit
    table = commit_parts(target, key=key, parts=len(slices), cut=cut)
    sample = explain_sample(predictor, explainer.read(slices[0])[: settings.rows], settings)
    return ExplainedTable(table, sum(piece.rows for piece in slices), new_rows, sample)


def explain_sample(predictor: Predictor, rows: Sequence[NamedRow], settings: ExplainSettings) -> Explanations:
    """Return the explanations of ``rows``, with the agreement of both methods about the first of them."""
    made = explain_rows(predictor, rows, settings=settings)
    return replace(made, agreement=compare_methods(predictor, made, settings=settings))


def explain_missing(
    explainer: SliceExplainer, slices: Sequence[Slice], each: Each, say: Callable[[str], None] | None
) -> int:
    """Stage the slices that are not staged yet, and return how many rows these have.

    Parameters
    ----------
    explainer : SliceExplainer
    slices : sequence of Slice
        All of them; the staged ones are found here.
    each, say
        See ``explain_all``.
    """

    def work(missing: Sequence[Slice], progress: RowProgress) -> None:
        for rows in each(explainer, missing):
            progress.add(rows)

    sizes = [piece.rows for piece in slices]
    target, key, cut = explainer.target, explainer.key, explainer.cut
    what = f"explaining {explainer.source}"
    return stage_missing(slices, sizes, work, target=target, key=key, cut=cut, what=what, say=say)
