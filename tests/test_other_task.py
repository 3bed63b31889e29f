"""A task that another distribution brings goes through scoring, the registry and MLflow like dlpipe's own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import mlflow.pyfunc
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from click.testing import CliRunner
from number_task import TASK, NumberPredictor, number_model
from stores import make_scores, new_store, untouched_environment
from texts import reviews

from dlpipe.cli import main
from dlpipe.errors import SchemaMismatch, SettingError
from dlpipe.inference import (
    load_predictor,
    load_scorer,
    make_prediction_schema,
    register_pipeline,
    score,
    score_new,
)
from dlpipe.inference.evaluator import predicts_classes
from dlpipe.registry import ModelVersion, list_requirements, log_and_register, register_family, resolve
from dlpipe.tables import TableVersion, read_table, table_at, write_table
from dlpipe.task import find_distribution, find_task, list_tasks, open_predictor
from dlpipe.task.model import CARD
from dlpipe.task.texts import TextModel
from dlpipe.task.texts.engines import export_engines

ROWS = [{"a": 1.0, "b": 2.0}, {"a": 3.0, "b": 0.5}]


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the distribution of the task on the path, as pip leaves it."""
    folder = tmp_path / "site" / "number_task-1.2.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: number-task\nVersion: 1.2\n")
    (folder / "entry_points.txt").write_text(
        "[dlpipe.tasks]\ntwo-numbers = number_task:TASK\ntext-number = number_task:TEXTS\n"
    )
    monkeypatch.syspath_prepend(tmp_path / "site")


@pytest.fixture
def registered(tmp_path: Path) -> Iterator[ModelVersion]:
    with untouched_environment():
        new_store(tmp_path / "store")
        yield register(1.0, 2.0)


def register(*weights: float) -> ModelVersion:
    return log_and_register(
        number_model(*weights), name="sums", example=ROWS, params={}, scores=make_scores(mae=0.25), tags={}
    )


def numbers(path: Path, *rows: tuple[float, float]) -> TableVersion:
    ids = [f"r{number}" for number in range(len(rows))]
    columns = {"row_id": ids, "a": [a for a, _ in rows], "b": [b for _, b in rows], "split": ["test"] * len(rows)}
    return write_table(path, pa.table(columns))


def test_the_task_is_found_with_the_distribution_that_brings_it() -> None:
    assert "two-numbers" in list_tasks()
    assert find_task("two-numbers") is TASK
    assert (find_distribution("two-numbers"), find_distribution("text-classification")) == ("number-task", None)
    assert list_requirements(TASK)[-1] == "number-task==1.2"
    assert not [line for line in list_requirements(TASK) if line.startswith(("transformers", "tokenizers"))]


def test_a_table_is_scored_with_the_columns_of_the_task_each_different_row_once(tmp_path: Path) -> None:
    predictor = NumberPredictor(number_model(1.0, 2.0))
    version = ModelVersion("sums", 1, "models:/sums/1", predictor.digest, run_id="", model_id="")
    source = numbers(tmp_path / "n", (1, 2), (3, 4), (1, 2), (1, 4))
    done = score(predictor, source, model=version, target=str(tmp_path / "p"), say=None)
    found = read_table(done.table)
    assert found.schema.equals(make_prediction_schema(TASK))
    assert found.select(["row_id", "predicted"]).to_pydict() == {
        "row_id": ["r0", "r1", "r2", "r3"],
        "predicted": [5.0, 11.0, 5.0, 9.0],
    }
    assert (predictor.rows, done.doubt) == (3, "")


def test_a_table_without_the_columns_is_refused_before_anything_is_scored(tmp_path: Path) -> None:
    predictor = NumberPredictor(number_model(1.0, 2.0))
    version = ModelVersion("sums", 1, "models:/sums/1", predictor.digest, run_id="", model_id="")
    source = write_table(tmp_path / "t", pa.table({"row_id": ["a"], "text": ["good"], "split": ["test"]}))
    with pytest.raises(SchemaMismatch, match="no column 'a'"):
        score(predictor, source, model=version, target=str(tmp_path / "p"), say=None)


def test_rows_that_are_all_the_same_are_doubted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    predictor = NumberPredictor(number_model(1.0, 2.0))
    version = ModelVersion("sums", 1, "models:/sums/1", predictor.digest, run_id="", model_id="")
    done = score(predictor, numbers(tmp_path / "n", (1, 2), (1, 2)), model=version, target=str(tmp_path / "p"))
    assert "all 2 rows of n@v0, scored just now, are the same" in done.doubt
    assert done.doubt in capsys.readouterr().out


def test_a_registered_version_names_its_task_and_is_opened_by_mlflow(registered: ModelVersion) -> None:
    assert (registered.task, registered.tags["dlpipe.task"]) == ("two-numbers", "two-numbers")
    model = mlflow.pyfunc.load_model(registered.uri)
    assert model.predict(pd.DataFrame(ROWS))["predicted"].tolist() == [5.0, 4.0]
    missing = model.predict([ROWS[0], None])
    assert missing["predicted"].isna().tolist() == [False, True]
    assert [column.name for column in model.metadata.signature.outputs] == ["predicted"]
    assert not predicts_classes(model)
    assert load_predictor(registered.uri).predict_outputs(ROWS).tolist() == [[5.0], [4.0]]


def test_new_rows_are_scored_with_a_registered_version(registered: ModelVersion, tmp_path: Path) -> None:
    source, target = numbers(tmp_path / "n", (1, 2), (3, 4)), str(tmp_path / "p")
    done = score_new(load_scorer(registered), source, model=registered, target=target, say=None)
    assert (done.new_rows, read_table(done.table)["predicted"].to_pylist()) == (2, [5.0, 11.0])
    shown = CliRunner(catch_exceptions=False).invoke(main, ["answers", target]).output.splitlines()
    assert shown[0].split() == ["row_id", "predicted", "model_version", "scored_at"]
    assert table_at(target).version == 0


def test_outputs_of_a_text_model_are_what_its_target_makes_of_logits(tiny_model: TextModel) -> None:
    model = with_task(tiny_model, "text-number")
    shares, logits = (open_predictor(each).predict_outputs(["good", "a bad film"]) for each in (tiny_model, model))
    assert find_task().target.activate(logits, tiny_model.card).tolist() == shares.tolist()
    assert not np.allclose(logits.sum(axis=1), 1)


def test_the_target_says_what_is_right_and_what_is_the_same_when_engines_are_compared(
    tiny_model: TextModel,
) -> None:
    model = with_task(tiny_model, "text-number")
    texts = [text for text, _ in reviews()[:40]]
    numbers = open_predictor(model).predict_outputs(texts)[:, 0]
    truth = [float(number) + (0.5 if at % 4 else 2.0) for at, number in enumerate(numbers)]
    engines = export_engines(model, texts, truth).engines
    torch, onnx = engines.check("torch"), engines.check("onnx")
    assert (torch.accuracy, torch.label_agreement, torch.largest_difference) == (0.75, 1.0, 0.0)
    assert (onnx.accuracy, onnx.label_agreement, onnx.refused) == (0.75, 1.0, "")


def with_task(model: TextModel, task: str) -> TextModel:
    """Return the model as one of another task."""
    card = json.dumps({**model.card, "task": task}).encode()
    return TextModel({**model.files, CARD: card})


def test_a_pipeline_around_rows_that_are_no_texts_is_refused(registered: ModelVersion) -> None:
    with pytest.raises(SettingError, match="two-numbers"):
        register_pipeline(registered)


def test_a_family_without_companions_is_registered_and_promoted(registered: ModelVersion) -> None:
    from dlpipe.registry import promote

    (made,) = register_family("sums", lambda: register(2.0, 2.0), [])
    assert (made.version, "challenger" in made.aliases) == (2, True)
    promote(made, how="force")
    assert resolve("models:/sums@champion").version == 2


def test_rows_on_the_command_line_are_json_objects(registered: ModelVersion) -> None:
    run = CliRunner()
    result = run.invoke(main, ["predict", "--model", registered.uri, "--json", '{"a": 1, "b": 2}'])
    assert json.loads(result.stdout) == [{"a": 1, "b": 2, "predicted": 5.0}]
    refused = run.invoke(main, ["predict", "--model", registered.uri, "good"])
    assert (refused.exit_code, "'good' is no JSON object" in refused.stderr) == (1, True)


def test_versions_are_listed_with_the_metric_that_their_task_puts_first(registered: ModelVersion) -> None:
    result = CliRunner().invoke(main, ["models", "--json"])
    (row,) = json.loads(result.stdout)
    assert (row["mae"], "accuracy" in row) == (0.25, False)
