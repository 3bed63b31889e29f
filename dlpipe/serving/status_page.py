"""The first page of a server: which version answers for what, why one does not, traffic, errors and swaps."""

from __future__ import annotations

import shlex
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlpipe import __version__
from dlpipe.pages import make_environment
from dlpipe.registry import CHAMPION, classifier_name, companion_name
from dlpipe.serving.followed import Followed, Swap
from dlpipe.serving.following import Models
from dlpipe.serving.log_rows import dump
from dlpipe.serving.recent import Asked, Recent, merge
from dlpipe.serving.served import Served
from dlpipe.time_formats import format_distance

if TYPE_CHECKING:
    from jinja2 import Template

LAST_SWAPS = 20
LONGEST_TEXT = 60
KEY_OPTION = ' -H "Authorization: Bearer $DLPIPE_KEY"'
"""What `curl` takes where there are keys."""
NO_EXAMPLE = {"text": "I loved it."}
WIDTH, HEIGHT = 600, 48
"""Units of the picture of requests; it is as wide as the page."""


@dataclass(frozen=True)
class ModelView:
    """What answers at one address, and what is asked of it.

    Attributes
    ----------
    name, which : str
        Of the model; an alias or a number.
    version : int or None
        What answers.
    engine : str
    status : str
        ``answers``, ``refused``, ``registry away``, ``gone``, ``not loaded``, ``not served`` or ``no champion``.
    why : str
        Of a status that is not as it should be.
    asked : Asked
        In the last minutes.
    example : mapping
        A row that it reads; empty where none is known.
    """

    name: str
    which: str
    version: int | None
    engine: str
    status: str
    why: str
    asked: Asked
    example: Mapping[str, Any] = field(default_factory=dict)

    @property
    def path(self) -> str:
        """Its address."""
        return f"/models/{self.name}" if self.which == CHAMPION else f"/models/{self.name}/{self.which}"

    @property
    def bad(self) -> bool:
        """Whether somebody should look at it."""
        return self.status in ("refused", "registry away", "gone")


@dataclass(frozen=True)
class SwapView:
    """A swap, and of what."""

    name: str
    alias: str
    swap: Swap


def render(
    models: Models,
    recent: Recent,
    *,
    registered: Mapping[str, Mapping[str, int]],
    unseen: str = "",
    trouble: str = "",
    waiting: int = 0,
    draining: bool = False,
    address: str = "",
    keys: bool = False,
    about: Mapping[str, Any] = {},
) -> str:
    """Return the page.

    Parameters
    ----------
    models : Models
    recent : Recent
    registered : mapping
        The aliases of each registered model.
    unseen : str
        Why the registry could not be asked.
    trouble : str
        Why requests cannot be logged.
    waiting : int
        Rows.
    draining : bool
        Whether the server is about to end.
    address : str
        At which whoever asks has reached it.
    keys : bool
        Whether it takes keys.
    about : mapping
        What the foot shows of the server.
    """
    now = time.time()
    asked = recent.sum_up()
    views = view_models(models, registered, asked)
    whole = sum_all(asked)
    return _template().render(
        now=now,
        about={"dlpipe": __version__, **about},
        views=views,
        words=summarize(views, draining=draining),
        unseen=unseen,
        trouble=trouble,
        attention=any(view.bad for view in views),
        waiting=waiting,
        whole=whole,
        rate=whole.requests / recent.seconds,
        seconds=recent.seconds,
        lost=asked.get(("", "")),
        bars=draw_bars(recent.list_slots()),
        swaps=view_swaps(models),
        command=make_command(address, example, keys=keys) if (example := choose_example(views)) else "",
        distance=lambda at: format_distance(at, now),
        milliseconds=format_milliseconds,
        errors=format_errors,
    )


@cache
def _template(name: str = "server.html") -> Template:
    folder = Path(__file__).with_name("templates")
    return make_environment([folder], product="dlpipe serving").get_template(name)


def render_addresses(document: Mapping[str, Any], *, keys: bool) -> str:
    """Return the page of the addresses in an OpenAPI document, of a server that takes keys or none."""
    addresses = [
        (method.upper(), path, described["summary"])
        for path, item in document["paths"].items()
        for method, described in item.items()
        if method in ("get", "post")
    ]
    return _template("addresses.html").render(
        addresses=addresses,
        description=document["info"]["description"],
        key=KEY_OPTION if keys else "",
        about={"dlpipe": __version__},
    )


def view_models(
    models: Models, registered: Mapping[str, Mapping[str, int]], asked: Mapping[tuple[str, str], Asked]
) -> list[ModelView]:
    """Return a view of each address that answers or should: what needs a look first, then by name."""
    nothing = Asked()
    views = [
        view_followed(followed, asked.get((followed.name, followed.alias), nothing))
        for followed in models.list_followed()
    ]
    for served in models.list_numbered():
        which, name = str(served.version.version), served.version.name
        number = served.version.version
        views.append(
            ModelView(
                *(name, which, number, served.engine, "answers", ""),
                asked.get((name, which), nothing),
                find_example(served),
            )
        )
    there = {(view.name, view.which) for view in views}
    # a version that answers for an alias is not loaded a second time when it is asked for by its number
    views += [
        ModelView(name, which, int(which), "", "answers", "", found)
        for (name, which), found in asked.items()
        if which.isdecimal() and (name, which) not in there
    ]
    for name, aliases in registered.items():
        # what is named is loaded at the start, and nothing else is served; an explainer has no address of its own
        if (name, CHAMPION) in there or models.only or is_explainer(name, registered):
            continue
        champion = aliases.get(CHAMPION)
        status, why = "no champion" if champion is None else "not loaded", models.unservable.find(name, champion)
        views.append(ModelView(name, CHAMPION, champion, "", "not served" if why else status, why, nothing))
    return sorted(views, key=lambda view: (not view.bad, view.name, view.which != CHAMPION, view.which))


def is_explainer(name: str, registered: Collection[str]) -> bool:
    """Return whether a name is that of an explainer of a registered model.

    Examples
    --------
    >>> [is_explainer("reviews-explainer", names) for names in (["reviews"], [])]
    [True, False]
    """
    base = classifier_name(name)
    return base in registered and name == companion_name(str(base), "explainer")


def view_followed(followed: Followed, asked: Asked) -> ModelView:
    """Return the view of an alias."""
    served = followed.served
    number, engine = (None, "") if served is None else (served.version.version, served.engine)
    status, why = "answers", ""
    if followed.gone:
        status, why = "gone", followed.gone
    elif followed.refused:
        wanted = "" if followed.wanted is None else f"v{followed.wanted.version} is refused"
        stays = "" if number is None else f", v{number} goes on answering"
        status, why = "refused", f"{wanted}{stays}: {followed.refused}"
    elif followed.unseen:
        status, why = "registry away", followed.unseen
    return ModelView(followed.name, followed.alias, number, engine, status, why, asked, find_example(served))


def find_example(served: Served | None) -> Mapping[str, Any]:
    """Return the first row that a version was registered with; nothing where it is not known."""
    return served.example[0] if served is not None and served.example else {}


def choose_example(views: Sequence[ModelView]) -> ModelView | None:
    """Return what the page shows how to ask: one whose rows are known, or one that the first request loads."""
    known = [view for view in views if view.example]
    return next(iter(known or [view for view in views if view.status in ("answers", "not loaded")]), None)


def make_command(address: str, view: ModelView, *, keys: bool = False) -> str:
    """Return a command that asks for a prediction.

    Examples
    --------
    >>> view = ModelView("reviews", "champion", 1, "torch", "answers", "", Asked(), {"text": "I didn't like it."})
    >>> print(make_command("http://127.0.0.1:8720", view))
    curl http://127.0.0.1:8720/models/reviews --json '{"text":"I didn'"'"'t like it."}'
    """
    row = {name: cut(value) if isinstance(value, str) else value for name, value in view.example.items()}
    key = KEY_OPTION if keys else ""
    return f"curl {address}{view.path}{key} --json {shlex.quote(dump(row or NO_EXAMPLE).decode())}"


def cut(text: str) -> str:
    """Return the beginning of a text, as long as it stands on a line of the page."""
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT].rstrip()}..."


def view_swaps(models: Models) -> list[SwapView]:
    """Return the last swaps of all models, the newest first."""
    views = [
        SwapView(followed.name, followed.alias, swap)
        for followed in models.list_followed()
        for swap in followed.swaps
    ]
    return sorted(views, key=lambda view: -view.swap.at)[:LAST_SWAPS]


def summarize(views: Sequence[ModelView], *, draining: bool = False) -> str:
    """Return the state of the server in a sentence.

    Examples
    --------
    >>> summarize([])
    'No model is registered.'
    """
    if draining:
        return "The server is ending: requests under way get their answers, new ones are refused."
    if not views:
        return "No model is registered."
    if bad := [view for view in views if view.bad]:
        first = ", ".join(f"{view.name}@{view.which} ({view.status})" for view in bad[:3])
        more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
        return f"Look at {first}{more}."
    loaded = [view for view in views if view.status == "answers"]
    if not loaded:
        return "No model is loaded yet: the first request loads it."
    return f"{len(loaded)} version{' answers' if len(loaded) == 1 else 's answer'}; nothing is wrong."


def sum_all(asked: Mapping[tuple[str, str], Asked]) -> Asked:
    """Return what was asked of all models."""
    return merge(asked.values())


def draw_bars(slots: Sequence[tuple[int, int]]) -> list[tuple[float, float, float, str]]:
    """Return left, top, height and class of the bars of a picture: requests, and over them errors.

    Parameters
    ----------
    slots : sequence of (requests, errors)
        From the oldest to the newest.

    Examples
    --------
    >>> draw_bars([(0, 0), (4, 1)])
    [(300.0, 0.0, 48.0, 'bar'), (300.0, 36.0, 12.0, 'bar error')]
    """
    most = max((requests for requests, _ in slots), default=0)
    if not most:
        return []
    step = WIDTH / len(slots)
    bars = []
    for place, slot in enumerate(slots):
        for number, kind in zip(slot, ("bar", "bar error"), strict=True):
            if number:
                height = round(HEIGHT * number / most, 1)
                bars.append((round(place * step, 1), round(HEIGHT - height, 1), height, kind))
    return bars


def format_milliseconds(value: float | None) -> str:
    """Return a duration for people.

    Examples
    --------
    >>> [format_milliseconds(value) for value in (None, 0.84, 12.3, 1234.0)]
    ['', '0.8 ms', '12 ms', '1.2 s']
    """
    if value is None:
        return ""
    if value >= 1000:
        return f"{value / 1000:.1f} s"
    return f"{value:.1f} ms" if value < 10 else f"{value:.0f} ms"


def format_errors(asked: Asked) -> str:
    """Return the errors by status, the most frequent first.

    Examples
    --------
    >>> format_errors(Asked({200: 9, 404: 1, 503: 3}))
    '3 of 503, 1 of 404'
    """
    errors = sorted((-number, status) for status, number in asked.statuses.items() if status >= 400)
    return ", ".join(f"{-number} of {status}" for number, status in errors)
