"""The scheduler's process: alone on its state, with a log and a status page, until it is stopped."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from dlpipe.errors import StateUnusable
from dlpipe.orchestrator.logfile import logging_to
from dlpipe.orchestrator.presence import ABOUT, only_scheduler, write_about
from dlpipe.orchestrator.scheduler import Scheduler
from dlpipe.orchestrator.state import State
from dlpipe.terminal import lose_unwritable

log = logging.getLogger(__name__)


def schedule(
    folder: Path,
    *,
    max_runs: int,
    port: int,
    keep_days: int,
    with_token: bool = True,
    clock: Callable[[], float] = time.time,
    clean: Callable[[str], str] = str,
) -> None:
    """Work on the state in ``folder`` until SIGTERM or Ctrl-C, with a page on ``port`` unless it is 0.

    Parameters
    ----------
    folder : Path
        The folder of the state.
    max_runs : int
        Runs of this machine at a time.
    port : int
        Of the status page on 127.0.0.1; 0 for none.
    keep_days : int
        Runs that ended longer ago are forgotten; 0 for never.
    with_token : bool, optional
        Whether only those may read the page who know its token, not everybody with an account here.
    clock : callable, optional
        The time in seconds since 1970.
    clean : callable, optional
        Takes credentials out of what alerts say.

    Raises
    ------
    SchedulerRunning
        When another scheduler does so already.
    StateUnusable, StorageFull
        When the state cannot be used.
    """
    state = State.open(folder, check=True)
    with contextlib.closing(state), only_scheduler(folder), logging_to(folder):
        about = {"pid": os.getpid(), "port": 0, "page": "", "started": clock(), "max_runs": max_runs}
        # it knows its file before others know of it: one that is replaced from now on is noticed
        scheduler = Scheduler(state, max_runs=max_runs, keep_days=keep_days, clock=clock, clean=clean)
        write_about(folder, about)
        try:
            log.info(
                "the scheduler begins: pid %d, at most %d runs at a time, state %s", about["pid"], max_runs, folder
            )
            if port and (page := open_page(folder, port, about, clock, with_token=with_token)):
                write_about(folder, {**about, "port": port, "page": page})
            scheduler.run()
            log.info("the scheduler ends; runs go on")
        except StateUnusable as error:
            log.error("the scheduler ends: %s", error)
            raise
        finally:
            with contextlib.suppress(OSError):
                (folder / ABOUT).unlink()


def open_page(
    folder: Path, port: int, about: dict[str, Any], clock: Callable[[], float], *, with_token: bool
) -> str:
    """Open the status page and return its address; empty, with a word in the log, if the port is taken.

    The address with the token goes to standard error and not into the log's file.

    Parameters
    ----------
    folder : Path
        The folder of the state; the page's token is a file in it.
    port : int
        A free port of 127.0.0.1.
    about : dict
        What others may know of the scheduler: ``pid`` and ``max_runs`` are shown.
    clock : callable
        The time in seconds since 1970.
    with_token : bool
        Whether the page asks for a token.
    """
    from dlpipe import __version__
    from dlpipe.orchestrator.page import ADDRESS, make_app, serve
    from dlpipe.orchestrator.page_token import read_token

    token = read_token(folder) if with_token else ""
    shown = {"dlpipe": __version__, "pid": about["pid"], "at most": f"{about['max_runs']} runs at a time"}
    try:
        serve(make_app(State.open(folder), token=token, about=shown, clock=clock), port)
    except OSError as error:
        log.warning(
            "no status page: port %d cannot be used (%s). Choose another with --port.", port, error.strerror
        )
        return ""
    address = f"http://{ADDRESS}:{port}"
    log.info("status page: %s", address)
    if token:
        address += f"/?token={token}"
        lose_unwritable(partial(print, file=sys.stderr, flush=True))(f"Open {address}")
    return address
