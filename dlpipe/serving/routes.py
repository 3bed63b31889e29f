"""Which address means what: the ones that take a body."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from dlpipe.serving.bodies import Shape

Action = Literal["predict", "explain", "feedback"]


@dataclass(frozen=True, slots=True)
class Route:
    """What an address asks.

    Attributes
    ----------
    shape, action : str
    name : str
        Of the model; empty where the only one is meant.
    which : str
        Version or alias; empty for the champion.
    """

    shape: Shape
    action: Action
    name: str
    which: str = ""

    @property
    def alias(self) -> str:
        """The alias that is meant; empty where it is the number of a version."""
        return "" if self.which.isdecimal() else self.which or "champion"


LONGEST_PATH = 1_000
"""Characters; no address is longer, and thousands of routes are in memory."""


def find_route(path: str) -> Route | None:
    """Return what a path asks of a body; ``None`` for one that takes none.

    Examples
    --------
    >>> find_route("/models/reviews/3/invocations")
    Route(shape='mlflow', action='predict', name='reviews', which='3')
    >>> find_route("/v2/models/reviews/versions/challenger/infer")
    Route(shape='v2', action='predict', name='reviews', which='challenger')
    >>> find_route("/models/reviews").which, find_route("/models")
    ('', None)
    """
    return find_short_route(path) if len(path) <= LONGEST_PATH else None


@lru_cache(maxsize=1024)
def find_short_route(path: str) -> Route | None:
    """Return what a path asks of a body, as ``find_route`` does, of which it is the memory."""
    _, *words = path.split("/")
    if not all(words):
        return None
    match words:
        case ["invocations"]:
            return Route("mlflow", "predict", "")
        case ["models", name]:
            return Route("plain", "predict", name)
        case ["models", name, "feedback"]:
            return Route("plain", "feedback", name)
        case ["models", name, ("invocations" | "explain") as word]:
            return make_route(name, "", word)
        case ["models", name, which]:
            return Route("plain", "predict", name, which)
        case ["models", name, which, ("invocations" | "explain") as word]:
            return make_route(name, which, word)
        case ["v2", "models", name, "infer"]:
            return Route("v2", "predict", name)
        case ["v2", "models", name, "versions", which, "infer"]:
            return Route("v2", "predict", name, which)
    return None


def make_route(name: str, which: str, word: str) -> Route:
    """Return the route whose last word says what is to be done."""
    return (
        Route("mlflow", "predict", name, which)
        if word == "invocations"
        else Route("plain", "explain", name, which)
    )
