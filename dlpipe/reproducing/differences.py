"""What is not as it was when a model was trained, a line each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from dlpipe.reproducing.code import TrainingCode, compare_packages
from dlpipe.reproducing.origin import Origin
from dlpipe.tables import TableVersion, has_files, read_table
from dlpipe.training import Domain

Kind = Literal["rows", "settings", "code", "domain"]
MOST = 20
"""So many files of code are named; the rest is counted."""
FEW = 3
"""Up to so many rows are named."""
NOT_OURS = ("threads", "precision")
"""What a training sets by its settings, which are made as its domain says."""


@dataclass(frozen=True)
class Difference:
    """Something that is not as it was.

    Attributes
    ----------
    kind : str
        ``rows``, ``settings`` and ``code`` say what is learnt; ``domain`` how it is computed.
    words : str
        What it is, then and now.
    """

    kind: Kind
    words: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.words}"


def compare_rows(origin: Origin, rows: TableVersion) -> Iterator[Difference]:
    """Yield how the rows are not those that were learnt from."""
    recorded = origin.version.tags.get("delta.digest", "")
    if rows.digest == recorded:
        return
    if rows.version == origin.table.version:
        yield Difference("rows", f"{rows} has other rows now: digest {rows.digest[:12]}, it was {recorded[:12]}")
        return
    found = ", ".join(list_row_changes(origin.table, rows))
    yield Difference("rows", f"{rows} instead of {origin.table}: {found or 'the same rows, written otherwise'}")


def list_row_changes(then: TableVersion, now: TableVersion) -> Iterator[str]:
    """Yield how many rows one version has that another has not, or has with another label or split; few are named.

    Parameters
    ----------
    then, now : TableVersion
        With the columns of rows that are trained on.
    """
    if not has_files(then):
        yield f"{then.rows:,} rows, whose files were removed, and {now.rows:,} rows now"
        return
    if "row_id" not in dict(then.columns) or "row_id" not in dict(now.columns):
        yield f"{now.rows:,} rows, there were {then.rows:,}"
        return
    before, after = map(read_facts, (then, now))
    both = [row for row in after if row in before]
    for what, at, found in (
        ("added", now, [row for row in after if row not in before]),
        ("gone", then, [row for row in before if row not in after]),
        ("with another label", now, [row for row in both if before[row]["label"] != after[row]["label"]]),
        ("in another split", now, [row for row in both if before[row]["split"] != after[row]["split"]]),
    ):
        if found:
            few = f" ({', '.join(f'{at}#{row}' for row in found)})" if len(found) <= FEW else ""
            yield f"{len(found):,} {what}{few}"


def read_facts(table: TableVersion) -> dict[str, dict[str, Any]]:
    """Return label and split of each row, by its id."""
    rows = read_table(table, columns=["row_id", "label", "split"]).to_pylist()
    return {row["row_id"]: row for row in rows}


def compare_settings(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[Difference]:
    """Yield the settings that differ; those that only say how to compute belong to the domain.

    Examples
    --------
    >>> [str(found) for found in compare_settings({"epochs": 2, "threads": 0}, {"epochs": 3, "threads": 2})]
    ['settings: epochs 3, it was 2']
    """
    for name in sorted({*then, *now} - {*NOT_OURS}):
        if then.get(name) != now.get(name):
            yield Difference("settings", f"{name} {now.get(name)}, it was {then.get(name)}")


def compare_code(kept: TrainingCode, used: TrainingCode) -> Iterator[Difference]:
    """Yield the files in which the code that was used is not the kept code."""
    found = list(compare_packages(kept.package, used.package)) if kept.package != used.package else []
    for line in found[:MOST]:
        yield Difference("code", line)
    if len(found) > MOST:
        yield Difference("code", f"{len(found) - MOST:,} further files")


def compare_domains(then: Domain | None, now: Domain | None) -> Iterator[Difference]:
    """Yield in what the domain differs: threads, instructions, processor, versions of packages."""
    if then is None or now is None:
        return
    for name, before, after in then.compare(now):
        yield Difference("domain", f"{name} {after or 'not set'}, it was {before or 'not set'}")
