"""Python's garbage collector, for processes that import much and end soon."""

from __future__ import annotations

import gc

WHOLE = 1000
"""After how many collections of the young objects all are looked through; Python's own number is 10."""


def collect_seldom() -> None:
    """Have all objects of the process looked through for cycles a hundred times less often; young ones as ever.

    Imports make a million objects that stay, and Python looks through them again with each quarter more: that is a
    quarter of the time in which MLflow, torch and transformers are imported.
    """
    young, middle, _ = gc.get_threshold()
    gc.set_threshold(young, middle, WHOLE)
