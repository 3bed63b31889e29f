"""Where each second of ``make train``'s flow goes: process starts and imports, model compute, the rest.

The flow that ships runs once on the sample, in a folder of its own, as ``make train`` runs it once installed.
A probe (``probe/sitecustomize.py``) notes the imports and the known calls of every process.

    python tests/bench/flow.py
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[2]
PROBE = Path(__file__).resolve().parent / "probe"
COMPUTE = ("training", "forward", "features", "baseline", "export")
KEPT = ("artifacts", "cards")


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    with tempfile.TemporaryDirectory(prefix="dlpipe-bench-") as name:
        folder = Path(name)
        for part in ("flows", "data"):
            shutil.copytree(PROJECT / part, folder / part, ignore=shutil.ignore_patterns("tables", "downloads"))
        seconds, said = run(folder)
        processes = [json.loads(file.read_text()) for file in (folder / "probe").iterdir()]
    print_table(steps(processes), seconds)
    print(f"\nThe whole run took {seconds:.0f} s; {' '.join(said.split())}.")


def run(folder: Path) -> tuple[float, str]:
    """Run the flow in ``folder``; return its seconds and its line about the model."""
    (folder / "probe").mkdir()
    paths = os.pathsep.join(filter(None, [str(PROBE), str(PROJECT), os.environ.get("PYTHONPATH")]))
    variables = {**os.environ, "PYTHONPATH": paths, "_DLPIPE_PROBE": str(folder / "probe")}
    began = time.monotonic()
    made = subprocess.run(
        [sys.executable, "flows/train_flow.py", "run"],
        cwd=folder,
        env=variables,
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode:
        sys.exit(made.stdout[-2000:] + made.stderr[-2000:])
    said = re.findall(r"model +(accuracy [\d.]+)", made.stdout + made.stderr)
    return time.monotonic() - began, said[-1]


def steps(processes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the seconds of each step by kind, in the order of the run."""
    launcher = min(processes, key=lambda process: process["started"])
    tasks = sorted(filter(step_name, processes), key=lambda process: process["started"])
    ends = [task["started"] for task in tasks[1:]] + [launcher["ended"]]
    rows = [step(task, until, processes) for task, until in zip(tasks, ends, strict=True)]
    return [{"step": "(launch)", "all": tasks[0]["started"] - launcher["started"], "parts": {}}, *rows]


def step_name(process: dict[str, Any]) -> str | None:
    """Return the step that ``process`` runs, or None for one that is no task."""
    command = process["command"]
    return command[command.index("step") + 1] if "step" in command and "--task-id" in command else None


def step(task: dict[str, Any], until: float, processes: list[dict[str, Any]]) -> dict[str, Any]:
    spans = dict(task["spans"])
    trials = [
        process["spans"]["training"]
        for process in processes
        if "training" in process["spans"] and process["pid"] != task["pid"]
        if task["started"] < process["started"] < until
    ]
    if "trials" in spans:
        spans["training"] = max(trials, default=0.0)
    parts = {
        "imports": task["imports"],
        "compute": sum(spans.get(name, 0.0) for name in COMPUTE),
        "kept": sum(spans.get(name, 0.0) for name in KEPT),
    }
    return {"step": step_name(task), "all": until - task["started"], "parts": parts}


def print_table(rows: list[dict[str, Any]], seconds: float) -> None:
    heads = ["process start and imports", "model compute", "artifacts and cards", "the rest", "all"]
    print(f"| step | {' | '.join(f'{head}, s' for head in heads)} |\n|---|---|---|---|---|---|")
    sums = {name: sum(row["parts"].get(name, 0.0) for row in rows) for name in ("imports", "compute", "kept")}
    launch = seconds - sum(row["all"] for row in rows)
    rows[0]["all"] += launch
    for row in [*rows, {"step": "whole run", "all": seconds, "parts": sums}]:
        parts = [row["parts"].get(name, 0.0) for name in ("imports", "compute", "kept")]
        cells = [*parts, row["all"] - sum(parts), row["all"]]
        print(f"| {row['step']} | " + " | ".join(f"{cell:.1f}" for cell in cells) + " |")


if __name__ == "__main__":
    main()
