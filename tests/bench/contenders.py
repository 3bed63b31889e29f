"""What benchmarks share: a contender in a process of its own, and how fast contenders were beside each other."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from typing import Any

Runs = dict[str, list[dict[str, Any]]]
"""What each contender did in each repeat; ``rows_per_second`` is how fast it was."""


def run_contender(script: str, name: str, *arguments: object) -> dict[str, Any]:
    """Return what ``script --worker name`` prints as JSON in its last line; end with its errors where it fails."""
    command = [sys.executable, script, "--worker", name, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def measure_speed(runs: Runs, name: str) -> float:
    """Return the median of a contender's rows per second."""
    return statistics.median(run["rows_per_second"] for run in runs[name])


def compare_speed(runs: Runs, name: str, other: str) -> float:
    """Return how many times as fast a contender was as another: the median over repeats."""
    pairs = zip(runs[name], runs[other], strict=True)
    return statistics.median(first["rows_per_second"] / second["rows_per_second"] for first, second in pairs)


def say(line: str) -> None:
    """Print progress, on stderr: the table alone goes to stdout."""
    print(line, file=sys.stderr, flush=True)
