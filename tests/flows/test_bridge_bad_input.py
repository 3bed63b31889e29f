"""The bridge and what it should not be given: secrets, stores that cannot be, and artifacts of the odd kind."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from mlflow.entities import Run
from servers import BRIDGED, Folder
from stores import copy_database

SECRETS = {
    "param": "sk-param-0123456789",
    "url": "url-hunter2",
    "printed": "printed-hunter2",
    "artifact": "artifact-hunter2",
    "nested": "nested-hunter2",
    "config": "config-hunter2",
    "raised": "raised-hunter2",
    "query": "query-hunter2",
    "listed": "listed-hunter2",
    "header": "header-hunter2",
    "phrase": "phrase-hunter2",
    "option": "option-hunter2",
}
SECRET_FLOW = """
from metaflow import Config, FlowSpec, Parameter, step

SECRETS = {secrets}


class SecretFlow(FlowSpec):
    api_token = Parameter("api_token", default=SECRETS["param"])
    source = Parameter("source", default=f"postgresql://ana:{SECRETS['url']}@db.example/films")
    settings = Config("settings", default_value={"service": {"password": SECRETS["config"]}, "rate": 0.1})

    @step
    def start(self):
        self.account = {"user": "ana", "password": SECRETS["artifact"], "all": [{"api_key": SECRETS["nested"]}]}
        self.account |= {"api_keys": [SECRETS["listed"]], "max_tokens": 128}
        print("asking with token=" + SECRETS["printed"])
        print({"Authorization": f"Bearer {SECRETS['header']}"}, {"password": f"three words {SECRETS['phrase']}"})
        print("called: upload --token", SECRETS["option"], "--verbose")
        self.next(self.end)

    @step
    def end(self):
        address = f"https://ana:{SECRETS['raised']}@api.example/v1?access_token={SECRETS['query']}"
        raise ValueError(f"401 Unauthorized for {address}")


if __name__ == "__main__":
    SecretFlow()
"""
ODD_MODULE = """
import os

class Gone:
    pass

class Evil(str):
    def __reduce__(self):
        return os.mkdir, (self + str(os.getpid()),)
"""
ODD_FLOW = """
import math
import os

import odd_classes
from metaflow import FlowSpec, JSONType, Parameter, current, step


class OddFlow(FlowSpec):
    essay = Parameter("essay", default="x" * 10_000)
    deep = Parameter("deep", type=JSONType, default="[" * 400 + "]" * 400)

    @step
    def start(self):
        import mlflow
        from metaflow import Run

        print("&".join(f"name{number}=value" for number in range(500)), "a" * 70_000)
        Run(f"OddFlow/{current.run_id}").add_tag("token=tag-hunter2")

        mlflow.log_metric("loss", 0.5)
        mlflow.log_param("rate", "0.1")
        self.loss = 0.25
        self.rate = "another value"
        self.next(self.end)

    @step
    def end(self):
        self.gone = odd_classes.Gone()
        self.evil = odd_classes.Evil(os.path.abspath("evil"))
        self.inside = {"evil": self.evil, "number": 3}
        self.doubled = [1]
        for _ in range(40):
            self.doubled = [self.doubled, self.doubled]
        self.big = b"0123456789abcdef" * (2**20 + 1)
        self.not_a_number, self.infinite, self.least = math.nan, math.inf, -math.inf
        setattr(self, "größe", 1.5)
        setattr(self, "名前", "text")
        # Metaflow itself makes files of the names on this machine, so that 239 bytes are the longest that runs
        setattr(self, "n" * 239, 2.5)
        setattr(self, "%" * 60, 3.5)
        setattr(self, "ä" * 119, {"inner": 1})


if __name__ == "__main__":
    OddFlow()
"""

NUMBERS_FLOW = """
import numpy
import odd_classes
import pandas
from metaflow import FlowSpec, JSONType, Parameter, step


class NumbersFlow(FlowSpec):
    settings = Parameter("settings", type=JSONType, default='{"a": {"b": {"c": {"rate": 0.1}}}}')
    many = Parameter("many", type=JSONType, default='{"n": {"1": 1}}')

    @step
    def start(self):
        self.long = {"k" * 150: {"l" * 150: 0.25, "m" * 150: 0.75}}
        self.same = {1: 0.125, "1": 0.25, "a/b": 0.5, "a": {"b": 0.75}, "x%y": 1.5, "x_u25_y": 2.5}
        self.loop = {"size": 3}
        self.loop["me"] = self.loop
        self.params = {"rate": 0.5, "note": "n" * 300, "seed": 2**63 + 1}
        self.params["me"] = self.params
        self.folds = pandas.DataFrame({"f1": [0.5, 0.75, 1.0]}, index=pandas.Index([1, 1, 2], name="fold"))
        self.changes = [{"epoch": at, "loss": 1 / (at + 1), "rate": at if at < 2 else "low"} for at in range(4)]
        self.mixed = pandas.DataFrame({"epoch": range(4), "loss": 0.5, "rate": [0, 1, "low", "low"]})
        self.halves = [{"epoch": at / 2, "loss": 0.5} for at in range(4)]
        self.gone = odd_classes.Gone()
        self.beside = {"gone": odd_classes.Gone(), "score": 0.5}
        self.unshaped = numpy.array(0.5, dtype="float32")
        self.row = 2**53 + 1
        self.next(self.large)

    @step
    def large(self):
        self.million = [{"epoch": at, "loss": 1 / (at + 1)} for at in range(1_000_000)]
        self.again = [{"epoch": 1, "loss": 0.5}] * 1_000_000
        self.result = {"accuracy": 0.5, "rows": self.again}
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    NumbersFlow()
"""
MEASURED = """
import json, resource, time
from dlpipe.bridge import sync

began = time.process_time()
(done,) = sync("NumbersFlow")
print(json.dumps([time.process_time() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]))
"""


def written(folder: Folder, name: str, text: str) -> Path:
    """Write a file into the folder."""
    (folder.folder / name).write_text(text)
    return folder.folder / name


# -- secrets ---------------------------------------------------------------------------------------------------


def test_a_run_full_of_secrets_is_complete_in_mlflow_without_one_of_them(tmp_path: Path) -> None:
    folder = Folder(copy_database(tmp_path))
    script = written(folder, "secret_flow.py", SECRET_FLOW.replace("{secrets}", repr(SECRETS)))
    done = folder.flow(*BRIDGED, script=script)
    assert done.code == 1, done.said
    pathspec = f"SecretFlow/{done.run_id}"
    folder.wait_until_nothing_is_behind()
    assert folder.bridge("check", pathspec) == "0 differences\n"
    held = folder.held(pathspec)
    assert {name: one.info.status for name, one in held.items()} == {
        done.run_id: "FAILED",
        "start": "FINISHED",
        "end": "FAILED",
    }
    assert held[done.run_id].data.params["source"] == "postgresql://ana:[redacted]@db.example/films"
    assert "401 Unauthorized" in document(folder, held["end"], "traceback.txt")
    account = json.loads(document(folder, held["start"], "artifacts/account.json"))
    assert (account["user"], account["max_tokens"]) == ("ana", 128)
    kept = [
        path for path in [*tmp_path.glob("mlflow.db*"), *(tmp_path / "mlartifacts").rglob("*")] if path.is_file()
    ]
    assert len(kept) > 5
    found = [(name, path) for path in kept for name, one in SECRETS.items() if one.encode() in path.read_bytes()]
    assert found == []


def document(folder: Folder, run: Run, path: str) -> str:
    """Return the text of a file of an MLflow run."""
    return Path(folder.client().download_artifacts(run.info.run_id, path)).read_text()


# -- odd artifacts ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Odd:
    """A run with artifacts of the odd kind, as MLflow holds it."""

    folder: Folder
    pathspec: str
    held: dict[str, Run]

    def index(self) -> dict[str, dict[str, object]]:
        """Return what MLflow says of each artifact of the last step."""
        found: dict[str, dict[str, object]] = json.loads(document(self.folder, self.held["end"], "artifacts.json"))
        return found


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Odd:
    place = copy_database(tmp_path_factory.mktemp("odd"))
    folder = Folder(place, {"METAFLOW_CLIENT_CACHE_PATH": str(place / "cache")})
    script = written(folder, "odd_flow.py", ODD_FLOW)
    module = written(folder, "odd_classes.py", ODD_MODULE)
    pathspec = f"OddFlow/{folder.run(script=script)}"
    folder.wait_until_nothing_is_behind()
    module.unlink()
    return Odd(folder, pathspec, folder.held(pathspec))


def test_an_artifact_whose_class_is_not_here_and_one_of_over_16_mb_are_references(odd: Odd) -> None:
    gone, big = odd.index()["gone"], odd.index()["big"]
    assert (gone["kept"], gone["why"]) == ("reference", "odd_classes.Gone is not opened")
    assert (big["kept"], big["why"]) == ("reference", "larger than 16,777,216 bytes")
    assert int(str(big["size"])) > 16 * 2**20
    for entry in (gone, big):
        assert re.fullmatch("[0-9a-f]{40}", str(entry["sha1"]))
    sizes = [path.stat().st_size for path in (odd.folder.folder / "mlartifacts").rglob("*") if path.is_file()]
    assert max(sizes) < 2**20


def test_no_artifact_runs_what_it_asks_for(odd: Odd) -> None:
    evil, inside, doubled = (odd.index()[name] for name in ("evil", "inside", "doubled"))
    assert (evil["kept"], evil["why"]) == ("reference", "posix.mkdir is not opened")
    assert inside["kept"] == "file"
    held = json.loads(document(odd.folder, odd.held["end"], "artifacts/inside.json"))
    assert held == {"evil": "<not opened: posix.mkdir>", "number": 3}
    assert str(doubled["why"]).startswith("more than 2,000,000 values")
    odd.folder.bridge("sync", odd.pathspec)
    made = list(odd.folder.folder.glob("evil*"))
    assert [one for one in made if one.is_dir()] == []


def test_no_document_keeps_a_run_out(odd: Odd) -> None:
    assert odd.folder.bridge("check", odd.pathspec) == "0 differences\n"
    printed = document(odd.folder, odd.held["start"], "logs/stdout.txt")
    assert len(printed) == 64_000
    parent = odd.held[odd.pathspec.partition("/")[2]].data
    assert json.loads(parent.tags["metaflow.tags"]) == ["token=[redacted]"]
    top = odd.held[odd.pathspec.partition("/")[2]]
    assert "<nested deeper than 100>" in document(odd.folder, top, "parameters/deep.json")


def test_what_others_read_does_not_disturb_the_bridge_and_it_leaves_no_cache(odd: Odd) -> None:
    place = odd.folder.folder / "cache"
    assert not place.exists()
    read = "import metaflow as m; m.namespace(None); print([one.task.stdout_size for one in m.Run(RUN)])"
    assert odd.folder.command(sys.executable, "-c", read.replace("RUN", repr(odd.pathspec))).code == 0
    assert place.exists()
    assert odd.folder.bridge("check", odd.pathspec) == "0 differences\n"


def test_an_artifact_of_over_16_mb_is_not_even_read_and_may_have_any_size(odd: Odd) -> None:
    digest = str(odd.index()["big"]["sha1"])
    (odd.folder.folder / ".metaflow" / "OddFlow" / "data" / digest[:2] / digest).unlink()
    assert odd.folder.bridge("check", odd.pathspec) == "0 differences\n"


def test_numbers_that_are_none_are_parameters(odd: Odd) -> None:
    params = odd.held["end"].data.params
    assert {params[name] for name in ("not_a_number", "infinite", "least")} == {"nan", "inf", "-inf"}
    assert "nan" not in {str(value) for value in odd.held["end"].data.metrics.values()}


def test_what_the_step_logged_stands_beside_artifacts_of_the_same_name(odd: Odd) -> None:
    start = odd.held["start"]
    points = odd.folder.client().get_metric_history(start.info.run_id, "loss")
    assert sorted(point.value for point in points) == [0.25, 0.5]
    assert start.data.params["rate"] == "0.1"
    assert start.data.params["metaflow/rate"] == "another value"


def test_names_of_any_script_and_length_are_there(odd: Odd) -> None:
    data = odd.held["end"].data
    assert data.metrics["größe"] == 1.5
    assert data.params["名前"] == "text"
    assert data.metrics["n" * 239] == 2.5
    (cut,) = [name for name in data.metrics if name.startswith("_u25_")]  # MLflow refuses a percent sign
    assert data.metrics[cut] == 3.5
    assert len(cut) == 250
    kept = {name: entry["kept"] for name, entry in odd.index().items()}
    assert (kept["%" * 60], kept["ä" * 119]) == ("metric", "file")


def test_a_long_parameter_is_its_beginning_and_a_file_with_the_whole(odd: Odd) -> None:
    parent = odd.held[odd.pathspec.partition("/")[2]]
    assert len(parent.data.params["essay"]) <= 250
    assert document(odd.folder, parent, "parameters/essay.txt") == "x" * 10_000


# -- numbers of the odd kind -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> Odd:
    folder = Folder(copy_database(tmp_path_factory.mktemp("numbers")))
    script = written(folder, "numbers_flow.py", NUMBERS_FLOW)
    module = written(folder, "odd_classes.py", ODD_MODULE)
    pathspec = f"NumbersFlow/{folder.run(script=script)}"
    folder.wait_until_nothing_is_behind()
    module.unlink()
    return Odd(folder, pathspec, folder.held(pathspec))


def points(odd: Odd, step: str, key: str) -> list[tuple[int, float]]:
    """Return step and value of each point of a series in a task's run."""
    history = odd.folder.client().get_metric_history(odd.held[step].info.run_id, key)
    return sorted((point.step, point.value) for point in history)


def test_no_number_keeps_a_run_out(numbers: Odd) -> None:
    assert {run.info.status for run in numbers.held.values()} == {"FINISHED"}
    assert numbers.folder.bridge("check", numbers.pathspec) == "0 differences\n"


def test_a_name_of_300_characters_is_its_beginning_and_a_digest(numbers: Odd) -> None:
    found = {name: value for name, value in numbers.held["start"].data.metrics.items() if name.startswith("long/")}
    assert sorted(found.values()) == [0.25, 0.75]
    assert {len(name) for name in found} == {250}
    top = numbers.held[numbers.pathspec.partition("/")[2]].data.metrics
    assert sorted(value for name, value in top.items() if name.startswith("start/long/")) == [0.25, 0.75]


def test_keys_that_become_one_name_are_all_there(numbers: Odd) -> None:
    found = {name: value for name, value in numbers.held["start"].data.metrics.items() if name.startswith("same/")}
    assert found == {
        "same/1": 0.125,
        "same/1:2": 0.25,
        "same/a/b": 0.5,
        "same/a/b:2": 0.75,
        "same/x_u25_y": 1.5,
        "same/x_u5f_u25_y": 2.5,
    }


def test_what_refers_to_itself_ends(numbers: Odd) -> None:
    data = numbers.held["start"].data
    assert data.metrics["loop/size"] == data.metrics["loop/me/size"] == 3
    assert data.params["rate"] == "0.5"
    assert len(json.loads(document(numbers.folder, numbers.held["start"], "artifacts/loop.json"))) == 2


def test_an_index_that_repeats_numbers_whose_type_changes_and_an_index_that_does_not_count_are_noted(
    numbers: Odd,
) -> None:
    assert points(numbers, "start", "folds/f1") == [(0, 0.5), (1, 0.75), (2, 1.0)]
    assert points(numbers, "start", "changes/loss") == [(at, 1 / (at + 1)) for at in range(4)]
    assert points(numbers, "start", "mixed/loss") == [(at, 0.5) for at in range(4)]
    notes = numbers.held["start"].data.tags["metaflow.notes"]
    assert "folds/fold repeats: points are counted from 0" in notes
    assert "changes/rate is not always a number" in notes
    assert "mixed/rate is not always a number" in notes
    assert "halves/epoch does not count: no points" in notes
    assert not {name for name in numbers.held["start"].data.metrics if name.startswith(("halves", "mixed/rate"))}
    mixed = numbers.folder.client().download_artifacts(
        numbers.held["start"].info.run_id, "artifacts/mixed.parquet"
    )
    assert pq.read_table(mixed).column("rate").to_pylist() == ["0", "1", "low", "low"]
    assert "not in the file of mixed: mixed.rate but as text" in notes


def test_what_cannot_be_opened_here_takes_nothing_with_it(numbers: Odd) -> None:
    start = numbers.held["start"]
    index = json.loads(document(numbers.folder, start, "artifacts.json"))
    assert index["gone"]["why"] == "odd_classes.Gone is not opened"
    assert start.data.metrics["beside/score"] == 0.5
    assert json.loads(document(numbers.folder, start, "artifacts/beside.json"))["score"] == 0.5
    assert "beside.gone <not opened: odd_classes.Gone>" in start.data.tags["metaflow.notes"]


def test_numbers_are_what_they_are(numbers: Odd) -> None:
    start, top = numbers.held["start"].data, numbers.held[numbers.pathspec.partition("/")[2]].data
    assert start.metrics["unshaped"] == 0.5
    assert start.params["row"] == "9007199254740993"  # a metric would be one less
    assert top.params["seed"] == str(2**63 + 1)
    assert top.params["settings/a/b/c/rate"] == "0.1"
    assert start.params["note"].startswith("nnn")
    assert len(start.params["note"]) <= 250


def test_a_million_records_are_named_and_cost_seconds(numbers: Odd) -> None:
    large = numbers.held["large"]
    index = json.loads(document(numbers.folder, large, "artifacts.json"))
    assert index["million"]["why"] == "larger than 16,777,216 bytes"
    assert index["again"]["why"].startswith("more than 2,000,000 values")
    assert large.data.metrics["result/accuracy"] == 0.5
    assert "result is in no file: more than 2,000,000 values" in large.data.tags["metaflow.notes"]
    environment = numbers.folder.at(f"sqlite:///{copy_database(numbers.folder.folder / 'other') / 'mlflow.db'}")
    done = environment.command(sys.executable, "-c", MEASURED)
    assert done.code == 0, done.said
    seconds, megabytes = json.loads(done.said.splitlines()[-1])
    assert seconds < 60
    assert megabytes < 1500


# -- stores that cannot be -------------------------------------------------------------------------------------


STORES = {
    "a folder": ("./mlruns", "is a folder, which MLflow no longer takes as a store"),
    "a file URI": ("file:///nowhere/mlruns", "is a folder, which MLflow no longer takes as a store"),
    "no place to write": ("sqlite:////proc/nowhere/mlflow.db", "sqlite:////proc/nowhere/mlflow.db cannot be used"),
    "nonsense": ("foo://bar", "foo://bar"),
}


@pytest.mark.parametrize("kind", STORES)
def test_a_store_that_cannot_be_is_one_line_and_never_fails_the_flow(kind: str, tmp_path: Path) -> None:
    uri, words = STORES[kind]
    folder = Folder(tmp_path).at(uri)
    done = folder.flow_that_has_looked(words, tmp_path / "go")
    assert done.code == 0, done.said
    (line,) = [line for line in done.said.splitlines() if "MLflow is behind" in line]
    assert words in line
    assert line.endswith(f"To catch up: dlpipe bridge sync QuickFlow/{done.run_id}")
    assert folder.behind() == [f"QuickFlow/{done.run_id}"]
    refused = folder.bridge("sync", code=1)
    assert len(refused.splitlines()) == 1
    assert words in refused


def test_a_deleted_experiment_is_named_and_sync_completes_once_it_is_restored(tmp_path: Path) -> None:
    folder = Folder(copy_database(tmp_path))
    folder.run()
    folder.wait_until_nothing_is_behind()
    experiment = folder.client().get_experiment_by_name("QuickFlow")
    assert experiment
    folder.client().delete_experiment(experiment.experiment_id)
    done = folder.flow_that_has_looked("The experiment 'QuickFlow' is deleted", tmp_path / "go")
    assert done.code == 0, done.said
    (line,) = [line for line in done.said.splitlines() if "MLflow is behind" in line]
    assert "The experiment 'QuickFlow' is deleted" in line
    assert f"mlflow experiments restore --experiment-id {experiment.experiment_id}" in line
    folder.client().restore_experiment(experiment.experiment_id)
    folder.bridge("sync")
    assert folder.bridge("check", "QuickFlow") == "0 differences\n"
    assert folder.behind() == []


# -- runs that are not there -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pathspec", "line"),
    [
        ("NoFlow/1", "Error: Metaflow has no flow 'NoFlow' here; it has OddFlow. "),
        ("OddFlow/77", "Error: OddFlow has no run '77'; its latest: "),
    ],
)
def test_a_run_that_does_not_exist_is_one_line(pathspec: str, line: str, odd: Odd) -> None:
    said = odd.folder.bridge("check", pathspec, code=1)
    assert said.startswith(line)
    assert len(said.splitlines()) == 1


def test_a_folder_without_metaflow_has_no_runs_and_stays_as_it_was(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    assert "Stand in the folder of the project" in folder.bridge("sync")
    assert folder.bridge("status") == "MLflow is behind with no run here.\n"
    said = folder.bridge("check", "QuickFlow", code=1)
    assert "Metaflow has no flow 'QuickFlow' here; it has none. Stand in the folder" in said
    assert "METAFLOW_" not in said  # README says to leave its variables alone
    assert len(said.splitlines()) == 1
    assert not (tmp_path / ".metaflow").exists()
