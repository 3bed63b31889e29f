"""Tuning, scoring and explaining give the same on two nodes, and on two of which one dies, as in one process."""

from __future__ import annotations

import dataclasses
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from clusters import Nodes, cluster_of, wait_for
from ray.tune import Callback
from searches import SETTINGS, SPACE, Search

from dlpipe.cluster import Cluster, join
from dlpipe.explain import ExplainSettings, explain_all
from dlpipe.inference import ScoringResult, score
from dlpipe.registry import ModelVersion
from dlpipe.tables import TableVersion, history, read_table, write_table
from dlpipe.task import Predictor, open_predictor
from dlpipe.task.texts import TextModel, TextTraining
from dlpipe.tuning import Tuned, tune

pytestmark = [pytest.mark.slow, pytest.mark.long]


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    with cluster_of(2) as made:
        yield made


@pytest.fixture
def dying(nodes: Nodes) -> Callable[[], None]:
    """What kills the second of two nodes."""
    return nodes.second().kill


@pytest.fixture(scope="module")
def cluster(nodes: Nodes) -> Iterator[Cluster]:
    """A connection for all tests that come after the search, which starts Ray itself."""
    nodes.second()
    with join(nodes.address) as joined:
        assert joined is not None
        yield joined


@pytest.fixture(scope="module")
def in_parts(tiny_table: TableVersion, tmp_path_factory: pytest.TempPathFactory) -> TableVersion:
    """``reviews`` in files of 20 rows, which can be parts of their own."""
    path, rows = tmp_path_factory.mktemp("parts") / "reviews", read_table(tiny_table)
    for start in range(0, len(rows), 20):
        made = write_table(path, rows.slice(start, 20))
    return made


# -- tuning ------------------------------------------------------------------------------------------------------


def without_seconds(tuned: Tuned) -> Tuned:
    """Return ``tuned`` without what differs between any two runs; every digit of the rest has to be the same."""
    trials = [
        dataclasses.replace(
            trial,
            scores=tuple(dataclasses.replace(score, seconds=0.0, rows_per_second=0.0) for score in trial.scores),
        )
        for trial in tuned.trials
    ]
    return Tuned(tuple(trials), tuned.best)


class KillsAtTheFirstEpoch(Callback):
    """Kills a node as soon as a trial reports, while another trial runs beside it, so that one of them is lost."""

    def __init__(self, kill: Callable[[], None]) -> None:
        self._kill: Callable[[], None] | None = kill
        self.tried_again: list[str] = []

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: Any, **info: Any) -> None:
        if self._kill:
            self._kill()
            self._kill = None

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.tried_again.append(trial.trial_id)


def test_tuning_on_two_nodes_finds_the_same_also_if_one_of_them_dies_half_way(
    search: Search,
    nodes: Nodes,
    dying: Callable[[], None],
    tiny_table: TableVersion,
    tiny_settings: TextTraining,
    caplog: pytest.LogCaptureFixture,
) -> None:
    killing = KillsAtTheFirstEpoch(dying)
    lines: list[str] = []
    with join(nodes.address) as cluster:
        again = tune(
            tiny_table,
            space=SPACE,
            settings=SETTINGS,
            training=tiny_settings,
            cluster=cluster,
            callbacks=[killing],
            say=lines.append,
        )
        # Ray needs two seconds to see that a node died; the lost trial may be done again before
        wait_for(lambda: len(living()) == 1, nodes.nodes[0])
    assert without_seconds(again) == without_seconds(search.tuned)
    assert lines[0] == "4 trials, 2 at a time with 1 threads each"
    assert len(killing.tried_again) == 1
    assert "1 of 2 nodes of the Ray cluster died; their work was done on the others" in caplog.text


def living() -> list[Any]:
    import ray

    return [node for node in ray.nodes() if node["Alive"]]


# -- scoring -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tiny_model: TextModel) -> ModelVersion:
    return ModelVersion("reviews", 1, "models:/reviews/1", tiny_model.digest, run_id="", model_id="")


@pytest.fixture(scope="module")
def predictor(tiny_model: TextModel) -> Predictor:
    return open_predictor(tiny_model, threads=1)


@pytest.fixture(scope="module")
def alone(
    predictor: Predictor, model: ModelVersion, in_parts: TableVersion, tmp_path_factory: pytest.TempPathFactory
) -> ScoringResult:
    target = str(tmp_path_factory.mktemp("alone") / "predictions")
    return score(predictor, in_parts, model=model, target=target, split=None, part_rows=20)


def test_scoring_on_two_nodes_gives_the_same_table_in_one_commit(
    cluster: Cluster,
    predictor: Predictor,
    model: ModelVersion,
    in_parts: TableVersion,
    alone: ScoringResult,
    tmp_path: Path,
) -> None:
    target = str(tmp_path / "predictions")
    done = score(predictor, in_parts, model=model, target=target, split=None, part_rows=20, cluster=cluster)
    assert (done.rows, done.new_rows, done.table.version) == (250, 250, 0)
    assert answers(done.table).equals(answers(alone.table))


def answers(table: TableVersion) -> pa.Table:
    """Return the rows without the time, which no two scorings share."""
    return read_table(table).drop_columns(["scored_at"])


# -- explaining ---------------------------------------------------------------------------------------------------


def test_explaining_on_two_nodes_gives_the_same_table(
    cluster: Cluster,
    tiny_model: TextModel,
    in_parts: TableVersion,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("dlpipe.explain.table_explaining.SLICE_ROWS", 16)
    predictor, settings = open_predictor(tiny_model, threads=1, engine="exact"), ExplainSettings(max_evals=30)
    given = {"split": "test", "model": "models:/reviews/1", "settings": settings}
    here = explain_all(predictor, in_parts, target=str(tmp_path / "here"), **given)
    there = explain_all(predictor, in_parts, target=str(tmp_path / "there"), each=cluster.each, **given)
    assert (there.rows, there.new_rows, there.table.version) == (here.rows, here.rows, 0)
    mine, theirs = read_table(here.table), read_table(there.table)
    names = ["row_id", "position", "part", "output_name", "method"]
    assert theirs.select(names).equals(mine.select(names))
    assert theirs["attribution"].to_pylist() == pytest.approx(mine["attribution"].to_pylist(), abs=1e-6)


# -- two nodes of which one dies; the tests of scoring and explaining above need both --------------------------


@contextmanager
def dies_when(condition: Callable[[], bool], kill: Callable[[], None]) -> Iterator[None]:
    """Call ``kill`` from beside as soon as ``condition`` holds, which has to happen within the ``with``."""
    over, killed = threading.Event(), []

    def watch() -> None:
        while not over.wait(0.05):
            if condition():
                kill()
                killed.append(True)
                return

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield
    finally:
        over.set()
        watching.join()
    assert killed


class Slow:
    """A predictor that takes a while, so that there is time to kill a node."""

    def __init__(self, predictor: Any) -> None:
        self.card, self.labels, self.digest = predictor.card, predictor.labels, predictor.digest
        self._predictor = predictor

    def encode(self, texts: list[str]) -> Any:
        time.sleep(0.3)
        return self._predictor.encode(texts)

    def predict_encoded(self, encoded: Any, **options: Any) -> Any:
        return self._predictor.predict_encoded(encoded, **options)


@pytest.fixture
def slow(predictor: Predictor) -> Any:
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the nodes cannot import this file
    return Slow(predictor)


def test_scoring_survives_a_node_that_dies_half_way(
    dying: Callable[[], None],
    cluster: Cluster,
    slow: Any,
    model: ModelVersion,
    in_parts: TableVersion,
    alone: ScoringResult,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    target = str(tmp_path / "predictions")
    with dies_when(lambda: len(list(Path(target).glob("_staged/*.parquet"))) > 3, dying):
        done = score(
            slow, in_parts, model=model, target=target, split=None, part_rows=20, cluster=cluster, say=None
        )
    assert answers(done.table).equals(answers(alone.table))
    assert len(history(target)) == 1
    assert capfd.readouterr() == ("", "")
