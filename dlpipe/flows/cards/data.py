"""The card of an ingest."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from metaflow.cards import Markdown

from dlpipe.flows.cards.parts import Box, make_boxes, make_note, make_table, show
from dlpipe.task.evaluation import cut_text

if TYPE_CHECKING:
    from dlpipe.tables import Ingest

EXAMPLES, MOST_LABELS, MOST_COUNTED = 2, 12, 60
MOST_COLUMNS = 7
"""A row of more is shown from top to bottom."""
QUANTILES = {"min": "shortest", "p25": "25 % up to", "p75": "75 % up to", "p95": "95 % up to", "max": "longest"}
BATCH_ROWS, BATCHES = 2_000, 5
COMPARED = 1_000_000
WORDS_PER_TOKEN = 0.75  # of English texts with WordPiece, as a rule of thumb


def show_data(ingest: Ingest, *, max_length: int = 0) -> None:
    """Show rows by split and label, examples, what changed, lengths, sources and what was set aside.

    Parameters
    ----------
    ingest : Ingest
    max_length : int, optional
        How many tokens of a text the training reads; 0 where it reads no texts.
    """
    show(make_data_parts(ingest, max_length=max_length))


def make_data_parts(ingest: Ingest, *, max_length: int = 0) -> Iterator[Any]:
    """Yield what the card shows of an ingest."""
    profile = ingest.profile
    yield Markdown(f"# {ingest.table.rows:,} rows in {ingest.table}")
    yield make_boxes(*_make_boxes(ingest))
    if ingest.notes:
        yield make_table(["what to know"], ([note] for note in ingest.notes))
    yield Markdown("## Rows by split")
    yield from _make_counts(ingest)
    yield from _make_examples(ingest)
    yield from _make_lengths(profile, max_length)
    yield from _make_set_aside(ingest)
    yield Markdown("## Sources")
    yield make_table(
        ["file", "bytes", "SHA-256"], ([s["name"], s["size"], s["sha256"][:16]] for s in profile["sources"])
    )
    yield make_note(f"Digest of the rows: {ingest.table.digest}")


def _make_boxes(ingest: Ingest) -> Iterator[Box]:
    splits = " / ".join(f"{rows:,}" for rows in ingest.split_rows.values())
    yield Box(
        " / ".join(ingest.split_rows), splits, f"{len(ingest.labels)} labels" if ingest.labels else "numbers"
    )
    bad = sum(ingest.bad_rows.values())
    where = f"in {ingest.quarantine}" if ingest.quarantine and bad else "every row could be read"
    yield Box("set aside", f"{bad:,}", where, False if bad else None)
    repeated = f"{ingest.profile.get('repeated_texts', 0):,} rows repeat another one and stay"
    yield Box("dropped", f"{ingest.leaked_rows:,}", f"that are also in a later split; {repeated}")
    if ingest.appended_rows:
        without = f"{ingest.unlabelled_rows:,} of them have no label and are in no split"
        yield Box("appended, and stay", f"{ingest.appended_rows:,}", without)
    yield Box("version", str(ingest.table.version), _describe_change(ingest))


def _describe_change(ingest: Ingest) -> str:
    from dlpipe.tables import find_change

    if not ingest.new_version:
        return "the same content as before: no new version"
    if ingest.table.version == 0:
        return "the first one"
    if ingest.table.rows > COMPARED or (change := find_change(ingest.table)) is None:
        return "new"
    counts = {
        "added": change.added,
        "gone": change.gone,
        "with another label": change.relabelled,
        "in another split": change.moved,
    }
    told = [f"{count:,} {what}" for what, count in counts.items() if count]
    return f"since version {change.since}: {', '.join(told) or 'the rows are the same'}"


def _make_examples(ingest: Ingest) -> Iterator[Any]:
    """Yield the first rows of each label; of a list, of its first label; of numbers, simply the first rows."""
    from dlpipe.tables import read_form, stream_table

    form = read_form(ingest.table)
    columns = [column.name for column in form.inputs]
    seen: Counter[str] = Counter()
    rows: list[tuple[str, list[str]]] = []
    wanted = min(len(ingest.labels), MOST_LABELS) or 1
    batches = stream_table(ingest.table, split="train", columns=[*columns, "label"], batch_rows=BATCH_ROWS)
    for batch in islice(batches, BATCHES):  # what stands further down is not worth reading a large table for
        for record in batch.to_pylist():
            label = record.pop("label")
            first = label[0] if isinstance(label, list) and label else label
            group = str(first) if ingest.labels else ""
            most = EXAMPLES if ingest.labels else 3 * EXAMPLES
            if seen[group] < most and (group in seen or len(seen) < MOST_LABELS):
                seen[group] += 1
                shown = ", ".join(map(str, label)) if isinstance(label, list) else str(label)
                cells = [cut_text(str(value)) if value is not None else "" for value in record.values()]
                rows.append((group, [shown, *cells]))
        if len(seen) >= wanted and min(seen.values()) >= EXAMPLES:
            break
    if rows:
        yield Markdown("## Examples from the train split")
        examples = [cells for _, cells in sorted(rows, key=lambda row: row[0])]
        yield _make_example_table(["label", *columns], examples)
        missing = len(ingest.labels) - len(seen)
        if ingest.labels and missing > 0:
            yield make_note(f"{missing} more labels are not shown.")


def _make_example_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Any:
    """Return rows one below the other, or side by side where they have many columns."""
    if len(columns) <= MOST_COLUMNS:
        return make_table(columns, rows)
    every = math.ceil(len(rows) / MOST_COLUMNS)
    (_, *labels), *lines = zip(columns, *rows[::every], strict=True)
    return make_table(["column", *labels], lines)


def _make_lengths(profile: Mapping[str, Any], max_length: int) -> list[Any]:
    """Return the lengths of texts, and the quantiles of labels that are numbers, where there are such."""
    lengths = {name: profile[name] for name in ("words", "characters") if name in profile}
    numbers = profile.get("numbers", {})
    parts: list[Any] = []
    for heading, rows, names in (
        ("## Length of the texts", lengths, QUANTILES),
        ("## Numbers to predict", numbers, {**QUANTILES, "min": "smallest", "max": "largest"}),
    ):
        if rows:
            quantiles = [names.get(name, name) for name in next(iter(rows.values()))]
            cells = [[name, *found.values()] for name, found in rows.items()]
            parts += [Markdown(heading), make_table(["", *quantiles], cells)]
        if rows is lengths and rows and max_length:
            parts.append(make_note(_judge_length(lengths.get("words", {}), max_length)))
    return parts


def _judge_length(words: Mapping[str, int], max_length: int) -> str:
    room = int(max_length * WORDS_PER_TOKEN)
    head = f"The training reads the first {max_length} tokens of a text, about {room} words"
    if words.get("max", 0) <= room:
        return f"{head}: all of every text."
    if words.get("p95", 0) <= room:
        return f"{head}: fewer than 5 % of the texts are longer, and what stands beyond is not read."
    if words.get("median", 0) <= room:
        return f"{head}: more than 5 % of the texts are longer. A larger max_length reads more, and takes longer."
    return f"{head}: most texts are longer. A larger max_length reads more, and takes longer."


def _make_set_aside(ingest: Ingest) -> Iterator[Any]:
    if not ingest.bad_rows:
        return
    examples = ingest.profile.get("bad_examples", {})
    yield Markdown(f"## Set aside, in {ingest.quarantine}")
    yield make_table(
        ["reason", "rows", "for example", "which says"],
        (
            [
                reason,
                rows,
                examples.get(reason, {}).get("place", ""),
                cut_text(examples.get(reason, {}).get("text", "")),
            ]
            for reason, rows in ingest.bad_rows.items()
        ),
    )


def _make_counts(ingest: Ingest) -> Iterator[Any]:
    """Yield the rows of each label in each split; of very many labels, those that the fewest rows have."""
    counts = {split: ingest.profile["labels"][split] for split in ingest.split_rows}
    rows = [[label, *(counts[split].get(label, 0) for split in counts)] for label in ingest.labels]
    rarest = sorted(rows, key=lambda row: sum(row[1:]))[:MOST_COUNTED] if len(rows) > MOST_COUNTED else rows
    if len(rarest) < len(rows):
        yield make_note(f"The {MOST_COUNTED} of the {len(rows):,} labels that the fewest rows have.")
    lines = ([name, *(f"{count:,}" for count in found)] for name, *found in rarest)
    yield make_table(["", *counts], [["all rows", *(f"{each:,}" for each in ingest.split_rows.values())], *lines])
