"""What a process of trials imports before it gets its first one: Ray does so while the search is prepared.

The threads are limited first: OpenMP counts them when torch is imported.
"""

from __future__ import annotations

import importlib

from dlpipe.collector import collect_seldom
from dlpipe.tuning.trials import limit_threads, read_threads

HEAVY = ("dlpipe.training.loop", "ray.tune")
"""What a trial imports."""

collect_seldom()
limit_threads(read_threads())
for name in HEAVY:
    importlib.import_module(name)
