"""What the gate said of a version last, as a tag of the version."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from dlpipe.registry.names import VERDICT
from dlpipe.registry.scores import from_plain, to_plain
from dlpipe.task import Evaluation


class Judgement(Protocol):
    """What a gate says of a candidate."""

    @property
    def passed(self) -> bool:
        """Whether it may become champion."""

    @property
    def reason(self) -> str:
        """Why, in one line."""

    @property
    def champion(self) -> int | None:
        """The version that it was judged against."""

    @property
    def rival(self) -> Evaluation | None:
        """The scores of that version; ``None`` where it has none."""


@dataclass(frozen=True)
class RecordedVerdict:
    """A judgement as the tag of a version keeps it: see ``Judgement``."""

    passed: bool
    reason: str
    champion: int | None = None
    rival: Evaluation | None = None


def make_verdict_tag(judgement: Judgement) -> tuple[str, str]:
    """Return the name and the value of the tag that keeps ``judgement``."""
    kept = {
        "passed": judgement.passed,
        "reason": judgement.reason,
        "champion": judgement.champion,
        "rival": to_plain(judgement.rival) if judgement.rival else None,
    }
    return VERDICT, json.dumps(kept)


def read_verdict(tags: Mapping[str, str]) -> RecordedVerdict | None:
    """Return the judgement that the tags of a version keep; ``None`` where they keep none.

    Examples
    --------
    >>> name, value = make_verdict_tag(RecordedVerdict(False, "not promoted: it is worse", 3))
    >>> read_verdict({name: value})
    RecordedVerdict(passed=False, reason='not promoted: it is worse', champion=3, rival=None)
    """
    try:
        kept = json.loads(tags[VERDICT])
        rival = from_plain(kept["rival"]) if kept["rival"] else None
        return RecordedVerdict(bool(kept["passed"]), str(kept["reason"]), kept["champion"], rival)
    except (ValueError, TypeError, LookupError, AttributeError):  # none, or one that somebody has changed
        return None
