"""Who may ask what, how often and how much: keys, looked up in memory and read again when their file changes."""

from __future__ import annotations

import asyncio
import hmac
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from dlpipe.errors import DlpipeError, KeysUnusable
from dlpipe.serving import guards
from dlpipe.serving.allowances import Allowance, Balance, Use
from dlpipe.serving.key_file import Key, begin_of_day, find_day, hash_secret, read_keys, read_rate
from dlpipe.serving.refusals import Refused

LOOK_SECONDS = 1.0
"""Between two looks whether the file has changed: a key that is revoked is refused after so long at most."""
NOBODY = hash_secret("")
"""What is compared where no key has the id, so that this takes as long as where one has it."""
CHALLENGE = ((b"www-authenticate", b"Bearer"),)


@dataclass(frozen=True, slots=True)
class Grant:
    """What a key may do.

    Attributes
    ----------
    key : str
        Its id.
    models : tuple of str
        Empty for all.
    rights : frozenset of str
    """

    key: str
    models: tuple[str, ...]
    rights: frozenset[str]


class KeyRing:
    """The keys that a server takes.

    Parameters
    ----------
    path : Path
        Of the file; see ``find_key_file``.
    used : callable, optional
        Takes a key and the moment at which its day began, and returns how many rows it has had since: a server
        that is started again goes on counting. ``count_used_rows`` of ``dlpipe.serving.usage`` asks the log.
    say : callable
        Gets a line when the file cannot be read any more; the keys that were read last stay valid.
    clock : callable
        Returns seconds since the epoch.

    Raises
    ------
    KeysUnusable
        When others may read the file, or it is none of keys.
    """

    def __init__(
        self,
        path: Path,
        *,
        used: Callable[[Key, float], int] | None = None,
        say: Callable[[str], None] = print,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.path, self._say, self._clock = path, say, clock
        self._seen = self._look()
        self._keys: Mapping[str, Key] = read_keys(path)
        self._grants = self._make_grants()
        self._looked_at = time.monotonic()
        self._allowances: dict[str, Allowance] = {}
        self._trouble = ""
        for key in self._keys.values():
            if used is not None and key.quota and key.describe_state(clock()) == "valid":
                began = begin_of_day(find_day(clock(), key.zone), key.zone)
                self._find_allowance(key, clock()).used = used(key, began)

    def count_valid(self) -> int:
        """Return how many keys are valid now."""
        return sum(key.describe_state(self._clock()) == "valid" for key in self._keys.values())

    def check(self, authorization: str | None, *, model: str, right: str) -> Grant:
        """Return what whoever sent the header ``Authorization`` may do.

        Parameters
        ----------
        authorization : str or None
            ``Bearer`` and a key.
        model : str
            Which is asked; empty where none is.
        right : str
            Which it takes; ``READ`` for one of ``READERS``.

        Raises
        ------
        Refused
            With 401 for a key that is missing, wrong, revoked or has ended; with 403 for one without this model or
            right; with 429 for one that asks too often.
        """
        if time.monotonic() - self._looked_at > LOOK_SECONDS:
            self._read_again()
        key = self._find(authorization)
        now = self._clock()
        state = key.describe_state(now)
        if state != "valid":
            told = "has been revoked" if state == "revoked" else "has ended"
            raise unauthorized(f"The key {key.id} {told}. Ask whoever gave it to you for another.", key.id)
        wanted = guards.READERS if right == guards.READ else (right,)
        if not any(one in key.rights for one in wanted):
            told = f"The key {key.id} has no right to {' or '.join(wanted)}; it has: {', '.join(key.rights)}."
            raise forbidden(told, key.id)
        if model and key.models and model not in key.models:
            raise forbidden(f"The key {key.id} may not ask the model {model[:100]!r}.", key.id)
        if key.rate:
            self._take(key, now)
        return self._grants[key.id]

    def charge(self, grant: guards.Grant, rows: int) -> None:
        """Count rows against the quota of a key.

        Parameters
        ----------
        grant : Grant
            From ``check``.
        rows : int

        Raises
        ------
        Refused
            With 429 where the key has not so many left today; nothing is counted then.
        """
        key = self._keys.get(grant.key)
        if key is None or not key.quota:
            return
        now = self._clock()
        allowance = self._find_allowance(key, now)
        if allowance.used + rows > key.quota:
            left = max(key.quota - allowance.used, 0)
            raise Refused(
                429,
                "quota",
                f"The key {key.id} has {left:,} of {key.quota:,} rows left today ({key.zone}); this request has "
                f"{rows:,}.",
                retry_after=allowance.ends - now,
                key=key.id,
            )
        allowance.charge(rows)

    def give_back(self, grant: guards.Grant, rows: int) -> None:
        """Count rows no more that ``charge`` has counted, today.

        Parameters
        ----------
        grant : Grant
        rows : int
        """
        key = self._keys.get(grant.key)
        if key is not None and key.quota:
            allowance = self._find_allowance(key, self._clock())
            allowance.charge(-min(rows, allowance.used))

    def list_uses(self) -> list[Use]:
        """Return what each key that has a rate or a quota was given here since the last call."""
        now, uses = self._clock(), []
        for key in self._keys.values():
            if not (key.rate or key.quota) or key.describe_state(now) != "valid":
                continue
            allowance = self._find_allowance(key, now)
            known = allowance.used - allowance.charged
            uses.append(
                Use(key.id, *read_rate(key.rate), allowance.ends, known, allowance.taken, allowance.charged)
            )
            allowance.taken = allowance.charged = 0
        return uses

    def settle(self, balances: Iterable[Balance]) -> None:
        """Take over what this process and others have given; what was given here meanwhile comes on top."""
        now = self._clock()
        for balance in balances:
            allowance = self._allowances.get(balance.key)
            if allowance is None:
                continue
            allowance.tokens, allowance.at = balance.tokens - allowance.taken, now
            if balance.ends == allowance.ends:
                allowance.used = balance.used + allowance.charged

    # ---------------------------------------------------------------------------------------------------------

    def _find(self, authorization: str | None) -> Key:
        """Return the key in a header, in a time that says nothing of how wrong a wrong one is."""
        if not authorization:
            raise unauthorized("This server takes keys. Send one in the header Authorization, as Bearer KEY.")
        scheme, _, presented = authorization.partition(" ")
        if scheme.lower() == "basic":  # a browser would send it for other sites, too
            raise unauthorized("A key is no password here. Send it in the header Authorization, as Bearer KEY.")
        name, secret = "", ""
        if scheme.lower() == "bearer" and len(presented) < 200:
            mark, _, rest = presented.strip().partition("_")
            name, _, secret = rest.partition("_") if mark == "dlp" else ("", "", "")
        key = self._keys.get(name)
        same = hmac.compare_digest(hash_secret(secret), NOBODY if key is None else key.hash)
        if key is None or not same:
            raise unauthorized("The key is not known here.")
        return key

    def _take(self, key: Key, now: float) -> None:
        """Take a request out of what the rate of a key allows now."""
        rate, burst = read_rate(key.rate)
        if wait := self._find_allowance(key, now).take(rate, burst, now):
            raise Refused(429, "rate", f"The key {key.id} may ask {key.rate}.", retry_after=wait, key=key.id)

    def _find_allowance(self, key: Key, now: float) -> Allowance:
        """Return what a key has used; a new day begins at midnight of its time zone."""
        allowance = self._allowances.get(key.id)
        if allowance is None:
            allowance = self._allowances[key.id] = Allowance(read_rate(key.rate)[1], now)
        if now >= allowance.ends:
            allowance.begin_day(begin_of_day(find_day(now, key.zone) + timedelta(days=1), key.zone))
        return allowance

    def _look(self) -> tuple[int, ...]:
        try:
            found = os.stat(self.path)
        except OSError:
            return ()
        return found.st_mtime_ns, found.st_size, found.st_ino, found.st_mode, found.st_uid

    def _read_again(self) -> None:
        self._looked_at = time.monotonic()
        seen = self._look()
        if seen == self._seen:
            return
        try:
            self._keys = read_keys(self.path)
        except KeysUnusable as error:
            if str(error) != self._trouble:
                self._say(f"{error} The keys that were read before stay as they were.")
            self._trouble = str(error)
            return
        self._seen = seen
        if self._trouble:
            self._say(f"Keys are read from {self.path} again.")
            self._trouble = ""
        self._grants = self._make_grants()

    def _make_grants(self) -> dict[str, Grant]:
        return {key.id: Grant(key.id, key.models, frozenset(key.rights)) for key in self._keys.values()}


async def await_keys(
    find: Callable[[], KeyRing | None], take: Callable[[KeyRing], None], *, say: Callable[[str], None]
) -> None:
    """Hand the keys to a server that began without any, once there are some.

    Parameters
    ----------
    find : callable
        Returns the keys; ``None`` while there is no file of them.
    take : callable
        Gets them; every request needs one from then on.
    say : callable
        Gets a line then, and one when the file cannot be used.
    """
    trouble = ""
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        try:
            ring = await asyncio.to_thread(find)
        except DlpipeError as error:
            if str(error) != trouble:
                say(f"{error} Until then, this server asks for no key.")
            trouble = str(error)
            continue
        if ring is not None:
            take(ring)
            say(f"There are keys now, in {ring.path}: every request needs one.")
            return


def unauthorized(message: str, key: str = "") -> Refused:
    """Return the refusal of somebody who is not known, or of a ``key`` that is no longer valid."""
    return Refused(401, "unauthorized", message, headers=CHALLENGE, key=key)


def forbidden(message: str, key: str) -> Refused:
    """Return the refusal of a ``key`` that may not do this."""
    return Refused(403, "forbidden", message, key=key)
