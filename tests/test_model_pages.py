"""The pages of versions in MLflow: which files taught them, and what they were used for."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from deltalake import DeltaTable
from made_up_lineage import REQUEST, History, list_ids
from stores import keep_runs_in, untouched_environment

from dlpipe.cli import main
from dlpipe.lineage import Records, check_records, renew_pages
from dlpipe.registry import MADE_FROM, ModelVersion, resolve
from dlpipe.registry.descriptions import describe_companion, record_verdict
from dlpipe.registry.verdicts import RecordedVerdict
from dlpipe.serving.log_rows import dump, make_request_rows
from dlpipe.tables import TableVersion, append_by_day, delete_table, locate, table_at, tidy_days


@pytest.fixture
def history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[History]:
    monkeypatch.chdir(tmp_path)
    keep_runs_in(tmp_path, monkeypatch)
    with untouched_environment():
        yield History(tmp_path)


@pytest.fixture
def rows(history: History) -> TableVersion:
    history.ingest("TrainFlow/17")
    return history.append("new.csv", 'review,sentiment\n"a fine film","positive"\n').table


@pytest.fixture
def model(history: History, rows: TableVersion) -> ModelVersion:
    return history.register("TrainFlow/17", rows)


def read_page(history: History, name: str = "reviews") -> list[str]:
    """Return the paragraphs of a description."""
    return str(history.client.get_model_version(name, "1").description).split("\n\n")


def use(history: History, model: ModelVersion, rows: TableVersion) -> None:
    scored = history.predict("TrainFlow/17", model, rows, list_ids(rows))
    history.predict("PredictFlow/20", model, rows, list_ids(rows)[:3])
    history.explain("TrainFlow/17", model, rows, list_ids(rows, "test")[:2])
    history.look(model, rows, scored)
    history.answer(model)


def test_a_page_names_the_files_that_taught_a_version_and_counts_what_it_was_used_for(
    history: History, model: ModelVersion, rows: TableVersion
) -> None:
    use(history, model, rows)
    assert renew_pages(Records()) == 2
    trained, came, used, gate = read_page(history)
    assert trained == "Trained by TrainFlow/17/train/3 on reviews@v1."
    assert came.startswith("Its rows came from new.csv (SHA-256 ")
    assert ", films.csv (SHA-256 " in came
    assert used.partition("; last ")[0] == (
        "Used for 124 predictions in reviews_predictions, 2 explained rows in reviews_explanations, "
        "1 look at drift in reviews_drift, 1 answer to requests in reviews_requests, models:/reviews-pipeline/1"
    )
    assert gate == "Gate: not asked yet"


def test_what_has_not_changed_is_not_written_again(
    history: History, model: ModelVersion, rows: TableVersion
) -> None:
    use(history, model, rows)
    renew_pages(Records())
    before = history.client.get_model_version("reviews", "1")
    assert renew_pages(Records()) == 0
    after = history.client.get_model_version("reviews", "1")
    assert after.last_updated_timestamp == before.last_updated_timestamp
    history.answer(model, request="01a221e0-e8fb-7abc-8def-0123456789ac")
    assert renew_pages(Records()) == 1
    page = read_page(history)
    assert ["2 answers to requests" in part for part in page].count(True) == 1
    assert [part.startswith("Used for") for part in page].count(True) == 1


def test_what_people_wrote_and_what_the_gate_says_stay(
    history: History, model: ModelVersion, rows: TableVersion
) -> None:
    renew_pages(Records())
    page = history.client.get_model_version("reviews", "1").description
    history.client.update_model_version("reviews", "1", f"{page}\n\nUsed by the shop.")
    use(history, model, rows)
    renew_pages(Records())
    record_verdict(history.client, "reviews", 1, RecordedVerdict(True, "passed"), unless_known=False)
    assert [part.split(" ")[0] for part in read_page(history)] == ["Trained", "Its", "Used", "Gate:", "Used"]
    assert read_page(history)[-2:] == ["Gate: passed", "Used by the shop."]


def test_the_page_of_a_pipeline_says_it_too_and_keeps_what_people_wrote(
    history: History, model: ModelVersion, rows: TableVersion
) -> None:
    ours = describe_companion("pipeline", model.uri, model.tags)
    history.client.update_model_version("reviews-pipeline", "1", f"{ours}\n\nFor the shop.")
    pipeline = resolve("reviews-pipeline/1")
    assert pipeline.tags[MADE_FROM] == model.uri
    for number in range(2):
        history.answer(pipeline, request=f"01a221e0-e8fb-7abc-8def-0123456789a{number}")
        renew_pages(Records(), [model])
        count = "1 answer" if number == 0 else "2 answers"
        page = read_page(history, "reviews-pipeline")
        assert page[0] == ours
        assert page[1].startswith("Its rows came from new.csv")
        assert page[2].startswith(f"Used for {count} to requests in reviews-pipeline_requests; last ")
        assert page[3:] == ["For the shop."]


def test_a_description_that_is_not_ours_and_a_version_of_another_program_stay_as_they_are(
    history: History, model: ModelVersion, rows: TableVersion
) -> None:
    history.client.update_model_version("reviews", "1", "Ours.")
    history.client.create_registered_model("other")
    history.client.create_model_version("other", "nowhere")
    use(history, model, rows)
    renew_pages(Records())
    assert read_page(history) == ["Ours."]
    assert not history.client.get_model_version("other", "1").tags


def list_differences() -> list[str]:
    return [str(found) for found in check_records(Records()) if found.problem == "differs"]


@pytest.mark.parametrize("age", [0, 40])
def test_answers_of_days_that_a_log_keeps_no_more_are_no_fault_and_others_that_are_missing_are(
    history: History, model: ModelVersion, age: int
) -> None:
    now = time.time()
    for number, days in enumerate((40, 40, age)):
        line = [True, f"{REQUEST[:-1]}{number}", "predict", model.name, model.version, "", "torch", "champion", ""]
        line += [200, "", now - days * 86400, 3.0, [4], ["a fine film"], [{"predicted": "positive"}]]
        append_by_day("reviews_requests", make_request_rows([dump(line)]))
    renew_pages(Records())
    tidy_days("reviews_requests", keep_days=30)
    assert table_at("reviews_requests").rows == (1 if age == 0 else 0)
    assert list_differences() == []
    DeltaTable(locate("reviews_requests")).delete()
    if age == 0:  # which nobody would take out in time
        (found,) = list_differences()
        assert "its page tells of 3 answers to requests" in found
        assert "there are 0" in found
    renew_pages(Records())
    assert list_differences() == []


def test_a_page_that_tells_of_what_is_not_there_any_more_is_found_and_mended(
    history: History, model: ModelVersion, rows: TableVersion
) -> None:
    use(history, model, rows)
    renew_pages(Records())
    assert [found for found in check_records(Records()) if found.problem == "differs"] == []
    delete_table("reviews_explanations")
    (found,) = [found for found in check_records(Records()) if found.problem == "differs"]
    assert str(found) == (
        "differs: models:/reviews/1: its page tells of 2 explained rows in reviews_explanations, and there are 0: "
        "`dlpipe bridge sync` brings it up to date"
    )
    done = CliRunner().invoke(main, ["bridge", "sync"])
    assert done.exit_code == 0, done.output
    assert "1 page of model versions brought up to date" in done.output
    assert not [found for found in check_records(Records()) if found.problem == "differs"]
    assert "explained" not in "".join(read_page(history))
