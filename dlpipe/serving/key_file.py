"""The file of keys: hashes of them, what each may do, and until when. A key itself is shown once, and is nowhere.

A key is ``dlp_<id>_<secret>`` with 256 bits of chance, so a plain SHA-256 of it cannot be searched for.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import json
import os
import re
import secrets
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from dlpipe.durable import make_folder, write_file
from dlpipe.errors import KeysUnusable, SettingError
from dlpipe.time_formats import to_moment

RIGHTS = ("predict", "explain", "feedback", "admin")
FORMAT, NAME = 1, "keys.json"
UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}
RATE = re.compile(r"(\d+(?:\.\d+)?)/([smh])")
ENDLESS = 253_402_300_799.0
"""The last second of the year 9999."""


@dataclass(frozen=True)
class Key:
    """What is known of a key.

    Attributes
    ----------
    id : str
        Names it in the log; not secret.
    name : str
        What a person calls it.
    hash : str
        SHA-256 of the secret.
    models : tuple of str
        Those that it may ask; empty for all.
    rights : tuple of str
        Some of ``RIGHTS``.
    rate : str
        Requests, such as ``10/s``, so many of which may come at once; empty without bound.
    quota : int
        Rows a day; 0 without bound.
    zone : str
        The time zone whose midnight begins a day.
    created, ends, revoked : float
        Seconds since the epoch; ``revoked`` is 0 while it is not.
    """

    id: str
    name: str
    hash: str
    models: tuple[str, ...] = ()
    rights: tuple[str, ...] = ("predict", "explain", "feedback")
    rate: str = ""
    quota: int = 0
    zone: str = "UTC"
    created: float = 0.0
    ends: float = ENDLESS
    revoked: float = 0.0

    def describe_state(self, now: float) -> str:
        """Return ``valid``, ``ended`` or ``revoked``."""
        return "revoked" if self.revoked else "ended" if now >= self.ends else "valid"


def find_key_file(given: str = "") -> Path:
    """Return the path of the file of keys, there or not."""
    if given:
        return Path(os.path.expanduser(given)).absolute()
    from dlpipe.orchestrator.state import state_folder

    return state_folder() / NAME


def hash_secret(secret: str) -> str:
    """Return what the file has of a secret."""
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


def read_keys(path: Path) -> dict[str, Key]:
    """Return the keys of a file by their ids; none where there is no file.

    Raises
    ------
    KeysUnusable
        When others may read or write it, or it is no file of keys.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise KeysUnusable(f"The keys in {path} cannot be read: {error.strerror}.") from None
    with open(descriptor, "rb") as file:
        # of the file that is open, and not of what has the name by now
        found = os.fstat(file.fileno())
        _check_rights(path, found)
        content = file.read()
    try:
        given = json.loads(content)
        if given["format"] != FORMAT:
            raise KeysUnusable(f"{path} was written by a newer dlpipe (format {given['format']}). Use that one.")
        keys = [_read_key(one) for one in given["keys"]]
    except KeysUnusable:
        raise
    except (ValueError, LookupError, TypeError, AttributeError):
        raise KeysUnusable(
            f"{path} is no file of keys. Move it away, and make keys with dlpipe keys create."
        ) from None
    return {key.id: key for key in keys}


def _read_key(given: Any) -> Key:
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in given.items()
    }
    key = Key(**values)
    if not re.fullmatch(r"[0-9a-f]{64}", key.hash) or not re.fullmatch(r"[0-9a-f]+", key.id):
        raise ValueError
    read_rate(key.rate)
    ZoneInfo(key.zone)
    return key


def _check_rights(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise KeysUnusable(f"{path} is no file. Name another with --file.")
    if stat.S_IMODE(found.st_mode) & 0o077:
        raise KeysUnusable(
            f"Others may read or change {path}: its rights are {stat.S_IMODE(found.st_mode):04o}. "
            f"Run: chmod 600 {path}"
        )
    if found.st_uid not in (os.getuid(), 0):
        raise KeysUnusable(f"{path} belongs to another user. Use a file of your own, or run as that user.")


def create_key(
    path: Path,
    name: str,
    *,
    models: Sequence[str] = (),
    rights: Sequence[str] = ("predict", "explain", "feedback"),
    rate: str = "",
    quota: int = 0,
    zone: str = "UTC",
    ends: str = "",
    now: float | None = None,
) -> tuple[Key, str]:
    """Add a key to a file, and return it and what is to be shown once.

    Parameters
    ----------
    path : Path
        The file is made where there is none.
    name : str
    models, rights, rate, quota, zone
        See ``Key``.
    ends : str
        A day, at whose end in ``zone`` it ends, or a moment in ISO 8601; empty for never.
    now : float, optional
        Seconds since the epoch.

    Raises
    ------
    SettingError
        When one of them is not what it should be, or the name is taken by a key that is valid.
    KeysUnusable
    """
    now = time.time() if now is None else now
    _check_name(name)
    for right in rights:
        if right not in RIGHTS:
            raise SettingError(f"There is no right {right!r}. Known: {', '.join(RIGHTS)}.")
    read_rate(rate)
    if quota < 0:
        raise SettingError(f"A quota of {quota:,} rows is refused. Pass 1 or more.")
    secret, made = secrets.token_urlsafe(32), secrets.token_hex(6)
    key = Key(
        made,
        name,
        hash_secret(secret),
        tuple(dict.fromkeys(models)),
        tuple(right for right in RIGHTS if right in rights),
        rate,
        quota,
        check_zone(zone),
        now,
        read_end(ends, zone) if ends else ENDLESS,
    )
    if key.ends <= now:
        raise SettingError(f"The end {ends!r} has passed. Pass a later one.")

    def add(keys: dict[str, Key]) -> None:
        if any(one.name == name and one.describe_state(now) == "valid" for one in keys.values()):
            raise SettingError(f"There is a valid key {name!r}. Revoke it, or pass another name.")
        keys[key.id] = key

    _change(path, add)
    return key, f"dlp_{key.id}_{secret}"


def revoke_key(path: Path, which: str, *, now: float | None = None) -> Key:
    """Revoke the key that has this id, or this name and is not revoked; return it.

    Raises
    ------
    SettingError
        When there is none.
    KeysUnusable
    """
    now = time.time() if now is None else now
    found: list[Key] = []

    def revoke(keys: dict[str, Key]) -> None:
        named = [key for key in keys.values() if which in (key.id, key.name) and not key.revoked]
        if not named:
            there = ", ".join(sorted(key.name for key in keys.values() if not key.revoked)) or "none"
            raise SettingError(f"No key {which!r} can be revoked; there are: {there}.")
        for key in named:
            keys[key.id] = replace(key, revoked=now)
            found.append(keys[key.id])

    _change(path, revoke)
    return found[0]


def _change(path: Path, change: Callable[[dict[str, Key]], None]) -> None:
    """Read, change and write the file while no other process does."""
    make_folder(path.parent, mode=0o700)
    with _lock(path):
        keys = read_keys(path)
        change(keys)
        content = json.dumps({"format": FORMAT, "keys": [asdict(key) for key in keys.values()]}, indent=1)
        try:
            write_file(path, content, mode=0o600)
        except OSError as error:
            raise KeysUnusable(f"The keys in {path} cannot be written: {error.strerror}.") from None


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    try:
        descriptor = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise KeysUnusable(f"The keys in {path} cannot be changed: {error.strerror}.") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _check_name(name: str) -> None:
    if not re.fullmatch(r"[\w.@+-]{1,64}", name):
        raise SettingError(f"A key cannot be called {name[:70]!r}: use up to 64 letters, digits and '.@+-_'.")


@functools.lru_cache(maxsize=1000)
def read_rate(rate: str) -> tuple[float, float]:
    """Return requests a second, and how many may come at once; zeros without bound.

    Examples
    --------
    >>> read_rate("30/m"), read_rate("")
    ((0.5, 30.0), (0.0, 0.0))
    """
    if not rate:
        return 0.0, 0.0
    found = RATE.fullmatch(rate)
    if found is None or not float(found[1]):
        raise SettingError(
            f"The rate {rate!r} is refused: pass requests per second, minute or hour, such as 10/s."
        )
    return float(found[1]) / UNITS[found[2]], max(float(found[1]), 1.0)


def check_zone(zone: str) -> str:
    """Return ``zone`` if there is such a time zone, or raise ``SettingError``."""
    try:
        ZoneInfo(zone)
    except (ValueError, LookupError, OSError):
        raise SettingError(f"There is no time zone {zone!r}. Pass one such as Europe/Berlin.") from None
    return zone


def read_end(ends: str, zone: str) -> float:
    """Return the moment in ``ends``: of a day, its end in ``zone``.

    Examples
    --------
    >>> end = read_end("2026-03-29T00:00:00+01:00", "UTC")
    >>> [read_end(day, "Europe/Berlin") == end for day in ("2026-03-28", "20260328", "2026-W13-6")]
    [True, True, True]
    """
    try:
        with contextlib.suppress(ValueError):
            return begin_of_day(date.fromisoformat(ends) + timedelta(days=1), zone)
        moment = datetime.fromisoformat(ends)
        moment = moment if moment.tzinfo else moment.replace(tzinfo=ZoneInfo(zone))
        return moment.astimezone(UTC).timestamp()
    except (ValueError, OverflowError):
        raise SettingError(f"The end {ends!r} is refused: pass a day such as 2027-01-31, or ISO 8601.") from None


def begin_of_day(day: date, zone: str) -> float:
    """Return when a day begins in a time zone, also where the clock is changed at midnight.

    Examples
    --------
    >>> from datetime import date
    >>> [begin_of_day(date(2026, 3, day + 1), "Europe/Berlin") - begin_of_day(date(2026, 3, day), "Europe/Berlin")
    ...  for day in (28, 29)]
    [86400.0, 82800.0]
    """
    return datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(zone)).timestamp()


def find_day(now: float, zone: str) -> date:
    """Return which day it is in a time zone."""
    return datetime.fromtimestamp(now, ZoneInfo(zone)).date()


def find_moment(at: float) -> datetime | None:
    """Return seconds since 1970 as a moment in UTC; ``None`` for never."""
    return None if at in (0.0, ENDLESS) else to_moment(1000 * at)


def describe_key(key: Key, now: float) -> dict[str, Any]:
    """Return what may be shown of a key."""
    return {
        "id": key.id,
        "name": key.name,
        "state": key.describe_state(now),
        "models": list(key.models) or ["all"],
        "rights": list(key.rights),
        "rate": key.rate,
        "quota": key.quota or None,
        "zone": key.zone if key.quota else "",
        "created": find_moment(key.created),
        "ends": find_moment(key.ends),
    }
