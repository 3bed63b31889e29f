"""Champions in real MLflow stores: a classifier and what is made from it move as one, whatever happens."""

from __future__ import annotations

import functools
import json
import multiprocessing
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from disks import quick_folder
from stores import kill_before_call, make_scores, new_store, untouched_environment

from dlpipe.errors import ChampionMoved, ModelNotFound, PromotionRefused, SettingError
from dlpipe.registry import (
    CHAMPION,
    MADE_FROM,
    ModelVersion,
    Packaging,
    check_name_free,
    delete_version,
    find_champion,
    find_earlier_champion,
    judge_and_promote,
    list_versions,
    log_and_register,
    promote,
    register_companion,
    register_family,
    resolve,
)
from dlpipe.registry import moving as moving_room
from dlpipe.registry.history import read_moves
from dlpipe.registry.verdicts import read_verdict
from dlpipe.task import Evaluation

pytestmark = pytest.mark.slow

COMPANIONS = ("reviews-pipeline", "reviews-explainer")
TAGS = {"delta.table": "data/tables/reviews", "delta.version": "0"}


@dataclass(frozen=True)
class Files:
    """A model that can be stored, though not run."""

    digest: str
    labels: tuple[str, ...] = ("negative", "positive")
    before_saving: Callable[[], None] = lambda: None

    @property
    def card(self) -> dict[str, object]:
        return {"task": "text-classification", "labels": list(self.labels)}

    def save(self, folder: Path) -> Path:
        self.before_saving()
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "weights").write_text(self.digest)
        return folder


@dataclass(frozen=True)
class Verdict:
    passed: bool
    reason: str
    champion: int | None
    rival: Evaluation | None = None


def make_companion(kind: str, made: ModelVersion) -> ModelVersion:
    """Register what the files of a classifier and a kind make."""
    shared = {"settings": {}, "example": ["x"], "packaging": Packaging(), "challenger": False}
    return register_companion(Files(f"{made.digest}-{kind}"), made, kind=kind, **shared)


COMPANION_CALLS = [functools.partial(make_companion, kind) for kind in ("pipeline", "explainer")]


def register(digest: str, name: str = "reviews", **options) -> ModelVersion:
    files = options.pop("files", Files(digest))
    return log_and_register(
        files, name=name, example=["x"], params={}, tags={**TAGS, **options.pop("tags", {})}, **options
    )


def family(digest: str, name: str = "reviews", **options) -> tuple[ModelVersion, ...]:
    """Register a classifier with a pipeline and an explainer, and return the three."""
    return register_family(
        name,
        lambda: register(digest, name, challenger=False),
        options.get("companions") or COMPANION_CALLS,
    )


@pytest.fixture
def store(tmp_path):
    with untouched_environment():
        yield new_store(tmp_path)


@pytest.fixture(scope="module")
def three():
    """A store with three versions of ``reviews``, each with its companions, which tests of the module share."""
    with untouched_environment(), quick_folder() as folder:
        made = new_store(folder)
        yield made, [family(digest)[0] for digest in ("one", "two", "three")]


def champions(store) -> list[int | None]:
    """Return where MLflow itself has the alias of the classifier, the pipeline and the explainer."""
    client = store.client()
    return [client.get_registered_model(name).aliases.get(CHAMPION) for name in ("reviews", *COMPANIONS)]


def move_one_by_one(client, move, *, expected):
    """Move as on a server, which has no call for several models."""
    return moving_room.move_by_calls(client, move, expected)


# -- two at once --------------------------------------------------------------------------------------------------


def race(scores: dict[int, float], candidates: list[ModelVersion], delays: random.Random) -> None:
    """Judge two candidates against the same champion, and let them go on in any order."""
    both_have_judged = threading.Barrier(2, timeout=30)

    def judged(candidate: ModelVersion) -> None:
        first = True

        def judge(rival: ModelVersion | None) -> Verdict:
            nonlocal first
            assert rival is not None
            passed = scores[candidate.version] >= scores[rival.version]
            if first:
                first = False
                both_have_judged.wait()
            time.sleep(waits[candidate.version])
            return Verdict(passed, f"against v{rival.version}", rival.version)

        judge_and_promote(candidate, judge)

    waits = {candidate.version: delays.choice((0, 0, 0.002, 0.01)) for candidate in candidates}
    racing = [threading.Thread(target=judged, args=(candidate,)) for candidate in candidates]
    for thread in racing:
        thread.start()
    for thread in racing:
        thread.join()


def test_of_two_candidates_the_better_one_wins_in_each_of_fifty_interleavings(three, monkeypatch):
    store, (first, second, third) = three
    for room in ("promotion", "versions"):  # a look at the database costs more than all the rest
        monkeypatch.setattr(f"dlpipe.registry.{room}.open_store", lambda: store)
    promote(first)
    back = moving_room.Move(CHAMPION, dict.fromkeys(("reviews", *COMPANIONS), first.version))
    delays, now = random.Random(0), first.version
    for number in range(50):
        assert moving_room.move_alias(store.client(), back, expected=now)
        better, worse = (second, third) if number % 2 else (third, second)
        race({first.version: 0.8, better.version: 0.95, worse.version: 0.9}, [better, worse], delays)
        assert champions(store) == [now := better.version] * 3, number


def test_a_verdict_about_another_champion_moves_nothing(three):
    store, (first, second, third) = three
    promote(first)
    promote(second)
    with pytest.raises(ChampionMoved, match="champion of 'reviews' is v2 meanwhile; models:/reviews/3 was not"):
        promote(third, against=1)
    assert champions(store) == [2, 2, 2]
    verdict, done = judge_and_promote(third, lambda rival: Verdict(False, "worse", rival and rival.version))
    assert (verdict.champion, done.moved, str(done)) == (2, False, "champion of reviews stays v2")


# -- as one -------------------------------------------------------------------------------------------------------


def test_a_classifier_takes_its_pipeline_and_its_explainer_along_forward_and_back(three):
    store, (first, second, _) = three
    promote(first)
    for version in (second, first, second):
        assert promote(version).companions == dict.fromkeys(COMPANIONS, version.version)
        assert champions(store) == [version.version] * 3
        assert resolve("reviews-pipeline").tags[MADE_FROM] == version.uri


def kill_at(number: int, by_calls: bool, version: ModelVersion) -> None:
    """Promote in this process, which is killed before its write ``number``."""
    from mlflow import MlflowClient

    if by_calls:
        import dlpipe.registry.promotion

        dlpipe.registry.promotion.move_alias = move_one_by_one
        kill_before_call(number, MlflowClient, ("set_registered_model_alias", "set_registered_model_tag"))
    else:
        kill_before_call(number, moving_room, ("write_alias", "write_tag"))
    promote(version)


@pytest.mark.parametrize("by_calls", [False, True], ids=["database", "server"])
def test_killed_before_any_write_no_answer_is_mixed(three, by_calls):
    store, (first, second, _) = three
    for number in range(1, 10):
        promote(first)
        dying = multiprocessing.get_context("fork").Process(target=kill_at, args=(number, by_calls, second))
        dying.start()
        dying.join()
        if not by_calls:
            assert champions(store) in ([1, 1, 1], [2, 2, 2])
        now = find_champion("reviews")
        assert {resolve(name).tags[MADE_FROM] for name in COMPANIONS} == {now.uri}
        promote(now)
        assert champions(store) == [now.version] * 3
        if dying.exitcode == 0:
            break
    assert number == 5


def test_a_version_without_a_pipeline_does_not_leave_the_old_pipeline_answering(store):
    family("one")
    promote(resolve("reviews/1"))
    alone = register("two")
    with pytest.raises(PromotionRefused, match="No version of 'reviews-pipeline' was made from models:/reviews/2"):
        promote(alone)
    assert champions(store) == [1, 1, 1]
    done = promote(alone, bare=True)
    assert champions(store) == [2, None, None]
    assert str(done).endswith("; without a champion from now on: reviews-pipeline, reviews-explainer")


def test_a_companion_answers_for_its_classifiers_champion_only(store):
    for digest in ("one", "two"):
        family(digest)
    promote(resolve("reviews/2"))
    client = store.client()
    client.set_registered_model_alias("reviews", CHAMPION, "1")  # by hand, in MLflow's pages
    assert resolve("reviews-pipeline").version == find_champion("reviews-pipeline").version == 1
    client.delete_model_version("reviews", "1")
    with pytest.raises(ModelNotFound, match="made from models:/reviews/2, which is not the champion of 'reviews'"):
        resolve("reviews-pipeline")
    with pytest.raises(PromotionRefused, match="Promote that, and what is made from it moves along"):
        promote(resolve("reviews-pipeline/2"))


# -- what the gate said -------------------------------------------------------------------------------------------


def test_a_description_says_where_from_how_good_against_whom_and_what_the_gate_said(store):
    baseline = make_scores(accuracy=0.8)["test"]
    tags = {"metaflow.pathspec": "TrainFlow/7/train/3", "git.commit": "a9c9ec9", "seed": "0"}
    for digest, accuracy in (("one", 0.9), ("two", 0.95)):
        scores = {**make_scores(accuracy=accuracy), "baseline": baseline}
        register_family("reviews", functools.partial(register, digest, scores=scores, tags=tags), COMPANION_CALLS)
    client = store.client()

    def read(name: str = "reviews/2") -> str:
        return client.get_model_version(*name.split("/")).description

    assert read().splitlines() == [
        "Trained by TrainFlow/7/train/3 on reviews@v0, code a9c9ec9, seed 0.",
        "",
        "| 100 test rows | &ensp;accuracy |",
        "| --- | --- |",
        "| this version | &ensp;0.950 (0.930 to 0.970) |",
        "| baseline | &ensp;0.800 (0.780 to 0.820) |",
        "",
        "Gate: not asked yet",
    ]
    promote(resolve("reviews/1"))
    client.update_model_version("reviews", "2", f"{read()}\n\nUsed by the shop.")
    rival = make_scores(accuracy=0.9)["test"]
    judge_and_promote(resolve("reviews/2"), lambda champion: Verdict(True, "passed", champion.version, rival))
    # it is champion by now, and is judged alone: as by a step that is tried again
    judge_and_promote(resolve("reviews/2"), lambda champion: Verdict(True, "passed alone", champion))
    assert read().splitlines()[6:] == [
        "| champion v1 | &ensp;0.900 (0.880 to 0.920) |",
        "",
        "Gate: passed",
        "",
        "Used by the shop.",
    ]
    assert read_verdict(resolve("reviews/2").tags).champion == 1
    for kind in ("pipeline", "explainer"):
        assert read(f"reviews-{kind}/2").splitlines() == [
            f"The {kind} of models:/reviews/2, which was trained by TrainFlow/7/train/3 on reviews@v0, "
            "code a9c9ec9, seed 0.",
            "",
            "That version has accuracy 0.950 (0.930 to 0.970) on 100 test rows; "
            "its baseline has 0.800 (0.780 to 0.820).",
        ]


def test_what_people_wrote_instead_of_a_description_stays(store):
    version = register("one")
    store.client().update_model_version("reviews", "1", "Ours.")
    judge_and_promote(version, lambda champion: Verdict(True, "passed", champion))
    assert store.client().get_model_version("reviews", "1").description == "Ours."


# -- the way back -------------------------------------------------------------------------------------------------


def test_each_move_is_kept_with_who_and_why_and_leads_back_step_by_step(store):
    for digest in ("one", "two", "three"):
        family(digest)
        promote(resolve("reviews@challenger"), how="gate", who="ana", why=f"passed {digest}")
    for expected in (2, 1):
        before = find_earlier_champion("reviews")
        assert before.version == expected
        promote(before, how="rollback", who="bo", why="misreads irony")
    with pytest.raises(PromotionRefused, match=r"Nothing tells which .* before v1.*promote reviews/[23]."):
        find_earlier_champion("reviews")
    moves = read_moves(store.client().get_registered_model("reviews").tags)
    assert [(move.before, move.after) for move in moves] == [(None, 1), (1, 2), (2, 3), (3, 2), (2, 1)]
    assert [(move.how, move.who, move.why) for move in moves[2:4]] == [
        ("gate", "ana", "passed three"),
        ("rollback", "bo", "misreads irony"),
    ]
    delete_version(resolve("reviews/2"))
    promote(resolve("reviews/3"))
    assert find_earlier_champion("reviews").version == 1


def test_a_version_is_deleted_with_what_was_made_from_it_and_never_while_it_is_champion(store):
    for digest in ("one", "two"):
        family(digest)
    promote(resolve("reviews/1"))
    with pytest.raises(PromotionRefused, match="models:/reviews/1 is the champion"):
        delete_version(resolve("reviews/1"))
    gone = delete_version(resolve("reviews/2"), who="ana", why="leaked rows")
    assert [version.uri for version in gone] == [f"models:/{name}/2" for name in (*COMPANIONS, "reviews")]
    assert {version.version for version, _ in list_versions()} == {1}
    note = json.loads(store.client().get_registered_model("reviews").tags["dlpipe.deleted.2"])
    assert (note["who"], note["why"]) == ("ana", "leaked rows")
    assert family("two")[0].version == 3  # a number is never given again
    delete_version(resolve("reviews/1"), force=True)
    assert find_champion("reviews") is None


# -- registering --------------------------------------------------------------------------------------------------


def test_a_family_that_fails_on_the_way_leaves_no_classifier_without_companions(store):
    def fails(_: ModelVersion) -> ModelVersion:
        raise SettingError("no such language")

    family("one")
    with pytest.raises(SettingError):
        family("two", companions=[fails])
    with pytest.raises(SettingError):
        family("one", companions=[fails])
    assert [version.uri for version, _ in list_versions() if version.name == "reviews"] == ["models:/reviews/1"]
    assert resolve("reviews@challenger").version == 1


def test_a_family_that_no_task_registers_stands_in_one_experiment_and_has_one_run_with_a_name(store):
    classifier, *companions = family("one")
    client = store.client()
    assert {found.name for found in client.search_experiments()} == {"Default", "reviews"}
    experiment_id = client.get_experiment_by_name("reviews").experiment_id
    (run,) = client.search_runs([experiment_id])
    assert (run.info.run_name, run.info.run_id) == ("register reviews", classifier.run_id)
    models = client.search_logged_models([experiment_id])
    assert {model.name for model in models} == {"reviews", *COMPANIONS}
    assert {model.params["table"] for model in models} == {"reviews@v0"}
    assert [version.run_id for version in companions] == ["", ""]
    client.delete_logged_model(classifier.model_id)
    assert make_companion("pipeline", resolve("reviews/1")) == resolve("reviews-pipeline/1")


@pytest.mark.parametrize("name", ["reviews-pipeline", "reviews-explainer", "reviews-pipeline-explainer"])
def test_a_classifier_cannot_take_the_name_of_what_is_made_from_another(store, name):
    family("one")
    with pytest.raises(SettingError, match="Use another name"):
        check_name_free(name)
    with pytest.raises(SettingError, match="Use another name"):
        register("two", name)
    check_name_free("reviews")
    check_name_free("letters-pipeline")


def test_a_pipeline_cannot_become_a_version_of_a_classifier(store):
    register("one", "letters-pipeline")
    with pytest.raises(SettingError, match="models:/letters-pipeline/1 is no pipeline or explainer"):
        check_name_free("letters")
    with pytest.raises(SettingError, match="a pipeline cannot be a version"):
        family("two", "letters")


def test_while_files_are_written_others_register_and_promote(store):
    first = family("one")[0]
    writing, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        writing.set()
        go_on.wait(60)

    slow = threading.Thread(target=register, args=("slow",), kwargs={"files": Files("slow", before_saving=wait)})
    slow.start()
    assert writing.wait(30)
    assert register("quick").version == 2
    assert register("other", "others").version == 1
    assert promote(first).moved
    go_on.set()
    slow.join()
    assert resolve("reviews@challenger").version == 3


def test_a_model_with_an_apostrophe_or_without_its_files_is_listed(store):
    client = store.client()
    for name in ("it's", "both ' and \"", "both _ and _"):
        client.create_registered_model(name)
        client.create_model_version(name, "/nowhere", run_id=None)
    made = register("one")
    client.delete_logged_model(made.model_id)
    listed = [(version.name, version.version, metrics) for version, metrics in list_versions()]
    assert sorted(listed) == [
        ("both ' and \"", 1, {}),
        ("both _ and _", 1, {}),
        ("it's", 1, {}),
        ("reviews", 1, {}),
    ]
    assert resolve("models:/it's/1").name == "it's"
