"""`dlpipe forget`: what a row has reached, and the row taken out of it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from dlpipe.cli.printing import as_json, say, say_progress, say_rows
from dlpipe.errors import NodeNotFound, SettingError
from dlpipe.time_formats import format_moment, to_moment

if TYPE_CHECKING:
    from dlpipe.forgetting import Reach
    from dlpipe.tables import Forgetting

MOST_FILES = 20
MOST_LINES = 5
INCOMPLETE = 3
"""The exit code where something was not searched."""


@click.command()
@click.argument("targets", nargs=-1, metavar="[ROW|FILE]...")
@click.option("--text", "texts", multiple=True, help="The text itself; `-` reads it from standard input.")
@click.option("--apply", "apply_", is_flag=True, help="Take the rows out of tables and logs by new versions.")
@click.option("--purge", is_flag=True, help="With --apply: also delete old data files, and clean files of runs.")
@click.option("--sources", is_flag=True, help="With --purge: also take the lines out of your own files.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--records", is_flag=True, help="List what was forgotten so far.")
@click.option("--lift", metavar="RECORD", help="Let the rows of a record come back into tables.")
@as_json
def forget(
    targets: Sequence[str],
    texts: Sequence[str],
    apply_: bool,
    purge: bool,
    sources: bool,
    yes: bool,
    records: bool,
    lift: str | None,
    json_: bool,
) -> None:
    """Show what rows have reached, and forget them: for the request to delete what somebody wrote.

    ROW is TABLE#ROW, FILE a file that was ingested or a line of it, such as films.csv:17. Without --apply nothing
    is changed. With it, tables and logs get versions without the rows, models that learnt from them say so, and no
    ingest takes the rows in again. What cannot be undone takes --purge. Exit code 3: something was not searched,
    such as files behind a server; what it is, is printed.

    \b
    Examples:
      dlpipe forget complaints.csv:2
      dlpipe forget complaints.csv:2 --apply --purge --yes
      dlpipe forget --text "Cold soup, rude waiter." --apply --yes
      dlpipe forget --records
    """
    if records or lift:
        if targets or texts or apply_ or (records and lift):
            raise SettingError("--records and --lift stand alone. Leave out the rest.")
        list_records(json_=json_) if records else lift_record(str(lift), json_=json_)
        return
    if not targets and not texts:
        raise SettingError(
            "Name what to forget: TABLE#ROW, a file or a line of it, or --text. See dlpipe forget --help."
        )
    if purge and not apply_:
        raise SettingError("--purge deletes; it goes with --apply.")
    if sources and not purge:
        raise SettingError("--sources changes your files for good; it goes with --apply --purge.")
    forget_rows(
        targets,
        [read_text(text) for text in texts],
        apply_=apply_,
        purge=purge,
        sources=sources,
        yes=yes,
        json_=json_,
    )


def read_text(given: str) -> str:
    """Return a text as it was given, or what comes from standard input."""
    return sys.stdin.read().rstrip("\n") if given == "-" else given


def forget_rows(
    targets: Sequence[str],
    texts: Sequence[str],
    *,
    apply_: bool,
    purge: bool,
    sources: bool,
    yes: bool,
    json_: bool,
) -> None:
    """Print what rows have reached; with ``apply_``, forget them."""
    from dlpipe.forgetting import find_asked, find_reach
    from dlpipe.forgetting import forget as forget_reached
    from dlpipe.lineage import Records
    from dlpipe.tables import read_forgotten

    store, known = Records(), read_forgotten()
    store.check_something()
    asked = find_asked(store, targets, texts, known)
    finished = [record for row in asked if (record := known.find(row.row_id)) and record.done]
    if len(finished) == len(asked):
        names = " and ".join(sorted({record.record for record in finished}))
        if not any(row.inputs for row in asked):
            say(f"Nothing is left: forgotten before, by record {names}.", err=True)
            end_forgotten(finished, json_=json_)
            return
        say(f"Forgotten before, by record {names}. What is left:", err=True)
    reach = find_reach(store, asked, say=say_progress)
    if not json_:
        say("\n".join(describe_reach(reach, purge=purge)))
    for line in describe_limits(reach):
        say(line, err=True)
    if not apply_:
        if json_:
            say(json.dumps(to_plain(reach), indent=2))
        else:
            say(
                "Nothing was changed. --apply takes rows out; --apply --purge leaves nothing of them.",
                err=True,
            )
        end_incomplete(reach.is_complete)
        return
    confirm(reach, purge=purge, sources=sources, yes=yes)
    done = forget_reached(
        store, reach, who=find_user(), purge=purge, sources=sources, say=lambda line: say(line, err=True)
    )
    if json_:
        missing = list(dict.fromkeys([*reach.elsewhere, *reach.problems, *done.problems]))
        say(json.dumps({"record": done.record, **done.to_plain(), "not_searched": missing}, indent=2))
        end_incomplete(reach.is_complete and not done.left and not done.problems)
        return
    rows = "1 row is" if done.rows == 1 else f"{done.rows:,} rows are"
    say(f"{rows} forgotten: record {done.record}")
    if reach.own and not sources:
        say("Your own files still have them; so may copies of them elsewhere, and backups.", err=True)
    end_incomplete(reach.is_complete and not done.left and not done.problems)


def end_forgotten(finished: Sequence[Forgetting], *, json_: bool) -> None:
    """Print what was not searched, or stayed, when rows were forgotten of which nothing is left."""
    done = [record.done or {} for record in finished]
    missing = sorted({place for each in done for place in each.get("not_searched", ())})
    left = sorted({path for each in done for path in each.get("left", ())})
    for place in missing:
        say(f"Not searched then: {place}.", err=True)
    for path in left:
        say(f"It stayed in {path} then: take it out yourself.", err=True)
    if json_:
        names = sorted({record.record for record in finished})
        say(json.dumps({"records": names, "not_searched": missing, "left": left}))
    end_incomplete(not missing and not left)


def end_incomplete(is_complete: bool) -> None:
    """End the command with exit code 3 where something was not searched, or stayed that was to go."""
    if not is_complete:
        say("This is not all: see what was not searched, or stayed.", err=True)
        click.get_current_context().exit(INCOMPLETE)


def confirm(reach: Reach, *, purge: bool, sources: bool, yes: bool) -> None:
    """Ask, after naming the models that cannot be made again."""
    if purge and reach.lost_models:
        names = ", ".join(model.uri for model in reach.lost_models)
        say(f"These models cannot be made again afterwards, since their rows are gone: {names}.", err=True)
    if sources and reach.own:
        say("Lines are taken out of your own files, too.", err=True)
    if yes:
        return
    if not sys.stdin.isatty():
        raise SettingError("Nothing was changed: there is nobody to ask. Pass --yes to forget.")
    click.confirm("Forget for good?" if purge else "Forget?", abort=True, err=True)


def describe_reach(reach: Reach, *, purge: bool) -> Iterator[str]:
    """Yield what rows have reached, and what becomes of it, as lines for people."""
    from dlpipe.terminal import format_table

    count = len(reach.rows)
    yield f"{count:,} row{'' if count == 1 else 's'}: {', '.join(row.name for row in reach.rows[:MOST_LINES])}" + (
        f" and {count - MOST_LINES:,} more" if count > MOST_LINES else ""
    )
    lines = list_reached(reach)
    yield from format_table(lines) if lines else ["Nothing has it." if count == 1 else "Nothing has them."]


def list_reached(reach: Reach) -> list[dict[str, str]]:
    """Return a line for each thing that rows have reached."""
    lines = []
    for table in reach.tables:
        many = f"{table.rows:,} row{'' if table.rows == 1 else 's'}" if table.rows else "none now"
        files = len(table.old_files)
        old = f", {files} old file{'' if files == 1 else 's'}" if files else ""
        by = f", of {format_names(table.models)}" if table.models else ""
        lines.append(_line(table.kind, table.name, f"{many}{by}{old}", "new version; --purge deletes old files"))
    for model in reach.models:
        lost = model in reach.lost_models
        becomes = "marked" + ("; cannot be made again after --purge" if lost else "")
        lines.append(_line("model", model.uri, model.describe(), becomes))
    for run in reach.checkpoints:
        lines.append(_line("checkpoints", run, "of a training", f"stay; dlpipe runs delete {run}"))
    for folder in reach.features:
        lines.append(_line("features kept", _shorten(folder), "made of the table", "--purge deletes them"))
    for left in reach.leftovers[:MOST_FILES]:
        lines.append(_line("leftover", _shorten(str(left)), "of a killed command", "--purge deletes it"))
    if (more := len(reach.leftovers) - MOST_FILES) > 0:
        lines.append(_line("leftovers", f"{more} more", "of killed commands", "--purge deletes them"))
    for found in reach.kept[:MOST_FILES]:
        lines.append(_line(found.what, _shorten(str(found.path)), "quotes it", "--purge blanks it"))
    if len(reach.kept) > MOST_FILES:
        lines.append(_line("files", f"{len(reach.kept) - MOST_FILES} more", "quote it", "--purge blanks it"))
    for path in reach.vocabularies:
        becomes = "stays; dlpipe models delete VERSION"
        lines.append(_line("vocabulary of a model", _shorten(str(path)), "has words of its own", becomes))
    for path, cells in reach.databases:
        lines.append(_line("database", _shorten(str(path)), f"{cells} values", "--purge blanks them"))
    if reach.waiting:
        lines.append(_line("journal", "of a server", f"{reach.waiting} files", "waited for"))
    for own in reach.own:
        where = ", ".join(map(str, own.lines[:MOST_LINES])) + (", ..." if len(own.lines) > MOST_LINES else "")
        told = f"line {where}" if own.lines else "has it"
        way = "--sources takes lines out" if own.path in reach.cuttable else "take it out yourself"
        lines.append(_line("your file", _shorten(str(own.path)), told, f"stays; {way}"))
    return lines


def _line(what: str, name: str, how: str, becomes: str) -> dict[str, str]:
    return {"what": what, "where": name, "how": how, "with --apply": becomes}


def format_names(uris: Sequence[str]) -> str:
    """Return the first of some versions of models, and how many more there are.

    Examples
    --------
    >>> format_names(["models:/reviews/1", "models:/reviews/2"])
    'reviews/1, reviews/2'
    """
    more = f" and {len(uris) - MOST_LINES} more" if len(uris) > MOST_LINES else ""
    return ", ".join(uri.removeprefix("models:/") for uri in uris[:MOST_LINES]) + more


def _shorten(path: str) -> str:
    return os.path.relpath(path) if path.startswith(os.getcwd() + os.sep) else path


def describe_limits(reach: Reach) -> Iterator[str]:
    """Yield what was not searched, or cannot be."""
    for place in reach.elsewhere:
        yield f"Not searched: {place}."
    for problem in reach.problems:
        yield f"Something may be missing: {problem}"
    for table in reach.tables:
        if table.kind == "data" and table.rows > len(reach.rows):
            yield (
                f"{table.name}: {table.rows:,} rows go, for they are the same as what is asked for. Look at them "
                "before --apply."
            )
    for row in reach.rows:
        if row.own_id and row.texts and not row.text_columns:
            yield (
                f"{row.name} is a row of another program with several columns, and found elsewhere only where all "
                "of its values are. Pass a text of it with --text to forget that everywhere."
            )
    for folder in reach.in_use:
        yield f"A command is at work in {folder}, and may have it: call this again when that has ended."
    short = [row for row in reach.rows if len(row.inputs) == 1 and all(map(is_short, row.texts))]
    if short:
        yield (
            "A text of one or two short words is taken out of tables alone: in other files the same words may be "
            "a label, or anything."
        )


def is_short(text: str) -> bool:
    """Return whether a text may be part of any other."""
    from dlpipe.forgetting.words import Needle

    return Needle.from_text(text).is_short


def to_plain(reach: Reach) -> dict[str, Any]:
    """Return what rows have reached as JSON can hold it."""
    return {
        "rows": [row.name for row in reach.rows],
        "tables": [
            {
                "name": table.name,
                "kind": table.kind,
                "rows": table.rows,
                "models": list(table.models),
                "old_files": list(table.old_files),
            }
            for table in reach.tables
        ],
        "models": [
            {"uri": model.uri, "how": model.describe(), "lost_by_purge": model in reach.lost_models}
            for model in reach.models
        ],
        "checkpoints": list(reach.checkpoints),
        "features": [_shorten(folder) for folder in reach.features],
        "files": [{"what": found.what, "path": _shorten(str(found.path))} for found in reach.kept],
        "vocabularies": [_shorten(str(path)) for path in reach.vocabularies],
        "databases": [{"path": _shorten(str(path)), "values": cells} for path, cells in reach.databases],
        "journals": reach.waiting,
        "your_files": [{"path": _shorten(str(own.path)), "lines": list(own.lines)} for own in reach.own],
        "leftovers": [_shorten(str(path)) for path in reach.leftovers],
        "in_use": list(map(str, reach.in_use)),
        "not_searched": list(reach.elsewhere),
        "problems": list(reach.problems),
    }


def list_records(*, json_: bool) -> None:
    """Print what was forgotten so far."""
    from dlpipe.tables import read_forgotten

    lines = [describe_record(record) for record in read_forgotten().records]
    say_rows(lines, json_=json_, nothing="Nothing was forgotten so far.")


def describe_record(record: Forgetting) -> dict[str, Any]:
    """Return a record as a line of a table."""
    done = record.done
    state = (
        "lifted"
        if record.lifted
        else "not finished"
        if done is None
        else ("purged" if done.get("purge") else "done")
        + (" in part" if done.get("not_searched") or done.get("left") else "")
    )
    return {
        "record": record.record,
        "at": format_moment(to_moment(record.at)),
        "who": record.who,
        "rows": len(record.digests),
        "state": state,
        "tables": ", ".join(sorted((done or {}).get("tables", {}))),
        "models": ", ".join((done or {}).get("models", [])),
    }


def lift_record(record: str, *, json_: bool) -> None:
    """Let the rows of a record come back, where a file that has them is taken in."""
    from dlpipe.tables import lift_forgetting, read_forgotten

    if not lift_forgetting(record, who=find_user()):
        there = ", ".join(one.record for one in read_forgotten().records) or "none"
        raise NodeNotFound(f"There is no record {record!r} of a forgetting; there are: {there}.")
    say(json.dumps({"lifted": record}) if json_ else f"The rows of record {record} may come back.")


def find_user() -> str:
    """Return who asks."""
    from dlpipe.registry.history import get_user

    return get_user()
