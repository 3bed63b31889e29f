"""A comparison in words and tables, for a terminal and for a page, and as JSON."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dlpipe.comparing.comparison import Comparison
from dlpipe.comparing.data import RowChanges, TableComparison
from dlpipe.comparing.pairs import Pair
from dlpipe.comparing.sides import Side
from dlpipe.evaluation import GroupOutcome, MetricDifference, PairedComparison, RowOutcome
from dlpipe.task.evaluation import spell_metric
from dlpipe.time_formats import format_time

MOST_FILES, MOST_GROUPS, MOST_NUMBERS = 12, 30, 40
MANY_GROUPS = 10
"""From so many classes on, a line says that some intervals leave out 0 by chance."""
SHORT_SECONDS = 5.0
"""Steps that are shorter on every side are not listed."""
VERDICTS = {
    "better": "{metric} is better",
    "worse": "{metric} is worse",
    "unclear": "these rows do not tell the two apart",
    "same": "there is no difference",
}


@dataclass(frozen=True)
class Section:
    """A part of a comparison: a heading, rows as cells by the names of their columns, and lines below.

    Attributes
    ----------
    drawn : sequence of MetricDifference
        One for each row whose interval a page draws beside it; else none.
    """

    title: str
    rows: Sequence[Mapping[str, Any]] = ()
    notes: Sequence[str] = ()
    drawn: Sequence[MetricDifference] = ()


def make_sections(comparison: Comparison, *, rows: int = 0) -> list[Section]:
    """Return the parts of a comparison that have something to say; cells are texts, and not cut.

    Parameters
    ----------
    comparison : Comparison
    rows : int
        How many rows that are won, and how many that are lost, are listed.
    """
    pairs = [section for pair in comparison.pairs for section in make_pair_sections(pair)]
    return [*make_side_sections(comparison), *pairs, *make_row_sections(comparison, rows)]


def make_side_sections(comparison: Comparison) -> list[Section]:
    """Return what the sides are and in what they differ."""
    parts = (make_settings, make_data, make_code, make_scores)
    made = [make_overview(comparison.sides), *(make(comparison) for make in parts)]
    return [section for section in made if section.rows or section.notes]


def make_row_sections(comparison: Comparison, rows: int) -> list[Section]:
    """Return at most ``rows`` of the rows won, and of those lost, of each pair; no section for none."""
    return [
        Section(f"{title}: {min(rows, len(listed))} of {count:,}", list_rows(pair, listed[:rows]))
        for pair in comparison.pairs
        if pair.comparison is not None and rows
        for title, listed, count in describe_lists(pair, pair.comparison)
        if count
    ]


def summarize(comparison: Comparison) -> list[str]:
    """Return a line for each pair: by how much the second is better or worse, and how sure that is."""
    return [summarize_pair(pair) for pair in comparison.pairs]


def summarize_pair(pair: Pair) -> str:
    """Return in a line what came of comparing two models on the same rows."""
    names = f"{pair.second} against {pair.first}"
    if pair.comparison is None:
        return f"{names}: not compared row by row, since {pair.problem}"
    found = pair.comparison.deciding
    metric = spell_metric(found.metric)
    verdict = VERDICTS[found.verdict].format(metric=metric)
    return (
        f"{names}: {metric} {found.second:.3f} against {found.first:.3f}, {format_difference(found)}, on "
        f"{pair.comparison.rows:,} rows of {pair.table} ({pair.split}): {verdict}"
    )


def format_difference(found: MetricDifference) -> str:
    """Return a difference with its interval, such as ``+0.010 (-0.004 to +0.025)``."""
    low, high = found.interval
    return f"{found.value:+.3f} ({low:+.3f} to {high:+.3f})"


def make_overview(sides: Sequence[Side]) -> Section:
    """Return what the sides are, how long they took and how they ended."""
    rows: dict[str, list[str]] = {
        "model": [side.model.uri if side.model else "" for side in sides],
        "aliases": [", ".join(side.model.aliases) if side.model else "" for side in sides],
        "run": [side.run for side in sides],
        "status": [side.status for side in sides],
        "started": ["" if side.started is None else format_time(side.started // 1000) for side in sides],
        "took": [format_seconds(side.seconds) for side in sides],
    }
    steps = dict.fromkeys(step for side in sides for step in side.steps)
    rows |= {
        f"step {step}": [format_seconds(side.steps.get(step)) for side in sides]
        for step in steps
        if any(side.steps.get(step, 0.0) >= SHORT_SECONDS for side in sides)
    }
    rows["epochs"] = [format_epochs(side) for side in sides]
    notes = [f"{side.name}: {note}" for side in sides for note in side.notes]
    flows = dict.fromkeys(side.run.partition("/")[0] for side in sides if side.run)
    if len(flows) > 1:
        notes.append(f"{' and '.join(flows)} are different flows: only what both have is compared.")
    return Section("Compared", turn(sides, rows), notes)


def turn(sides: Sequence[Side], rows: Mapping[str, Sequence[str]]) -> list[dict[str, str]]:
    """Return rows of cells under the names of the sides; those without any are left out."""
    return [
        {"": name, **dict(zip([side.name for side in sides], cells, strict=True))}
        for name, cells in rows.items()
        if any(cells)
    ]


def format_seconds(seconds: float | None) -> str:
    """Return a span as people read it.

    Examples
    --------
    >>> format_seconds(9.84), format_seconds(75), format_seconds(7503), format_seconds(None)
    ('9.8 s', '1 min 15 s', '2 h 5 min', '')
    """
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, left = divmod(minutes, 60)
    return f"{hours} h {left} min" if hours else f"{minutes} min {rest} s"


def format_epochs(side: Side) -> str:
    """Return how many epochs a side trained, and which was the best."""
    if side.epochs is None:
        return ""
    return f"{side.epochs}, best {side.best_epoch}" if side.best_epoch else str(side.epochs)


def make_settings(comparison: Comparison) -> Section:
    """Return the settings that differ."""
    rows = {
        name: ["-" if value is None else value for value in values] for name, values in comparison.settings.items()
    }
    silent = [f"the settings of {side.name} are not known" for side in comparison.sides if not side.settings]
    same = f"the same: {comparison.same_settings}" if comparison.same_settings else ""
    if comparison.one_sided_settings:
        same += f"{', ' if same else ''}not known on every side: {comparison.one_sided_settings}"
    if not rows and not silent and same:
        return Section("Settings that differ", (), [f"None; {same}."])
    notes = [line for line in (*silent, same) if line]
    return Section(
        "Settings that differ", turn(comparison.sides, rows), [f"{line[0].upper()}{line[1:]}." for line in notes]
    )


def make_data(comparison: Comparison) -> Section:
    """Return the versions of tables that the sides worked on, and how their rows differ."""
    rows = [row for table in comparison.tables for row in make_table_rows(table, comparison.sides)]
    notes = [
        f"{side.name}: {table.path} v{version} cannot be compared: {change.problem}."
        for table in comparison.tables
        for side, version, change in zip(comparison.sides, table.versions, table.changes, strict=True)
        if change and change.problem
    ]
    return Section("Data", rows, notes)


def make_table_rows(table: TableComparison, sides: Sequence[Side]) -> list[dict[str, str]]:
    """Return the lines of a table: version, rows, splits, rows added and gone."""
    name = table.path.rstrip("/").rpartition("/")[2]
    rows: dict[str, list[str]] = {
        name: ["-" if version is None else f"v{version}" for version in table.versions],
        f"{name} rows": ["" if count is None else f"{count:,}" for count in table.rows],
    }
    if len(sides) <= 2:
        rows[f"{name} splits"] = [format_counts(splits) for splits in table.splits]
    else:  # a line for each split: beside several others, a cell is narrow
        for split in dict.fromkeys(split for splits in table.splits for split in splits):
            rows[f"{name} {split}"] = [f"{splits[split]:,}" if split in splits else "" for splits in table.splits]
    if len({version for version in table.versions if version is not None}) > 1:
        known = [change if change and not change.problem else None for change in table.changes]
        rows[f"{name} added"] = [format_changed(change, "added") for change in known]
        rows[f"{name} gone"] = [format_changed(change, "gone") for change in known]
        rows[f"{name} in another split"] = [
            f"{change.moved:,}" if change and change.moved else "" for change in known
        ]
        rows[f"{name} with another label"] = [
            f"{change.relabelled:,}" if change and change.relabelled else "" for change in known
        ]
    return turn(sides, rows)


def format_counts(counts: Mapping[str, int]) -> str:
    """Return counts by name in a line.

    Examples
    --------
    >>> format_counts({"train": 2116, "test": 590})
    'train 2,116, test 590'
    """
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


def format_changed(change: RowChanges | None, what: str) -> str:
    """Return how many rows were added or are gone, by split."""
    if change is None:
        return ""
    count, by_split = getattr(change, what), getattr(change, f"{what}_by_split")
    return f"{count:,} ({format_counts(by_split)})" if count else "0"


def make_code(comparison: Comparison) -> Section:
    """Return the files in which the code differs; of many, those with the most lines."""
    rows, notes = [], []
    several = len(comparison.code) > 1
    for side, change in zip(comparison.sides[1:], comparison.code, strict=True):
        notes.append(f"{side.name}: {change.words}.")
        for file in change.files[:MOST_FILES]:
            lines = "not text" if file.added < 0 else f"+{file.added} -{file.removed}"
            rows.append({**({"side": side.name} if several else {}), "file": file.path, "lines": lines})
        if (more := len(change.files) - MOST_FILES) > 0:
            notes.append(f"{side.name}: {more} more file{'' if more == 1 else 's'}.")
    return Section("Code", rows, notes)


def make_scores(comparison: Comparison) -> Section:
    """Return the scores that runs and registry have, with their intervals; else the numbers that differ."""
    if comparison.scores:
        # those of a baseline are the same for all models of one table
        rows = {
            " ".join(map(spell_metric, name.split("/"))): ["" if score is None else str(score) for score in scores]
            for name, scores in comparison.scores.items()
            if "/" not in name or len(set(map(str, scores))) > 1
        }
        notes = describe_left_scores(comparison, len(rows))
        if any(len(set(table.versions)) > 1 for table in comparison.tables):
            notes.append("Each was measured on the test rows of its own table version.")
        return Section("Scores of the runs", turn(comparison.sides, rows), notes)
    numbers = {
        name: ["-" if value is None else f"{value:.6g}" for value in values]
        for name, values in list(comparison.numbers.items())[:MOST_NUMBERS]
    }
    more = len(comparison.numbers) - len(numbers)
    return Section("Numbers that differ", turn(comparison.sides, numbers), [f"{more} more."] if more else ())


def describe_left_scores(comparison: Comparison, shown: int) -> list[str]:
    """Return in a line whose scores are left out since they are the same on all sides."""
    left = len(comparison.scores) - shown
    owners = dict.fromkeys(name.partition("/")[0] for name in comparison.scores if "/" in name)
    return [f"{left} scores of {' and '.join(owners)} are the same."] if left else []


def make_pair_sections(pair: Pair) -> Iterator[Section]:
    """Yield the scores of two models on the same rows, and what came of each class."""
    found = pair.comparison
    if found is None:  # the summary says why
        return
    yield Section(
        f"{pair.models[1]} against {pair.models[0]}: {found.rows:,} rows of {pair.table} ({pair.split})",
        [make_metric_row(pair, difference) for difference in found.metrics.values()],
        [f"{note[0].upper()}{note[1:]}." for note in (describe_rows(pair, found), *pair.notes)],
        list(found.metrics.values()),
    )
    if found.groups:
        yield make_class_section(pair, found.groups)


def make_class_section(pair: Pair, groups: Sequence[GroupOutcome]) -> Section:
    """Return the recall of each class by both models, with the difference, in the order of ``groups``.

    Parameters
    ----------
    pair : Pair
    groups : sequence of GroupOutcome
    """
    shown = groups[:MOST_GROUPS]
    notes = []
    if left := groups[MOST_GROUPS:]:
        changed = sum(group.won + group.lost > 0 for group in left)
        more = f"{changed} of them with rows won or lost" if changed else "none with a row won or lost"
        notes.append(f"{len(left)} more, {more}.")
    if len(groups) >= MANY_GROUPS:
        notes.append("Of 20 classes that do not differ, chance alone calls about one better or worse.")
    return Section(
        "Recall by class",
        [make_class_row(pair, group) for group in shown],
        notes,
        [group.difference for group in shown],
    )


def make_class_row(pair: Pair, group: GroupOutcome) -> dict[str, str]:
    """Return the recall of a class by both models with the difference."""
    return {
        "": group.group,
        "rows": f"{group.rows:,}",
        pair.models[0]: format_share(group.first_recall),
        pair.models[1]: format_share(group.second_recall),
        "difference": format_difference(group.difference),
        "that is": group.difference.verdict,
        "won": f"{group.won:,}",
        "lost": f"{group.lost:,}",
    }


def format_share(share: float) -> str:
    """Return a share with three digits; nothing where no row has the class."""
    return "" if math.isnan(share) else f"{share:.3f}"


def make_metric_row(pair: Pair, found: MetricDifference) -> dict[str, str]:
    """Return a metric of both models with the difference."""
    less = " (less is better)" if found.lower_is_better else ""
    return {
        "": f"{spell_metric(found.metric)}{less}",
        pair.models[0]: format_share(found.first),
        pair.models[1]: format_share(found.second),
        "difference": "" if math.isnan(found.value) else format_difference(found),
        "that is": found.verdict,
    }


def describe_rows(pair: Pair, found: PairedComparison) -> str:
    """Return in a line which model has which rows right, and how often chance tells them so far apart."""
    first, second = pair.models
    if not found.has_right_rows:
        return (
            f"{second} is closer on {found.won:,} rows, {first} on {found.lost:,}, both are the same on "
            f"{found.both:,}"
        )
    p_value = found.p_value or 0.0
    p_words = "p < 0.001" if p_value < 0.001 else f"p = {p_value:.3f}"
    return (
        f"right by {second} alone {found.won:,} (won), by {first} alone {found.lost:,} (lost), by both "
        f"{found.both:,}, by neither {found.neither:,}; McNemar's exact test {p_words}"
    )


def describe_lists(pair: Pair, found: PairedComparison) -> list[tuple[str, Sequence[RowOutcome], int]]:
    """Return the headings, rows and counts of the rows won and lost."""
    word = "right" if found.has_right_rows else "closer"
    return [
        (f"Won: {pair.models[1]} is {word}", found.won_rows, found.won),
        (f"Lost: {pair.models[0]} is {word}", found.lost_rows, found.lost),
    ]


def list_rows(pair: Pair, rows: Sequence[RowOutcome]) -> list[dict[str, str]]:
    """Return rows with what is true and what each model says."""
    return [
        {
            "label": row.label,
            pair.models[0]: row.first,
            pair.models[1]: row.second,
            "row": " ".join(row.text.split()),
        }
        for row in rows
    ]


def to_plain(value: Any) -> Any:
    """Return a comparison as JSON knows it; a number that is not finite is null, a model version its URI.

    Examples
    --------
    >>> to_plain({"a": (1.0, float("nan"))})
    {'a': [1.0, None]}
    """
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        if hasattr(value, "uri"):
            return value.uri
        fields = {field.name: to_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        if isinstance(value, GroupOutcome):
            return {**fields, "difference": to_plain(value.difference.value), "verdict": value.difference.verdict}
        return {**fields, "verdict": value.verdict} if isinstance(value, MetricDifference) else fields
    if isinstance(value, Mapping):
        return {str(key): to_plain(inner) for key, inner in value.items()}
    return [to_plain(inner) for inner in value] if isinstance(value, list | tuple) else value
