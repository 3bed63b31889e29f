"""`dlpipe tables` and `predict`: what flows made."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from dlpipe.cli.printing import OneLineErrors, as_json, say, say_rows
from dlpipe.errors import BadSource, DlpipeError, SettingError
from dlpipe.terminal import is_utf8
from dlpipe.time_formats import to_moment

if TYPE_CHECKING:
    from dlpipe.tables import TableVersion

NOT_SHOWN = ("cached", "model_version")
"""Columns of a pipeline's answers that do not help who asks about a few texts."""


class TableCommands(OneLineErrors):
    """A group that takes the name of a table where a command could stand: `dlpipe tables reviews`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the hidden command that lists versions before the name of a table."""
        word = next((word for word in args if not word.startswith("-")), None)
        named = word is not None and word not in self.commands and not {"-h", "--help"} & {*args}
        return super().parse_args(ctx, ["versions", *args] if named else args)

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write both forms."""
        formatter.write_usage(ctx.command_path, "[NAME] [--json]")
        formatter.write_usage(ctx.command_path, "COMMAND NAME [OPTIONS]")


@click.group(cls=TableCommands, invoke_without_command=True)
@as_json
@click.pass_context
def tables(context: click.Context, json_: bool) -> None:
    """List the Delta tables, or the versions of the table NAME.

    NAME is a table's name under the tables root (data/tables, or DLPIPE_TABLES), or a path.

    \b
    Examples:
      dlpipe tables
      dlpipe tables reviews --json
      dlpipe tables show reviews
    """
    if context.invoked_subcommand is None:
        nothing = "No tables yet: run flows/train_flow.py, or set DLPIPE_TABLES."
        say_rows(describe_tables(), json_=json_, nothing=nothing)


@tables.command(hidden=True)
@click.argument("name")
@as_json
def versions(name: str, json_: bool) -> None:
    """List the versions of the table NAME, the latest first."""
    say_rows(describe_versions(name), json_=json_, nothing="")


def describe_tables() -> list[dict[str, Any]]:
    """Return name, latest version, rows, time and digest of every table under the tables root."""
    from dlpipe.tables import list_tables, table_at

    found = [(name, _or_say(table_at, location)) for name, location in list_tables()]
    return [
        {
            "table": name,
            "version": table.version,
            "rows": table.rows,
            "written": to_moment(table.timestamp),
            "digest": table.digest[:12],
        }
        for name, table in found
        if table is not None
    ]


def _or_say(look: Callable[[str], TableVersion], location: str) -> TableVersion | None:
    """Return what ``look`` finds; of a table that cannot be read, say why on standard error."""
    try:
        return look(location)
    except DlpipeError as error:
        say(str(error), err=True)
        return None


def describe_versions(name: str) -> list[dict[str, Any]]:
    """Return the versions of a table, newest first."""
    from dlpipe.tables import history

    shown = ("version", "rows", "operation", "digest")
    return [
        {"written": to_moment(commit["timestamp"]), **{column: commit.get(column) for column in shown}}
        for commit in history(name)
    ]


def choose_texts(texts: Sequence[str], encoding: str | None, *, what: str) -> list[str]:
    """Return the texts of the command line; where there are none, the lines of standard input.

    Parameters
    ----------
    texts : sequence of str
    encoding : str or None
        Of standard input.
    what : str
        What is done with them, for messages.

    Raises
    ------
    SettingError
        When there is no text, or an encoding beside those of the command line.
    """
    if texts and encoding is not None:
        raise SettingError("--encoding is of standard input, and texts are given: leave out one of them.")
    asked = check_texts(texts) or [line.strip() for line in read_lines(encoding) if line.strip()]
    if not asked:
        raise SettingError(f"No text to {what}: give it as an argument or on standard input.")
    return asked


def check_texts(texts: Sequence[str]) -> list[str]:
    """Return the texts of the command line, in which bytes that are no UTF-8 are refused."""
    for number, text in enumerate(texts, start=1):
        if not is_utf8(text):
            raise BadSource(f"Text {number} of the command line is no UTF-8. Pass it on standard input instead.")
    return list(texts)


def check_not_blank(texts: Sequence[str]) -> None:
    """Raise ``SettingError`` for a text of the command line without a word: a model would answer all the same."""
    for number, text in enumerate(texts, start=1):
        if not text.strip():
            raise SettingError(
                f"Text {number} of the command line is empty. Give one with words, or leave it out."
            )


def read_lines(encoding: str | None) -> list[str]:
    """Return the lines of standard input."""
    from dlpipe.tables import decode_lines

    given = sys.stdin.buffer.read()
    return decode_lines(given, encoding, where="Standard input,")


@click.command()
@click.option(
    "--model",
    "uri",
    required=True,
    metavar="URI",
    help="Model or pipeline, such as models:/reviews@champion, reviews/3, or reviews for its champion.",
)
@click.option(
    "--engine",
    help="Engine to predict with: torch, torch-bf16, onnx or onnx-int8; by default the model's own choice.",
)
@click.option(
    "--url",
    metavar="ADDRESS",
    help="Ask the server at this address, such as http://127.0.0.1:8720, instead of loading the model here.",
)
@click.option("--encoding", metavar="NAME", help="Encoding of standard input, such as cp1252; by default UTF-8.")
@click.argument("texts", nargs=-1, metavar="[TEXT]...")
@as_json
def predict(
    uri: str, engine: str | None, url: str | None, encoding: str | None, texts: tuple[str, ...], json_: bool
) -> None:
    """Predict texts or rows with a registered model.

    Without TEXT, each line of standard input is one. A pipeline also cleans texts, and tells their status and
    language. For a model whose rows are columns, each TEXT is a JSON object with them.

    \b
    Examples:
      dlpipe predict --model models:/reviews@champion "I loved every minute of it."
      dlpipe predict --model reviews/1 --json < texts.txt
      dlpipe predict --model reviews --engine torch "I loved every minute of it."
      dlpipe predict --model reviews-pipeline "I loved every minute of it.<br />"
      dlpipe predict --model reviews --url http://127.0.0.1:8720 --json "I loved every minute of it."
    """
    asked = choose_texts(texts, encoding, what="predict")
    if url and engine:
        raise click.UsageError("--engine is chosen where the model is loaded: by dlpipe serve --engine.")
    found = ask_server(url, uri, asked) if url else predict_rows(uri, engine, asked)
    say_rows(found, json_=json_, nothing="")


def ask_server(url: str, uri: str, asked: list[str]) -> list[dict[str, Any]]:
    """Return the same as ``predict_rows``, from a server.

    Parameters
    ----------
    url : str
    uri, asked
        As for ``predict_rows``.
    """
    from dlpipe.registry import parse_uri
    from dlpipe.serving.client import Client

    name, version, alias = parse_uri(uri)
    which = alias or str(version)
    client = Client(url)
    about = client.describe(name, which)
    given = [{"text": text} if about["single_text"] else parse_row(text) for text in asked]
    if not about["single_text"]:
        for line in describe_odd_columns(given, [column["name"] for column in about["inputs"]]):
            say(line, err=True)
    answers = client.predict(name, which, rows=given)["predictions"]
    kept = ([name for name in row if is_shown(name)] if about["pipeline"] else list(row) for row in answers)
    return [
        {**row, **{name: answer[name] for name in names}}
        for row, answer, names in zip(given, answers, kept, strict=True)
    ]


def is_shown(name: str) -> bool:
    """Return whether a column of a pipeline's answers is printed."""
    return not name.endswith("_ms") and name not in NOT_SHOWN


def predict_rows(uri: str, engine: str | None, asked: list[str]) -> list[dict[str, Any]]:
    """Return each row that is asked about, beside what the model or pipeline that ``uri`` names predicts of it.

    Parameters
    ----------
    uri : str
        Of a model version, such as ``models:/reviews/3``.
    engine : str or None
        By default the one that the version names.
    asked : list of str
        Texts, or JSON objects where the task reads something else.
    """
    from dlpipe.inference import is_pipeline, load_pipeline, load_predictor, predict_frame
    from dlpipe.registry import resolve
    from dlpipe.task import find_task

    version = resolve(uri)
    given: list[dict[str, Any]]
    if is_pipeline(version):
        given = [{"text": text} for text in asked]
        made = load_pipeline(version.uri, engine=engine).run(asked)
        found = made[[name for name in made if is_shown(name)]]
    else:
        predictor = load_predictor(version.uri, engine=engine)
        inputs = find_task(predictor.card["task"]).inputs
        if inputs.is_single_text:
            check_not_blank(asked)
        given = [{"text": text} if inputs.is_single_text else parse_row(text) for text in asked]
        rows = inputs.read_request(asked if inputs.is_single_text else given, predictor.card)
        if not inputs.is_single_text and (known := [row for row in rows if row is not None]):
            for line in describe_odd_columns(given, list(inputs.make_example(known[:1]).columns)):
                say(line, err=True)
        found = predict_frame(predictor, rows)
    objects = found.astype(object)
    answers = objects.where(objects.notna(), None).to_dict("records")
    return [{**row, **answer} for row, answer in zip(given, answers, strict=True)]


def parse_row(text: str) -> dict[str, Any]:
    """Return the row that a JSON object says.

    Examples
    --------
    >>> parse_row("13.2")
    Traceback (most recent call last):
    ...
    dlpipe.errors.SettingError: '13.2' is no JSON object; the model reads columns, as in {"alcohol": 13.2}.
    """
    try:
        row = json.loads(text)
    except ValueError:
        row = None
    if not isinstance(row, dict):
        raise SettingError(f'{text[:60]!r} is no JSON object; the model reads columns, as in {{"alcohol": 13.2}}.')
    return row


def describe_odd_columns(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> Iterator[str]:
    r"""Yield a line for each way in which rows have other columns than the model reads, with the first such row.

    Parameters
    ----------
    rows : sequence of mapping
        As they were given.
    columns : sequence of str
        What the model reads.

    Examples
    --------
    >>> rows = [{"age": 3, "town": "Bonn"}, {"age": 4, "twon": "Rome"}]
    >>> print(*describe_odd_columns(rows, ["age", "town"]), sep="\n")
    Row 1: the model has no column 'twon'; it was not given 'town', which it takes as missing.
    """
    told = set()
    for number, row in enumerate(rows):  # from 0, as tasks count them in their own messages
        unknown = tuple(name for name in row if name not in columns)
        lacking = tuple(name for name in columns if name not in row)
        if (unknown or lacking) and (unknown, lacking) not in told:
            told.add((unknown, lacking))
            parts = [f"the model has no column {list_names(unknown)}"] if unknown else []
            parts += [f"it was not given {list_names(lacking)}, which it takes as missing"] if lacking else []
            yield f"Row {number}: {'; '.join(parts)}."


def list_names(names: Sequence[str], *, most: int = 8) -> str:
    """Return the first names of columns, and how many more there are."""
    listed = ", ".join(map(repr, names[:most]))
    return f"{listed} and {len(names) - most} more" if len(names) > most else listed
