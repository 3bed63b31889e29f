"""Two models on the same rows: which rows those are, and what each model says of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dlpipe.errors import DlpipeError, SettingError
from dlpipe.evaluation import LabelledRows, PairedComparison, compare_outputs
from dlpipe.task import find_task

if TYPE_CHECKING:
    from dlpipe.comparing.kept import FoundOutputs
    from dlpipe.comparing.sides import Side, TableRef
    from dlpipe.registry import ModelVersion
    from dlpipe.tables import TableVersion

ALL = "all"


class NotComparable(DlpipeError, ValueError):
    """Two models cannot be compared row by row; the message says why."""


@dataclass(frozen=True)
class ComparedRows:
    """The rows to compare on; without a table, those that both models were trained to be tested on."""

    table: str | None = None
    version: int | None = None
    split: str = "test"
    shown: int = 20


@dataclass(frozen=True)
class Pair:
    """The second of two sides against the first, on the same rows.

    Attributes
    ----------
    first, second : str
        Names of the sides.
    table, split : str
        Where the rows are from, such as ``reviews@v0`` and ``test``; empty where there are none.
    models : (str, str)
        What they are, such as ``reviews v3``; empty where they are not compared.
    comparison : PairedComparison or None
        ``None`` where they cannot be compared; ``problem`` says why.
    notes : tuple of str
        Rows that were left out, and where the predictions are from.
    """

    first: str
    second: str
    table: str = ""
    split: str = ""
    models: tuple[str, str] = ("", "")
    comparison: PairedComparison | None = None
    problem: str = ""
    notes: tuple[str, ...] = ()


class Outputs:
    """What models say of the rows of a split; of each model and table they are found once."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str, str], FoundOutputs] = {}
        self.cards: dict[str, dict[str, Any]] = {}

    def read_card(self, model: ModelVersion) -> dict[str, Any]:
        """Return the card of a model."""
        from dlpipe.inference import read_card

        if model.uri not in self.cards:
            self.cards[model.uri] = read_card(model)
        return self.cards[model.uri]

    def find(self, model: ModelVersion, table: TableVersion, split: str, rows: LabelledRows) -> FoundOutputs:
        """Return what a model says of all rows of a split.

        Parameters
        ----------
        model : ModelVersion
        table : TableVersion
        split : str
        rows : LabelledRows
            All of the split, as the model reads them.
        """
        from dlpipe.comparing.kept import find_outputs

        key = (model.uri, table.path, f"{table.version} {split}")
        if key not in self._found:
            self._found[key] = find_outputs(model, self.read_card(model), table, rows.row_ids, rows.rows)
        return self._found[key]


def compare_pair(first: Side, second: Side, asked: ComparedRows, outputs: Outputs) -> Pair:
    """Return the second side's model against the first's on the same rows, or why there is no such comparison.

    Parameters
    ----------
    first, second : Side
    asked : ComparedRows
        Which rows.
    outputs : Outputs
        Those that other pairs have found already.
    """
    try:
        return _compare(first, second, asked, outputs)
    except SettingError:
        raise
    except DlpipeError as error:
        return Pair(first.name, second.name, problem=join_reason(str(error)))


def join_reason(message: str) -> str:
    """Return a message as a sentence goes on with it.

    Examples
    --------
    >>> join_reason("There is no table at 'a'. Pass another."), join_reason("MLflow does not answer.")
    ("there is no table at 'a'. Pass another", 'MLflow does not answer')
    """
    first, _, rest = message.rstrip(".").partition(" ")
    return f"{first.lower() if first in ('There', 'The', 'No', 'Version') else first} {rest}"


def _compare(first: Side, second: Side, asked: ComparedRows, outputs: Outputs) -> Pair:
    models = [get_model(first), get_model(second)]
    if models[0].uri == models[1].uri:
        raise NotComparable(f"both are {models[0].uri}, which does not differ from itself")
    cards = [outputs.read_card(model) for model in models]
    if cards[0]["task"] != cards[1]["task"]:
        raise NotComparable(
            f"{models[0].uri} is a model for {cards[0]['task']}, {models[1].uri} is one for {cards[1]['task']}"
        )
    task = find_task(cards[0]["task"])
    table = choose_table(models, asked)
    rows = [read_rows(table, asked.split, card) for card in cards]
    places, notes = choose_places(rows[0], models, cards, table, asked)
    found = [outputs.find(model, table, asked.split, own) for model, own in zip(models, rows, strict=True)]
    notes += [f"predictions of {model}: {one.words}" for model, one in zip(models, found, strict=True)]
    mine, theirs = (one.outputs.take(places) for one in reversed(found))
    comparison = compare_outputs(theirs, mine, rows[0].take(places), task=task, shown=asked.shown)
    names = (str(models[0]), str(models[1]))
    return Pair(first.name, second.name, str(table), asked.split, names, comparison, notes=tuple(notes))


def get_model(side: Side) -> ModelVersion:
    """Return the model of a side."""
    if side.model is None:
        raise NotComparable(f"{side.name} has no model here{': ' if side.no_model else ''}{side.no_model}")
    return side.model


def choose_table(models: Sequence[ModelVersion], asked: ComparedRows) -> TableVersion:
    """Return the table version to compare on: the one that is asked for, else the later of those learnt from.

    Raises
    ------
    NotComparable
        When the models learnt from different tables and none is asked for.
    """
    from dlpipe.tables import table_at

    if asked.table:
        return table_at(asked.table, version=asked.version)
    refs = [find_table(model) for model in models]
    known = [ref for ref in refs if ref]
    if not known:
        raise NotComparable("neither model says which table it learnt from; name one with --table")
    if len({ref.path for ref in known}) > 1:
        names = " and ".join(f"{ref.name}@v{ref.version}" for ref in known)
        raise NotComparable(
            f"they learnt from different tables, {names}: they have no rows in common; name the rows with --table"
        )
    version = max(ref.version for ref in known) if asked.version is None else asked.version
    return table_at(known[0].path, version=version)


def find_table(model: ModelVersion) -> TableRef | None:
    """Return the table version that a model learnt from, as its tags say."""
    from dlpipe.comparing.sides import find_tables

    return next(iter(find_tables(model.tags)), None)


def read_rows(table: TableVersion, split: str, card: dict[str, Any]) -> LabelledRows:
    """Return the rows of a split that have a label, as the model with this card reads them.

    Parameters
    ----------
    table : TableVersion
    split : str
        ``all`` for the rows of all splits, and of none.
    card : dict
        Of the model.

    Raises
    ------
    SchemaMismatch
        When the table lacks the label or a column that the model reads.
    """
    from dlpipe.tables import read_table

    inputs = find_task(card["task"]).inputs
    columns = inputs.find_columns(table, card)
    found = read_table(table, split=None if split == ALL else split, columns=["row_id", *columns, "label"])
    found = found.filter(found["label"].is_valid())
    return LabelledRows(
        found["row_id"].to_pylist(), inputs.read_rows(found.select(columns)), found["label"].to_pylist()
    )


def choose_places(
    rows: LabelledRows,
    models: Sequence[ModelVersion],
    cards: Sequence[dict[str, Any]],
    table: TableVersion,
    asked: ComparedRows,
) -> tuple[list[int], list[str]]:
    """Return which rows both models can be judged on, and in lines which are left out.

    Parameters
    ----------
    rows : LabelledRows
        All of the split.
    models : sequence of two ModelVersion
    cards : sequence of two dict
    table : TableVersion
        Whose rows they are.
    asked : ComparedRows

    Raises
    ------
    NotComparable
        When no row is left.
    """
    if not rows.row_ids:
        raise NotComparable(
            f"{table} has no row with a label in its {asked.split!r} split; name another with --split"
        )
    target = find_task(cards[0]["task"]).target
    places, notes = set(range(len(rows.row_ids))), []
    for model, card in zip(models, cards, strict=True):
        known, unknown = target.find_known_rows(rows.labels, card["labels"])
        if unknown:
            classes = ", ".join(f"{label!r} ({count})" for label, count in unknown.items())
            notes.append(f"left out: rows of what {model} does not know: {classes}")
            places &= set(known)
        if asked.split in ("train", "valid"):
            continue  # asked for by name
        learnt = find_learnt(model, table, say=notes.append)
        seen = {at for at in places if rows.row_ids[at] in learnt}
        if seen:
            notes.append(f"left out: {len(seen):,} rows that {model} learnt from")
            places -= seen
    if not places:
        reason = f"; {'; '.join(notes)}" if notes else ""
        raise NotComparable(f"no row of {table} ({asked.split}) is left to compare on{reason}")
    return sorted(places), notes


def find_learnt(model: ModelVersion, table: TableVersion, *, say: Callable[[str], None]) -> frozenset[str]:
    """Return the ids of the rows of ``table`` that a model was trained on, or that chose its best epoch.

    Parameters
    ----------
    model : ModelVersion
    table : TableVersion
        A table that the model did not learn from has none of these rows.
    say : callable
        Gets a line where they cannot be read.
    """
    from dlpipe.tables import read_table, table_at

    own = find_table(model)
    if own is None or own.path != table.path:
        return frozenset()
    try:
        version = table_at(own.path, version=own.version)
        splits = [read_table(version, split=split, columns=["row_id"]) for split in ("train", "valid")]
    except DlpipeError as error:
        say(f"which rows {model} learnt from is not known: {str(error).rstrip('.')}")
        return frozenset()
    return frozenset(row for split in splits for row in split["row_id"].to_pylist())
