"""The gate's last step: moving the alias ``champion``."""

from __future__ import annotations

from dataclasses import dataclass

from dlpipe.registry.versions import CHAMPION, ModelVersion, model_aliases, read_version
from dlpipe.tracking import open_store, tracking_errors


@dataclass(frozen=True)
class Promotion:
    """What ``promote`` did.

    Attributes
    ----------
    version : ModelVersion
        The candidate, with the aliases it has now.
    moved : bool
        Whether the alias ``champion`` moved.
    previous : int or None
        The version that was champion before.
    """

    version: ModelVersion
    moved: bool
    previous: int | None

    def __str__(self) -> str:
        before = "none" if self.previous is None else f"v{self.previous}"
        if self.moved:
            return f"champion of {self.version.name} moves from {before} to v{self.version.version}"
        if self.previous == self.version.version:
            return f"champion of {self.version.name} is {before} already"
        return f"champion of {self.version.name} stays {before}"


def promote(version: ModelVersion, *, verdict_passed: bool) -> Promotion:
    """Point the alias ``champion`` at ``version`` if the verdict allows it, and return what happened.

    Nothing moves when the verdict says no or ``version`` is the champion already.
    """
    store = open_store()
    with tracking_errors(store):
        client = store.client()
        previous = model_aliases(client, version.name).get(CHAMPION)
        moved = verdict_passed and previous != version.version
        if moved:
            client.set_registered_model_alias(version.name, CHAMPION, str(version.version))
        return Promotion(read_version(client, version.name, version.version), moved, previous)
