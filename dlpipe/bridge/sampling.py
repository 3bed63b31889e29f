"""What running tasks take, looked at from outside every few moments: MLflow shows it as "System metrics".

Each sample is a point that the attempt has reported, in the same file: it stands in MLflow at once and for good.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dlpipe.bridge.marks import RunMarks
from dlpipe.bridge.reported import make_line

NAME = "system"
"""Of the series: MLflow draws what begins with it on a page of its own."""
ALL = 200
"""So many samples of a task are taken, then every second one of as many, then every fourth, and so on."""
GPU_QUESTION = ("--query-gpu=index,utilization.gpu,memory.used", "--format=csv,noheader,nounits")


@dataclass(frozen=True)
class _Process:
    """A process: seconds of processor time with those of children that have ended, memory in bytes."""

    pid: int
    parent: int
    began: float
    cpu_seconds: float
    memory: int


@dataclass
class Sampler:
    """Samples of the tasks of one run.

    Parameters
    ----------
    marks : RunMarks
        Those of the run.
    interval : float
        Seconds between two samples of a task.
    """

    marks: RunMarks
    interval: float
    _latest: dict[str, tuple[int, float, float]] = field(default_factory=dict)
    _gpu_command: str | None = field(default_factory=lambda: shutil.which("nvidia-smi"))

    def start(self) -> None:
        """Take samples as long as this process lives."""
        threading.Thread(target=self._go_on, daemon=True).start()

    def _go_on(self) -> None:
        while True:
            with contextlib.suppress(Exception):  # a task that has just ended, a full disk: there is a next time
                self.sample()
            time.sleep(self.interval)

    def sample(self) -> None:
        """Take a sample of each running task for which it is time.

        The number of a sample is the task's age in intervals, so that another process can go on with it.
        """
        processes = {process.pid: process for process in _read_processes()}
        now = time.time()
        due: dict[str, tuple[int, dict[str, float]]] = {}
        for key, pid in _find_tasks(self.marks.pathspec, processes).items():
            step = int((now - processes[pid].began) / self.interval)
            latest, at, cpu_before = self._latest.get(key, (-1, now, 0.0))
            if step == latest or step % (1 << (step // ALL).bit_length()):
                continue
            tree = [processes[member] for member in _find_tree(pid, processes)]
            if not any(process.memory for process in tree):  # it has ended, and nobody has waited for it
                continue
            cpu = sum(process.cpu_seconds for process in tree)
            record = {"memory_mb": round(sum(process.memory for process in tree) / 2**20, 1)}
            if now > at:
                record["cpu_percentage"] = round(max(0.0, cpu - cpu_before) / (now - at) * 100, 1)
            self._latest[key] = (step, now, cpu)
            due[key] = (step, record)
        gpus = self._read_gpus() if due else {}
        for key, (step, record) in due.items():
            self.marks.note_points(key, make_line(NAME, {"step": step, **record, **gpus}, int(now * 1000)))

    def _read_gpus(self) -> dict[str, float]:
        """Return what each GPU of the machine does; nothing where there is none."""
        if self._gpu_command is None:
            return {}
        try:
            done = subprocess.run(
                [self._gpu_command, *GPU_QUESTION], capture_output=True, text=True, timeout=10, check=True
            )
            return read_gpus(done.stdout)
        except (OSError, subprocess.SubprocessError, ValueError):
            self._gpu_command = None  # it will not answer the next time either
            return {}


def read_gpus(answer: str) -> dict[str, float]:
    """Return what ``nvidia-smi`` says of each GPU, under the names that they have in MLflow.

    Examples
    --------
    >>> read_gpus("0, 87, 40213")
    {'gpu_0_utilization_percentage': 87.0, 'gpu_0_memory_mb': 40213.0}
    """
    found = {}
    for line in answer.splitlines():
        number, busy, memory = (part.strip() for part in line.split(","))
        found[f"gpu_{int(number)}_utilization_percentage"] = float(busy)
        found[f"gpu_{int(number)}_memory_mb"] = float(memory)
    return found


def _find_tasks(pathspec: str, processes: Mapping[int, _Process]) -> dict[str, int]:
    """Return the process of each running task of the run by the key of its attempt."""
    _, _, run_id = pathspec.partition("/")
    found: dict[str, dict[int, int]] = {}
    for pid, process in processes.items():
        with contextlib.suppress(OSError, ValueError, IndexError):
            words = Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")
            if words[words.index("--run-id") + 1] != run_id:
                continue
            step = words[words.index("step") + 1]
            task, attempt = (words[words.index(option) + 1] for option in ("--task-id", "--retry-count"))
            found.setdefault(f"{pathspec}/{step}/{task}/{attempt}", {})[pid] = process.parent
    # a process that a task has forked has the same command
    return {
        key: next(pid for pid, parent in same.items() if parent not in same) for key, same in found.items() if same
    }


def _find_tree(pid: int, processes: Mapping[int, _Process]) -> Collection[int]:
    """Return a process and all below it."""
    below: dict[int, list[int]] = {}
    for process in processes.values():
        below.setdefault(process.parent, []).append(process.pid)
    tree: list[int] = []
    waiting = [pid]
    while waiting:
        tree.append(waiting.pop())
        waiting += [child for child in below.get(tree[-1], ()) if child not in tree]
    return tree


def _read_processes() -> Iterator[_Process]:
    """Yield the processes of this machine, as Linux tells them; elsewhere none."""
    ticks, page = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            said = (entry / "stat").read_text(errors="replace")
            up = float(Path("/proc/uptime").read_text().split()[0])
        except OSError:  # it has ended
            continue
        fields = said[said.rindex(")") + 2 :].split()  # a name may have blanks and brackets
        yield _Process(
            pid=int(entry.name),
            parent=int(fields[1]),
            began=time.time() - up + int(fields[19]) / ticks,
            cpu_seconds=sum(map(int, fields[11:15])) / ticks,
            memory=int(fields[21]) * page,
        )
