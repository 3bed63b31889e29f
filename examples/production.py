"""Production on one machine, played in an empty folder and checked: four flows are deployed and run by themselves.

1. train     a first champion, on the rows that are there
2. deploy    the four production flows; the copy of ``predict_flow.py`` is due every minute instead of every hour
3. wait      until ``dlpipe scheduler`` has run predict on schedule, and explain and monitor after it
4. drift     new rows of another kind come in; monitor sees it and publishes ``model-drifted``, train runs, and the
             gate decides about the champion
5. check     that MLflow holds each run as it happened, and that each row was scored, by a model once

    python examples/production.py                       the sample that ships
    python examples/production.py --data reviews.csv --new other.csv
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[1]
SAMPLE = PROJECT / "data/sample/reviews.csv"
SHIFTED = PROJECT.parent / "shared/data/snippets/amazon_shifted.csv"
FLOWS = {"predict": "PredictFlow", "explain": "ExplainFlow", "monitor": "MonitorFlow", "train": "TrainFlow"}
EVERY_MINUTE = '@schedule(cron="* * * * *")'
NOT_INHERITED = ("METAFLOW_", "MLFLOW_", "DLPIPE_")
KNOWN_SHARE = 0.8
"""Of the rows, what the first champion is trained on; the others come in later and are no different."""
QUICK = ("--trials", "0", "--epochs", "1")
PATIENCE = 900.0


class NotAsExpected(Exception):
    """Production did not do what it is to do."""


@dataclass(frozen=True)
class Play:
    """A folder in which production is played."""

    folder: Path
    train: tuple[str, ...]
    """Options of each training."""
    began: float

    def say(self, text: str) -> None:
        """Print a line with the seconds that have gone by."""
        print(f"{time.monotonic() - self.began:5.0f} s  {text}", flush=True)

    @property
    def environment(self) -> dict[str, str]:
        """The environment of all commands: nothing leads out of the folder."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(NOT_INHERITED)}
        path = f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', os.defpath)}"
        own = {"DLPIPE_STATE": str(self.folder / "state"), "METAFLOW_TOKEN_HOME": str(self.folder / "tokens")}
        return {**kept, **own, "PATH": path, "HF_HUB_OFFLINE": "1"}

    def get_exit_code(self, *words: str) -> int:
        """Run a command that may fail, and return its exit code."""
        return self._done(words).returncode

    def _done(self, words: Sequence[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            words, cwd=self.folder, env=self.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )

    def run(self, *words: str) -> str:
        """Run a command in the folder to its end and return what it says."""
        done = self._done(words)
        if done.returncode:
            raise NotAsExpected(f"{' '.join(words)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done.stdout

    def run_flow(self, name: str, *words: str) -> str:
        """Run a command of a flow."""
        return self.run(sys.executable, f"flows/{name}_flow.py", "--quiet", "--no-pylint", *words)

    def run_dlpipe(self, *words: str) -> str:
        """Run a command of dlpipe."""
        return self.run("dlpipe", *words)

    def list_runs(self) -> list[dict[str, Any]]:
        """Return the runs, the oldest first."""
        return list(reversed(json.loads(self.run_dlpipe("runs", "--limit", "1000", "--json"))))

    def wait_for(self, what: str, found: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Return the first run that is ``found`` and has succeeded; a run that fails ends the play."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            for run in self.list_runs():
                if run["status"] in ("failed", "terminated"):
                    raise NotAsExpected(f"run {run['run']} of {run['deployment']} {run['status']}: {run['why']}")
                if run["status"] == "succeeded" and found(run):
                    self.say(f"run {run['run']} of {run['deployment']} succeeded, started by {run['cause']}")
                    return run
            time.sleep(1)
        raise NotAsExpected(
            f"{what} did not happen within {PATIENCE:.0f} s; `dlpipe runs` says:\n{self.run_dlpipe('runs')}"
        )

    @contextmanager
    def run_scheduler(self, port: int) -> Iterator[None]:
        """Have ``dlpipe scheduler`` run meanwhile."""
        with (self.folder / "scheduler.txt").open("w") as output:
            process = subprocess.Popen(
                ["dlpipe", "scheduler", "--port", str(port)],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


# -- the parts ---------------------------------------------------------------------------------------------------


def play(folder: Path, *, data: Path, new: Path | None, new_rows: int, train: Sequence[str], port: int) -> None:
    """Play production in ``folder``, which is empty."""
    scene = Play(folder, (*QUICK, *train), time.monotonic())
    known, alike = split_rows(read_rows(data))
    write_rows(folder / "reviews.csv", known)
    write_rows(folder / "alike.csv", alike)
    write_rows(folder / "other.csv", read_rows(new)[:new_rows] if new else make_other_rows(known)[:new_rows])
    copy_flows(folder / "flows")
    (folder / ".metaflow").mkdir()  # Metaflow would take one of a folder above
    train_first_champion(scene)
    scene.say(scene.run_dlpipe("append", "reviews", "alike.csv").strip())
    deploy(scene)
    with scene.run_scheduler(port):
        score_rows_that_are_alike(scene)
        retrain_on_rows_of_another_kind(scene)
    check(scene)


def train_first_champion(scene: Play) -> None:
    """Train on the rows that are known."""
    scene.say("train a first champion")
    output = scene.run(sys.executable, "flows/train_flow.py", "run", "--data", "reviews.csv", *scene.train)
    scene.say(find_gate_line(output))


def deploy(scene: Play) -> None:
    """Deploy the four flows, predict last: it is due at once."""
    for name in ("explain", "monitor", "train", "predict"):
        scene.run_flow(name, "local-scheduler", "create", *(scene.train if name == "train" else ()))
    print(scene.run_dlpipe("deployments"), end="")


def score_rows_that_are_alike(scene: Play) -> None:
    """Rows like the known ones have come in: they are scored on schedule, and are no drift."""
    predicted = scene.wait_for("predict on schedule", is_run_by("PredictFlow", "schedule "))
    scene.run_flow("predict", "local-scheduler", "suspend")
    for name in ("ExplainFlow", "MonitorFlow"):
        scene.wait_for(f"{name} after predict", is_run_after(predicted, name))
    if any("model-drifted" in run["events"] for run in scene.list_runs()):
        raise NotAsExpected("rows like the known ones were taken for drift")


def retrain_on_rows_of_another_kind(scene: Play) -> None:
    """Rows of another kind come in: monitor says so, and train runs."""
    scene.say(scene.run_dlpipe("append", "reviews", "other.csv").strip())
    earlier = {run["run"] for run in scene.list_runs()}
    scene.run_flow("predict", "local-scheduler", "unsuspend")
    is_due = is_run_by("PredictFlow", "schedule ")
    predicted = scene.wait_for("predict again", lambda run: run["run"] not in earlier and is_due(run))
    scene.run_flow("predict", "local-scheduler", "suspend")
    scene.wait_for("MonitorFlow after predict", is_run_after(predicted, "MonitorFlow"))
    trained = scene.wait_for("train after the event", lambda run: "model-drifted" in run["events"])
    scene.wait_for("ExplainFlow after predict", is_run_after(predicted, "ExplainFlow"))
    scene.say(find_gate_line(scene.run_dlpipe("logs", str(trained["run"]))))


def check(scene: Play) -> None:
    """See that MLflow has all of it, and that each row was scored, by a model once."""
    for flow in FLOWS.values():
        check_mirror(scene, flow)
    rows, scored, twice = json.loads(scene.run(sys.executable, "-c", COUNT))
    scene.say(f"{rows:,} rows, {scored:,} of them scored, {twice:,} twice by one model")
    if rows != scored or twice:
        raise NotAsExpected("a row was not scored, or twice by one model")
    print(scene.run_dlpipe("runs"), end="")
    scene.say(
        f"done. Look around in {scene.folder} (DLPIPE_STATE={scene.folder / 'state'}): dlpipe runs, dlpipe ui"
    )


def check_mirror(scene: Play, flow: str) -> None:
    """See that MLflow has a flow's runs as they happened; a machine that is too busy lets it fall behind."""
    command = ("dlpipe", "bridge", "check", flow)
    if scene.get_exit_code(*command):
        scene.say(f"bridge sync {flow}: {' '.join(scene.run_dlpipe('bridge', 'sync', flow).split())}")
    scene.say(f"bridge check {flow}: {scene.run(*command).strip()}")


COUNT = """
import collections, json
from dlpipe.tables import locate, read_table, table_at
rows = set(read_table(table_at(locate("reviews")), columns=["row_id"])["row_id"].to_pylist())
there = read_table(table_at(locate("reviews_predictions")), columns=["row_id", "model_version"]).to_pydict()
times = collections.Counter(zip(there["row_id"], there["model_version"]))
print(json.dumps([len(rows), len(rows & set(there["row_id"])), sum(count > 1 for count in times.values())]))
"""


# -- which runs --------------------------------------------------------------------------------------------------


def is_run_by(deployment: str, cause: str) -> Callable[[dict[str, Any]], bool]:
    """Return a function that says whether a run is of a deployment and has a cause that begins so."""
    return lambda run: bool(run["deployment"] == deployment and run["cause"].startswith(cause))


def is_run_after(run: dict[str, Any], deployment: str) -> Callable[[dict[str, Any]], bool]:
    """Return a function that says whether a run of ``deployment`` was started by the end of ``run``."""
    ids = [attempt["metaflow_run"] for attempt in run["attempts"]]
    return lambda other: other["deployment"] == deployment and any(name and name in other["cause"] for name in ids)


def find_gate_line(output: str) -> str:
    """Return what the gate decided, from the summary of a training."""
    found = re.search(r"\] (gate +.+)", output)
    if found is None:
        raise NotAsExpected(f"the gate has not decided:\n{output}")
    return found[1]


# -- rows --------------------------------------------------------------------------------------------------------

Row = tuple[str, str]


def read_rows(path: Path) -> list[Row]:
    """Return texts and labels of a CSV file with the columns ``review`` and ``sentiment``."""
    with path.open(encoding="utf-8", newline="") as file:
        return [(row["review"], row["sentiment"]) for row in csv.DictReader(file)]


def split_rows(rows: list[Row]) -> tuple[list[Row], list[Row]]:
    """Return the rows that are known, and those that come in later."""
    every = round(1 / (1 - KNOWN_SHARE))
    known = [row for at, row in enumerate(rows) if at % every]
    return known, rows[::every]


def make_other_rows(rows: list[Row]) -> list[Row]:
    """Return rows of another kind: much longer, and in capitals."""
    found = []
    for label in sorted({label for _, label in rows}):
        texts = [text for text, its in rows if its == label]
        found += [(" ".join(texts[at : at + 4]).upper(), label) for at in range(0, len(texts) - 3, 2)]
    return found[::2] + found[1::2]


def write_rows(path: Path, rows: list[Row]) -> None:
    """Write rows as CSV."""
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("review", "sentiment"), *rows])


def copy_flows(folder: Path) -> None:
    """Copy the flows; predict is due every minute in the copy."""
    shutil.copytree(PROJECT / "flows", folder, ignore=shutil.ignore_patterns("__pycache__"))
    predict = folder / "predict_flow.py"
    text, times = re.subn(r"^@schedule\(.*\)$", EVERY_MINUTE, predict.read_text(), flags=re.MULTILINE)
    if times != 1:
        raise NotAsExpected("predict_flow.py has no @schedule")
    predict.write_text(text)


# -- the command -------------------------------------------------------------------------------------------------


def main() -> int:
    """Play it; return 0 if all went as expected."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("production-demo"), help="made anew")
    parser.add_argument("--data", type=Path, default=SAMPLE, help="CSV with the columns review and sentiment")
    parser.add_argument("--new", type=Path, help="CSV with rows of another kind")
    parser.add_argument("--new-rows", type=int, default=1000, help="so many of them [default: 1000]")
    parser.add_argument("--port", type=int, default=8710, help="of the status page meanwhile; 0 for none")
    parser.add_argument("--train", default="", help="more options of train_flow.py, such as '--epochs 2'")
    given = parser.parse_args()
    if given.folder.exists():
        parser.error(f"{given.folder} is there already: remove it, or name another folder")
    given.folder.mkdir(parents=True)
    new = given.new or (SHIFTED if SHIFTED.exists() else None)
    try:
        play(
            given.folder.resolve(),
            data=given.data,
            new=new,
            new_rows=given.new_rows,
            train=given.train.split(),
            port=given.port,
        )
    except NotAsExpected as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
