"""What a server takes at most, and how long it lets people wait."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le

from dlpipe.settings import read_settings

LOAD_SECONDS = 60.0
"""How long a request waits for a model that nobody has asked for before."""
DRAIN_SECONDS = 15.0
"""More than a request has, in which those under way end after a signal."""


@dataclass(frozen=True)
class LimitSettings:
    """Bounds of requests.

    Attributes
    ----------
    timeout : float
        Seconds that a request has: for its body to arrive, and then, where its model is loaded, for its answer.
    explain_timeout : float
        Seconds that a request for explanations has.
    max_wait : float
        Seconds that a request of a burst may be expected to wait before it is computed, or it is refused; a
        twentieth of it, or what the next batch or 32 rows take, where the queue stays.
    max_body : int
        Bytes of a body.
    max_rows, max_explained : int
        Rows of a request for predictions, and of one for explanations.
    """

    timeout: Annotated[float, Gt(0), Le(3600)] = 10.0
    explain_timeout: Annotated[float, Gt(0), Le(3600)] = 60.0
    max_wait: Annotated[float, Gt(0), Le(3600)] = 0.5
    max_body: Annotated[int, Ge(1_000), Le(1_000_000_000)] = 8_000_000
    max_rows: Annotated[int, Ge(1), Le(1_000_000)] = 10_000
    max_explained: Annotated[int, Ge(1), Le(10_000)] = 20

    @property
    def draining(self) -> float:
        """Seconds that requests under way have when a server ends."""
        return max(self.timeout, self.explain_timeout, LOAD_SECONDS) + DRAIN_SECONDS


@dataclass(frozen=True)
class LogSettings:
    """What is kept of requests, for how long, and what happens where that cannot be.

    Attributes
    ----------
    texts : bool
        Whether what was asked is kept; otherwise its SHA-256 is.
    keep_days : int
        Days of requests that are kept, today among them, in UTC; 0 for all.
    flush_seconds : float
        So often what came in is committed to the tables.
    flush_megabytes : float
        So much of a model is committed earlier.
    when_full : 'answer' or 'refuse'
        Whether requests are answered while the log cannot be written.
    """

    texts: bool = False
    keep_days: Annotated[int, Ge(0), Le(36_500)] = 0
    flush_seconds: Annotated[float, Gt(0), Le(3600)] = 5.0
    flush_megabytes: Annotated[float, Gt(0), Le(1024)] = 16.0
    when_full: Literal["answer", "refuse"] = "answer"


@dataclass(frozen=True)
class KeySettings:
    """Who may ask.

    Attributes
    ----------
    file : str
        Of keys, which `dlpipe keys` writes; by default ``keys.json`` in the state folder, if it is there.
    """

    file: str = ""


@dataclass(frozen=True)
class RaySettings:
    """How a server stands on a Ray cluster.

    Attributes
    ----------
    replicas : int
        Processes that answer, on any of its nodes.
    cores : int
        Of each.
    proxies : 'head' or 'every'
        Whether the head node alone takes requests, or every node that has a replica.
    """

    replicas: Annotated[int, Ge(1), Le(1000)] = 1
    cores: Annotated[int, Ge(1), Le(1024)] = 1
    proxies: Literal["head", "every"] = "head"


@dataclass(frozen=True)
class ServingSettings:
    """The section ``[serving]``: bounds in it, and in its sections ``log``, ``keys`` and ``ray`` the rest."""

    limits: LimitSettings = field(default_factory=LimitSettings)
    log: LogSettings = field(default_factory=LogSettings)
    keys: KeySettings = field(default_factory=KeySettings)
    ray: RaySettings = field(default_factory=RaySettings)


def read_serving_settings(section: Mapping[str, Any], *, where: str) -> ServingSettings:
    """Return the settings in a section.

    Parameters
    ----------
    section : mapping
        As read from TOML.
    where : str
        What to call the file in errors.

    Raises
    ------
    SettingError
        When a name is unknown, or a value is of another type or out of range.

    Examples
    --------
    >>> read_serving_settings({"timeout": 2, "log": {"texts": True}}, where="serving.toml").log.texts
    True
    """
    log = read_settings(LogSettings, section.get("log", {}), where=f"[serving.log] of {where}")
    keys = read_settings(KeySettings, section.get("keys", {}), where=f"[serving.keys] of {where}")
    ray = read_settings(RaySettings, section.get("ray", {}), where=f"[serving.ray] of {where}")
    bounds = {name: value for name, value in section.items() if name not in ("log", "keys", "ray")}
    return ServingSettings(read_settings(LimitSettings, bounds, where=f"[serving] of {where}"), log, keys, ray)
