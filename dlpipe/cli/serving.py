"""`dlpipe serve`: registered models behind an address."""

from __future__ import annotations

import click

from dlpipe.cli.printing import say

PORT = 8720


@click.command()
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="NAME[@ALIAS|/N]",
    help="Model to load at once; others are not served. May be repeated. By default every registered model is "
    "served, and loaded by the first request for it.",
)
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Address to listen on; it must be one of loopback."
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=PORT,
    show_default=True,
    help="Port to listen on; 0 for a free one, which is printed.",
)
@click.option(
    "--engine",
    help="Engine to predict with: torch, torch-bf16, onnx or onnx-int8; by default the choice of each version.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(0.001, 3600),
    metavar="SECONDS",
    help="Time that the body of a request has to arrive, and then its answer.  [default: 10]",
)
@click.option(
    "--max-wait",
    type=click.FloatRange(0.001, 3600),
    metavar="SECONDS",
    help="Longest wait before a request is computed; one that would wait longer is refused.  [default: 0.5]",
)
@click.option(
    "--max-body",
    type=click.IntRange(1_000, 1_000_000_000),
    metavar="BYTES",
    help="Largest body of a request.  [default: 8000000]",
)
def serve(
    models: tuple[str, ...],
    host: str,
    port: int,
    engine: str | None,
    timeout: float | None,
    max_wait: float | None,
    max_body: int | None,
) -> None:
    """Answer requests for predictions until Ctrl-C or SIGTERM.

    Each model is at /models/NAME, a version or an alias at /models/NAME/3 or /models/NAME/challenger. An alias
    that moves is followed within two seconds, without a restart. Requests under way at the end still get their
    answers; a second signal ends at once.

    \b
    Examples:
      dlpipe serve --port 8720
      dlpipe serve --port 8720 --model reviews --model reviews@challenger --timeout 5
    """
    from dlpipe.serving.server import ServeSettings, serve
    from dlpipe.serving.settings import LimitSettings
    from dlpipe.settings import read_settings

    given = {"timeout": timeout, "max_wait": max_wait, "max_body": max_body}
    limits = read_settings(LimitSettings, given, where="the command line")
    settings = ServeSettings(host=host, port=port, models=models, engine=engine, limits=limits)
    serve(settings, say=lambda line: say(line, err=True))
