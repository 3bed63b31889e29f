"""How an expected failure is said: in one line, as the commands of ``dlpipe`` do."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from metaflow._vendor import click


@contextlib.contextmanager
def end_in_one_line() -> Iterator[None]:
    """End a command with the line of a ``DlpipeError``; Metaflow's own kind loses the stars of cron lines."""
    from dlpipe.errors import DlpipeError
    from dlpipe.redaction import redact

    try:
        yield
    except DlpipeError as error:
        raise click.ClickException(redact(str(error))) from None
