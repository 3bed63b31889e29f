"""Secrets planted in every kind of input: nothing that is printed, and no file of the state, has them.

The one exception is the state's database, which has what runs need: parameters, variables, where alerts go.
"""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import pytest
from annotated_types import Le
from click.testing import CliRunner
from schedulers import FAILS, deployed, ended, run_when, started, succeeds, triggered, wait_until
from stores import untouched_environment

from dlpipe.cli import main
from dlpipe.errors import DlpipeError
from dlpipe.orchestrator import alerts, page
from dlpipe.orchestrator.deployments import NeededEvent, Policies, Trigger, Version
from dlpipe.orchestrator.events import publish_event
from dlpipe.orchestrator.state import State
from dlpipe.redaction import redact, show_address, show_target
from dlpipe.settings import read_settings

PLANTED = "Pl4ntedS3cr3t"
ADDRESSES = (
    f"http://ana:{PLANTED}@127.0.0.1:9/x",
    f"http://{PLANTED}@127.0.0.1:9",
    f"http://{PLANTED}:@127.0.0.1:9",
    f"http://{PLANTED}:x-oauth-basic@127.0.0.1:9",
    f"http://127.0.0.1:9/x?password={PLANTED}",
    f"http://127.0.0.1:9/x?user=ana&access_token={PLANTED}#token={PLANTED}",
    f"http://127.0.0.1:9/x?X-Amz-Signature={PLANTED}&sig={PLANTED}",
    f"postgresql://ana:{PLANTED}@127.0.0.1:9/mlflow?connect_timeout=1",
    f"postgresql://ana:p%40{PLANTED}@127.0.0.1:9/mlflow?connect_timeout=1&sslpassword={PLANTED}",
    f"mssql+pyodbc:///?odbc_connect=DRIVER%3Dx%3BPWD%3D{PLANTED}",
    f"ftp://ana:{PLANTED}@127.0.0.1/x",
    f"file://ana:{PLANTED}@host/x",
    f"http://[{PLANTED}@127.0.0.1",
    f"http://ana:{PLANTED}/def@127.0.0.1:9/",
    f"http://ana:p@x/{PLANTED}@127.0.0.1:9/",
    f"http://ana:p?{PLANTED}@127.0.0.1:9/",
    f"http://ana:p#{PLANTED}@127.0.0.1:9/",
    f"ana:{PLANTED}@127.0.0.1:9",
    f"ana:{PLANTED}@mlflow.example/x",
    f"http://127.0.0.1:9/?a=1;password={PLANTED}",
    f"http://127.0.0.1:9/?a=1;password=p;{PLANTED}&b=2",
    f"http://127.0.0.1:9/?pass%77ord={PLANTED}",
    f"http://127.0.0.1:9/?code={PLANTED}&pat={PLANTED}&sas={PLANTED}",
    f"http://127.0.0.1:9/?next=http%3A%2F%2Fana%3A{PLANTED}%40127.0.0.1",
    f"http://127.0.0.1:9/x;password={PLANTED}/y",
    f"postgresql:///mlflow?host=127.0.0.1&port=9&connect_timeout=1&password={PLANTED}",
)
PLAIN = (
    "http://mlflow:5000/#/models/x@champion",
    "http://[::1]:5000/a@b",
    "postgresql:///mlflow?host=/run/postgresql",
    "postgresql+psycopg2://ana@db:5432/mlflow",
    "sqlite:////srv/mlflow.db",
    "s3://bucket/x@y",
    "models:/x@champion",
    "repo:tag@sha256:9f86d081884c7d659a2feaa0c55ad015",
)
TARGETS = (
    f"https://hooks.slack.com/services/T0/{PLANTED}",
    f"curl -d @- https://hooks.slack.com/services/T0/{PLANTED}",
    f"curl -d @- 'https://alerts.example/{PLANTED}?x=1' --retry 3",
    f"curl -u ana:{PLANTED} https://alerts.example",
    f"curl -d @- https://ana:{PLANTED}/x@alerts.example/{PLANTED}",
)


@pytest.fixture(autouse=True)
def environment() -> Iterator[None]:
    with untouched_environment():
        yield


@pytest.mark.parametrize("address", ADDRESSES)
def test_no_address_is_shown_with_what_opens_it(address: str) -> None:
    assert PLANTED not in show_address(address)


@pytest.mark.parametrize("address", PLAIN)
def test_an_address_without_a_secret_is_shown_as_it_is(address: str) -> None:
    assert show_address(address) == redact(address) == address


@pytest.mark.parametrize("target", TARGETS)
def test_the_path_of_a_webhook_is_not_shown_within_a_command_either(target: str) -> None:
    assert PLANTED not in show_target(target)
    assert "slack.com" not in target or PLANTED not in redact(target)


def test_a_webhook_that_is_refused_is_not_quoted() -> None:
    with pytest.raises(DlpipeError) as refused:
        alerts.check_target(f"https://ana:{PLANTED}/x@alerts.example")
    assert PLANTED not in str(refused.value)


def test_what_an_alert_command_says_is_logged_without_the_webhook() -> None:
    line = f"ls https://alerts.example/{PLANTED}"
    assert PLANTED not in alerts.run_command(line, b"", seconds=10)


@pytest.mark.parametrize("address", ADDRESSES)
def test_no_command_prints_what_opens_mlflow(address: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    done = CliRunner().invoke(main, ["models"])
    assert done.exit_code == 1
    assert isinstance(done.exception, SystemExit), done.exception
    assert PLANTED not in done.output


def test_a_setting_that_is_refused_keeps_its_secret() -> None:
    @dataclass(frozen=True)
    class Settings:
        password: Annotated[int, Le(1)] = 0
        place: int = 0

    for given in ({"password": PLANTED}, {"place": f"s3://key:{PLANTED}@bucket/x"}):
        with pytest.raises(DlpipeError) as refused:
            read_settings(Settings, given, where="[x]")
        assert PLANTED not in str(refused.value)


# -- the orchestrator --------------------------------------------------------------------------------------------


@pytest.fixture
def webhook() -> str:
    """A webhook that nobody listens at; its path is the secret."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}/services/{PLANTED}"


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[State]:
    monkeypatch.setenv("DLPIPE_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("DATABASE_PASSWORD", PLANTED)
    monkeypatch.setenv("HARMLESS", f"postgresql://ana:{PLANTED}@db/x")
    with contextlib.closing(State.open()) as made:
        yield made


def with_secrets(state: State, name: str, program: str, alert: str) -> Version:
    return deployed(
        state,
        name,
        program,
        parameters={"api_key": PLANTED, "source": f"https://{PLANTED}@host/x"},
        parameter_names=("api_key", "source", "rows"),
        parameter_types={"api_key": "str", "source": "str", "rows": "int"},
        variables={"MLFLOW_TRACKING_URI": f"https://ana:{PLANTED}@mlflow.example"},
        trigger=Trigger((NeededEvent("go", parameters={"rows": "password"}),)),
        policies=Policies(alert=alert, resumes=0),
    )


def test_nothing_of_the_orchestrator_shows_or_keeps_a_secret(state: State, webhook: str) -> None:
    good = with_secrets(state, "Good", succeeds(), "")
    bad = with_secrets(state, "Bad", FAILS, webhook)
    scheduler = started(state.folder)
    try:
        printed = [
            CliRunner().invoke(main, ["event", "publish", name, "--payload", f'{{"password": "{PLANTED}"}}'])
            for name in ("go", "nobody-waits")
        ]
        numbers = [triggered(state, name) for name in ("Good", "Bad")]
        for number, status in zip(numbers, ("succeeded", "failed"), strict=True):
            run_when(state, number, status)
        wait_until(lambda: "not sent" in (state.folder / "scheduler.log").read_text())
    finally:
        log = ended(scheduler)
    printed += [
        CliRunner().invoke(main, words)
        for words in (["runs"], ["runs", "--json"], ["deployments", "--json"], ["events", "--json"])
    ]
    for text in [
        log,
        *(result.output for result in printed),
        *told_of(state, good, bad),
        *pages_of(state, numbers),
    ]:
        assert PLANTED not in text
    kept = [path for path in state.folder.rglob("*") if path.is_file() and not path.name.startswith("state.db")]
    assert {"attempt.json", "log", "scheduler.log"} <= {path.name for path in kept}
    assert [str(path) for path in kept if PLANTED.encode() in path.read_bytes()] == []
    assert state.folder.stat().st_mode & 0o077 == 0


def told_of(state: State, good: Version, bad: Version) -> Iterator[str]:
    """What `local-scheduler` says of deployments, and of what differs between two of them."""
    from metaflow_extensions.dlpipe.plugins.local_scheduler import comparing, telling

    for version in (good, bad):
        yield "\n".join(telling.format_version(version))
        found = {**telling.describe_deployment(state, version.deployment), "difference": {"error": ""}}
        yield json.dumps(found)
        yield "\n".join(telling.format_status(found))
    other = replace(good, parameters={"api_key": f"{PLANTED}2"}, policies=bad.policies, code="gone", variables={})
    there: Any = None  # of code that is gone nothing is compared
    yield "\n".join(comparing.find_changes(replace(good, code="gone"), other, there).lines())
    options = replace(other, run_options=("--password", PLANTED))
    yield "\n".join(comparing.find_changes(other, options, there).lines())


def pages_of(state: State, numbers: list[int]) -> Iterator[str]:
    client = page.make_app(state).test_client()
    for path in ("/", "/deployments/Bad", *(f"/runs/{number}" for number in numbers)):
        yield client.get(path).text


def test_an_event_that_no_run_can_be_given_is_refused_without_its_secret(state: State) -> None:
    with_secrets(state, "Good", succeeds(), "")
    with pytest.raises(DlpipeError) as refused:
        publish_event(state, "go", {"password": PLANTED}, now=0.0)
    assert PLANTED not in str(refused.value)
