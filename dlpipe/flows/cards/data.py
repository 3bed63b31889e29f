"""The card of an ingest."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from metaflow.cards import Markdown

from dlpipe.flows.cards.parts import make_table, show

if TYPE_CHECKING:
    from dlpipe.tables import Ingest


def show_data(ingest: Ingest) -> None:
    """Show splits, labels, text lengths, sources and quarantine."""
    show(make_data_parts(ingest))


def make_data_parts(ingest: Ingest) -> Iterator[Any]:
    """Yield what the card shows of an ingest."""
    profile = ingest.profile
    news = "a new version." if ingest.new_version else "the same content as before: no new version."
    yield Markdown(f"# Data: {ingest.table}")
    yield Markdown(f"{ingest.table.rows:,} rows, digest `{ingest.table.digest}`, {news}")
    yield make_table(["split", "rows", *ingest.labels], _list_split_rows(ingest))
    if ingest.notes:
        yield make_table(["what to know"], ([note] for note in ingest.notes))
    yield from _make_lengths(profile)
    yield Markdown("## Sources")
    yield make_table(
        ["file", "bytes", "SHA-256"], ([s["name"], s["size"], s["sha256"][:16]] for s in profile["sources"])
    )
    yield Markdown(_describe_appended(ingest))
    yield Markdown("## Quarantine")
    yield Markdown(_describe_quarantine(ingest))
    if ingest.bad_rows:
        yield make_table(["reason", "rows"], ingest.bad_rows.items())


def _make_lengths(profile: Mapping[str, Any]) -> list[Any]:
    """Return the lengths of texts, and the quantiles of labels that are numbers, where there are such."""
    lengths = {name: profile[name] for name in ("words", "characters") if name in profile}
    shown = {"## Length of the texts": lengths, "## Numbers to predict": profile.get("numbers", {})}
    parts: list[Any] = []
    for heading, rows in shown.items():
        if rows:
            quantiles = list(next(iter(rows.values())))
            cells = [[name, *found.values()] for name, found in rows.items()]
            parts += [Markdown(heading), make_table(["", *quantiles], cells)]
    return parts


def _list_split_rows(ingest: Ingest) -> Iterable[Sequence[Any]]:
    for split, rows in ingest.split_rows.items():
        counts = ingest.profile["labels"][split]
        yield [split, rows, *(counts.get(label, 0) for label in ingest.labels)]


def _describe_appended(ingest: Ingest) -> str:
    return (
        f"{ingest.appended_rows:,} rows were appended and stay; {ingest.unlabelled_rows:,} of them have no label "
        "and are in no split."
    )


def _describe_quarantine(ingest: Ingest) -> str:
    where = f" in `{ingest.quarantine}`" if ingest.quarantine else ""
    bad = sum(ingest.bad_rows.values())
    return f"{bad} rows set aside{where}; {ingest.leaked_rows} rows dropped that also stand in a later split."
