"""The server of the status page: connections that say nothing do not keep others out."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from waitress.adjustments import Adjustments
from waitress.server import BaseWSGIServer, TcpWSGIServer
from waitress.task import ThreadedTaskDispatcher

if TYPE_CHECKING:
    from flask import Flask

CONNECTIONS = 50
THREADS = 2


class PageServer(TcpWSGIServer):
    """A server of which a new connection, when there are many, ends the one that has been silent longest."""

    def handle_accept(self) -> None:
        """Take a connection."""
        super().handle_accept()
        while len(self.active_channels) > CONNECTIONS:
            silent = [channel for channel in self.active_channels.values() if not channel.requests]
            if not silent:
                return
            min(silent, key=_last_active).handle_close()


def _last_active(channel: Any) -> float:
    return float(channel.last_activity)


def make_server(app: Flask, host: str, port: int) -> BaseWSGIServer:
    """The server of ``app``, to be run.

    Parameters
    ----------
    app : Flask
        What answers.
    host : str
        An address of this machine.
    port : int
        A free one.

    Raises
    ------
    OSError
        When the port is taken.
    """
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    idle = {"asyncore_loop_timeout": 30, "cleanup_interval": 300}  # so seldom does it look when nothing happens
    settings = Adjustments(host=host, port=port, threads=THREADS, ident="dlpipe", **idle)
    dispatcher = ThreadedTaskDispatcher()
    dispatcher.set_thread_count(THREADS)
    return PageServer(app, dispatcher=dispatcher, adj=settings)
