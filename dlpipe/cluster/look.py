"""What is at an address: ``python -m dlpipe.cluster.look HOST:PORT`` prints it as JSON.

Ray's client tries for 40 seconds, whatever is there, and ends the process that it runs in if a cluster goes away
meanwhile. So it looks from a process of its own, which can be ended in time.
"""

from __future__ import annotations

import json
import socket
import sys
from typing import Any

CONNECT_SECONDS = 5.0


def look(address: str) -> dict[str, Any]:
    """Return the cluster's address and versions, and its nodes, by their Python's point of view.

    Raises
    ------
    OSError
        When nothing listens there.
    RayError
        When what listens there is no cluster, or refuses.
    """
    if address != "auto":
        _knock(address)  # before Ray is imported, which takes seconds
    from ray._private import services
    from ray._raylet import GcsClient  # type: ignore[attr-defined]

    address = services.canonicalize_bootstrap_address_or_die(address)
    _knock(address)
    client = GcsClient(address=address)
    versions = json.loads(
        client.internal_kv_get(b"CLUSTER_METADATA", namespace=b"cluster", timeout=CONNECT_SECONDS)
    )
    alive = {
        node_id.hex(): node.node_manager_address
        for node_id, node in client.get_all_node_info(timeout=CONNECT_SECONDS).items()
        if node.state == node.ALIVE
    }
    return {
        "address": address,
        "ray": versions["ray_version"],
        "python": versions["python_version"],
        "nodes": sorted(set(alive.values())),
        "here": bool(alive.keys() & set(services.find_node_ids())),
    }


def _knock(address: str) -> None:
    host, _, port = address.rpartition(":")
    socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()


def main() -> None:
    """Print what is at the address that the command line names, or why nothing can be said."""
    try:
        found = look(sys.argv[1])
    except OSError as error:
        found = {"error": error.strerror or str(error)}
    except Exception as error:
        from ray.exceptions import AuthenticationError

        found = {"refused": True} if isinstance(error, AuthenticationError) else {"error": str(error)}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
