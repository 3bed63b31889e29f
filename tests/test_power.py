"""After a power cut at a random moment all that was reported is there, and the rest is whole or not there."""

from __future__ import annotations

import json
import marshal
import re
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from power import record, states_after

from dlpipe.tables import commit_parts, read_table, stage_part, table_at, write_table
from dlpipe.training.checkpoints import FolderCheckpoints

pytestmark = pytest.mark.slow

WRITER = """
import sys
import json
import marshal
import re
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
from dlpipe.tables import append, commit_parts, ingest, Sources, stage_part, write_table
from dlpipe.tables import _attempt

_attempt.TABLE_CONFIGURATION["delta.checkpointInterval"] = "4"
table = sys.argv[1] + "/deep/numbers"
for number in range(6):
    rows = pa.table({"n": list(range(number * 3, number * 3 + 3))})
    if number % 3 == 2:
        for part in range(3):
            stage_part(table, rows.slice(part, 1), key={"n": str(number)}, part=part)
            mark(f"part {number} {part}")
        made = commit_parts(table, key={"n": str(number)}, parts=3)
    else:
        made = write_table(table, rows)
    mark(f"version {made.version}")
made = write_table(table, pa.table({"n": [7]}), mode="overwrite")
mark(f"version {made.version}")
"""


def test_every_version_that_was_committed_is_readable_after_a_power_cut(tmp_path):
    root, scratch = tmp_path / "disk", tmp_path / "scratch"
    root.mkdir()
    scratch.mkdir()
    ops = record(root, WRITER, scratch=scratch)
    assert {"write", "link"} <= {op.name for op in ops}
    for folder, marks in states_after(ops, root, scratch, moments=10):
        table, numbers = folder / "deep/numbers", [tuple(map(int, text.split()[1:])) for text in marks]
        committed = [number[0] for number in numbers if len(number) == 1]
        if numbers and len(numbers[-1]) == 2:
            committed.append(finish(table, *numbers[-1]))
        check_table(table, committed)


def finish(table: Path, number: int, part: int) -> int:
    """Stage the parts that were not reported, commit all, and return the version."""
    for left in range(part + 1, 3):
        stage_part(table, pa.table({"n": [number * 3 + left]}), key={"n": str(number)}, part=left)
    return commit_parts(table, key={"n": str(number)}, parts=3).version


def check_table(path, committed: list[int]) -> None:
    if not committed and not list(path.glob("_delta_log/*.json")):
        write_table(path, pa.table({"n": [0, 1, 2]}))
    latest = table_at(path).version
    assert latest in ([committed[-1], committed[-1] + 1] if committed else [0])
    for version in range(latest + 1):
        found = [7] if version == 6 else list(range((version + 1) * 3))
        assert read_table(table_at(path, version=version))["n"].to_pylist() == found
    assert write_table(path, pa.table({"n": [1]})).version == latest + 1


STATES = """
import io, pathlib, sys, tarfile
from dlpipe.bridge.marks import RunMarks
from dlpipe.durable import make_folder, write_file
from dlpipe.orchestrator import keeper
from dlpipe.orchestrator.freezing import CodePackage, freeze, name_as_version, seal
from dlpipe.training.checkpoints import FolderCheckpoints

root = pathlib.Path(sys.argv[1])
attempt, steps, source = root / "runs/1", FolderCheckpoints(root / "steps"), pathlib.Path(sys.argv[2])
make_folder(attempt)
make_folder(root / "steps")
held = RunMarks("F/1", root / "F/1/_bridge").hold()
for number in range(3):
    write_file(root / "state.json", str(number) * 5000)
    mark(f"state {number}")
    keeper.write_file(attempt, "attempt.json", {"n": number})
    mark(f"attempt {number}")
    (source / "weights").write_bytes(bytes([number]) * 9000)
    steps.save(source)
    mark(f"step {number}")
packed = io.BytesIO()
with tarfile.open(fileobj=packed, mode="w:gz") as file:
    code = tarfile.TarInfo("flow.py")
    code.size = 6
    file.addfile(code, io.BytesIO(b"n = 1\\n"))
folder = freeze(CodePackage(packed.getvalue()), "flow", under=root)
seal(folder)
name_as_version(folder, 1, "0" * 64)
mark("code 1")
"""


def test_states_are_old_or_new_after_a_power_cut_and_never_torn(tmp_path):
    root, scratch, source = tmp_path / "disk", tmp_path / "scratch", tmp_path / "source"
    for folder in (root, scratch, source):
        folder.mkdir()
    ops = record(root, STATES, source, scratch=scratch)
    for folder, marks in states_after(ops, root, scratch, moments=40):
        last = {text.split()[0]: int(text.split()[1]) for text in marks}
        check_state(folder / "state.json", last.get("state"), lambda n: str(n) * 5000)
        check_state(folder / "runs/1/attempt.json", last.get("attempt"), lambda n: json.dumps({"n": n}))
        if "state" in last:
            assert json.loads((folder / "F/1/_bridge/behind.json").read_text())["run"] == "F/1"
        newest = FolderCheckpoints(folder / "steps").latest()
        assert newest or "step" not in last
        if newest:
            check_state(newest / "weights", int(newest.name[5:]), lambda n: chr(n) * 9000)
            assert int(newest.name[5:]) >= last.get("step", 0)
        check_code(folder / f"code/flow/1-{'0' * 12}", "code" in last)


def check_state(path: Path, done: int | None, content: Callable[[int], str]) -> None:
    """The file has what was reported, or what came next."""
    allowed = [content(n) for n in ([0] if done is None else [done, done + 1])]
    if done is not None or path.exists():
        assert path.read_text() in allowed


def check_code(folder: Path, done: bool) -> None:
    """The frozen code is there whole, with the bytecode that its imports would take, or not there."""
    if done or folder.exists():
        assert (folder / "flow.py").read_text() == "n = 1\n"
        (bytecode,) = folder.glob("__pycache__/*.pyc")
        assert marshal.loads(bytecode.read_bytes()[16:])


def test_names_are_given_to_files_in_one_place_only():
    root = Path(__file__).resolve().parents[1]
    renames = re.compile(r"\bos\.(replace|rename|link)\(|\.rename\(|shutil\.move\(")
    found = {
        f"{path.relative_to(root)}: {line.strip()}"
        for room in ("dlpipe", "metaflow_extensions")
        for path in (root / room).rglob("*.py")
        for line in path.read_text().splitlines()
        if renames.search(line) and path.name != "durable.py"
    }
    assert {line for line in found if not any(known in line for known in UNSYNCED)} == set()


# what loses nothing when it is undone, and the keeper, which knows nothing of dlpipe and syncs by itself
UNSYNCED = (
    "orchestrator/keeper.py: os.replace(beside, path)",
    "orchestrator/freezing.py: return folder.rename(",
    "orchestrator/freezing.py: os.link(",
    "task/array_cache.py: file = file.rename(",
    "tables/_storage.py: os.link(source, target)",
    "bridge/deletion.py: os.rename(",
    "tables/_deletion.py: os.rename(",
)
