"""A power cut: what a process did to a folder, and the states in which a disk could be left at any moment of it.

``power.c``, loaded into the process before the C library, writes down every write, sync and change of names.
``states_after`` replays that on a model of a disk which promises no more than POSIX does: the content of a file is
there once the file was synced, a name once its folder was. What was not synced may be there, be lost, or be torn
in pages, each file and each folder by itself; only the changes to one folder keep their order.
"""

from __future__ import annotations

import copy
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pytest

PAGE = 4096
ROOT = 0


class Op(NamedTuple):
    """One thing that the process did, or ``mark``: what it said it had done by then."""

    name: str
    inode: int
    offset: int
    data: bytes
    first: str
    second: str


def record(folder: Path, program: str, *arguments: object, scratch: Path) -> list[Op]:
    """What ``program`` does to ``folder``; it calls ``mark(text)`` for what must be there from then on."""
    if not (compiler := shutil.which("cc") or shutil.which("gcc")):
        pytest.skip("recording needs a C compiler")
    library, log = scratch / "power.so", scratch / "power.log"
    source = Path(__file__).with_name("power.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    log.touch()
    mark = (
        "import os\n"
        "def mark(text):\n"
        "    log = os.open(os.environ['POWER_LOG'], os.O_WRONLY | os.O_APPEND)\n"
        "    os.write(log, f'mark\\t0\\t0\\t{len(text.encode())}\\t\\t\\n{text}'.encode())\n"
        "    os.close(log)\n"
    )
    environment = {**os.environ, "LD_PRELOAD": str(library), "POWER_ROOT": str(folder), "POWER_LOG": str(log)}
    command = [sys.executable, "-c", mark + program, str(folder), *map(str, arguments)]
    subprocess.run(command, env=environment, check=True)
    return list(_read_ops(log.read_bytes()))


def _read_ops(log: bytes) -> Iterator[Op]:
    at = 0
    while at < len(log):
        end = log.index(b"\n", at)
        name, inode, offset, length, first, second = log[at:end].decode().split("\t")
        at = end + 1 + int(length)
        yield Op(name, int(inode), int(offset), log[end + 1 : at], first, second)


@dataclass
class File:
    """Content as the process sees it, and as it was when it was last synced."""

    now: bytes = b""
    synced: bytes = b""

    def draw_state(self, how: str, chance: random.Random) -> bytes:
        """What a power cut leaves: all, what was synced, or some pages of either (a page may be zeros)."""
        if how in ("all", "synced") or self.now == self.synced:
            return self.now if how == "all" else self.synced
        size = chance.choice([len(self.now), len(self.synced)])
        pages = [
            chance.choice([self.now, self.synced])[at : at + PAGE].ljust(PAGE, b"\0")
            for at in range(0, size, PAGE)
        ]
        return b"".join(pages)[:size]


@dataclass
class Folder:
    """Names as the process sees them, as they were when last synced, and the changes in between."""

    now: dict[str, int] = field(default_factory=dict)
    synced: dict[str, int] = field(default_factory=dict)
    changes: list[tuple[tuple[str, int | None], ...]] = field(default_factory=list)

    def change(self, *names: tuple[str, int | None]) -> None:
        """Give names to files (None: take it away), all in one step."""
        self.changes.append(names)
        _apply(self.now, names)

    def draw_state(self, how: str, chance: random.Random) -> dict[str, int]:
        """The names that a power cut leaves: those synced, and of the changes since then the first few."""
        count = {"all": len(self.changes), "synced": 0}.get(how, chance.randint(0, len(self.changes)))
        names = dict(self.synced)
        for change in self.changes[:count]:
            _apply(names, change)
        return names


def _apply(names: dict[str, int], change: tuple[tuple[str, int | None], ...]) -> None:
    for name, node in change:
        if node is None:
            names.pop(name, None)
        else:
            names[name] = node


class Disk:
    """A model of the disk under the folder ``root``."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.nodes: dict[int, File | Folder] = {ROOT: Folder()}
        self.inodes: dict[int, int] = {os.stat(root).st_ino: ROOT}

    def do(self, op: Op) -> None:
        """Replay an operation."""
        if op.name == "write":
            file = self._find_file(op.inode)
            now = file.now.ljust(op.offset, b"\0")
            file.now = now[: op.offset] + op.data + now[op.offset + len(op.data) :]
        elif op.name == "size":
            file = self._find_file(op.inode)
            file.now = file.now[: op.offset].ljust(op.offset, b"\0")
        elif op.name == "sync":
            self._sync(self.nodes[self.inodes[op.inode]])
        elif op.name in ("create", "mkdir"):
            folder, name = self._locate(op.first)
            if name not in folder.now:
                folder.change((name, self._add_node(op.inode, File() if op.name == "create" else Folder())))
        elif op.name == "remove":
            folder, name = self._locate(op.first)
            folder.change((name, None))
        elif op.name == "link":
            (source, old), (target, new) = self._locate(op.first), self._locate(op.second)
            target.change((new, source.now[old]))
        elif op.name == "rename":
            self._rename(*self._locate(op.first), *self._locate(op.second))

    def _rename(self, source: Folder, old: str, target: Folder, new: str) -> None:
        node = source.now[old]
        if source is target:
            source.change((old, None), (new, node))
        else:
            target.change((new, node))
            source.change((old, None))

    @staticmethod
    def _sync(node: File | Folder) -> None:
        node.synced = node.now if isinstance(node, File) else dict(node.now)  # type: ignore[assignment]
        if isinstance(node, Folder):
            node.changes.clear()

    def _add_node(self, inode: int, node: File | Folder) -> int:
        number = len(self.nodes)
        self.nodes[number], self.inodes[inode] = node, number
        return number

    def _find_file(self, inode: int) -> File:
        node = self.nodes[self.inodes[inode]]
        assert isinstance(node, File)
        return node

    def _locate(self, path: str) -> tuple[Folder, str]:
        parts = [part for part in os.path.relpath(path, self.root).split("/") if part != "."]
        folder = self.nodes[ROOT]
        for part in parts[:-1]:
            assert isinstance(folder, Folder)
            folder = self.nodes[folder.now[part]]
        assert isinstance(folder, Folder)
        return folder, parts[-1]

    def write(self, into: Path, how: str, chance: random.Random, node: int = ROOT) -> None:
        """Write what a power cut leaves of the disk to the folder ``into``."""
        folder = self.nodes[node]
        assert isinstance(folder, Folder)
        into.mkdir()
        for name, child in folder.draw_state(how, chance).items():
            if isinstance(found := self.nodes[child], Folder):
                self.write(into / name, how, chance, child)
            else:
                (into / name).write_bytes(found.draw_state(how, chance))


def states_after(
    ops: Sequence[Op], root: Path, scratch: Path, *, moments: int, seed: int = 0
) -> Iterator[tuple[Path, list[str]]]:
    """Folders as power cuts at random moments could leave them, each with what the process had said by then.

    At each moment four: nothing is lost, all is lost that was not synced, names are there and content is not, and
    one by chance.
    """
    chance = random.Random(seed)
    chosen = set(chance.sample(range(len(ops)), min(moments, len(ops)))) | {len(ops) - 1}
    disk, lines = Disk(str(root)), []
    for number, op in enumerate(ops):
        if op.name == "mark":
            lines.append(op.data.decode())
        else:
            disk.do(op)
        if number in chosen:
            for how in ("all", "synced", "named", "chance"):
                folder = scratch / "left"
                shutil.rmtree(folder, ignore_errors=True)
                _write_folder(disk, folder, how, chance)
                yield folder, list(lines)


def _write_folder(disk: Disk, folder: Path, how: str, chance: random.Random) -> None:
    if how != "named":
        disk.write(folder, how, chance)
        return
    disk = copy.deepcopy(disk)
    for node in disk.nodes.values():
        if isinstance(node, Folder):
            Disk._sync(node)
    disk.write(folder, "synced", chance)
