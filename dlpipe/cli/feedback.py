"""`dlpipe feedback`: labels for what was asked of a served model."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from dlpipe.cli.appending import format_append
from dlpipe.cli.printing import as_json, say
from dlpipe.errors import SettingError


@click.command()
@click.argument("model")
@click.argument("file", required=False)
@click.option("--table", metavar="TABLE", help="Take the labels from this table instead of a file.")
@click.option("--id-column", metavar="NAME", help="The column with the request ids.  [default: request_id]")
@click.option("--row-column", metavar="NAME", help="The column with the numbers of rows, from 0.  [default: row]")
@click.option("--label-column", metavar="NAME", help="The column with the labels.  [default: label]")
@click.option("--append", "target", metavar="TABLE", help="Add the rows that have a label to this table.")
@click.option("--since", metavar="DAY", help="With --append: only of requests from this day on, in UTC.")
@as_json
def feedback(
    model: str,
    file: str | None,
    table: str | None,
    id_column: str | None,
    row_column: str | None,
    label_column: str | None,
    target: str | None,
    since: str | None,
    json_: bool,
) -> None:
    """Add labels to what was asked of MODEL, or say how many there are.

    FILE is a CSV, JSON Lines or Parquet file with the columns request_id and label, and row where a request had
    several. Of two labels for one row the last one counts; the same labels again add nothing.

    \b
    Examples:
      dlpipe feedback reviews labels.csv
      dlpipe feedback reviews --table labels --label-column stars
      dlpipe feedback reviews
      dlpipe feedback reviews --append reviews
    """
    from dlpipe.serving.feedback import add_feedback, read_labels, read_table_labels, take_labels
    from dlpipe.serving.labelling import check_known
    from dlpipe.serving.logged import check_model

    if file and table:
        raise SettingError("Labels come from a file or from a table: leave out the file, or --table.")
    if since and not target:
        raise SettingError("--since is for --append.")
    check_model(model)
    if file or table:
        named = {"request_id": id_column, "row": row_column, "label": label_column}
        columns = {name: called for name, called in named.items() if called}
        given = read_labels(file, columns) if file else read_table_labels(str(table), columns)
        source = Path(file).name if file else f"table {table}"
        labels = take_labels(given)
        check_known(model, labels)
        done = add_feedback(model, labels, source=source)
        counts = {**asdict(done), "table": done.table and str(done.table)}
        say(json.dumps(counts, indent=2) if json_ else format_feedback(counts))
    if target:
        _append(model, target, since or "", json_=json_)
    elif not file and not table:
        _describe(model, json_=json_)


def format_feedback(counts: dict[str, object]) -> str:
    """Return what became of labels, on one line.

    Examples
    --------
    >>> format_feedback({"table": "reviews_feedback@v2", "added": 3, "known": 1, "changed": 1, "unknown": 0})
    'reviews_feedback@v2: 3 labels added, 1 of them instead of another; 1 known; 0 for rows not in the log'
    """
    return (
        f"{counts['table']}: {counts['added']:,} labels added, {counts['changed']:,} of them instead of another; "
        f"{counts['known']:,} known; {counts['unknown']:,} for rows not in the log"
    )


def _append(model: str, target: str, since: str, *, json_: bool) -> None:
    from dlpipe.serving.feedback import append_labelled
    from dlpipe.serving.logged import check_day

    if since:
        check_day(since)
    done = append_labelled(model, target, since=since)
    if done is None:
        say(
            f"Nothing that was asked of {model} has a label and its text in the log: texts are kept from when "
            "`texts = true` stands in [serving.log].",
            err=True,
        )
        return
    counts = {
        "table": str(done.table),
        "new_rows": done.new_rows,
        "labelled_rows": done.labelled_rows,
        "filled_labels": done.filled_labels,
        "known_rows": done.known_rows,
        "bad_rows": dict(done.bad_rows),
    }
    say(json.dumps(counts, indent=2) if json_ else format_append(counts))


def _describe(model: str, *, json_: bool) -> None:
    from dlpipe.serving.feedback import describe_feedback

    state = describe_feedback(model)
    if json_:
        say(json.dumps(asdict(state), indent=2))
        return
    say(
        f"{model}: {state.labelled:,} of {state.answered:,} answered rows have a label; {state.contradictory:,} "
        f"have had different ones; {state.unknown:,} labels are for rows not in the log, or do not name theirs"
    )
