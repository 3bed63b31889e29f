"""The ``dlpipe`` command: looks at, and uses, what the flows made.

Tables for a person, ``--json`` for a program, messages on stderr. An expected failure is one line and exit
code 1. Everything heavy is imported by the command that needs it.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dlpipe import __version__
from dlpipe.errors import DlpipeError, SourceNotFound, TrackingUnavailable

if TYPE_CHECKING:
    from dlpipe.tracking import TrackingStore

PORT = 5000
START_SECONDS = 60.0
STOP_SECONDS = 10.0


class OneLineErrors(click.Group):
    """A group whose commands end with one line and exit code 1 when something expected goes wrong."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except DlpipeError as error:
            raise click.ClickException(str(error)) from None


as_json = click.option("--json", "json_", is_flag=True, help="Print JSON for a program instead of a table.")


@click.group(cls=OneLineErrors, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="dlpipe")
def main() -> None:
    """Look at, and use, what the flows of dlpipe made.

    \b
    Example:
      dlpipe models
    """


# -- tables ----------------------------------------------------------------------------------------------------


@main.command()
@click.argument("name", required=False)
@as_json
def tables(name: str | None, json_: bool) -> None:
    """List the Delta tables, or the versions of the table NAME (a name under the tables root, or a path).

    \b
    Examples:
      dlpipe tables
      dlpipe tables reviews --json
    """
    rows = table_list() if name is None else table_versions(name)
    say_rows(rows, json_=json_, nothing="No tables yet: run flows/train_flow.py, or set DLPIPE_TABLES.")


def table_list() -> list[dict[str, Any]]:
    """Return name, latest version, rows, time and digest of every table under the tables root."""
    from dlpipe.tables import table_at

    latest = [table_at(folder) for folder in table_folders()]
    return [
        {
            "table": str(Path(table.path).relative_to(tables_folder())),
            "version": table.version,
            "rows": table.rows,
            "written": said_time(table.timestamp),
            "digest": table.digest[:12],
        }
        for table in latest
    ]


def table_folders() -> list[Path]:
    """Return the folders of the tables under the tables root, sorted, up to two folders deep."""
    root = tables_folder()
    return sorted(log.parent for depth in ("*", "*/*") for log in root.glob(f"{depth}/_delta_log"))


def tables_folder() -> Path:
    """Return the tables root as a folder; ``SourceNotFound`` when it is in an object store."""
    from dlpipe.tables import tables_root

    root = tables_root()
    if "://" in root:
        raise SourceNotFound(f"The tables under {root} cannot be listed. Name one: dlpipe tables NAME.")
    return Path(root)


def table_versions(name: str) -> list[dict[str, Any]]:
    """Return the versions of a table, newest first."""
    from dlpipe.tables import history

    shown = ("version", "rows", "operation", "digest")
    return [
        {"written": said_time(commit["timestamp"]), **{column: commit.get(column) for column in shown}}
        for commit in history(name)
    ]


# -- models ----------------------------------------------------------------------------------------------------


@main.command()
@as_json
def models(json_: bool) -> None:
    """List the registered model versions with their aliases and test accuracy.

    \b
    Examples:
      dlpipe models
      dlpipe models --json
    """
    from dlpipe.registry import list_models

    rows = [
        {
            "model": version.name,
            "version": version.version,
            "aliases": list(version.aliases),
            "accuracy": metrics.get("test_accuracy"),
            "table": said_source(version.tags),
            "weights": version.digest[:12],
            "uri": version.uri,
        }
        for version, metrics in list_models()
    ]
    say_rows(rows, json_=json_, nothing="No model is registered yet: run flows/train_flow.py.")


def said_source(tags: Mapping[str, str]) -> str:
    """Return the table version that a model was made from, as its tags say.

    Examples
    --------
    >>> said_source({"delta.table": "data/tables/reviews", "delta.version": "2"})
    'reviews@v2'
    """
    name = tags.get("delta.table", "").rstrip("/").rpartition("/")[2]
    return f"{name}@v{tags['delta.version']}" if name and "delta.version" in tags else ""


@main.command()
@click.option(
    "--model", "uri", required=True, metavar="URI", help="Such as models:/reviews@champion or reviews/3."
)
@click.argument("texts", nargs=-1, metavar="[TEXT]...")
@as_json
def predict(uri: str, texts: tuple[str, ...], json_: bool) -> None:
    """Predict the label of each TEXT, or of each line of standard input when there is none.

    \b
    Examples:
      dlpipe predict --model models:/reviews@champion "I loved every minute of it."
      dlpipe predict --model reviews/1 --json < texts.txt
    """
    from dlpipe.inference import load_predictor, predictions

    asked = list(texts) or [line.strip() for line in sys.stdin if line.strip()]
    if not asked:
        raise click.ClickException("No text to predict: give it as an argument or on standard input.")
    found = predictions(load_predictor(uri), asked)
    rows = [{"text": text, **row} for text, row in zip(asked, found.to_dict("records"), strict=True)]
    say_rows(rows, json_=json_, nothing="")


# -- the bridge ------------------------------------------------------------------------------------------------


@main.group(cls=OneLineErrors)
def bridge() -> None:
    """Mirror Metaflow runs into MLflow, and compare the two.

    \b
    Example:
      dlpipe bridge sync TrainFlow
    """


@bridge.command()
@click.argument("pathspec", default="", metavar="[FLOW[/RUN]]")
@as_json
def sync(pathspec: str, json_: bool) -> None:
    """Write what MLflow lacks of a run, of all runs of a flow, or of all flows; again and again if you like.

    \b
    Examples:
      dlpipe bridge sync
      dlpipe bridge sync TrainFlow
      dlpipe bridge sync TrainFlow/1795494849196362
    """
    from dlpipe.bridge import Synced, sync

    def say(done: Synced) -> None:
        click.echo(f"{done.run}: {done.records} records, {done.written} differences written", err=True)

    rows = [vars(done) for done in sync(pathspec, on_run=say)]
    say_rows(rows, json_=json_, nothing="Metaflow has no runs here.")


@bridge.command()
@click.argument("pathspec", metavar="FLOW[/RUN]")
@as_json
def check(pathspec: str, json_: bool) -> None:
    """Compare MLflow with Metaflow, record by record; list every difference, exit code 1 if there is one.

    \b
    Examples:
      dlpipe bridge check TrainFlow/1795494849196362
      dlpipe bridge check TrainFlow --json
    """
    from dlpipe.bridge import check

    found = check(pathspec)
    if json_:
        say_rows([vars(difference) for difference in found], json_=True, nothing="")
    else:
        for difference in found:
            click.echo(str(difference))
        click.echo(f"{len(found)} differences")
    sys.exit(1 if found else 0)


@bridge.command()
@as_json
def status(json_: bool) -> None:
    """List the runs that MLflow may be behind with, and why; `sync` catches up.

    \b
    Example:
      dlpipe bridge status
    """
    from dlpipe.bridge import status

    rows = [{"run": one.run, "since": said_time(one.since), "reason": one.reason} for one in status()]
    say_rows(rows, json_=json_, nothing="MLflow is behind with no run here.")


@bridge.command()
@click.option("--interval", type=click.FloatRange(min=0.1), default=5.0, show_default=True, help="Seconds.")
@click.option("--rounds", type=click.IntRange(min=1), help="End after so many looks; by default never.")
@as_json
def watch(interval: float, rounds: int | None, json_: bool) -> None:
    """Follow all flows of the datastore until Ctrl-C: for a server, where nobody attaches the bridge to each run.

    \b
    Example:
      dlpipe bridge watch --interval 10 --rounds 1
    """
    from dlpipe.bridge import Synced, watch

    def say(done: Synced) -> None:
        line = f"{done.run} {done.status.lower()}: {done.written} differences written"
        click.echo(json.dumps(vars(done)) if json_ else line)

    with suppress(KeyboardInterrupt):
        watch(interval=interval, on_run=say, on_error=lambda line: click.echo(line, err=True), rounds=rounds)


# -- the portal ------------------------------------------------------------------------------------------------


@main.command()
@click.option("--port", type=click.IntRange(1, 65535), help=f"Default: {PORT}, or the next free one.")
def ui(port: int | None) -> None:
    """Open the portal: an MLflow server on this machine, until Ctrl-C.

    One worker, bound to 127.0.0.1, no job runner. Where MLFLOW_TRACKING_URI names a server, its address is
    printed and nothing is started.

    \b
    Examples:
      dlpipe ui
      dlpipe ui --port 8080
    """
    from dlpipe.tracking import open_store, shown

    store = open_store()
    if store.is_server:
        click.echo(shown(store.uri))
        return
    port = free_port() if port is None else checked_port(port)
    with portal(store, port) as server:
        click.echo(f"http://127.0.0.1:{port}")
        click.echo("The portal is open. Ctrl-C closes it.", err=True)
        sys.exit(server.wait())


@contextmanager
def portal(store: TrackingStore, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run an MLflow server that answers, and end it with all its processes, also on Ctrl-C and SIGTERM."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    server = subprocess.Popen(
        server_command(store, port),
        env={"PYTHONWARNINGS": "ignore", **os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        start_new_session=True,  # a group of its own, to end as one
        stdout=sys.stderr.fileno(),
    )
    try:
        wait_until_open(server, port)
        yield server
    except KeyboardInterrupt:
        click.echo("The portal is closed.", err=True)
    finally:
        end_group(server)


def server_command(store: TrackingStore, port: int) -> list[str]:
    """Return the command of an MLflow server of ``store``: one worker costs a fifth of a second a page less."""
    options = {
        "--backend-store-uri": store.uri,
        "--registry-store-uri": store.registry_uri,
        "--host": "127.0.0.1",
        "--port": str(port),
        "--workers": "1",
        "--uvicorn-opts": "--log-level=warning",
    }
    if store.artifact_location is not None:
        options["--default-artifact-root"] = options["--artifacts-destination"] = store.artifact_location
    return [sys.executable, "-m", "mlflow", "server", *(word for pair in options.items() for word in pair)]


def wait_until_open(server: subprocess.Popen[bytes], port: int) -> None:
    """Return when the server answers; ``TrackingUnavailable`` when it ends or takes too long."""
    from dlpipe.tracking import check_answers

    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            return check_answers(f"http://127.0.0.1:{port}")
        except TrackingUnavailable:
            time.sleep(0.2)
    raise TrackingUnavailable(f"The MLflow server did not open on port {port}. Its own words are above.")


def end_group(server: subprocess.Popen[bytes]) -> None:
    """End ``server`` and every process it started: politely first, by force after ten seconds."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(server.pid, number)
            server.wait(STOP_SECONDS)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def free_port(first: int = PORT) -> int:
    """Return the first port from ``first`` on that nothing listens on."""
    return next(port for port in range(first, 65536) if is_free(port))


def checked_port(port: int) -> int:
    """Return ``port`` if nothing listens on it."""
    if not is_free(port):
        raise TrackingUnavailable(f"Port {port} is taken. Give another with --port, or none to have one found.")
    return port


def is_free(port: int) -> bool:
    """Whether a server could listen on ``port`` of this machine."""
    with socket.socket() as trying:
        trying.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trying.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def stop(number: int, _frame: object) -> None:
    """Treat a request to end like Ctrl-C."""
    raise KeyboardInterrupt


# -- saying things -----------------------------------------------------------------------------------------------


def say_rows(rows: Sequence[Mapping[str, Any]], *, json_: bool, nothing: str) -> None:
    """Print ``rows`` as JSON or as a table; ``nothing`` goes to stderr when there are none."""
    if json_:
        click.echo(json.dumps([dict(row) for row in rows], indent=2, default=str))
    elif rows:
        click.echo("\n".join(table_lines(rows)))
    else:
        click.echo(nothing, err=True)


def table_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return ``rows`` as lines of aligned columns under their names.

    Examples
    --------
    >>> for line in table_lines([{"model": "reviews", "aliases": ["champion"], "accuracy": 0.91}]):
    ...     print(line)
    model    aliases   accuracy
    reviews  champion  0.910
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [names, *([said(row.get(name)) for name in names] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(map(str.ljust, line, widths)).rstrip() for line in cells]


def said(value: Any, *, width: int = 60) -> str:
    """Return ``value`` as a cell of a table: short, on one line.

    Examples
    --------
    >>> said(0.91234), said(["challenger", "champion"]), said(None)
    ('0.912', 'challenger, champion', '')
    """
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, Iterable) and not isinstance(value, str | Mapping):
        value = ", ".join(map(str, value))
    text = " ".join(str(value).split())
    return text if len(text) <= width else f"{text[: width - 3]}..."


def said_time(timestamp: int | None) -> str:
    """Return milliseconds since 1970 as a date and time in UTC.

    Examples
    --------
    >>> said_time(0)
    '1970-01-01 00:00:00'
    """
    if timestamp is None:
        return ""
    return datetime.fromtimestamp(timestamp / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")


if __name__ == "__main__":
    main()
