"""Whether a cluster can be worked on, with a line that says what to do where it cannot."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from dlpipe.errors import ClusterMismatch, ClusterUnavailable, SettingError

VARIABLE = "RAY_ADDRESS"
LOOK_SECONDS = 9.0  # with what Python needs to start, the error is there within ten
PROBE_SECONDS = 60.0
ADDRESS = re.compile(r"([^\s:/\[\]]+|\[[0-9a-fA-F:]+\]):(\d{1,5})")


def check_address(address: str) -> str:
    """Return ``address`` if it is written as one.

    Examples
    --------
    >>> check_address("10.0.0.1:6379")
    '10.0.0.1:6379'
    >>> check_address("10.0.0.1")
    Traceback (most recent call last):
    ...
    dlpipe.errors.SettingError: '10.0.0.1' is no address of a Ray cluster. Write host:port, ...
    """
    parts = ADDRESS.fullmatch(address)
    if address == "auto" or (parts and 0 < int(parts[2]) < 65536):
        return address
    client = " Ray's client (ray://) cannot run searches and data sets." if address.startswith("ray://") else ""
    raise SettingError(
        f"{address!r} is no address of a Ray cluster.{client} Write host:port, as `ray start --head` says it, "
        "or auto."
    )


def look_at(address: str) -> str:
    """Return the ``host:port`` of the cluster at ``address``, after a look at whether this process can join it."""
    found = _look(address)
    if "refused" in found:
        raise ClusterUnavailable(
            f"The Ray cluster at {address} wants its token. Set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN to what "
            "`ray get-auth-token` says on its head node."
        )
    if "error" in found:
        raise ClusterUnavailable(
            f"The Ray cluster at {address} does not answer: {found['error'].rstrip('.')}. Start it with "
            f"`ray start --head`, or leave out {VARIABLE} and --ray-address to work on this machine alone."
        )
    _check_versions(found)
    if not found["here"]:
        raise ClusterUnavailable(
            f"This machine is no node of the Ray cluster at {address}. Make it one with `ray start --address="
            f"{found['address']}` (--num-cpus=0: it gets no work), or start from {', '.join(found['nodes'])}."
        )
    return str(found["address"])


def _look(address: str) -> dict[str, Any]:
    try:
        done = subprocess.run(
            [sys.executable, "-m", "dlpipe.cluster.look", address],
            env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0"},
            capture_output=True,
            text=True,
            timeout=LOOK_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return {"error": "nothing there has spoken as Ray does for ten seconds"}
    if done.returncode:
        return {"error": f"the look at it ended with {done.returncode}: {done.stderr.strip()[-200:]}"}
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _check_versions(found: dict[str, Any]) -> None:
    here = {"ray": metadata.version("ray"), "python": platform.python_version()}
    parts = 2 if os.environ.get("RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL") == "minor" else 3  # Ray's own setting
    same_python = found["python"].split(".")[:parts] == here["python"].split(".")[:parts]
    if found["ray"] != here["ray"] or not same_python:
        raise ClusterMismatch(
            f"The Ray cluster at {found['address']} has Ray {found['ray']} and Python {found['python']}, this "
            f"process has Ray {here['ray']} and Python {here['python']}. Start the cluster with the same."
        )


def check_package(address: str) -> None:
    """See that each node of the cluster that this process is connected to can import this very dlpipe."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    # a function within a function travels as code: one of this package could not be loaded where that is missing
    def find_package() -> tuple[str | None, str]:
        import sys

        try:
            from dlpipe.cluster.checks import find_package_version
        except ImportError:
            return None, sys.executable
        return find_package_version(), sys.executable

    probe = ray.remote(num_cpus=0, max_retries=0)(find_package)
    asked = {
        probe.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote(): node
        for node in ray.nodes()
        if node["Alive"]
    }
    answered, silent = ray.wait(list(asked), num_returns=len(asked), timeout=PROBE_SECONDS)
    for reference in answered:
        try:
            version, python = ray.get(reference)
        except ray.exceptions.RayError:  # it died meanwhile
            continue
        _check_node(address, asked[reference], version, python)
    if silent:
        names = ", ".join(asked[reference]["NodeManagerAddress"] for reference in silent)
        raise ClusterUnavailable(
            f"The Ray cluster at {address} lists {names}, where nothing starts. Restart Ray there."
        )


def _check_node(address: str, node: dict[str, Any], version: str | None, python: str) -> None:
    wanted = find_package_version()
    if version == wanted:
        return
    has = f"has dlpipe {version}, this process {wanted}" if version else f"has no dlpipe {wanted}"
    raise ClusterMismatch(
        f"The node {node['NodeManagerAddress']} of the Ray cluster at {address} {has}. Install the same for "
        f"{python} there, and start Ray there again."
    )


def find_package_version() -> str:
    """Return the version of dlpipe with a digest of its code: installations can differ within a version."""
    import dlpipe

    folder = Path(dlpipe.__file__).parent
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*.py")):
        digest.update(file.relative_to(folder).as_posix().encode() + b"\0" + file.read_bytes())
    return f"{dlpipe.__version__}+{digest.hexdigest()[:8]}"
