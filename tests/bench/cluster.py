"""Tuning and batch scoring with the packaged backbone on two nodes: the same result as in one process?

A Ray cluster of two one-core nodes runs on this machine. Tuning trains every weight of the backbone on the nodes
(a frozen one would be run once, before the trials); scoring is done with the best of the trials. Each is done in
one process of one core, on the two nodes, and on two nodes of which the second is killed half-way, as if it had
lost its power (its raylet and workers, by ``kill -9``). The same means: every digit of each trial's scores but the
seconds, and the digest of the table of predictions.

Seconds are from the call to its result. What trials read is prepared before. One process tunes in a Ray of its
own, whose start counts; the cluster runs already. Workers load torch and dlpipe anew each time. The nodes notice
a death in two seconds, not in Ray's fifteen.

    python tests/bench/cluster.py
    python tests/bench/cluster.py --rows 2000 --trials 4
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ray.tune import Callback

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from clusters import Node, Nodes, cluster_of, wait_for

from dlpipe.cluster import Cluster, join
from dlpipe.inference import score
from dlpipe.registry import ModelVersion
from dlpipe.tables import TableVersion, read_table, write_table
from dlpipe.task import Predictor, open_predictor
from dlpipe.task.texts import TextTraining
from dlpipe.training import fit
from dlpipe.tuning import Range, Tuned, TuningSettings, tune

MOVIES = Path(__file__).resolve().parents[3] / "shared" / "data" / "snippets" / "movies_train.csv"
FILE_ROWS, VALID_EVERY = 250, 20
EPOCHS, TRIAL_ROWS, BATCH, SEED = 3, 256, 2, 1
SETTINGS = TextTraining(epochs=EPOCHS, max_train_rows=TRIAL_ROWS, threads=1)
SPACE = {"learning_rate": Range(1e-5, 1e-2, log=True)}
SAME = "yes, every digit"


def main() -> None:
    options = parse()
    # one process of one core, as each node has
    os.environ.update(DLPIPE_CORES="1", OMP_NUM_THREADS="1", RAYON_NUM_THREADS="1")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        table = in_files(folder / "movies", texts(options.rows))
        tuning = Tuning(table, options.trials)
        alone = [timed(tuning, "one process")]
        scoring = Scoring(table, folder, model_of(table, alone[0].result))
        alone.append(timed(scoring, "one process"))
        works: list[Work] = [tuning, scoring]
        with cluster_of(2) as nodes:
            two = [on_nodes(work, nodes) for work in works]
            killed = [on_dying_nodes(work, nodes) for work in works]
        if not print_table(list(zip(works, alone, two, killed, strict=True))):
            sys.exit("The results differ.")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2_000, help="rows of the table, at least 1,500")
    parser.add_argument("--trials", type=int, default=6, help="trials of a search, at least 4")
    options = parser.parse_args()
    if not MOVIES.is_file():
        parser.exit(1, f"{MOVIES} is not there; this benchmark needs the movie snippets.\n")
    if options.rows < 6 * FILE_ROWS or options.trials < 2 * BATCH:
        parser.error("with less, it would be over before a node can die half-way")
    return options


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


# -- what is read and what scores --------------------------------------------------------------------------------


def texts(rows: int) -> dict[str, list[str]]:
    """Return snippets as the columns of a table; every twentieth is for validation."""
    with MOVIES.open(newline="", encoding="utf-8") as file:
        read = list(csv.DictReader(file))[:rows]
    return {
        "row_id": [str(number) for number in range(len(read))],
        "text": [row["review"] for row in read],
        "label": [row["sentiment"] for row in read],
        "split": ["train" if number % VALID_EVERY else "valid" for number in range(len(read))],
    }


def in_files(path: Path, columns: dict[str, list[str]]) -> TableVersion:
    """Write a table in files that can be parts of their own."""
    import pyarrow as pa

    rows = pa.table(columns)
    for start in range(0, len(rows), FILE_ROWS):
        table = write_table(path, rows.slice(start, FILE_ROWS))
    return table


def model_of(table: TableVersion, tuned: Tuned) -> Predictor:
    """Train the model that scores, with the best of what was tried."""
    return open_predictor(fit(table, settings=tuned.apply(SETTINGS), say=say).model, threads=1)


# -- a node that dies --------------------------------------------------------------------------------------------


@dataclass
class Death:
    """The end of a node, once, and what was done by then."""

    node: Node
    done: str = ""

    def come(self, done: str) -> None:
        if not self.done:
            self.done = done
            self.node.kill()


class KillsHalfWay(Callback):
    """Kills a node when some trials have ended and one that runs there reports its first epoch.

    ASHA stops no trial at its first epoch here, so this one is lost.
    """

    def __init__(self, death: Death, of: int) -> None:
        self._death, self._of = death, of
        self.tried_again = 0

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: Any, **info: Any) -> None:
        ended = [each.status for each in trials].count("TERMINATED")
        if ended >= self._of // 2 - 1 and result["epoch"] == 1 and result["pid"] in self._death.node.processes():
            self._death.come(f"{ended} of {self._of} trials, and 1 of {EPOCHS} epochs of one there")

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.tried_again += 1


@contextmanager
def dies_when_staged(death: Death, target: Path, of: int) -> Iterator[None]:
    """Kill a node that scores a part as soon as half of all parts are staged."""
    over = threading.Event()

    def watch() -> None:
        while not (over.wait(0.02) or death.done):
            staged = len(list(target.glob("_staged/*.parquet")))
            if of / 2 <= staged < of - 2 and scores(death.node):
                death.come(f"{staged} of {of} parts")

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield
    finally:
        over.set()
        watching.join()


def scores(node: Node) -> bool:
    """Return whether a worker of ``node`` is at a part."""
    titles = []
    for pid in node.processes():
        with suppress(OSError):  # it ended meanwhile
            titles.append(Path(f"/proc/{pid}/cmdline").read_text(errors="replace"))
    return any(title.startswith("ray::MapWorker(MapBatches(Worker)).submit") for title in titles)


# -- the work ----------------------------------------------------------------------------------------------------


@dataclass
class Tuning:
    """A search with ASHA, in batches of as many trials as there are nodes."""

    table: TableVersion
    trials: int

    @property
    def name(self) -> str:
        return f"tuning: {self.trials} trials of at most {EPOCHS} epochs, {TRIAL_ROWS} rows"

    def prepare(self) -> None:
        """Keep what trials read beside the table."""
        from dlpipe.task import find_task
        from dlpipe.training.data import prepare_data

        prepare_data(self.table, SETTINGS, task=find_task(), say=say)

    def __call__(self, cluster: Cluster | None, death: Death | None) -> Tuned:
        killing = [KillsHalfWay(death, self.trials)] if death else []
        tuned = tune(
            self.table,
            space=SPACE,
            settings=TuningSettings(
                trials=self.trials, epochs=EPOCHS, rows=TRIAL_ROWS, grace_epochs=2, batch=BATCH, seed=SEED
            ),
            training=SETTINGS,
            say=say,
            callbacks=killing,
            cluster=cluster,
        )
        if death and death.done:
            death.done += f"; trials done again: {killing[0].tried_again}"
        return tuned

    def same(self, one: Tuned, other: Tuned) -> str:
        """Say whether two searches found the same, the seconds aside."""
        if outline(one) != outline(other):
            return "no"
        apart = [abs(a - b) for a, b in zip(numbers(one), numbers(other), strict=True)]
        return SAME if not any(apart) else f"trials and the best, yes; their scores within {max(apart):.1g}"


def outline(tuned: Tuned) -> list[Any]:
    trials = [(trial.number, trial.values, len(trial.scores), trial.error) for trial in tuned.trials]
    return [trials, tuned.best]


def numbers(tuned: Tuned) -> list[float]:
    epochs = [epoch for trial in tuned.trials for epoch in trial.scores]
    return [number for epoch in epochs for number in (epoch.epoch, epoch.train_loss, *epoch.scores.values())]


@dataclass
class Scoring:
    """Predictions for all rows, file by file."""

    table: TableVersion
    folder: Path
    predictor: Predictor
    _targets: list[Path] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"scoring: {self.table.rows:,} rows in {self.parts} parts"

    @property
    def parts(self) -> int:
        return -(-self.table.rows // FILE_ROWS)

    def prepare(self) -> None:
        """Take another table for the predictions."""
        self._targets.append(self.folder / f"predictions-{len(self._targets)}")

    def __call__(self, cluster: Cluster | None, death: Death | None) -> TableVersion:
        target = self._targets[-1]
        if death is None:
            return self._scored(target, cluster)
        with dies_when_staged(death, target, self.parts):
            return self._scored(target, cluster)

    def _scored(self, target: Path, cluster: Cluster | None) -> TableVersion:
        model = ModelVersion("bench", 1, "models:/bench/1", self.predictor.digest, run_id="", model_id="")
        given: dict[str, Any] = {"model": model, "target": str(target), "split": None, "part_rows": FILE_ROWS}
        return score(self.predictor, self.table, **given, say=say, cluster=cluster).table

    def same(self, one: TableVersion, other: TableVersion) -> str:
        """Say whether two tables of predictions are the same, row for row."""
        mine, theirs = read_table(one), read_table(other)
        if mine.equals(theirs):
            return SAME if (one.digest, one.version) == (other.digest, other.version) else "rows, yes; digest, no"
        names = ["row_id", "predicted"]
        if not mine.select(names).equals(theirs.select(names)):
            return "no"
        pairs = zip(mine["probability"].to_pylist(), theirs["probability"].to_pylist(), strict=True)
        return f"labels, yes; probabilities within {max(abs(a - b) for a, b in pairs):.1g}"


Work = Tuning | Scoring


# -- doing it ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """What a work gave and how long it took, and what was done when a node died."""

    result: Any
    seconds: float
    done: str = ""


def timed(work: Work, where: str, cluster: Cluster | None = None, death: Death | None = None) -> Run:
    work.prepare()
    say(f"{work.name}, {where} ...")
    started = time.monotonic()
    result = work(cluster, death)
    seconds = time.monotonic() - started
    done = death.done if death else ""
    say(f"{work.name}, {where}: {seconds:.1f} s {done}")
    return Run(result, seconds, done)


def on_nodes(work: Work, nodes: Nodes) -> Run:
    with join(nodes.address) as cluster:
        return timed(work, "two nodes", cluster)


def on_dying_nodes(work: Work, nodes: Nodes) -> Run:
    """Do ``work`` while the second node, a new one if the last was killed, dies."""
    second = nodes.nodes[-1]
    death = Death(nodes.add() if second.process.poll() is not None else second)
    with join(nodes.address) as cluster:
        run = timed(work, "one node killed", cluster, death)
        if not run.done:
            sys.exit(f"{work.name}: no node was killed, the work was over too soon; take more --rows or --trials")
        wait_for(lambda: living() == 1, nodes.nodes[0])
    return run


def living() -> int:
    """Return how many nodes Ray believes to live."""
    import ray

    return sum(node["Alive"] for node in ray.nodes())


def print_table(rows: list[tuple[Work, Run, Run, Run]]) -> bool:
    """Print what was measured, and return whether all results are the same."""
    differ = 0
    print("| work | one process, s | two nodes, s | one node killed half-way, s ", end="")
    print("| same result on two nodes | same result after the kill | what was done when the node died |")
    print("|---|---:|---:|---:|---|---|---|")
    for work, one, two, killed in rows:
        said = [work.same(one.result, run.result) for run in (two, killed)]
        differ += sum(answer != SAME for answer in said)
        seconds = [f"{run.seconds:.1f}" for run in (one, two, killed)]
        print(f"| {' | '.join([work.name, *seconds, *said, killed.done])} |")
    return not differ


if __name__ == "__main__":
    main()
