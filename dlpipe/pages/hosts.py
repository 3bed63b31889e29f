"""Who asks a program that only this machine reaches: a browser also asks for pages that come from elsewhere.

A site may give its own name the address 127.0.0.1 (DNS rebinding), and then read what a browser here gets; the
header ``Host`` says so. A page may send a form or a file to any address; the header ``Origin`` says whose it was.
"""

from __future__ import annotations

import ipaddress


def is_loopback(host: str) -> bool:
    """Return whether a header ``Host`` names this machine.

    Examples
    --------
    >>> [is_loopback(host) for host in ("localhost:8720", "127.0.0.1", "[::1]:80", "evil.example", "")]
    [True, True, True, False, False]
    """
    name = host if host.endswith("]") else host.rpartition(":")[0] or host
    if name.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(name.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:
        return False


def is_same_origin(origin: str, host: str) -> bool:
    """Return whether a header ``Origin`` is that of a page of this program, by the header ``Host`` beside it.

    Examples
    --------
    >>> is_same_origin("http://localhost:8720", "localhost:8720"), is_same_origin("null", "localhost:8720")
    (True, False)
    """
    return origin == f"http://{host}"
