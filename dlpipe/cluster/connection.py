"""A connection to Ray: to a cluster that runs, or to one on this machine alone."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from dlpipe.cluster.checks import VARIABLE, check_address, check_package, look_at
from dlpipe.cluster.mapping import map_items
from dlpipe.cluster.rooms import room_for_ray
from dlpipe.errors import ClusterUnavailable

LOGGER = logging.getLogger(__name__)
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Cluster:
    """A connection to Ray.

    Attributes
    ----------
    address : str
        ``host:port``, or ``"local"`` for what ``start`` made.
    node_cores : tuple of int
        The cores of each node that lived when the connection was made.
    """

    address: str
    node_cores: tuple[int, ...]

    @property
    def cores(self) -> int:
        """The cores of all nodes."""
        return sum(self.node_cores)

    def places(self, cores: int = 1) -> int:
        """Return how many workers of ``cores`` cores have room at once; a worker stays on one node."""
        return sum(node // cores for node in self.node_cores)

    def check(self, cores: int) -> None:
        """See that a worker of ``cores`` cores has a place."""
        if not self.places(cores):
            raise ClusterUnavailable(
                f"No node of the Ray cluster at {self.address} has {cores} cores; the largest has "
                f"{max(self.node_cores, default=0)}. Ask for fewer."
            )

    def map(
        self, opener: Callable[[], Callable[[Item], Result]], items: Sequence[Item], *, cores: int = 1
    ) -> Iterator[Result]:
        """Yield a result for each item, as they come, computed on all nodes.

        What ran on a node that died is done again on another, so an item may be done twice.

        Parameters
        ----------
        opener : callable
            Called once in each worker; returns what is called with an item. It is shipped once, through the
            object store, so it may hold a model.
        items : sequence
            Small things, such as the parts of a table; a worker reads the rows itself.
        cores : int
            Cores, and torch threads, of a worker.

        Raises
        ------
        Exception
            What the opener or an item raised; then no other item is begun.
        ClusterUnavailable
            When no node has so many cores, or workers die again and again.
        """
        self.check(cores)
        return map_items(opener, items, cores=cores, workers=min(self.places(cores), len(items)))

    def each(
        self, function: Callable[[Item], Result], items: Sequence[Item], *, cores: int = 1
    ) -> Iterator[Result]:
        """Yield ``function(item)`` for each item, as ``map`` does; the function itself is shipped, once.

        Parameters
        ----------
        function : callable
            Shipped once, so it may hold a model.
        items : sequence of Item
            Small things.
        cores : int, optional
            Cores, and torch threads, of a worker.
        """
        return self.map(partial(_return_itself, function), items, cores=cores)


def find(address: str | None = None) -> str | None:
    """Return the ``host:port`` of the cluster that is asked for, seen to be one that can be joined.

    Parameters
    ----------
    address : str, optional
        As for ``join``.

    Raises
    ------
    SettingError
        When the address is none.
    ClusterUnavailable
        When nothing at the address answers as Ray within ten seconds, it refuses, or this machine is no node.
    ClusterMismatch
        When the cluster has another version of Ray or Python.
    """
    asked = (address or os.environ.get(VARIABLE) or "local").strip()
    return None if asked == "local" else look_at(check_address(asked))


@contextmanager
def join(address: str | None = None) -> Iterator[Cluster | None]:
    """Connect to a Ray cluster for the time of a ``with``; give ``None`` where none is asked for.

    The cluster stays as it was, also at the end.

    Parameters
    ----------
    address : str, optional
        ``host:port`` of the cluster, or ``"auto"`` for one that runs on this machine; by default what the
        variable ``RAY_ADDRESS`` says.

    Raises
    ------
    ClusterMismatch
        When a node has another dlpipe or none; besides what ``find`` raises.

    Examples
    --------
    >>> with join() as cluster:
    ...     print(cluster)
    None
    """
    if (found := find(address)) is None:
        yield None
        return
    with _connect(found):
        check_package(found)
        yield (cluster := Cluster(found, _count_node_cores()))
        if dead := len(cluster.node_cores) - len(_count_node_cores()):
            LOGGER.warning(
                "%d of %d nodes of the Ray cluster died; their work was done on the others",
                dead,
                len(cluster.node_cores),
            )


def _return_itself(function: Callable[[Item], Result]) -> Callable[[Item], Result]:
    return function


@contextmanager
def start(
    cores: int, *, preload: Sequence[str] = (), variables: Mapping[str, str] | None = None
) -> Iterator[Cluster]:
    """Run Ray on this machine alone for the time of a ``with``, with ``cores`` cores to give away.

    Parameters
    ----------
    preload : sequence of str
        Modules that its workers import at once, while this process goes on.
    variables : mapping of str to str, optional
        What its workers find in their environment.
    """
    given = {**(variables or {}), "RAY_preload_python_modules": ",".join(preload)}
    # without "local", a cluster that somebody else runs on this machine would be joined
    with _keep_auth_mode(), _set_environment(given), _start_no_monitors(), room_for_ray() as room:
        options = {"num_cpus": cores, "include_dashboard": False, **room}
        with _connect("local", **options):
            yield Cluster("local", (cores,))


@contextmanager
def _start_no_monitors() -> Iterator[None]:
    """Do without two processes of Ray: one reads logs that go nowhere, the other asks a cloud for nodes."""
    quiet_ray()  # before Ray is imported
    from ray._private.node import Node

    kept = {name: getattr(Node, name) for name in ("start_monitor", "start_log_monitor")}
    for name in kept:
        setattr(Node, name, lambda self: None)
    try:
        yield
    finally:
        for name, start_one in kept.items():
            setattr(Node, name, start_one)


@contextmanager
def _set_environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set variables of this process, which those that it starts inherit, for the time of a ``with``."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update({name: value for name, value in values.items() if value})
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            os.environ.update({} if value is None else {name: value})


@contextmanager
def _keep_auth_mode() -> Iterator[None]:
    """Undo at the end that Ray asks for a token: workers of another cluster would be kept out of this process."""
    before = os.environ.get("RAY_AUTH_MODE")
    try:
        yield
    finally:
        if before is None and "RAY_AUTH_MODE" in os.environ:
            del os.environ["RAY_AUTH_MODE"]
            from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

            Config.initialize("")
            AuthenticationTokenLoader.instance().reset_cache()


@contextmanager
def _connect(address: str, **options: Any) -> Iterator[None]:
    quiet_ray()
    import ray

    if ray.is_initialized():
        raise ClusterUnavailable("This process is connected to Ray already. Call ray.shutdown() first.")
    try:
        with _drop_stderr():
            ray.init(address, log_to_driver=False, logging_level="ERROR", **options)
        yield
    finally:
        ray.shutdown()


def quiet_ray() -> None:
    """Turn off what Ray sends and prints besides its work, and that its workers wait for everybody else."""
    os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    os.environ.setdefault("RAY_worker_niceness", "0")  # with Ray's 15, trials starve beside another run
    import ray._private.worker

    ray._private.worker._worker_logs_enabled = False  # a line on stdout for each retry after a node's death
    logging.getLogger("ray").setLevel(logging.ERROR)


@contextmanager
def _drop_stderr() -> Iterator[None]:
    """Drop what is written to file 2: Ray's C++ part says there which level of log it was told to keep."""
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _count_node_cores() -> tuple[int, ...]:
    import ray

    return tuple(int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"])
