"""Events: what may be published, what flows are given of it, and what each came to."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from webhooks import webhook

from dlpipe.cli import main
from dlpipe.errors import EventRefused, SettingError
from dlpipe.flows import publish as publish_from_flow
from dlpipe.orchestrator.decisions import decide
from dlpipe.orchestrator.deployments import NeededEvent, Trigger, Version
from dlpipe.orchestrator.events import PAYLOAD_BYTES, publish_event
from dlpipe.orchestrator.page import make_app
from dlpipe.orchestrator.runs import Event
from dlpipe.orchestrator.state import State
from dlpipe.orchestrator.values import WORD_BYTES, build_words

pytestmark = pytest.mark.slow

KINDS = {"who": "str", "num": "int", "shape": "JSON", "days": "str", "size": "str", "tags": "list"}
FORMS: dict[str, Any] = {
    "parameter_names": tuple(KINDS),
    "parameter_types": KINDS,
    "multiple": ("tags",),
    "separators": {"days": ","},
    "choices": {"size": ("small", "large")},
}
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "a NUL": ({"who": "a\0b"}, "which has a NUL character"),
    "a NUL among several": ({"tags": ["a", "b\0"]}, "which has a NUL character"),
    "half a character": ({"who": "\ud800"}, "half a character"),
    "half a character that nobody reads": ({"elsewhere": {"deep": ["\udce9"]}}, "half a character"),
    "a list for one value": ({"who": ["a"]}, "the parameter who is of type str"),
    "lists in a list": ({"tags": [["a"]]}, "takes a list of single values"),
    "a null in a list": ({"tags": ["a", None]}, "has a null in it"),
    "an empty list": ({"tags": []}, "is an empty list"),
    "an empty list for a separator": ({"days": []}, "is an empty list"),
    "a separator in a part": ({"days": ["1,2"]}, "texts with ',' between them"),
    "another choice": ({"size": "medium"}, "is one of small, large"),
    "a word that is too long": ({"who": "x" * (WORD_BYTES + 1)}, "put it in a table"),
    "no number": ({"num": float("nan")}, "is no JSON"),
    "more than all numbers": ({"num": float("inf")}, "is no JSON"),
    "no JSON": ({"num": {1, 2}}, "is no JSON"),
    "a payload that is too large": ({"elsewhere": ["x" * 1000] * (PAYLOAD_BYTES // 1000)}, "at most 1,048,576"),
}


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[State]:
    monkeypatch.setenv("DLPIPE_STATE", str(tmp_path / "state"))
    with contextlib.closing(State.open()) as made:
        yield made


def deploy(state: State, name: str, *needed: NeededEvent, **values: Any) -> Version:
    made = Version(name, 0, name, "code", "flow.py", "d", "/srv", "python", {}, trigger=Trigger(needed))
    return state.deploy(replace(made, **{**FORMS, **values}), now=time.time())


def publish(state: State, name: str, **payload: Any) -> Event:
    return publish_event(state, name, payload, now=time.time()).event


# -- what may be published ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("payload", "reason"), BAD.values(), ids=BAD)
@pytest.mark.parametrize("pair", [False, True], ids=["alone", "one of two"])
def test_what_no_run_can_be_given_is_refused_and_nothing_is_published(
    state: State, payload: dict[str, Any], reason: str, pair: bool
) -> None:
    mapped = {name: name for name in KINDS}
    deploy(state, "A", *([NeededEvent("go", mapped), NeededEvent("other")] if pair else [NeededEvent("go")]))
    with pytest.raises(EventRefused, match=reason):
        publish_event(state, "go", payload, now=time.time())
    assert state.list_events_after(0) == []


def test_lists_texts_and_odd_characters_arrive_as_words(state: State) -> None:
    version = deploy(state, "A", NeededEvent("go"))
    payload = {"tags": ["a b", "-q", ""], "days": [1, 2], "who": "\x1b[31m\x01 é\t", "shape": True}
    publish(state, "go", **payload)
    (run,) = decide(state, time.time(), max_runs=1)
    assert list(build_words(version, run.parameters)) == [
        *("--who", "\x1b[31m\x01 é\t", "--shape", "true", "--days", "1,2"),
        *("--tags", "a b", "--tags", "-q", "--tags", ""),
    ]


def test_an_event_that_does_not_fit_neither_replaces_a_good_one_nor_uses_up_the_pair(state: State) -> None:
    deploy(state, "A", NeededEvent("alpha", {"num": "x"}), NeededEvent("beta", {"who": "y"}))
    good = publish(state, "alpha", x=1)
    bad = Event("bad", "alpha", {"x": "no number"}, time.time())
    assert state.publish(bad)  # as a program that does not ask may
    decide(state, time.time(), max_runs=4)
    assert state.publish(Event("worse", "beta", {"y": "a\0"}, time.time()))
    decide(state, time.time(), max_runs=4)
    assert [(run.status, run.events[0].id) for run in state.list_runs()] == [
        ("skipped", "worse"),
        ("skipped", "bad"),
    ]
    assert "which has a NUL character" in state.list_runs()[0].reason
    assert list(state.get_held_events("A")) == ["alpha"]
    completing = publish(state, "beta", y="yes")
    (run,) = decide(state, time.time(), max_runs=4)
    assert run.events == (good, completing)
    assert run.parameters == {"num": 1, "who": "yes"}


def test_an_event_that_was_held_for_an_older_version_is_left_out_when_the_new_one_cannot_take_it(
    state: State,
) -> None:
    needed = (NeededEvent("alpha", {"num": "x"}), NeededEvent("beta"))
    deploy(state, "A", *needed, parameter_types={"num": "str"})
    publish(state, "alpha", x="seven")
    decide(state, time.time(), max_runs=4)
    deploy(state, "A", *needed)
    publish(state, "beta")
    assert decide(state, time.time(), max_runs=4) == []
    publish(state, "alpha", x=7)
    assert len(decide(state, time.time(), max_runs=4)) == 1


@pytest.mark.parametrize(
    ("given", "reason"),
    [({"size": "medium"}, "one of small, large"), ({"who": ["a"]}, "of type str"), ({"num": "x"}, "of type int")],
)
def test_what_trigger_is_given_is_checked_against_the_version_that_is_deployed(
    state: State, given: dict[str, Any], reason: str
) -> None:
    from dlpipe.orchestrator.interventions import check_given

    version = deploy(state, "A", NeededEvent("go"))
    check_given(version, {"size": "small", "who": "a", "num": "3", "tags": ["a", "b"], "shape": "[1]"})
    with pytest.raises(SettingError, match=f"does not fit version 1, but the parameter .* is {reason}"):
        check_given(version, given)


def test_an_event_that_a_flow_publishes_is_checked_like_one_by_hand(state: State) -> None:
    deploy(state, "A", NeededEvent("go", {"num": "n"}))
    more: dict[str, Any] = {"event_id": "one", "new": True, "at": time.time()}
    with pytest.raises(EventRefused, match="the parameter num is of type int"):
        publish_from_flow("go", {"n": "x"}, **more)
    assert publish_from_flow("go", {"n": 1}, **more) == "go is published"
    assert publish_from_flow("go", {"n": 1}, **more) == "go was published before"
    assert len(state.list_events_after(0)) == 1


# -- what came ---------------------------------------------------------------------------------------------------


def dlpipe(*words: str) -> Result:
    return CliRunner().invoke(main, words)


def test_events_say_what_they_started_and_what_waits_for_its_other_half(state: State) -> None:
    deploy(state, "Single", NeededEvent("solo"))
    deploy(state, "Both", NeededEvent("alpha"), NeededEvent("beta"))
    assert "it reaches Single" in dlpipe("event", "publish", "solo").stdout
    assert "Both waits for beta as well" in dlpipe("event", "publish", "alpha").stdout
    assert "no scheduler has looked at it yet" in dlpipe("events").stdout
    decide(state, time.time(), max_runs=4)
    publish(state, "unheard")
    decide(state, time.time(), max_runs=4)
    head, *lines = dlpipe("events").stdout.splitlines()
    assert head.split() == ["event", "came"]
    assert [line.split("  ")[0] for line in lines[::2]] == ["unheard", "alpha", "solo"]
    assert lines[1::2] == ["    nothing", "    Both waits for beta", "    run 1 of Single queued"]
    shown = make_app(state).test_client()
    for page in ("/", "/deployments/Both"):
        assert "waits for beta" in shown.get(page).text
    assert "waits for" in dlpipe("deployments").stdout.splitlines()[0]
    # the other half starts one run, which is of both
    assert "it reaches Both" in dlpipe("event", "publish", "beta").stdout
    decide(state, time.time(), max_runs=4)
    rows = json.loads(dlpipe("events", "--json").stdout)
    assert [(row["name"], [run["run"] for run in row["runs"]], row["waits"]) for row in rows] == [
        ("beta", [2], {}),
        ("unheard", [], {}),
        ("alpha", [2], {}),
        ("solo", [1], {}),
    ]
    assert len(json.loads(dlpipe("events", "--name", "solo", "--json").stdout)) == 1
    assert "waits for" not in dlpipe("deployments").stdout
    assert "No event 'none' has come." in dlpipe("events", "--name", "none").stderr


def test_an_event_that_started_nothing_because_it_does_not_fit_says_why(state: State) -> None:
    deploy(state, "A", NeededEvent("go", {"num": "n"}))
    state.publish(Event("1", "go", {"n": "x"}, time.time()))
    decide(state, time.time(), max_runs=4)
    assert "run 1 of A skipped: event 'go' has n = " in dlpipe("events").stdout


# -- from Metaflow's own class -----------------------------------------------------------------------------------


def test_metaflows_event_reaches_the_scheduler_of_this_machine(
    state: State, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from metaflow.integrations import ArgoEvent
    from metaflow.plugins.argo.argo_events import ArgoEventException

    deploy(state, "A", NeededEvent("go", {"who": "who", "num": "num"}))
    published = ArgoEvent("go").add_to_payload("who", "argo").publish(payload={"num": 7})
    (event,) = [event for _, event in state.list_events_after(0)]
    assert (event.id, event.payload["who"], event.payload["num"]) == (published, "argo", 7)
    assert event.payload["generated-by-metaflow"] is True
    # in a run by hand, as Metaflow says, the careful way does nothing; in a run of the scheduler it publishes
    assert ArgoEvent("go").safe_publish() is None
    assert len(state.list_events_after(0)) == 1
    monkeypatch.setenv("_DLPIPE_ATTEMPT_FOLDER", "somewhere")
    assert ArgoEvent(lambda: "go").safe_publish() == state.list_events_after(0)[-1][1].id
    # what cannot be passed on is refused here as well
    assert ArgoEvent("go").publish(payload={"num": "x"}) is None
    assert "the parameter num is of type int" in capsys.readouterr().err
    with pytest.raises(ArgoEventException, match="type int"):
        ArgoEvent("go").publish(payload={"num": "x"}, ignore_errors=False)
    # on Argo it goes where Metaflow says
    monkeypatch.setenv("ARGO_WORKFLOW_TEMPLATE", "argo")
    with webhook() as argo:
        published = ArgoEvent("go", url=argo.url).safe_publish()
    assert [one["payload"]["id"] for one in argo.got] == [published]
    assert len(state.list_events_after(0)) == 2
