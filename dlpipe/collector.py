"""Python's garbage collector, for processes that import much and end soon."""

from __future__ import annotations

import atexit
import gc

WHOLE = 1000
"""After how many collections of the young objects all are looked through; Python's own number is 10."""


def collect_seldom() -> None:
    """Collect cycles among the old objects of this process a hundred times less often, among young ones as before.

    Imports make a million objects that stay, and Python looks through them again with each quarter more: that was
    a quarter of the CPU time of importing MLflow, torch and transformers. It is called by programs of ours
    (commands, tasks, trials), never by importing the library, which must not change other people's processes.
    """
    young, middle, _ = gc.get_threshold()
    gc.set_threshold(young, middle, WHOLE)
    # at its end Python looks through all objects once more: 0.8 s where MLflow is imported
    atexit.register(gc.freeze)
