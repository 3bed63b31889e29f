"""A deployment's packages and its frozen code, without Metaflow."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
import time
import venv
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from disks import tiny_disk

from dlpipe.cli import main
from dlpipe.cli.local_runs import _find_scheduled_resume
from dlpipe.errors import DeploymentRefused, StateUnusable
from dlpipe.orchestrator import freezing
from dlpipe.orchestrator.deployments import Policies, Version
from dlpipe.orchestrator.environment import find_changes, list_packages
from dlpipe.orchestrator.freezing import (
    CodeDifference,
    CodePackage,
    compare_code,
    digest_files,
    freeze,
    name_as_version,
    prune,
)
from dlpipe.orchestrator.overview import view_run, was_refused
from dlpipe.orchestrator.runs import Event, Run, RunAttempt, Status
from dlpipe.orchestrator.scheduler import Scheduler
from dlpipe.orchestrator.state import State
from dlpipe.orchestrator.supervision import Supervisor

FILES = {"flow.py": "print('flow')\n", "words/one.py": "ONE = 1\n", ".mf_meta/INFO": "{}", "settings.toml": ""}


def packed(files: Mapping[str, str] = FILES) -> CodePackage:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as pack:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            pack.addfile(member, io.BytesIO(text.encode()))
    return CodePackage(out.getvalue())


def a_version(name: str = "Tiny", code: str = "", **more: object) -> Version:
    more = {"packages": {}, **more}
    return Version(name, 0, name, code, "flow.py", "", "/", sys.executable, **more)  # type: ignore[arg-type]


def kept(state: State, package: CodePackage, name: str = "Tiny", **more: object) -> Version:
    """Deploy ``package`` as ``create`` does."""
    folder = freeze(package, name, under=state.folder)
    try:
        number = state.list_versions(name)[0].number + 1
    except LookupError:
        number = 1
    freezing.seal(folder)
    folder = name_as_version(folder, number, package.digest)
    return state.deploy(a_version(name, str(folder), **more), now=time.time())


# -- packages ----------------------------------------------------------------------------------------------


def test_packages_are_those_that_pip_knows() -> None:
    said = subprocess.run(
        [
            sys.executable,
            "-c",
            "from importlib.metadata import *; print(*{d.name + '==' + d.version for d in distributions()})",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    known = dict(one.lower().replace("_", "-").replace(".", "-", 0).split("==") for one in said.stdout.split())
    found = list_packages(sys.executable)
    assert {name: found.get(name) for name in ("torch", "metaflow", "click")} == {
        name: known[name] for name in ("torch", "metaflow", "click")
    }
    assert len(found) - 1 == len(known)


def test_packages_of_another_interpreter_are_read_without_starting_more_than_its_version(tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=False)
    site = next((tmp_path / "venv" / "lib").glob("python3*/site-packages"))
    (site / "Some.Thing_more-2.0.dist-info").mkdir()
    python = str(tmp_path / "venv" / "bin" / "python")
    assert list_packages(python) == {"python": list_packages(sys.executable)["python"], "some-thing-more": "2.0"}


def test_changes_name_each_package(tmp_path: Path) -> None:
    now = list_packages(sys.executable)
    then = {**now, "click": "1.0", "gone": "3", "metaflow": "1", "dlpipe": "9"}
    then.pop("torch")
    version = replace(a_version(), packages=then)
    assert find_changes(version) == [
        f"click 1.0 is {now['click']}",
        "gone 3 is gone",
        f"torch {now['torch']} is new",
    ]
    assert find_changes(replace(version, packages=now)) == []
    assert find_changes(replace(version, python=str(tmp_path / "python"))) == [f"{tmp_path / 'python'} is gone"]


def test_packages_are_read_fast() -> None:
    list_packages(sys.executable)
    started = time.perf_counter()
    for _ in range(10):
        list_packages(sys.executable)
    assert (time.perf_counter() - started) / 10 < 0.05


# -- frozen code -------------------------------------------------------------------------------------------


@pytest.fixture
def state(tmp_path: Path):
    with closing(State.open(tmp_path / "state")) as opened:
        yield opened


def test_frozen_code_is_whole_compiled_and_read_only(state: State) -> None:
    package = packed()
    code = Path(kept(state, package).code)
    assert {name: (code / name).read_text() for name in FILES} == FILES
    assert code.name == f"1-{package.digest[:12]}"
    assert freezing.combine_digests(digest_files(code)) == package.digest
    assert list((code / "words" / "__pycache__").glob("one.*.pyc"))
    assert [file for file in [code, *code.rglob("*")] if file.stat().st_mode & 0o222] == []
    assert [one.name for one in code.parent.iterdir()] == [code.name]


def test_a_frozen_module_is_imported_as_it_was_when_its_time_is_new(state: State) -> None:
    code = Path(kept(state, packed()).code)
    os.utime(code / "words" / "one.py")
    command = [sys.executable, "-c", "import one; print(one.ONE)"]
    done = subprocess.run(command, env={"PYTHONPATH": str(code / "words")}, capture_output=True, text=True)
    assert done.stdout == "1\n"


def test_equal_files_of_versions_are_one_file_with_its_bytecode(state: State) -> None:
    first = Path(kept(state, packed()).code)
    second = Path(kept(state, packed({**FILES, "flow.py": "changed = 1\n"})).code)
    assert (first / "words/one.py").samefile(second / "words/one.py")
    (bytecode,) = (first / "words" / "__pycache__").iterdir()
    assert bytecode.samefile(second / "words" / "__pycache__" / bytecode.name)
    assert (first / "flow.py").read_text() == FILES["flow.py"]
    assert (second / "flow.py").read_text() == "changed = 1\n"


def test_the_digest_is_of_the_code_and_not_of_where_it_came_from() -> None:
    assert packed({**FILES, ".mf_meta/INFO": '{"commit_sha": "5e0a"}'}).digest == packed().digest
    assert packed({**FILES, "flow.py": ""}).digest != packed().digest
    assert packed({**FILES, "more.py": ""}).digest != packed().digest


def test_the_difference_names_files(state: State) -> None:
    version = kept(state, packed())
    assert not compare_code(version, packed())
    other = {name: text for name, text in FILES.items() if name != "words/one.py"}
    now = packed({**other, "flow.py": "", "new.py": "", ".mf_meta/INFO": "other"})
    assert compare_code(version, now) == CodeDifference(("flow.py",), ("new.py",), ("words/one.py",))


def test_a_package_that_leads_out_of_its_folder_is_refused(state: State) -> None:
    with pytest.raises(StateUnusable, match="leads out of the code package"):
        freeze(packed({**FILES, "../out.py": ""}), "Tiny", under=state.folder)
    assert list((state.folder / "code" / "Tiny").iterdir()) == []


@pytest.mark.parametrize("name", ["", "..", "a/b", "-a", ".a", "a b"])
def test_a_name_that_is_no_folder_is_refused(name: str, state: State) -> None:
    with pytest.raises(DeploymentRefused, match="cannot be a deployment's name"):
        freeze(packed(), name, under=state.folder)


def test_nothing_is_left_when_the_disk_is_full(tmp_path: Path) -> None:
    with tiny_disk(tmp_path / "disk") as disk:
        with pytest.raises(StateUnusable, match=r"No space left on device.*Nothing was deployed"):
            freeze(packed({**FILES, "big.py": "#" * 2_000_000}), "Tiny", under=disk)
        assert list((disk / "code" / "Tiny").iterdir()) == []


def test_the_newest_versions_keep_their_code_and_those_that_an_open_run_needs(state: State) -> None:
    versions = [kept(state, packed({**FILES, "flow.py": f"n = {n}\n"})) for n in range(8)]
    state.add_run("Tiny", version=2, cause="by hand", key="a", due=0.0)
    ended, _ = state.add_run("Tiny", version=1, cause="by hand", key="b", due=0.0)
    state.set_status(ended.number, "succeeded")
    assert prune(state, "Tiny") == [3, 1]
    assert [Path(one.code).is_dir() for one in versions] == [False, True, False, True, True, True, True, True]
    assert [one.number for one in state.list_versions("Tiny")] == [8, 7, 6, 5, 4, 3, 2, 1]
    assert digest_files(Path(versions[7].code))["words/one.py"] == packed().files["words/one.py"]


def test_what_a_killed_create_left_is_removed_once_it_is_old(state: State) -> None:
    left = freeze(packed(), "Tiny", under=state.folder)
    kept(state, packed())
    assert left.is_dir()  # it may be going on
    long_ago = time.time() - freezing.ABANDONED_AFTER - 1
    os.utime(left, (long_ago, long_ago))
    kept(state, packed())
    assert not left.is_dir()


def test_a_folder_that_was_renamed_but_not_noted_is_replaced(state: State) -> None:
    package = packed()
    name_as_version(freeze(package, "Tiny", under=state.folder), 1, package.digest)
    version = kept(state, package)
    assert (version.number, digest_files(Path(version.code))) == (1, package.files)


def ended_run(state: State, version: int, status: Status, key: str) -> Run:
    """A run that has had an attempt, and ended so."""
    run, _ = state.add_run("Tiny", version=version, cause="by hand", key=key, due=0.0)
    attempt = RunAttempt(
        0, key, str(state.folder), started=1.0, ended=2.0, outcome="failed", step="train", reason="no"
    )
    state.add_attempt(run.number, attempt)
    state.set_status(run.number, status, reason="train: no")
    return state.get_run(run.number)


@pytest.mark.parametrize("status", ["failed", "terminated"])
def test_code_stays_while_a_run_that_may_be_resumed_needs_it(status: Status, state: State) -> None:
    first, *_ = [kept(state, packed({**FILES, "flow.py": f"n = {n}\n"})) for n in range(8)]
    run = ended_run(state, 1, status, "a")
    prune(state, "Tiny")
    assert view_run(state, run).resume == "dlpipe runs resume 1"
    assert Path(first.code).is_dir()
    state.set_status(1, "succeeded")
    assert prune(state, "Tiny") == [1]


def test_what_cannot_be_resumed_is_not_offered_and_its_reason_stays(state: State) -> None:
    version = kept(state, packed())
    run = ended_run(state, 1, "failed", "a")
    freezing.discard(Path(version.code))
    assert view_run(state, run).resume == ""
    assert (view_run(state, run).step, view_run(state, run).why) == ("train", "no")
    done = CliRunner().invoke(main, ["runs", "resume", "1"], env={"DLPIPE_STATE": str(state.folder)})
    assert (done.exit_code, done.output.count("\n")) == (1, 1)
    assert "the code of version 1 is no longer kept" in done.output
    assert state.get_run(1) == run
    state.set_status(1, "waiting")  # as an older dlpipe did
    with Supervisor(state) as supervisor:
        over = supervisor.start(1, 0.0)
    assert (over.status, len(over.attempts)) == ("failed", 1)
    assert over.reason == "train: no; not resumed: the code of version 1 is no longer kept"
    assert was_refused(over)
    assert view_run(state, over).step == "train"


def test_a_run_of_the_scheduler_is_offered_to_be_resumed_where_the_scheduler_can(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DLPIPE_STATE", str(state.folder))
    version = kept(state, packed())
    run = ended_run(state, 1, "failed", "a")
    state.set_attempt(1, replace(run.attempts[0], metaflow_run="ls-1-abc"))
    assert _find_scheduled_resume("ls-1-abc") == "dlpipe runs resume 1"
    assert _find_scheduled_resume("ls-9-forgotten") == ""
    freezing.discard(Path(version.code))
    assert _find_scheduled_resume("ls-1-abc") == ""


def test_how_a_run_failed_stays_to_be_read_when_it_is_refused_or_stopped(state: State) -> None:
    kept(state, packed(), packages={"numpy": "0.1"}, policies=Policies(changed_environment="refuse"))
    refused, stopped = (ended_run(state, 1, "waiting", key).number for key in "ab")
    state.request_stop(stopped)
    with Supervisor(state) as supervisor:
        supervisor.start(refused, 0.0)
        supervisor.reconcile(0.0)
    assert state.get_run(refused).reason.startswith("train: no; not resumed: the Python packages are not those")
    assert state.get_run(stopped).reason == "stopped by hand while it waited, after train: no"


def test_code_of_a_deployment_that_was_deleted_during_a_run_goes_with_the_run(state: State) -> None:
    versions = [kept(state, packed({**FILES, "flow.py": f"n = {n}\n"})) for n in range(2)]
    ended_run(state, 1, "failed", "a")
    number, _ = state.add_run("Tiny", cause="by hand", key="b", due=0.0)
    state.add_attempt(number.number, RunAttempt(0, "t", str(state.folder / "runs/2/0")))
    state.delete("Tiny")
    assert prune(state, "Tiny") == [1]
    state.request_stop(number.number)
    made = Scheduler(state, max_runs=1)
    while state.get_run(number.number).status == "running":
        made.tick()
    made.tick()
    made.close()
    assert [Path(one.code).is_dir() for one in versions] == [False, False]
    assert not list((state.folder / "code/Tiny").glob(".old-*"))


def test_the_state_is_not_locked_while_code_is_removed(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    [kept(state, packed({**FILES, "flow.py": f"n = {n}\n"})) for n in range(6)]
    published = []

    def remove(folder: Path) -> None:
        with closing(State.open(state.folder)) as other:
            published.append(other.publish(Event("e1", "drifted", {}, 1.0)))

    monkeypatch.setattr(freezing, "_remove", remove)
    assert prune(state, "Tiny") == [1]
    assert published == [True]
