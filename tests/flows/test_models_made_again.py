"""A registered model made again from its lineage: `dlpipe reproduce`."""

from __future__ import annotations

import json

import pytest
from commands import dlpipe
from projects import Done, Project, environment

pytestmark = pytest.mark.slow


def test_models_of_a_search_and_of_a_killed_and_resumed_run_are_made_again_bit_for_bit(
    project: Project, first: Done, worse: Done
) -> None:
    before = {path for path in project.folder.rglob("*") if "_features" not in path.parts}
    done = dlpipe("reproduce", "--all", "--json", folder=project.folder, environment=environment())
    assert done.returncode == 0, done.stderr
    found = {record["model"]: record for record in json.loads(done.stdout)}
    assert {name: (record["outcome"], record["differences"]) for name, record in found.items()} == {
        "models:/reviews/1": ("same", []),
        "models:/reviews/2": ("same", []),
    }
    assert found["models:/reviews/1"]["weights"]["now"] == first.weights
    assert found["models:/reviews/1"]["code"] == f"the code package of TrainFlow/{first.run_id}"
    assert {path for path in project.folder.rglob("*") if "_features" not in path.parts} == before


def test_a_table_of_predictions_means_the_models_that_made_them(project: Project, first: Done) -> None:
    done = dlpipe("reproduce", "reviews_predictions", "--json", folder=project.folder, environment=environment())
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["model"] == "models:/reviews/1"


def test_what_is_asked_to_be_otherwise_is_named(project: Project, first: Done) -> None:
    words = ("--set", "seed=1", "--threads", "3", "--code", "here")
    done = dlpipe("reproduce", "reviews/1", *words, folder=project.folder, environment=environment())
    assert done.returncode == 4, done.stderr
    assert done.stdout.startswith("Different weights: ")
    assert f"registered {first.weights[:12]}." in done.stdout
    assert "settings: seed 1, it was 0" in done.stdout
    assert "domain: threads 3, it was " in done.stdout
    assert "code: " not in done.stdout  # what is installed is what the run kept
    assert "accuracy  1.0000, registered 1.0000, registered interval 1.0000 to 1.0000" in done.stdout


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("reviews/9",), "no version 9"),
        ((), "Name a model, or pass --all"),
        (("reviews/1", "--all"), "Name a model or pass --all, not both"),
        (("reviews/1", "--set", "seed"), "write NAME=VALUE"),
        (("reviews/1", "--set", "sed=1"), "did you mean 'seed'"),
        (("reviews/1", "--set", "epochs=0"), "epochs"),
        (("reviews/1", "--version", "9"), "version 9"),
    ],
)
def test_what_cannot_be_made_again_is_refused_in_a_line(
    words: tuple[str, ...], why: str, project: Project, first: Done
) -> None:
    done = dlpipe("reproduce", *words, folder=project.folder, environment=environment())
    assert done.returncode in (1, 2)
    assert why in done.stderr
    assert "Traceback" not in done.stderr
