"""Production on one machine, played in an empty folder and checked: a model is trained, served and replaced.

1. train     a first champion, on the rows that are there
2. deploy    the four production flows; the copy of ``predict_flow.py`` is due every minute instead of every hour
3. serve     the champion with ``dlpipe serve``, which is asked for rows like the known ones
4. wait      until ``dlpipe scheduler`` has run predict on schedule, explain and monitor after it, and monitor a
             second time over what the server was asked: none of them sees drift
5. drift     the server is asked for rows of another kind; their labels come back as feedback and go into the
             training table; monitor sees the drift in the server's log and publishes ``model-drifted``, train runs
6. follow    the server answers with the new champion by itself, and better: rows that nobody has learnt say so
7. check     that MLflow holds each run as it happened, that each row was scored, by a model once, and that the
             sums of use are what was asked

    python examples/production.py                       the sample that ships
    python examples/production.py --data reviews.csv --new other.csv
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from rows import Row, make_other_rows, read_rows, split_rows, write_rows
from stage import MODEL, Answers, Endpoint, NotAsExpected, Run, Stage

PROJECT = Path(__file__).resolve().parents[1]
SAMPLE = PROJECT / "data/sample/reviews.csv"
FLOWS = {"predict": "PredictFlow", "explain": "ExplainFlow", "monitor": "MonitorFlow", "train": "TrainFlow"}
WATCH = "MonitorServed"
"""The second deployment of the monitor flow: it looks at what the server was asked."""
EVERY_MINUTE = '@schedule(cron="* * * * *")'
QUICK = ("--trials", "0", "--epochs", "1")
HELD_OUT = 200
"""Rows of the other kind whose labels nobody sends: the champions are compared on them."""
SERVING = "[serving.log]\ntexts = true\nflush_seconds = 1\n"
FOLLOWS_WITHIN = 60.0
"""Seconds; a new champion is to answer within two on a machine that does nothing else."""


def play(folder: Path, *, data: Path, new: Path | None, new_rows: int, train: Sequence[str], port: int) -> None:
    """Play production in ``folder``, which is empty."""
    stage = Stage(folder, (*QUICK, *train))
    known, alike = split_rows(read_rows(data))
    other = (read_rows(new) if new else make_other_rows())[:new_rows]
    write_rows(folder / "reviews.csv", known)
    write_rows(folder / "alike.csv", alike)
    (folder / "serving.toml").write_text(SERVING)
    copy_flows(folder / "flows")
    (folder / ".metaflow").mkdir()  # Metaflow would take one of a folder above
    train_first_champion(stage)
    stage.say(stage.run_dlpipe("append", MODEL, "alike.csv").strip())
    deploy(stage)
    with stage.run_scheduler(port), stage.run_server(folder / "serving.toml") as endpoint:
        ask_rows_that_are_alike(stage, endpoint, alike)
        score_rows_that_are_alike(stage)
        before = ask_rows_of_another_kind(stage, endpoint, other)
        retrain(stage)
        follow(stage, endpoint, other[:HELD_OUT], before, promises=new is None)
        check_use(stage, endpoint)
    check(stage)


def train_first_champion(stage: Stage) -> None:
    """Train on the rows that are known."""
    stage.say("train a first champion")
    output = stage.run(sys.executable, "flows/train_flow.py", "run", "--data", "reviews.csv", *stage.train)
    stage.say(find_gate_line(output))


def deploy(stage: Stage) -> None:
    """Deploy the four flows, predict last: it is due at once."""
    for name in ("explain", "monitor", "train", "predict"):
        stage.run_flow(name, "local-scheduler", "create", *(stage.train if name == "train" else ()))
    print(stage.run_dlpipe("deployments"), end="")


def ask_rows_that_are_alike(stage: Stage, endpoint: Endpoint, rows: list[Row]) -> None:
    """Programs ask for rows like the known ones; from then on, the monitor flow looks at that as well."""
    texts, labels = zip(*rows, strict=True)
    answers = endpoint.ask(texts)
    stage.say(f"{len(rows):,} rows like the known ones: {describe_accuracy(answers, labels)}")
    wait_for_log(stage, endpoint)
    stage.run_flow("watch", "local-scheduler", "--name", WATCH, "create", "--served", "true")


def score_rows_that_are_alike(stage: Stage) -> None:
    """Rows like the known ones are scored on schedule; neither they nor what was asked are drift."""
    predicted = stage.wait_for("predict on schedule", is_run_by("PredictFlow", "schedule "))
    stage.run_flow("predict", "local-scheduler", "suspend")
    stage.wait_for("a look at what was asked", is_run_by(WATCH, "schedule "))
    stage.run_flow("watch", "local-scheduler", "--name", WATCH, "suspend")
    for name in ("ExplainFlow", "MonitorFlow"):
        stage.wait_for(f"{name} after predict", is_run_after(predicted, name))
    if any("model-drifted" in run["events"] for run in stage.list_runs()):
        raise NotAsExpected("rows like the known ones were taken for drift")


def ask_rows_of_another_kind(stage: Stage, endpoint: Endpoint, rows: list[Row]) -> Answers:
    """Programs ask for rows of another kind; labels of most come back, and go into the training table."""
    texts, labels = zip(*rows, strict=True)
    held_out = endpoint.ask(texts[:HELD_OUT])
    asked = endpoint.ask(texts[HELD_OUT:])
    stage.say(f"{len(rows):,} rows of another kind: {describe_accuracy(asked, labels[HELD_OUT:])}")
    stage.say(f"{endpoint.send_labels(asked, labels[HELD_OUT:]):,} labels were sent as feedback")
    wait_for_log(stage, endpoint)
    stage.say(stage.run_dlpipe("feedback", MODEL, "--append", MODEL).strip())
    return held_out


def retrain(stage: Stage) -> None:
    """The next look at what was asked sees drift, and train runs."""
    earlier = {run["run"] for run in stage.list_runs()}
    is_look = is_run_by(WATCH, "schedule ")
    stage.run_flow("watch", "local-scheduler", "--name", WATCH, "unsuspend")
    stage.wait_for("another look at what was asked", lambda run: run["run"] not in earlier and is_look(run))
    stage.run_flow("watch", "local-scheduler", "--name", WATCH, "suspend")
    stage.say(f"drift of what was asked: {stage.compute(DRIFT)}")
    trained = stage.wait_for("train after the event", lambda run: "model-drifted" in run["events"])
    stage.say(find_gate_line(stage.run_dlpipe("logs", str(trained["run"]))))


def follow(stage: Stage, endpoint: Endpoint, rows: list[Row], before: Answers, *, promises: bool) -> None:
    """The server answers with the new champion by itself, where the gate made one.

    ``promises`` is whether the rows are such that a new champion is to answer more of them right.
    """
    texts, labels = zip(*rows, strict=True)
    champion = int(stage.compute(CHAMPION))
    if promises and {champion} == before.versions:
        raise NotAsExpected("the champion did not move, though the new rows have labels to learn from")

    def ask() -> Answers | None:
        answers = endpoint.ask(texts)
        return answers if answers.versions == {champion} else None

    after = stage.wait_until(f"an answer of version {champion}", ask, seconds=FOLLOWS_WITHIN, command="models")
    stage.say(
        f"{len(rows):,} rows of the other kind that nobody has learnt, before: {describe_accuracy(before, labels)}"
    )
    stage.say(f"the same rows, now: {describe_accuracy(after, labels)}")
    if promises and after.measure_accuracy(labels) <= before.measure_accuracy(labels):
        raise NotAsExpected("the new champion does not answer more of the new rows right")


def check_use(stage: Stage, endpoint: Endpoint) -> None:
    """See that the sums of use are what was asked."""
    (use,) = json.loads(stage.run_dlpipe("usage", "--json"))
    stage.say(f"{use['calls']:,} requests are counted, of {use['rows']:,} rows; {use['errors']:,} got an error")
    if (use["calls"], use["errors"]) != (endpoint.asked, 0):
        raise NotAsExpected(f"the server was asked {endpoint.asked:,} times, and counts {use['calls']:,}")


def check(stage: Stage) -> None:
    """See that MLflow has all of it, and that each row was scored, by a model once."""
    for flow in FLOWS.values():
        check_mirror(stage, flow)
    rows, scored, twice = stage.compute(COUNT)
    stage.say(f"{rows:,} rows, {scored:,} of them scored, {twice:,} twice by one model")
    if rows != scored or twice:
        raise NotAsExpected("a row was not scored, or twice by one model")
    print(stage.run_dlpipe("runs"), end="")
    state = stage.folder / "state"
    stage.say(f"done. Look around in {stage.folder} (DLPIPE_STATE={state}): dlpipe runs, dlpipe serve, dlpipe ui")


def check_mirror(stage: Stage, flow: str) -> None:
    """See that MLflow has a flow's runs as they happened; a machine that is too busy lets it fall behind."""
    command = ("dlpipe", "bridge", "check", flow)
    if stage.get_exit_code(*command):
        stage.say(f"bridge sync {flow}: {' '.join(stage.run_dlpipe('bridge', 'sync', flow).split())}")
    stage.say(f"bridge check {flow}: {stage.run(*command).strip()}")


# -- what is asked of tables and registry ------------------------------------------------------------------------

COUNT = """
import collections, json
from dlpipe.tables import locate, read_table, table_at
rows = set(read_table(table_at(locate("reviews")), columns=["row_id"])["row_id"].to_pylist())
there = read_table(table_at(locate("reviews_predictions")), columns=["row_id", "model_version"]).to_pydict()
times = collections.Counter(zip(there["row_id"], there["model_version"]))
print(json.dumps([len(rows), len(rows & set(there["row_id"])), sum(count > 1 for count in times.values())]))
"""
LOGGED = """
import json
from dlpipe.errors import TableNotFound
from dlpipe.tables import read_table, table_at
try:
    ids = read_table(table_at("reviews_requests"), columns=["request_id"])["request_id"].to_pylist()
except TableNotFound:  # nothing has been committed yet
    ids = []
print(json.dumps(len(set(ids))))
"""
DRIFT = """
import json
from dlpipe.tables import read_table, table_at
looks = read_table(table_at("reviews_requests_drift")).to_pylist()
print(json.dumps(next(look["reason"] for look in looks if look["published"])))
"""
CHAMPION = """
import json
from dlpipe.registry import resolve
print(json.dumps(resolve("reviews").version))
"""


def wait_for_log(stage: Stage, endpoint: Endpoint) -> None:
    """Wait until the table has all that was asked; the server commits every few seconds."""

    def look() -> bool | None:
        return True if stage.compute(LOGGED) == endpoint.asked else None

    stage.wait_until("the commit of what was asked", look, seconds=60, command="usage")


def describe_accuracy(answers: Answers, labels: Sequence[str]) -> str:
    """Return how many answers are right, and whose they are."""
    versions = " and ".join(map(str, sorted(answers.versions)))
    return f"{answers.measure_accuracy(labels):.1%} answered right, by version {versions}"


# -- which runs --------------------------------------------------------------------------------------------------


def is_run_by(deployment: str, cause: str) -> Callable[[Run], bool]:
    """Return a function that says whether a run is of a deployment and has a cause that begins so."""
    return lambda run: bool(run["deployment"] == deployment and run["cause"].startswith(cause))


def is_run_after(run: Run, deployment: str) -> Callable[[Run], bool]:
    """Return a function that says whether a run of ``deployment`` was started by the end of ``run``."""
    ids = [attempt["metaflow_run"] for attempt in run["attempts"]]
    return lambda other: other["deployment"] == deployment and any(name and name in other["cause"] for name in ids)


def find_gate_line(output: str) -> str:
    """Return what the gate decided, from the summary of a training."""
    found = re.search(r"\] (gate +.+)", output)
    if found is None:
        raise NotAsExpected(f"the gate has not decided:\n{output}")
    return found[1]


# -- the flows ---------------------------------------------------------------------------------------------------


def copy_flows(folder: Path) -> None:
    """Copy the flows; in the copy predict is due every minute, and so is a second monitor flow; train never is."""
    shutil.copytree(PROJECT / "flows", folder, ignore=shutil.ignore_patterns("__pycache__"))
    predict = folder / "predict_flow.py"
    predict.write_text(replace_once(r"^@schedule\(.*\)$", EVERY_MINUTE, predict.read_text()))
    train = folder / "train_flow.py"
    train.write_text(replace_once(r"^@schedule\(weekly=True\)\n", "", train.read_text()))  # it may be Sunday
    watch = replace_once(r"^@trigger_on_finish\(.*\)$", EVERY_MINUTE, (folder / "monitor_flow.py").read_text())
    (folder / "watch_flow.py").write_text(replace_once(r"\btrigger_on_finish\b", "schedule", watch))
    shutil.copy(folder / "monitor_flow.toml", folder / "watch_flow.toml")


def replace_once(pattern: str, by: str, text: str) -> str:
    """Return ``text`` with what must stand there once replaced."""
    replaced, times = re.subn(pattern, by, text, flags=re.MULTILINE)
    if times != 1:
        raise NotAsExpected(f"a flow has {pattern!r} {times} times")
    return replaced


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
    if given.new_rows <= HELD_OUT:
        parser.error(f"--new-rows must be more than {HELD_OUT}, which are held out")
    given.folder.mkdir(parents=True)
    try:
        play(
            given.folder.resolve(),
            data=given.data,
            new=given.new,
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
