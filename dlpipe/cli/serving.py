"""`dlpipe serve`: registered models behind an address."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dlpipe.cli.printing import OneLineErrors, say
from dlpipe.cli.units import add_system, add_yes, install_unit
from dlpipe.errors import SettingError

if TYPE_CHECKING:
    from dlpipe.serving.settings import ServingSettings

PORT = 8720


OPTIONS = (
    click.option(
        "--model",
        "models",
        multiple=True,
        metavar="NAME[@ALIAS|/N]",
        help="Model to load at once; others are not served. May be repeated. By default every registered model is "
        "served, and loaded by the first request for it.",
    ),
    click.option(
        "--host",
        default="127.0.0.1",
        show_default=True,
        help="Address to listen on; one that other machines reach needs keys.",
    ),
    click.option(
        "--port",
        type=click.IntRange(0, 65535),
        default=PORT,
        show_default=True,
        help="Port to listen on; 0 for a free one, which is printed.",
    ),
    click.option(
        "--engine",
        help="Engine to predict with: torch, torch-bf16, onnx or onnx-int8; by default the choice of each "
        "version.",
    ),
    click.option(
        "--timeout",
        type=click.FloatRange(0.001, 3600),
        metavar="SECONDS",
        help="Time that the body of a request has to arrive, and then its answer.  [default: 10]",
    ),
    click.option(
        "--max-wait",
        type=click.FloatRange(0.001, 3600),
        metavar="SECONDS",
        help="Longest wait before a request of a burst is computed; one that would wait longer is refused. "
        "Under a load that lasts, a twentieth of it, or what the next batch or 32 rows take.  [default: 0.5]",
    ),
    click.option(
        "--max-body",
        type=click.IntRange(1_000, 1_000_000_000),
        metavar="BYTES",
        help="Largest body of a request.  [default: 8000000]",
    ),
    click.option(
        "--ray-address",
        metavar="HOST:PORT",
        help="Ray cluster to serve on, or auto for the one of this machine; by default this process serves.",
    ),
    click.option(
        "--replicas",
        type=click.IntRange(1, 1000),
        help="Processes that answer on the cluster.  [default: 1]",
    ),
    click.option(
        "--settings",
        "file",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="TOML file whose section [serving] is read, with [serving.log], [serving.keys] and [serving.ray]; "
        "options go before it.",
    ),
)


def add_options(function: Any) -> Any:
    """Add the options of a server, which its unit repeats."""
    for option in reversed(OPTIONS):
        function = option(function)
    return function


@click.group(cls=OneLineErrors, invoke_without_command=True)
@add_options
@click.pass_context
def serve(
    context: click.Context,
    models: tuple[str, ...],
    host: str,
    port: int,
    engine: str | None,
    timeout: float | None,
    max_wait: float | None,
    max_body: int | None,
    ray_address: str | None,
    replicas: int | None,
    file: Path | None,
) -> None:
    """Answer requests for predictions until Ctrl-C or SIGTERM.

    Each model is at /models/NAME, a version or an alias at /models/NAME/3 or /models/NAME/challenger. An alias
    that moves is followed within two seconds, without a restart. Requests under way at the end still get their
    answers; a second signal ends at once. On SIGHUP the file of --settings is read again.

    \b
    Examples:
      dlpipe serve --port 8720
      dlpipe serve --port 8720 --model reviews --model reviews@challenger --timeout 5
    """
    if context.invoked_subcommand is not None:
        return
    from dlpipe.serving.server import ServeSettings, serve

    def read() -> ServingSettings:
        return read_serving(file, timeout=timeout, max_wait=max_wait, max_body=max_body, replicas=replicas)

    serving = read()
    settings = ServeSettings(host=host, port=port, models=models, engine=engine, serving=serving)
    if ray_address is None:
        if replicas is not None:
            raise SettingError("--replicas needs --ray-address: without a cluster, one process serves.")
        serve(settings, say=say_aside, reread=read if file else None)
        return
    from dlpipe.serving.ray_serve.deploying import serve_on_ray

    serve_on_ray(settings, ray_address, say=say_aside, reread=read if file else None)


@serve.command()
@add_system
@add_yes
@add_options
def install(
    system: bool,
    yes: bool,
    models: tuple[str, ...],
    host: str,
    port: int,
    engine: str | None,
    timeout: float | None,
    max_wait: float | None,
    max_body: int | None,
    ray_address: str | None,
    replicas: int | None,
    file: Path | None,
) -> None:
    """Install the server as a systemd unit that works in this folder.

    The unit is shown, and written after a yes. It repeats the options, which stand behind `install`.

    \b
    Examples:
      dlpipe serve install --model reviews
      sudo dlpipe serve install --system --yes
    """
    from dlpipe.serving.service import find_left_out, make_unit

    bounds = {"timeout": timeout, "max_wait": max_wait, "max_body": max_body}
    # or a bad file would be found when systemd starts the server
    limits = read_serving(file, replicas=replicas, **bounds).limits
    given = {
        "host": host,
        "port": port,
        "engine": engine,
        "ray_address": ray_address,
        "replicas": replicas,
        **bounds,
        "settings": file and file.absolute(),
    }
    words = [word for model in models for word in ("--model", model)]
    for name, value in given.items():
        if value is not None:
            words += [f"--{name.replace('_', '-')}", f"{value:g}" if isinstance(value, float) else str(value)]
    unit = make_unit(words, draining=limits.draining, system=system)
    if install_unit(unit, system=system, yes=yes) and (left := find_left_out(os.environ)):
        say(f"{', '.join(left)} holds a password and is not in the unit: put it into serving.env.", err=True)


def read_serving(file: Path | None, *, replicas: int | None = None, **bounds: float | None) -> ServingSettings:
    """Return the settings of a file; those of ``replicas`` and ``bounds`` that are not ``None`` go before it."""
    from dlpipe.serving.settings import read_serving_settings

    given: dict[str, Any] = {name: value for name, value in bounds.items() if value is not None}
    section = read_section(file) if file else {}
    if replicas is not None:
        given["ray"] = {**section.get("ray", {}), "replicas": replicas}
    return read_serving_settings({**section, **given}, where=str(file or "the command line"))


def say_aside(line: str) -> None:
    """Print a line beside the output."""
    say(line, err=True)


def read_section(file: Path) -> dict[str, Any]:
    """Return the section ``[serving]`` of a file."""
    import tomllib

    try:
        section = tomllib.loads(file.read_text(encoding="utf-8")).get("serving", {})
    except (ValueError, OSError) as error:
        raise SettingError(f"{file} cannot be read: {error}.") from None
    if not isinstance(section, dict):
        raise SettingError(f"{file}: serving must be a section, [serving].")
    return section
