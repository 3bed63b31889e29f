"""What the pages of the scheduler and of a server have in common: frame, style, tables of a status, headers.

A page needs no script and nothing from elsewhere; the browser that shows it is told to load nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dlpipe.terminal import make_visible
from dlpipe.time_formats import format_span, format_time

if TYPE_CHECKING:
    from jinja2 import BaseLoader, Environment

TEMPLATES = Path(__file__).with_name("templates")
STYLE = TEMPLATES / "style.css"
REFRESH_SECONDS = 5
NOTHING_ELSE = ("base-uri 'none'", "form-action 'self'", "frame-ancestors 'none'")
POLICY = "; ".join(["default-src 'none'", "style-src 'self'", "img-src data:", *NOTHING_ELSE])
HEADERS = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store"}
"""Let browsers keep nothing and guess nothing; with ``POLICY``, they load nothing from elsewhere."""


def make_loader(*folders: Path) -> BaseLoader:
    """Return what finds the templates in ``folders``, and those that all pages share.

    Parameters
    ----------
    folders : path
        Of a product's own templates, which extend ``base.html`` and import from ``shared.html``.
    """
    from jinja2 import FileSystemLoader

    return FileSystemLoader([*folders, TEMPLATES])


def prepare(environment: Environment, *, product: str) -> None:
    """Give an environment of templates what all pages use; texts from elsewhere are made visible.

    Parameters
    ----------
    environment : jinja2.Environment
        With autoescape.
    product : str
        What the head of each page says, such as ``dlpipe scheduler``.
    """
    environment.trim_blocks = environment.lstrip_blocks = True
    environment.finalize = lambda value: make_visible(value) if type(value) is str else value
    environment.globals.update(product=product, refresh=REFRESH_SECONDS, span=format_span, when=format_time)


def make_environment(folders: Sequence[Path], *, product: str) -> Environment:
    """Return an environment of templates for a product that brings none of its own, as Flask does."""
    from jinja2 import Environment

    environment = Environment(loader=make_loader(*folders), autoescape=True)
    prepare(environment, product=product)
    return environment
