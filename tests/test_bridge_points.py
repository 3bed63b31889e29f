"""What stands inside an artifact: numbers that MLflow can compare, texts beside them, series, what is left out."""

from __future__ import annotations

import datetime
import json
import math
import pickle
from collections import deque
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from dlpipe.bridge.opening import Fields, Unopened, open_pickle
from dlpipe.bridge.points import (
    MOST_NAMES,
    collect_points,
    find_points,
    find_settings,
    name_points,
)
from dlpipe.bridge.repeats import drop_repeated
from dlpipe.bridge.series import MOST_POINTS
from dlpipe.bridge.values import keep, to_mlflow_key, to_python_name
from dlpipe.redaction import HIDDEN


@dataclass(frozen=True)
class Epoch:
    epoch: int
    loss: float
    scores: dict[str, float] = field(default_factory=dict)


class Best(NamedTuple):
    loss: float
    epoch: int


class Itself:
    def __init__(self) -> None:
        self.size, self.me = 3, self


class Private:
    def __init__(self) -> None:
        self.size, self._inside = 3, 4


def metrics(name: str, value: Any) -> dict[str, float | list[tuple[int, float]]]:
    """Numbers by name; of a series, steps and values."""
    found: dict[str, list[tuple[int, float]]] = {}
    for key, number, step in find_points(name, value).metrics:
        found.setdefault(key, []).append((step, number))
    return {
        key: points[0][1] if points[0][0] == 0 and len(points) == 1 else points for key, points in found.items()
    }


# -- numbers by name ---------------------------------------------------------------------------------------------


def test_numbers_of_a_mapping_are_metrics_to_a_depth_of_two() -> None:
    value = {"accuracy": 0.9, "by_class": {"good": {"f1": 0.8}, "rows": np.int64(3)}, "n": np.float32(0.5)}
    assert metrics("result", value) == {"result/accuracy": 0.9, "result/by_class/rows": 3, "result/n": 0.5}


def test_strings_flags_and_dates_beside_numbers_are_parameters() -> None:
    found = find_points(
        "settings",
        {
            "epochs": 3,
            "strategy": "freeze",
            "amp": True,
            "day": datetime.date(2026, 11, 28),
            "seed": None,
            "of": [],
        },
    )
    assert found.params == {"settings/strategy": "freeze", "settings/amp": "True", "settings/day": "2026-11-28"}


def test_what_is_called_params_holds_parameters_for_the_whole_run() -> None:
    value = {"training": {"epochs": 3, "rate": 0.1, "seed": None}, "classes": ["a", "b"], "folds": [{"fold": 1}]}
    found = find_points("params", value)
    assert found.metrics == []
    assert found.params == {"training/epochs": "3", "training/rate": "0.1", "classes": "a, b"}
    assert found.settings == found.params
    assert find_points("settings", value).settings == {}


def test_settings_within_settings_are_parameters_at_any_depth_that_ends() -> None:
    deep = {"model": {"head": {"drop": {"rate": 0.1}}}, "names": ["n" * 100] * 9, "text": "t" * 300}
    deep["again"] = deep
    found = find_points("params", deep)
    assert found.params["model/head/drop/rate"] == "0.1"
    assert found.params["again/again/model/head/drop/rate"] == "0.1"
    assert found.params["names"].endswith("... (916 characters)")
    assert len(found.params["names"]) == 250
    assert found.params["text"].startswith("ttt")
    wide: dict[str, Any] = {}
    wide |= {str(at): wide for at in range(10)}
    assert find_settings("settings", wide) == (
        {},
        [f"settings: more than {MOST_NAMES} numbers and texts: they are in the file alone"],
    )


def test_a_number_in_an_array_without_a_shape_is_one() -> None:
    loss = np.array(0.5, dtype=np.float32)
    assert metrics("scores", {"loss": loss}) == {"loss": 0.5}
    assert metrics("log", [{"epoch": np.array(1), "loss": loss}]) == {"log/loss": [(1, 0.5)]}
    assert keep("loss", loss).metric == 0.5


def test_a_mapping_without_a_number_is_a_file_alone() -> None:
    assert find_points("names", {"a": "x", "b": {"c": True}}) == find_points("names", "x")
    assert find_points("names", {"a": "x"}).params == {}


def test_a_verdict_is_parameters_also_without_a_number() -> None:
    found = find_points("verdict", {"passed": False, "reason": "accuracy 0.5 is below 0.6", "champion": None})
    assert found.params == {"verdict/passed": "False", "verdict/reason": "accuracy 0.5 is below 0.6"}
    assert find_points("note", {"passed": "by", "reason": "none"}).params == {}


def test_dataclasses_and_named_tuples_are_mappings_of_their_fields() -> None:
    assert metrics("last", Epoch(2, 0.5, {"f1": 0.75})) == {"last/epoch": 2, "last/loss": 0.5, "last/f1": 0.75}
    assert metrics("best", Best(0.5, 2)) == {"best/loss": 0.5, "best/epoch": 2}
    assert json.loads(keep("best", Best(0.5, 2)).documents[0].content) == {"loss": 0.5, "epoch": 2}


def test_a_number_that_is_not_finite_is_a_parameter() -> None:
    found = find_points("run", {"loss": math.nan, "rate": math.inf, "huge": 10**400, "rows": 1})
    assert found.params == {"run/loss": "nan", "run/rate": "inf", "run/huge": "about 2^1329"}
    assert found.metrics == [("run/rows", 1.0, 0)]


def test_metrics_and_scores_say_nothing_in_a_name_that_is_free() -> None:
    taken = {("metric", "loss")}
    found = find_points("metrics", {"accuracy": 0.9, "loss": 0.1}, taken)
    assert [key for key, _, _ in found.metrics] == ["accuracy", "metrics/loss"]
    assert [key for key, _, _ in find_points("scores", {"accuracy": 0.8}, taken).metrics] == ["scores/accuracy"]


def test_two_keys_that_become_one_name_are_told_apart() -> None:
    found = find_points("run", {1: 0.1, "1": 0.2, "a/b": 0.3, "a": {"b": 0.4}})
    names = [key for key, _, _ in found.metrics]
    assert len(set(names)) == 4
    assert names == [
        key for key, _, _ in find_points("run", {1: 0.1, "1": 0.2, "a/b": 0.3, "a": {"b": 0.4}}).metrics
    ]


@pytest.mark.parametrize("key", ["a//b", "/a", "a/", "", ".", "..", "../a", "x%y", "größe", "k" * 300])
def test_a_key_that_mlflow_refuses_is_escaped(key: str) -> None:
    from mlflow.utils.validation import _validate_metric_name

    ((name, value, _),) = find_points("run", {key: 0.5}).metrics
    _validate_metric_name(name)
    assert len(name) <= 250
    assert value == 0.5
    if len(key) < 200:
        assert to_python_name(name) == f"run/{key}"
        assert to_python_name(to_mlflow_key(key)) == key


def test_too_many_numbers_stay_in_the_file_and_it_is_said() -> None:
    found = find_points("large", {str(at): {"value": at} for at in range(5_000)})
    assert found.metrics == []
    assert found.notes == [f"large: more than {MOST_NAMES} numbers and texts: they are in the file alone"]
    assert len(find_points("enough", {str(at): at for at in range(MOST_NAMES)}).metrics) == MOST_NAMES


def test_what_is_too_large_takes_nothing_with_it_that_stands_beside_it() -> None:
    words = {f"word_{at}": at for at in range(300)}
    log = [{"epoch": at, "loss": 0.5, "f1": 0.5} for at in range(3_000)]
    found = find_points(
        "result", {"by_word": words, "accuracy": 0.5, "log": log, "last": [{"epoch": 1, "f1": 0.5}]}
    )
    assert found.metrics == [("result/accuracy", 0.5, 0), ("result/last/f1", 0.5, 1)]
    assert found.notes == [
        f"result/by_word: more than {MOST_NAMES} numbers and texts: they are in the file alone",
        f"result/log: more than {MOST_POINTS:,} points: they are in the file alone",
    ]


def test_what_refers_to_itself_ends() -> None:
    value: dict[str, Any] = {"size": 3}
    value["me"] = value
    assert metrics("loop", value) == {"loop/size": 3, "loop/me/size": 3}


# -- series ------------------------------------------------------------------------------------------------------


def test_records_with_the_same_names_are_a_series_by_their_index() -> None:
    epochs = [Epoch(at, 1 / at, {"f1": at / 10}) for at in (1, 2, 3)]
    expected = {
        "epochs/loss": [(1, 1.0), (2, 0.5), (3, 1 / 3)],
        "epochs/f1": [(1, 0.1), (2, 0.2), (3, 0.3)],
    }
    assert metrics("epochs", epochs) == expected
    assert metrics("epochs", tuple(epochs)) == expected
    assert metrics("epochs", deque(epochs)) == expected
    assert metrics("fit", {"epochs": epochs})["fit/epochs/loss"] == expected["epochs/loss"]


def test_records_without_an_index_are_a_file_alone() -> None:
    assert metrics("mistakes", [{"probability": 0.5}, {"probability": 0.6}]) == {}


def test_a_missing_number_leaves_a_gap_and_one_that_is_not_finite_is_said() -> None:
    found = find_points("log", [{"step": 10, "loss": 1.0}, {"step": 20}, {"step": 30, "loss": math.nan}])
    assert found.metrics == [("log/loss", 1.0, 10)]
    assert found.notes == ["log/loss: 1 of 3 points are not finite"]


def test_a_name_whose_type_changes_half_way_is_left_out_and_said() -> None:
    assert find_points("log", [{"epoch": 0, "a": 1}, {"epoch": 1, "a": "one"}]).notes == [
        "log/a is not always a number"
    ]
    found = find_points("log", [{"epoch": 0, "a": 1, "b": 2}, {"epoch": 1, "a": "one", "b": 3}])
    assert found.metrics == [("log/b", 2.0, 0), ("log/b", 3.0, 1)]
    assert found.notes == ["log/a is not always a number"]


def test_an_index_that_repeats_is_not_used_and_that_is_said() -> None:
    found = find_points("log", [{"fold": 1, "f1": 0.5}, {"fold": 1, "f1": 0.6}])
    assert found.metrics == [("log/f1", 0.5, 0), ("log/f1", 0.6, 1)]
    assert found.notes == ["log/fold repeats: points are counted from 0"]


@pytest.mark.parametrize("index", [[0.5, 1.5], [-1, 0], [0, 2**70], ["a", "b"], [True, False], [0, None]])
def test_an_index_that_counts_nothing_is_none_and_that_is_said(index: list[Any]) -> None:
    records = [{"epoch": at, "loss": 1.0} for at in index]
    for value in (records, pd.DataFrame(records)):
        found = find_points("log", value)
        assert (found.metrics, found.notes) == ([], ["log/epoch does not count: no points"])


def test_names_that_become_one_are_told_apart_in_records_and_tables_too() -> None:
    expected = {"log/1": [(5, 0.5)], "log/1:2": [(5, 0.75)]}
    assert metrics("log", [{"epoch": 5, 1: 0.5, "1": 0.75}]) == expected
    assert metrics("log", pd.DataFrame([[5, 0.5, 0.75]], columns=["epoch", 1, "1"])) == expected


def test_what_was_measured_beside_a_version_is_told() -> None:
    model = {"name": "reviews", "version": 2, "uri": "models:/reviews/2", "accuracy": 0.9, "run": 17}
    assert metrics("used", model) == {"used/version": 2, "used/accuracy": 0.9}
    same = collect_points("best", model), collect_points("last_used", model)
    drop_repeated(same, {})
    assert [path for path, _ in same[1].metrics] == [("last_used", "accuracy")]


def test_a_table_version_and_a_model_version_give_what_can_be_compared() -> None:
    table = {"path": "reviews", "version": 3, "digest": "abc", "rows": 10, "timestamp": 1_795_871_639_009}
    model = {"name": "reviews", "version": 2, "uri": "models:/reviews/2", "tags": {"seed": 0}}
    found = find_points("used", {"table": table, "model": model})
    assert found.metrics == [
        ("used/table/version", 3, 0),
        ("used/table/rows", 10, 0),
        ("used/model/version", 2, 0),
    ]
    assert found.params == {}


@pytest.mark.parametrize("where", ["column", "index"])
def test_a_table_with_an_index_is_a_series_for_each_column_of_numbers(where: str) -> None:
    frame = pd.DataFrame({"fold": [1, 2], "f1": [0.5, 0.6], "note": ["a", "b"], "ok": [True, False]})
    frame = frame.set_index("fold") if where == "index" else frame
    assert metrics("folds", frame) == {"folds/f1": [(1, 0.5), (2, 0.6)]}
    if where == "column":
        assert metrics("folds", pa.Table.from_pandas(frame)) == {"folds/f1": [(1, 0.5), (2, 0.6)]}


def test_a_number_that_a_table_lacks_leaves_a_gap_and_is_noted() -> None:
    rows = pd.Series([3, None], dtype="Int64")
    found = find_points("folds", pd.DataFrame({"fold": [1, 2], "f1": [0.5, math.nan], "rows": rows}))
    assert found.metrics == [("folds/f1", 0.5, 1), ("folds/rows", 3.0, 1)]
    assert found.notes == ["folds/f1: 1 of 2 points are not finite", "folds/rows: 1 of 2 points are not finite"]


def test_a_column_whose_type_changes_half_way_is_left_out_and_said() -> None:
    texts = pd.Series(["a", None], dtype=object)
    found = find_points("log", pd.DataFrame({"epoch": [0, 1], "loss": 0.5, "rate": [1, "low"], "note": texts}))
    assert {key for key, _, _ in found.metrics} == {"log/loss"}
    assert found.notes == ["log/rate is not always a number"]


def test_other_tables_are_files_alone() -> None:
    assert metrics("rows", pd.DataFrame({"probability": [0.5, 0.6]})) == {}
    long = find_points("rows", pd.DataFrame({"epoch": range(MOST_POINTS + 1), "loss": 1.0}))
    assert (long.metrics, len(long.notes)) == ([], 1)
    assert metrics("rows", pd.DataFrame([[1, 2]], columns=["epoch", "epoch"])) == {}


def test_a_list_of_a_million_records_is_a_file_alone() -> None:
    found = find_points("log", [{"epoch": 1, "loss": 0.5}] * 1_000_000)
    assert found.metrics == []
    assert found.notes == [f"log: more than {MOST_POINTS:,} points: they are in the file alone"]
    assert find_points("log", [{"row": 1, "loss": 0.5}] * 1_000_000).notes == []


def test_lists_of_numbers_and_of_mixed_things_are_no_series() -> None:
    assert metrics("splits", [0.8, 0.1, 0.1]) == {}
    assert metrics("mixed", [{"a": 1}, 2]) == {}
    assert metrics("empty", []) == {}
    assert metrics("text", "abc") == {}


def test_too_many_points_stay_in_the_file_and_it_is_said() -> None:
    frame = pd.DataFrame({"step": range(3_000), "a": 1.0, "b": 2.0})
    found = find_points("log", frame)
    assert found.metrics == []
    assert found.notes == [f"log: more than {MOST_POINTS:,} points: they are in the file alone"]


# -- secrets -----------------------------------------------------------------------------------------------------


def test_what_stands_under_a_secret_name_is_hidden_whatever_it_is() -> None:
    value = {"rows": 1, "api_token": "abc", "password": 1234, "credentials": {"user": "ana", "pin": 1}}
    found = find_points("config", value)
    assert found.metrics == [("config/rows", 1.0, 0)]
    assert found.params == {f"config/{name}": HIDDEN for name in ("api_token", "password", "credentials")}
    assert find_points("api_token", {"rows": 1}).metrics == []
    assert metrics("log", [{"epoch": 1, "password": 1234, "loss": 0.5}]) == {"log/loss": [(1, 0.5)]}


def test_a_secret_in_a_key_is_hidden() -> None:
    found = find_points("use", {"sk-123456": 2, "note": "token=abc"})
    assert "123456" not in str(found)
    assert "abc" not in str(found)


# -- objects of classes that are not imported --------------------------------------------------------------------


def test_an_object_of_named_values_is_opened_by_its_names() -> None:
    opened = open_pickle(pickle.dumps(Epoch(2, 0.5, {"f1": 0.75})))
    assert isinstance(opened, Fields)
    assert opened.name == f"{__name__}.Epoch"
    assert metrics("last", opened) == {"last/epoch": 2, "last/loss": 0.5, "last/f1": 0.75}


def test_an_object_that_holds_itself_ends() -> None:
    opened = open_pickle(pickle.dumps(Itself()))
    assert opened.fields == {"size": 3, "me": Unopened(f"{__name__}.Itself")}


@pytest.mark.parametrize("value", [Private(), Best(0.5, 2), ValueError("no"), np.random.default_rng(0)])
def test_an_object_that_is_more_than_named_values_stays_closed(value: Any) -> None:
    assert isinstance(open_pickle(pickle.dumps(value)), Unopened)


# -- one name for one number -------------------------------------------------------------------------------------


def told(artifacts: dict[str, Any], **numbers: float) -> tuple[list[str], list[str]]:
    """Names of metrics and parameters of a task with these artifacts."""
    found = [collect_points(name, value) for name, value in artifacts.items()]
    drop_repeated(found, numbers)
    taken = {(kind, name) for name in artifacts for kind in ("metric", "param")}
    points = [name_points(part, taken) for part in found]
    return [key for one in points for key, _, _ in one.metrics], [key for one in points for key in one.params]


SCORES = {"accuracy": 0.9, "f1": 0.8}


def test_what_stands_under_a_shorter_name_is_not_told_again() -> None:
    evaluation = {"metrics": dict(SCORES), "rows": 5}
    assert told({"evaluation": evaluation, "scores": SCORES})[0] == ["evaluation/rows", "accuracy", "f1"]
    assert told({"metrics": SCORES, "scores": dict(SCORES)})[0] == ["accuracy", "f1"]
    assert told({"fit": {"best_epoch": 2, "loss": 0.5}}, best_epoch=2.0, loss=0.5) == ([], [])


def test_numbers_that_are_only_nearly_the_same_are_all_told() -> None:
    other = {"metrics": {**SCORES, "f1": 0.7}}
    assert told({"evaluation": other, "scores": SCORES})[0][:2] == ["evaluation/accuracy", "evaluation/f1"]
    assert told({"by_class": {"good": SCORES}, "scores": SCORES})[0][:2] == [
        "by_class/good/accuracy",
        "by_class/good/f1",
    ]
    assert told({"valid": {"loss": 0.5}}, loss=0.5)[0] == ["valid/loss"]


def test_a_baseline_that_is_as_good_as_the_model_is_told() -> None:
    assert told({"baseline": {"metrics": SCORES}, "scores": SCORES})[0][:2] == ["baseline/accuracy", "baseline/f1"]


def test_settings_that_are_parameters_are_no_metrics() -> None:
    training = {"epochs": 2, "rate": 1e-05, "amp": True, "seed": None}
    artifacts = {"params": {"training": dict(training)}, "training": training}
    assert told(artifacts) == ([], ["training/epochs", "training/rate", "training/amp"])
    changed = {**artifacts, "training": {**training, "epochs": 3}}
    assert told(changed) == (["training/epochs"], ["training/epochs", "training/rate", "training/amp"])


def test_a_version_is_told_once_where_its_name_is_shortest() -> None:
    table = {"path": "reviews", "version": 3, "digest": "abc", "rows": 10}
    artifacts = {"ingest": {"table": dict(table), "bad_rows": 1}, "data": table, "other": {**table, "version": 4}}
    assert told(artifacts)[0] == ["ingest/bad_rows", "data/version", "data/rows", "other/version", "other/rows"]
