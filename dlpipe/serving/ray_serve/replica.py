"""A process that answers: the application of a server, with a request log of its own, in Ray Serve's hands."""

from __future__ import annotations

import asyncio
import functools
import os
import sys
from typing import Any

from dlpipe.errors import KeysUnusable
from dlpipe.serving.application import Application
from dlpipe.serving.key_file import find_key_file
from dlpipe.serving.keys import KeyRing, await_keys
from dlpipe.serving.ray_serve.places import Places, name_node
from dlpipe.serving.ray_serve.shared import Sharing
from dlpipe.serving.request_log import RequestLog
from dlpipe.serving.server import ServeSettings, choose_guard, close_application, make_application, open_keys
from dlpipe.terminal import lose_unwritable


class Replica:
    """What Ray Serve starts, asks and ends.

    Parameters
    ----------
    settings : ServeSettings
    places : Places
    shared : handle of ``Shared``
    """

    def __init__(self, settings: ServeSettings, places: Places, shared: Any) -> None:
        self._settings, self._places, self._shared = settings, places, shared
        self._log: RequestLog | None = None
        self._app: Application | None = None
        self._sharing: Sharing | None = None
        self._awaiting: asyncio.Task[None] | None = None

    async def __serve_build_asgi_app__(self) -> Application:
        """Return what answers, with the models loaded that are named; Ray Serve asks for it once, at the start.

        Raises
        ------
        ClusterMismatch
            When the node lacks the places.
        KeysUnusable
            When it lacks the file of keys.
        DlpipeError
            When a model that is named cannot be served, or requests cannot be logged.
        """
        from ray import serve

        settings = self._settings
        self._places.enter()
        cores = str(settings.serving.ray.cores)
        os.environ.update(OMP_NUM_THREADS=cores, DLPIPE_CORES=cores)
        keys = open_keys(settings.serving.keys, say=say)
        if self._places.keyed and keys is None:
            path = find_key_file(settings.serving.keys.file)
            raise KeysUnusable(
                f"The node {name_node()} has no file of keys {path}. Share it, and name it in [serving.keys]."
            )
        self._log = RequestLog(settings.serving.log, say=say)
        self._log.start()
        app = self._app = make_application(settings, self._log, choose_guard(keys), say=say)
        self._sharing = Sharing(
            self._shared, serve.get_replica_context().replica_id.unique_id, keys, app.metrics, say=say
        )
        app.local = keys is None
        app.gather = self._sharing.write_metrics
        await app.models.start()
        self._sharing.start()
        if keys is None:
            find = functools.partial(open_keys, settings.serving.keys, say=say)
            self._awaiting = asyncio.create_task(await_keys(find, self._take_keys, say=say))
        return app

    def _take_keys(self, keys: KeyRing) -> None:
        assert self._app is not None
        assert self._sharing is not None
        self._app.take_keys(keys)
        self._sharing.keys = keys

    async def __del__(self) -> None:
        """End, when the last request under way has its answer; Ray Serve calls this itself, and waits."""
        if self._awaiting is not None:
            self._awaiting.cancel()
        if self._sharing is not None:
            self._sharing.stop()
        if self._app is not None:
            await close_application(self._app)
        if self._log is not None:
            self._log.close()
            self._log = None


def say(line: str) -> None:
    """Write a line for people to the log of this process, which Ray keeps on its node."""
    lose_unwritable(functools.partial(print, file=sys.stderr, flush=True))(line)
