"""Models of every task but text classification, which has tests of its own: registered, opened and scored."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner
from served import serving, to_near
from stores import make_scores, new_store, untouched_environment
from texts import reviews

from dlpipe.cli import main
from dlpipe.explain import ExplainSettings, register_explainer
from dlpipe.inference import (
    load_pipeline,
    load_predictor,
    make_prediction_schema,
    predict_frame,
    register_pipeline,
    score,
    score_file,
)
from dlpipe.inference.pipeline_scoring import score_with_pipeline
from dlpipe.registry import ModelVersion, log_and_register
from dlpipe.tables import TableVersion, open_row_file, read_table, write_row_file, write_table
from dlpipe.task import Task, find_task, load_model
from dlpipe.task.tabular import TabularTraining
from dlpipe.task.texts import TextTraining
from dlpipe.training import fit

TEXTS = [text for text, _ in reviews()]
GOOD = [label == "positive" for _, label in reviews()]
ROWS: dict[str, tuple[dict[str, Any], pa.Array]] = {
    "text-multilabel": (
        {"text": TEXTS},
        pa.array([["good"] * good + ["film"] * ("film" in text) for text, good in zip(TEXTS, GOOD, strict=True)]),
    ),
    "text-regression": ({"text": TEXTS}, pa.array([4.5 if good else 1.5 for good in GOOD])),
    "text-pair-classification": (
        {"text": TEXTS, "text_pair": TEXTS[::-1]},
        pa.array(["same" if own == other else "other" for own, other in zip(GOOD, GOOD[::-1], strict=True)]),
    ),
    "tabular-classification": (
        {"stars": [float(good) * 2 + at % 2 for at, good in enumerate(GOOD)], "town": ["Bern", "Bonn"] * 125},
        pa.array(["good" if good else "bad" for good in GOOD]),
    ),
}


class Used:
    """A task with a table, and a version that was trained on it and registered."""

    def __init__(self, name: str, folder: Path, settings: TextTraining) -> None:
        self.task: Task = find_task(name)
        columns, labels = ROWS[name]
        count = len(labels)
        splits = [(*["train"] * 3, "valid", "test")[at % 5] for at in range(count)]
        ids = [f"r{at:03}" for at in range(count)]
        rows = pa.table({"row_id": ids, **columns, "label": labels, "split": splits})
        self.table: TableVersion = write_table(folder / "rows", rows)
        if self.task.inputs.training is TabularTraining:
            settings = TabularTraining(epochs=2, threads=1)
        self.model = fit(self.table, settings=settings, task=self.task, say=None).model
        self.rows = self.read("test")
        self.version: ModelVersion = log_and_register(
            self.task.inputs.export_engines(self.model, *self.labelled("valid")),
            name=name,
            example=self.rows[:2],
            params={},
            scores=make_scores(**{self.task.target.headline: 0.5}),
            tags={},
        )

    def read(self, split: str) -> list[Any]:
        inputs = self.task.inputs
        names = list(inputs.find_columns(self.table, self.model.card))
        return inputs.read_rows(read_table(self.table, split=split, columns=names))

    def labelled(self, split: str) -> tuple[list[Any], list[Any]]:
        return self.read(split), read_table(self.table, split=split, columns=["label"])["label"].to_pylist()


@pytest.fixture(scope="module", params=[*ROWS])
def used(request: pytest.FixtureRequest, tmp_path_factory: Any, tiny_settings: TextTraining) -> Iterator[Used]:
    folder = tmp_path_factory.mktemp(request.param)
    with untouched_environment():
        new_store(folder)
        yield Used(request.param, folder, replace(tiny_settings, epochs=1))


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_a_file_is_scored_as_its_rows_are(used: Used, tmp_path: Path, ending: str) -> None:
    file, output = tmp_path / f"rows.{ending}", tmp_path / f"scored.{ending}"
    rows = read_table(used.table, split="test")
    with write_row_file(file, rows.schema) as writer:
        for batch in rows.to_batches():
            writer.write(batch)
    done = score_file(file, output, model=used.version, engine="torch", batch_rows=20, say=None)
    predictor = load_predictor(used.version.uri, engine="torch")
    expected = predict_frame(predictor, used.rows)
    (found,) = [some.records for some in open_row_file(output).read(1000)]
    assert list(found[0]) == [*rows.column_names, *expected]
    assert (done.rows, done.bad_rows) == (len(used.rows), 0)
    assert [row["row_id"] for row in found] == rows["row_id"].to_pylist()
    if ending == "csv":  # a table of predictions says the same
        target = str(tmp_path / "predictions")
        made = read_table(
            score(predictor, used.table, model=used.version, target=target, say=None).table
        ).to_pydict()
        labels = dict(zip(made["row_id"], made["predicted"], strict=True))
        assert [labels[row] for row in rows["row_id"].to_pylist()] == expected["predicted"].tolist()
    for name in expected:
        values = [
            json.loads(row[name]) if isinstance(row[name], str) and row[name][:1] == "[" else row[name]
            for row in found
        ]
        if expected[name].dtype == object:
            assert values == expected[name].tolist()
        else:
            assert np.allclose(np.array(values, float), expected[name], atol=1e-5)


def test_a_registered_model_predicts_what_it_predicted_before(used: Used) -> None:
    opened = load_predictor(used.version.uri, engine="torch")
    mine = used.task.inputs.open_predictor(used.model, None, engine="torch")
    assert used.version.task == used.task.name
    assert np.allclose(opened.predict_outputs(used.rows), mine.predict_outputs(used.rows), atol=1e-6)


def test_mlflow_opens_it_and_predicts_the_columns_of_its_signature(used: Used) -> None:
    model = mlflow.pyfunc.load_model(used.version.uri)
    found = model.predict(used.task.inputs.make_example(used.rows))
    expected = predict_frame(load_predictor(used.version.uri), used.rows)
    assert list(found) == [column.name for column in model.metadata.signature.outputs]
    assert found.equals(expected)
    assert found["predicted"].notna().all()
    again = model.predict(model.input_example if model.input_example is not None else used.rows[:2])
    assert again["predicted"].tolist() == expected["predicted"].tolist()[:2]


def test_its_explainer_gives_the_models_own_prediction_in_its_own_type(used: Used) -> None:
    explainer = register_explainer(
        used.version, used.model, settings=ExplainSettings(max_evals=20), example=used.rows[:2]
    )
    opened, model = (mlflow.pyfunc.load_model(each.uri) for each in (explainer, used.version))
    asked = used.task.inputs.make_example(used.rows[:3])
    answers, expected = opened.predict(asked), model.predict(asked)
    assert list(answers) == [column.name for column in opened.metadata.signature.outputs]
    assert opened.metadata.signature.outputs.to_dict()[0] == model.metadata.signature.outputs.to_dict()[0]
    assert answers["predicted"].dtype == expected["predicted"].dtype
    for own, known in zip(answers["predicted"], expected["predicted"], strict=True):
        assert own == (pytest.approx(known) if isinstance(known, float) else known)
    given = used.task.inputs.make_example(used.rows[:1])
    asked_again = given.iloc[0, 0] if used.task.inputs.is_single_text else json.dumps(given.to_dict("records")[0])
    done = CliRunner(catch_exceptions=False).invoke(
        main, ["explain", "--model", used.version.uri, "--json", asked_again]
    )
    (told,) = json.loads(done.stdout)
    assert [part["part"] for part in told["parts"]] == answers["parts"][0]
    assert [part["attribution"] for part in told["parts"]] == pytest.approx(answers["attributions"][0], abs=1e-6)
    shown = CliRunner(catch_exceptions=False).invoke(main, ["explain", "--model", used.version.uri, asked_again])
    assert ("with usual values" if "tabular" in used.task.name else "without any word") in shown.stdout
    if used.task.name == "text-regression":
        assert answers["predicted"].tolist() == answers["output"].tolist()
        assert answers["output_name"].unique().tolist() == ["value"]


def test_its_table_is_scored_as_its_rows_are(used: Used, tmp_path: Path) -> None:
    predictor, target = load_predictor(used.version.uri), str(tmp_path / "predictions")
    done = score(predictor, used.table, model=used.version, target=target, say=None)
    assert (done.rows, done.new_rows, done.doubt) == (50, 50, "")
    found = read_table(done.table)
    assert found.schema.equals(make_prediction_schema(used.task))
    expected = predict_frame(predictor, used.rows)["predicted"].tolist()
    same: Callable[[Any, Any], bool] = (
        np.isclose if isinstance(expected[0], float) else lambda own, other: list(own) == list(other)
    )
    assert all(same(*pair) for pair in zip(found["predicted"].to_pylist(), expected, strict=True))
    shown = CliRunner(catch_exceptions=False).invoke(main, ["answers", target])
    assert shown.stdout.splitlines()[0].split()[:2] == ["row_id", "predicted"]
    file = tmp_path / "answers.csv"
    CliRunner(catch_exceptions=False).invoke(main, ["answers", target, "--output", str(file)])
    assert len(file.read_text().splitlines()) == 51


def test_what_reads_one_text_has_a_pipeline(used: Used, tmp_path: Path) -> None:
    if not used.task.inputs.is_single_text:
        assert used.task.name in ("text-pair-classification", "tabular-classification")
        return
    made = register_pipeline(used.version)
    pipeline = load_pipeline(made.uri)
    rows = ["<p>a good film</p>", None, "a bad film"]
    found = pipeline.run(rows)
    plain = predict_frame(pipeline.predictor, ["a good film", "a bad film"])["predicted"].tolist()
    assert [found["predicted"].iloc[at] for at in (0, 2)] == plain
    assert found["status"].tolist() == ["ok", "empty", "ok"]
    assert made.task == used.task.name
    source = write_table(tmp_path / "t", pa.table({"row_id": ["a", "b", "c"], "text": rows}))
    done = score_with_pipeline(pipeline, source, model=made, target=str(tmp_path / "a"), split=None, say=None)
    stored = read_table(done.table)["predicted"].to_pylist()
    assert (stored[0], stored[1], stored[2]) == (plain[0], None, plain[1])


def test_its_folder_is_all_that_it_takes(used: Used, tmp_path: Path) -> None:
    folder = used.model.save(tmp_path / "model")
    assert load_model(folder).digest == used.model.digest == used.version.digest


@pytest.mark.slow
def test_a_server_answers_every_body_as_its_python_function_does(used: Used) -> None:
    frame = used.task.inputs.make_example(used.rows[:20])
    expected = to_near(mlflow.pyfunc.load_model(used.version.uri).predict(frame).to_dict("records"))
    records, name = frame.to_dict("records"), used.version.name
    split = {key: value for key, value in frame.to_dict("split").items() if key != "index"}
    with serving() as server:
        plain = server.post(f"/models/{name}/1", records)
        assert plain.json()["predictions"] == expected, plain.text
        assert server.post(f"/models/{name}/1", frame.to_dict("list")).json()["predictions"] == expected
        invocations = f"/models/{name}/1/invocations"
        for body in (
            {"dataframe_split": split},
            {"dataframe_records": records},
            {"inputs": frame.to_dict("list")},
        ):
            assert server.post(invocations, body).json() == {"predictions": expected}
        csv = server.post(invocations, frame.to_csv(index=False).encode(), headers={"Content-Type": "text/csv"})
        assert csv.json() == {"predictions": expected}
        told = server.get(f"/v2/models/{name}/versions/1").json()
        tensors = [
            {**column, "shape": [len(frame)], "data": frame[column["name"]].tolist()} for column in told["inputs"]
        ]
        answer = server.post(f"/v2/models/{name}/versions/1/infer", {"inputs": tensors}).json()
        columns = {output["name"]: output for output in answer["outputs"]}
        assert list(columns) == [output["name"] for output in told["outputs"]] == list(expected[0])
        assert [output["datatype"] for output in told["outputs"]] == [
            output["datatype"] for output in answer["outputs"]
        ]
        for column, output in columns.items():
            lists = isinstance(expected[0][column], list)
            values = [json.loads(value) if lists else value for value in output["data"]]
            assert values == [row[column] for row in expected]
        words = ["predict", "--model", f"{name}/1", "--json", *map(to_words, records[:3])]
        here, there = (CliRunner().invoke(main, [*words, *more]) for more in ([], ["--url", server.address]))
        assert (there.exit_code, json.loads(there.stdout)) == (0, to_near(json.loads(here.stdout)))
        if "tabular" in name:
            for row, message in (
                ({"stars": "many"}, "stars = 'many' is no number"),
                ({"x": 1}, "none of the columns"),
            ):
                refused = server.post(f"/models/{name}/1", row)
                assert refused.status_code == 400
                assert message in refused.json()["error"]["message"]


def to_words(record: dict[str, Any]) -> str:
    """Return a row as `dlpipe predict` takes it."""
    return record["text"] if list(record) == ["text"] else json.dumps(record)
