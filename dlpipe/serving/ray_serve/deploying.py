"""The application on a Ray cluster, from `dlpipe serve --ray-address` until its signal.

What the command starts stays when the command is killed, and the same command takes it over. One that ends in
order takes the application away, unless another has taken it over meanwhile.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import re
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from types import FrameType
from typing import Any

from dlpipe.cluster import Cluster, join
from dlpipe.errors import ClusterUnavailable, DlpipeError, SettingError
from dlpipe.registry import parse_uri, resolve
from dlpipe.serving.journal import find_journals
from dlpipe.serving.log_commits import adopt_journals
from dlpipe.serving.ray_serve.checks import (
    check_installed,
    check_packages,
    check_port,
    check_room,
    check_settings,
    count_cores,
)
from dlpipe.serving.ray_serve.places import Places
from dlpipe.serving.ray_serve.proxy import VARIABLES
from dlpipe.serving.ray_serve.replica import Replica
from dlpipe.serving.ray_serve.shared import Shared
from dlpipe.serving.server import (
    KEEP_ALIVE_SECONDS,
    ServeSettings,
    check_host,
    check_store,
    describe_models,
    open_keys,
)
from dlpipe.serving.settings import DRAIN_SECONDS, LimitSettings, ServingSettings
from dlpipe.terminal import lose_unwritable

NAME = "dlpipe"
"""Of the application in Ray Serve: a cluster has one."""
NAMESPACE, OWNER = b"dlpipe", b"serving"
"""Where a cluster has the mark of the command that started or took over the application last."""
POLL_SECONDS, LOOK_SECONDS = 0.5, 2.0
"""Between two looks at an application that starts or ends, and at one that runs."""
SAY_SECONDS = 20.0
"""After which it is said what a start waits for."""
REQUESTS = 10_000
"""That Ray may give a replica at a time: a replica refuses what is too much itself."""
START_TRIES = 2
QUIET = {"enable_access_log": False, "log_level": "WARNING"}
RAISED = re.compile(r"^(?:ray\.\S+: )?\S*dlpipe\.errors\.\w+: (.+)$", re.MULTILINE)


def serve_on_ray(
    settings: ServeSettings,
    address: str,
    *,
    say: Callable[[str], None],
    reread: Callable[[], ServingSettings] | None = None,
) -> None:
    """Answer requests on a Ray cluster until SIGTERM or Ctrl-C, and end when those under way have their answers.

    A second signal ends this process at once; what it started goes on then, as after a kill.

    Parameters
    ----------
    settings : ServeSettings
        ``host`` and ``port`` are those of Ray's proxies.
    address : str
        ``host:port`` of the cluster, or ``auto`` for the one of this machine.
    say : callable
        Gets lines for people.
    reread : callable, optional
        Returns the settings as they are now, when SIGHUP comes: replicas are replaced by ones with these. By
        default that ends the process.

    Raises
    ------
    ExtraMissing
        When Ray Serve is not installed here.
    ClusterUnavailable, ClusterMismatch
        When the cluster cannot be joined, has other packages or no room, or a replica cannot be started.
    AddressUnusable
        When a port is taken.
    DlpipeError
        When a model that is named does not exist; besides what ``dlpipe.serving.server.serve`` raises.
    """
    say = lose_unwritable(say)
    check_installed()
    check_settings(settings.host, settings.port)
    keys = open_keys(settings.serving.keys, say=say)
    check_host(settings.host, keys=0 if keys is None else keys.count_valid())
    check_store()
    for name, number, alias in map(parse_uri, settings.models):
        resolve(f"models:/{name}@{alias}" if number is None else f"models:/{name}/{number}")
    with join(address) as cluster:
        if cluster is None:
            raise SettingError("--ray-address local is no cluster. Leave it out to serve from this process.")
        quiet_serve()
        check_room(cluster, settings.serving.ray)
        check_packages()
        places = Places.here(keyed=keys is not None)
        with catch_signals(say, reload=reread is not None) as signals, ray_errors():
            Deployed(cluster, settings, places, signals, say=say, reread=reread).run()


@dataclass(frozen=True)
class Signals:
    """What signals have come: to end, and to read the settings again."""

    ending: threading.Event = field(default_factory=threading.Event)
    reload: threading.Event = field(default_factory=threading.Event)


class Deployed:
    """The application on a cluster.

    Parameters
    ----------
    cluster : Cluster
    settings : ServeSettings
    places : Places
    signals : Signals
    say, reread : callable
        As for ``serve_on_ray``.
    """

    def __init__(
        self,
        cluster: Cluster,
        settings: ServeSettings,
        places: Places,
        signals: Signals,
        *,
        say: Callable[[str], None],
        reread: Callable[[], ServingSettings] | None,
    ) -> None:
        self._cluster, self._settings, self._places = cluster, settings, places
        self._signals, self._say, self._reread = signals, say, reread
        self._mark = uuid.uuid4().hex.encode()

    @property
    def _replicas(self) -> int:
        return self._settings.serving.ray.replicas

    def run(self) -> None:
        """Have it run until a signal, or until another command takes it over."""
        self._start_serve()
        before = find_application()
        answers = before is not None and count_running(before) > 0
        self._claim()
        try:
            self._deploy()
            self._wait_until_running()
        except BaseException:
            if not answers and self._is_ours():
                self._end()
            raise
        if not self._signals.ending.is_set():
            host = f"[{self._settings.host}]" if ":" in self._settings.host else self._settings.host
            address = f"http://{host}:{self._settings.port}"
            replicas = f"{self._replicas} replica{'' if self._replicas == 1 else 's'}"
            self._say(
                f"Serving {describe_models(self._settings.models)} on {address} ({replicas} on the Ray cluster at "
                f"{self._cluster.address})"
            )
        if self._watch():
            self._end()

    def _start_serve(self) -> None:
        """Start Ray Serve, or see that what runs takes requests where they are wanted."""
        from ray import serve
        from ray.serve.context import _get_global_client

        host, port, every = self._settings.host, self._settings.port, self._settings.serving.ray.proxies == "every"
        running = _get_global_client(raise_if_no_controller_running=False)
        if running is None:
            check_port(host, port, everywhere=every)
            serve.start(
                proxy_location="EveryNode" if every else "HeadOnly",
                http_options={
                    "host": host,
                    "port": port,
                    "request_timeout_s": find_longest(self._settings.serving.limits),
                    "keep_alive_timeout_s": KEEP_ALIVE_SECONDS,
                },
                logging_config=QUIET,
                controller_options={"runtime_env": {"env_vars": VARIABLES}},
            )
            return
        has = running.http_config
        if (has.host, has.port) != (host, port):
            raise ClusterUnavailable(
                f"Ray Serve runs on this cluster already and takes requests at {has.host}:{has.port}. Pass --host "
                f"{has.host} --port {has.port}, or end it with: serve shutdown"
            )

    def _deploy(self) -> None:
        from ray import serve

        settings, limits = self._settings.serving.ray, self._settings.serving.limits
        shared = serve.deployment(name="Shared", ray_actor_options={"num_cpus": 0})(Shared)
        replica = serve.deployment(
            name="Replica",
            num_replicas=settings.replicas,
            ray_actor_options={"num_cpus": settings.cores},
            max_ongoing_requests=REQUESTS,
            graceful_shutdown_timeout_s=limits.draining,
            graceful_shutdown_wait_loop_s=0.2,
            health_check_period_s=5,
            health_check_timeout_s=10,
            max_constructor_retry_count=START_TRIES,
            # where a place is free, a new one answers before an old one ends
            max_surge_percent=math.ceil(100 / settings.replicas) if has_free(settings.cores) else 0,
        )(serve.ingress()(Replica))
        serve._run(
            replica.bind(self._settings, self._places, shared.bind()),
            _blocking=False,
            name=NAME,
            route_prefix="/",
            logging_config=QUIET,
        )

    def _claim(self) -> None:
        """Note in the cluster that the application is that of this command."""
        from ray.experimental.internal_kv import _internal_kv_put

        _internal_kv_put(OWNER, self._mark, overwrite=True, namespace=NAMESPACE)

    def _is_ours(self) -> bool:
        from ray.experimental.internal_kv import _internal_kv_get

        return _internal_kv_get(OWNER, namespace=NAMESPACE) == self._mark

    def _wait_until_running(self) -> None:
        began, told = time.monotonic(), False
        while not self._signals.ending.wait(POLL_SECONDS):
            found = find_application()
            if found is None or not self._is_ours() or found.status == "RUNNING":
                return
            if found.status == "DEPLOY_FAILED":
                raise ClusterUnavailable(f"No replica can be started: {read_reason(found)}")
            if not told and time.monotonic() - began > SAY_SECONDS:
                self._say(
                    f"{count_running(found)} of {self._replicas} replicas have been started. Each needs "
                    f"{count_cores(self._settings.serving.ray.cores)} that nothing else uses."
                )
                told = True

    def _watch(self) -> bool:
        """Return at a signal to end, whether the application is still that of this command."""
        running = self._replicas
        while True:
            self._check_cluster()
            found = find_application()
            if found is None or not self._is_ours():
                self._say("Another command has ended the server or taken it over.")
                return False
            if self._signals.ending.wait(LOOK_SECONDS):
                return True
            if self._signals.reload.is_set():
                self._signals.reload.clear()
                self._reload()
                running = self._replicas
            if (now := count_running(found)) != running:
                self._say(f"{now} of {self._replicas} replicas answer.")
                running = now

    def _reload(self) -> None:
        """Replace the replicas by ones with the settings as they are now; bad ones change nothing."""
        assert self._reread is not None
        try:
            serving = self._reread()
            check_room(self._cluster, serving.ray)
        except DlpipeError as error:
            self._say(f"{error} The settings that were read before stay as they were.")
            return
        self._settings = replace(self._settings, serving=serving)
        self._deploy()
        self._wait_until_running()
        self._say("The settings were read again, and all replicas have them.")

    def _check_cluster(self) -> None:
        """Raise ``ClusterUnavailable`` where the head node is gone: Ray itself would wait for it for a minute."""
        host, _, port = self._cluster.address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=LOOK_SECONDS).close()
        except OSError as error:
            raise ClusterUnavailable(
                f"The Ray cluster at {self._cluster.address} is gone, and the server with it: "
                f"{error.strerror or error}. Start the cluster and this command again."
            ) from None

    def _end(self) -> None:
        """Take the application away when requests under way have their answers; Ray Serve ends with its last."""
        from ray import serve

        serve.delete(NAME, _blocking=False)
        deadline = time.monotonic() + find_longest(self._settings.serving.limits) + 2 * DRAIN_SECONDS
        while find_application() is not None and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        if not serve.status().applications:
            serve.shutdown()
        with contextlib.suppress(DlpipeError):  # what cannot be committed waits for the next server
            adopt_journals(find_journals())


def find_longest(limits: LimitSettings) -> float:
    """Return the seconds after which a proxy gives a request up: no replica takes so long."""
    return limits.draining + 2 * limits.timeout


def find_application() -> Any:
    """Return the state of the application in Ray Serve; ``None`` where there is none."""
    from ray import serve

    return serve.status().applications.get(NAME)


def count_running(found: Any) -> int:
    """Return how many replicas of an application answer."""
    deployment = found.deployments.get("Replica")
    states = deployment.replica_states if deployment else {}
    return sum(number for state, number in states.items() if state == "RUNNING")


def read_reason(found: Any) -> str:
    """Return why an application cannot be deployed: the line that a replica raised, if it did."""
    told = "\n".join([found.message, *(one.message for one in found.deployments.values())])
    raised = RAISED.findall(told)
    return str(raised[-1]) if raised else " ".join(told.split())[-500:]


def has_free(cores: int) -> bool:
    """Return whether some node has so many cores that nothing uses."""
    import ray
    from ray._private.state import available_resources_per_node

    return ray.is_initialized() and any(
        node.get("CPU", 0) >= cores for node in available_resources_per_node().values()
    )


def quiet_serve() -> None:
    """Turn off what Ray Serve prints."""
    from ray import serve  # noqa: F401  # its logger is set up by its import

    logging.getLogger("ray.serve").setLevel(logging.ERROR)


@contextlib.contextmanager
def ray_errors() -> Iterator[None]:
    """Raise what Ray Serve raises as ``ClusterUnavailable``, in a line."""
    from ray.exceptions import RayError
    from ray.serve.exceptions import RayServeException

    try:
        yield
    except (RayError, RayServeException, TimeoutError) as error:
        raise ClusterUnavailable(f"Ray Serve: {str(error).strip().splitlines()[-1]}") from error


@contextlib.contextmanager
def catch_signals(say: Callable[[str], None], *, reload: bool) -> Iterator[Signals]:
    """Yield what signals have come; a second one to end ends the process at once.

    Parameters
    ----------
    say : callable
    reload : bool
        Whether SIGHUP is taken, or ends the process.
    """
    signals = Signals()

    def end(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            signals.reload.set()
            return
        if signals.ending.is_set():
            os._exit(128 + number)
        signals.ending.set()
        say("Ending; requests under way get their answers. Another signal ends this command at once.")

    numbers = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if reload else [])]
    before = {number: signal.signal(number, end) for number in numbers}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
