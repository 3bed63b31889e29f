"""Whether a Ray cluster can serve, with a line that says what to do where it cannot."""

from __future__ import annotations

import socket
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from dlpipe.cluster import Cluster
from dlpipe.errors import AddressUnusable, ClusterMismatch, ClusterUnavailable, ExtraMissing, SettingError
from dlpipe.serving.settings import RaySettings

PACKAGES = ("fastapi", "grpc", "grpc_reflection")
"""What Ray Serve needs beside what dlpipe has; the rest of ``ray[serve]`` is for Ray's dashboard."""
PROBE_SECONDS = 60.0


def check_installed() -> None:
    """Raise ``ExtraMissing`` where the packages of Ray Serve are missing here."""
    if missing := find_missing():
        raise ExtraMissing(
            f"Serving on Ray needs {' and '.join(missing)}. Install the extra: pip install 'dlpipe[ray-serve]'."
        )


def find_missing() -> list[str]:
    """Return the packages of Ray Serve that are not installed here."""
    return [name for name in PACKAGES if find_spec(name) is None]


def check_room(cluster: Cluster, settings: RaySettings) -> None:
    """Raise ``ClusterUnavailable`` where so many replicas have no room, even if nothing else ran."""
    cluster.check(settings.cores)
    if (places := cluster.places(settings.cores)) < settings.replicas:
        raise ClusterUnavailable(
            f"The Ray cluster at {cluster.address} has room for {places} of {settings.replicas} replicas, with "
            f"{count_cores(settings.cores)} for each. Pass --replicas {places}, or add nodes."
        )


def count_cores(number: int) -> str:
    """Return a number of cores in words.

    Examples
    --------
    >>> count_cores(1), count_cores(4)
    ('1 core', '4 cores')
    """
    return f"{number} core{'' if number == 1 else 's'}"


def check_port(host: str, port: int, *, everywhere: bool) -> None:
    """Raise where a node that is to take requests lacks packages, or its port is taken; Serve must not run yet.

    Parameters
    ----------
    host : str
    port : int
    everywhere : bool
        Whether every node takes requests; otherwise the head alone.

    Raises
    ------
    AddressUnusable
    """
    for node, trouble in ask_nodes(lambda: find_port_trouble(host, port), heads_only=not everywhere):
        if trouble:
            raise AddressUnusable(
                f"Port {port} of {host} on the node {node} cannot be used: {trouble}. Choose another with --port."
            )


def check_packages() -> None:
    """Raise ``ClusterMismatch`` where a node lacks packages of Ray Serve."""
    for node, missing in ask_nodes(find_missing):
        if missing:
            raise ClusterMismatch(
                f"The node {node} of the Ray cluster has no {' and no '.join(missing)}. Install "
                "'dlpipe[ray-serve]' there, and start Ray there again."
            )


def find_port_trouble(host: str, port: int) -> str:
    """Return why a port cannot be used here; nothing where it can."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        try:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
        except OSError as error:
            return error.strerror or str(error)
    return ""


def ask_nodes(question: Callable[[], Any], *, heads_only: bool = False) -> list[tuple[str, Any]]:
    """Return the address of each living node with what it answers; a node that dies meanwhile is left out."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes = [node for node in ray.nodes() if node["Alive"]]
    if heads_only:
        nodes = [node for node in nodes if "node:__internal_head__" in node["Resources"]]
    task = ray.remote(num_cpus=0, max_retries=0)(question)
    asked = {
        task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(): node
        for node in nodes
    }
    answered, _ = ray.wait(list(asked), num_returns=len(asked), timeout=PROBE_SECONDS)
    found = []
    for reference in answered:
        try:
            found.append((asked[reference]["NodeManagerAddress"], ray.get(reference)))
        except ray.exceptions.RayError:
            continue
    return found


def check_settings(host: str, port: int) -> None:
    """Raise ``SettingError`` where an address cannot be one of proxies."""
    if not port:
        raise SettingError("Ray Serve takes no free port: pass --port with a number.")
    if host == "localhost":
        return
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.inet_pton(family, host)
    except OSError:
        raise SettingError(f"--host {host} is no address. Pass one such as 127.0.0.1 or 0.0.0.0.") from None
