"""The status page: what it shows, to whom it answers, and that a browser needs nothing else."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
from browsers import open_in_browser
from click.testing import CliRunner
from flask.testing import FlaskClient
from metaflow.plugins.cards.card_modules.basic import BlankCard
from schedulers import deployed, scheduling, succeeds, triggered, wait_until
from werkzeug.test import TestResponse

from dlpipe.bridge.marks import RunMarks
from dlpipe.cli import main
from dlpipe.orchestrator import page, presence
from dlpipe.orchestrator.deployments import NeededEvent, Schedule, Trigger
from dlpipe.orchestrator.progress import parse_progress
from dlpipe.orchestrator.runs import RunAttempt
from dlpipe.orchestrator.state import State
from dlpipe.time_formats import format_iso, format_span

NOW = 1795757400.0  # 2026-11-27 05:30 UTC
EVIL = "<script>alert(1)</script>\u202egnp.exe"


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    with contextlib.closing(State.open(tmp_path / "state")) as made:
        deployed(made, "PredictFlow", succeeds(), now=NOW, schedule=Schedule("0 3 * * *", "Europe/Berlin"))
        follows = Trigger((NeededEvent("metaflow.PredictFlow.end", kind="run", flow="PredictFlow"),))
        deployed(made, "ExplainFlow", succeeds(), now=NOW, trigger=follows)
        yield made


@pytest.fixture
def client(state: State) -> FlaskClient:
    return page.make_app(state, clock=lambda: NOW).test_client()


def attempted(state: State, name: str, log: str = "hello\n", **more: object) -> int:
    """A run with an attempt that has a log."""
    number = triggered(state, name, f"manual:{time.monotonic_ns()}")
    folder = state.folder / "runs" / str(number) / "0"
    folder.mkdir(parents=True)
    (folder / "log").write_text(log)
    made = {"metaflow_run": f"ls-{number}-abc", "started": NOW - 60, **more}
    state.add_attempt(number, RunAttempt(0, f"token-{number}", str(folder), **made))  # type: ignore[arg-type]
    return number


def text_of(client: FlaskClient, path: str) -> str:
    answer = client.get(path)
    assert answer.status_code == 200
    return " ".join(re.sub(r"<[^>]+>", " ", answer.text).split())


def test_the_page_shows_what_is_deployed_due_and_running(client: FlaskClient, state: State) -> None:
    attempted(state, "PredictFlow")
    shown = text_of(client, "/")
    assert "PredictFlow 1 0 3 * * * Europe/Berlin 2026-11-28 03:00 Europe/Berlin in 20 h 30 min" in shown
    assert "end of PredictFlow" in shown
    assert "1 PredictFlow running" in shown
    assert "Now 1 run goes on; nothing has failed." in shown
    assert "1 min 0 s" in shown


def test_a_failed_run_says_why_and_how_to_resume_it(client: FlaskClient, state: State) -> None:
    number = attempted(state, "PredictFlow", ended=NOW, outcome="failed", step="score", reason="ValueError: no")
    state.set_status(number, "failed", reason="score: ValueError: no")
    assert "Look at PredictFlow (run 1 failed)." in text_of(client, "/")
    for path in ("/", f"/runs/{number}", "/deployments/PredictFlow"):
        shown = text_of(client, path)
        assert "score ValueError: no" in shown
        assert f"dlpipe runs resume {number}" in shown


def test_the_run_links_to_its_log_its_cards_and_mlflow(client: FlaskClient, state: State) -> None:
    log = f"{EVIL}\nMLflow has this run: http://127.0.0.1:5000/#/experiments/1/runs/abc\nDone.\n"
    number = attempted(state, "PredictFlow", log=log)
    cards = Path(
        state.get_version("PredictFlow", 1).folder, ".metaflow/mf.cards/PredictFlow/runs", f"ls-{number}-abc"
    )
    for task in ("2", "10"):
        (cards / f"steps/score/tasks/{task}/cards").mkdir(parents=True)
        (cards / f"steps/score/tasks/{task}/cards/blank-drift-0f.html").write_text(f"<h1>card {task}</h1>")
    shown = client.get(f"/runs/{number}").text
    links = re.findall(r'href="([^"]+)"', shown)
    assert "http://127.0.0.1:5000/#/experiments/1/runs/abc" in links
    assert client.get(f"/runs/{number}/0/cards/0").text == "<h1>card 2</h1>"
    assert client.get(f"/runs/{number}/0/cards/1").text == "<h1>card 10</h1>"
    assert "sandbox allow-scripts;" in client.get(f"/runs/{number}/0/cards/1").headers["Content-Security-Policy"]
    assert client.get(f"/runs/{number}/0/cards/2").status_code == 404
    said = client.get(f"/runs/{number}/0/log")
    assert said.text == log
    assert said.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert "2 cards" in text_of(client, "/")


def test_of_a_long_log_the_end_is_shown(client: FlaskClient, state: State) -> None:
    number = attempted(state, "PredictFlow", log="x" * page.LOG_BYTES + "\nthe end\n")
    shown = client.get(f"/runs/{number}/0/log").text
    assert shown.startswith(f"[The beginning is left out; all of it: dlpipe logs {number} --attempt 0]\n")
    assert shown.endswith("the end\n")


def test_what_others_wrote_is_text_and_no_markup(client: FlaskClient, state: State) -> None:
    number = attempted(state, "PredictFlow", log=f"MLflow has this run: javascript:alert(1) {EVIL}\n")
    state.set_attempt(
        number, RunAttempt(0, "t", state.get_run(number).attempts[0].folder, outcome="failed", reason=EVIL)
    )
    state.set_status(number, "failed", reason=EVIL)
    for path in ("/", f"/runs/{number}", "/deployments/PredictFlow"):
        shown = client.get(path).text
        assert "<script" not in shown
        assert 'href="javascript' not in shown
        assert "\u202e" not in shown
    assert "&lt;script&gt;" in client.get("/").text


@pytest.mark.parametrize("path", ["/", "/style.css", "/runs/1", "/runs/1/0/log", "/nowhere"])
@pytest.mark.parametrize("host", ["evil.example", "evil.example:8710", "127.0.0.1.evil.example", "", "[::2]:8710"])
def test_who_asks_by_a_foreign_name_is_refused(path: str, host: str, client: FlaskClient) -> None:
    assert client.get(path, headers={"Host": host}).status_code == 403


@pytest.mark.parametrize("host", ["127.0.0.1:8710", "localhost:9000", "localhost", "[::1]:8710", "LOCALHOST"])
def test_who_asks_by_a_name_of_this_machine_is_answered(host: str, client: FlaskClient) -> None:
    assert client.get("/", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        *("/runs/99", "/deployments/Nothing", "/runs/x", "/runs/1/7/log", "/runs/../state.db"),
        *("/runs/9223372036854775808", f"/runs/{'9' * 5000}", f"/runs/1/{'9' * 30}/log", "/deployments/%ED%A0%80"),
    ],
)
def test_what_is_not_there_is_not_found(path: str, client: FlaskClient, state: State) -> None:
    attempted(state, "PredictFlow")
    assert client.get(path).status_code == 404


def test_nothing_can_be_changed_through_a_page_without_a_token(client: FlaskClient) -> None:
    rules = client.application.url_map.iter_rules()
    assert {method for rule in rules for method in rule.methods or ()} == {"GET", "HEAD", "OPTIONS"}
    assert client.post("/").status_code == 405
    assert "<button" not in client.get("/").text + client.get("/deployments/PredictFlow").text


LOG = """\
2026-11-27 05:29:00.000 Workflow starting (run-id ls-1-abc):
2026-11-27 05:29:00.000 [ls-1-abc/start/1 (pid 5)] Task is starting.
2026-11-27 05:29:03.000 [ls-1-abc/start/1 (pid 5)] Foreach yields 3 child steps.
2026-11-27 05:29:03.000 [ls-1-abc/start/1 (pid 5)] Task finished successfully.
2026-11-27 05:29:04.000 [ls-1-abc/score/2 (pid 6)] Task is starting.
2026-11-27 05:29:04.000 [ls-1-abc/score/3 (pid 7)] Task is starting.
2026-11-27 05:29:09.000 [ls-1-abc/score/2 (pid 6)] Task finished successfully.
"""


def test_a_run_that_goes_on_shows_how_far_it_is(client: FlaskClient, state: State) -> None:
    number = attempted(state, "PredictFlow", log=LOG)
    since = (datetime.fromtimestamp(NOW) - datetime(2026, 11, 27, 5, 29, 4)).total_seconds()
    for path in ("/", f"/runs/{number}"):  # what runs is as old as it is now, however long ago it printed a line
        assert f"start 3.0 s score 1/2 {format_span(since)}" in text_of(client, path)
    failed = parse_progress([*LOG.splitlines(), "2026-11-27 05:30:00.000 [ls-1-abc/score/3 (pid 7)] Task failed."])
    assert [(step.step, step.state) for step in failed.steps] == [("start", "done"), ("score", "failed")]
    again = "2026-11-27 05:30:01.000 [ls-1-abc/score/3 (pid 8)] Task is starting (retry)."
    assert parse_progress([*LOG.splitlines(), again]).current == "score (1 of 2 tasks done)"


@pytest.mark.parametrize(("end", "says"), [("", "stopped"), ("Task failed.", "failed")])
def test_a_step_of_an_attempt_that_has_ended_does_not_run(
    end: str, says: str, client: FlaskClient, state: State
) -> None:
    log = f"{LOG}2026-11-27 05:29:10.000 [ls-1-abc/score/2 (pid 6)] {end}\n"
    number = attempted(state, "PredictFlow", log=log, ended=NOW, outcome="killed")
    state.set_status(number, "terminated")
    page = client.get(f"/runs/{number}").text
    assert f'<span class="step {says}">score' in page
    assert "step running" not in page
    assert ("until it was stopped" in page) is (says == "stopped")


def make_cards(state: State, number: int, **contents: list[dict[str, str]]) -> Path:
    """Write a card of Metaflow's for each step that is given; return the folder of the run's cards."""
    home = Path(state.get_version("PredictFlow", 1).folder, ".metaflow")
    cards = home / "mf.cards/PredictFlow/runs" / f"ls-{number}-abc"
    for task, (step, shown) in enumerate(contents.items()):
        card = BlankCard(components=shown).render(SimpleNamespace(pathspec=f"PredictFlow/1/{step}/{task}"))
        folder = cards / f"steps/{step}/tasks/{task}/cards"
        folder.mkdir(parents=True)
        (folder / "blank-0f.html").write_text(card)
    return cards


def test_cards_stand_in_the_order_of_their_steps_without_blank_ones(client: FlaskClient, state: State) -> None:
    number = attempted(state, "PredictFlow", log=LOG)
    shown = [{"type": "markdown", "source": "# 3 rows", "id": "x"}]
    make_cards(state, number, score=shown, start=shown, before=[], zeroth=shown)
    links = re.findall(rf'href="(/runs/{number}/0/cards/\d)">(\w+)</a>', client.get(f"/runs/{number}").text)
    assert [name for _, name in links] == ["start", "score", "zeroth"]
    assert all("__MF_DATA__" in client.get(link).text for link, _ in links)
    assert f"/{links[0][1]}/" in client.get(links[0][0]).text.partition("<title>")[2][:80]
    assert client.get(f"/runs/{number}/0/cards/3").status_code == 404
    assert "3 cards" in text_of(client, "/")


def test_a_run_that_goes_on_links_to_mlflow_as_soon_as_the_bridge_has_it_there(
    client: FlaskClient, state: State
) -> None:
    number = attempted(state, "PredictFlow", log=LOG)
    home = Path(state.get_version("PredictFlow", 1).folder, ".metaflow")
    note = home / f"PredictFlow/ls-{number}-abc/_bridge/mlflow.json"
    note.parent.mkdir(parents=True)
    for content in ("[1", '{"address": null}', '{"address": "javascript:alert(1)"}'):
        note.write_text(content)
        assert ">MLflow</a>" not in client.get(f"/runs/{number}").text
    address = "http://127.0.0.1:5000/#/experiments/1/runs/abc"
    RunMarks(f"PredictFlow/ls-{number}-abc", note.parent).note_where({"address": address, "run_id": "abc"})
    for path in ("/", f"/runs/{number}"):
        assert f'href="{address}"' in client.get(path).text


def test_a_run_that_has_ended_says_its_outcome_and_stands_once(client: FlaskClient, state: State) -> None:
    said = "2026-11-27 05:29:20.000 [ls-1-abc/end/9 (pid 8)] outcome      no drift: 3 rows like those trained on\n"
    number = attempted(state, "PredictFlow", log=LOG + said, ended=NOW, outcome="succeeded")
    assert client.get("/").text.count(f'"/runs/{number}"') == 2  # among those that go on, and as the last one
    state.set_status(number, "succeeded")
    assert client.get("/").text.count(f'"/runs/{number}"') == 2
    for path in ("/", f"/runs/{number}", "/deployments/PredictFlow"):
        assert "no drift: 3 rows like those trained on" in text_of(client, path)


def test_when_a_schedule_was_due_stands_once_and_as_all_times_do(client: FlaskClient, state: State) -> None:
    due = f"schedule {format_iso(NOW)}"
    number = state.add_run("PredictFlow", cause=due, key="schedule:1", due=NOW)[0].number
    for path in ("/", f"/runs/{number}", "/deployments/PredictFlow"):
        shown = text_of(client, path)
        assert " schedule " in shown
        assert "2026-11-27 05:30 UTC" in shown
        assert "2026-11-27T" not in shown


def test_a_deployment_shows_its_policies_and_its_versions(client: FlaskClient, state: State) -> None:
    deployed(state, "PredictFlow", succeeds(), now=NOW + 60, schedule=Schedule("0 4 * * *"))
    shown = text_of(client, "/deployments/PredictFlow")
    assert "overlap = skip" in shown
    assert "time-limit = none" in shown
    assert "backoff = 30 s" in shown
    assert "Versions" in shown
    assert "0 4 * * * UTC" in shown
    assert "0 3 * * * Europe/Berlin" in shown


@pytest.fixture
def pressing(state: State) -> Callable[..., TestResponse]:
    """Press a button: POST from the page itself, as a browser does."""
    client = page.make_app(state, token="s3cr3t", clock=lambda: NOW).test_client()
    client.get("/?token=s3cr3t")
    word = re.search(r'name="word" value="(\w+)"', client.get("/").text)[1]

    def press(path: str, origin: str = "http://localhost", word: str = word) -> TestResponse:
        return client.post(path, data={"word": word}, headers={"Origin": origin})

    return press


def test_buttons_start_suspend_resume_and_stop(pressing: Callable[..., TestResponse], state: State) -> None:
    assert pressing("/deployments/PredictFlow/trigger").headers["Location"] == "/runs/1"
    assert state.get_run(1).cause == "by hand"
    assert pressing("/runs/1/suspend").status_code == 303
    assert state.get_run(1).suspended
    assert pressing("/runs/1/unsuspend").status_code == 303
    assert not state.get_run(1).suspended
    assert pressing("/runs/1/stop").status_code == 303
    assert state.get_run(1).status == "terminated"
    assert pressing("/runs/1/stop").status_code == 409
    assert pressing("/runs/1/resume").status_code == 303
    assert state.get_run(1).status == "waiting"
    assert pressing("/deployments/PredictFlow/suspend").status_code == 303
    assert state.get_deployment("PredictFlow").suspended
    assert pressing("/deployments/PredictFlow/unsuspend").status_code == 303
    assert not state.get_deployment("PredictFlow").suspended
    assert pressing("/runs/99/stop").status_code == 404


@pytest.mark.parametrize("wrong", [{"origin": "http://evil.example"}, {"origin": "null"}, {"word": "x"}])
def test_other_pages_cannot_press_a_button(
    pressing: Callable[..., TestResponse], wrong: dict[str, str], state: State
) -> None:
    assert pressing("/deployments/PredictFlow/trigger", **wrong).status_code == 403
    assert not state.list_runs()


def test_what_root_deployed_is_roots_own(
    pressing: Callable[..., TestResponse], state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Metaflow takes no root: of a container without another user, dlpipe's config makes up a name."""
    for name in ("METAFLOW_USER", "SUDO_USER", "USERNAME", "USER"):
        monkeypatch.delenv(name, raising=False)
    program = "from metaflow.util import get_username; print(get_username())"
    kept = {**os.environ, "USER": "root"}
    author = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=kept
    ).stdout.strip()
    deployed(state, "Ours", succeeds(), now=NOW, author=author)
    assert pressing("/deployments/Ours/trigger").status_code == 303


def test_what_somebody_else_deployed_is_not_changed(pressing: Callable[..., TestResponse], state: State) -> None:
    deployed(state, "Theirs", succeeds(), now=NOW, author="somebody-else")
    answer = pressing("/deployments/Theirs/trigger")
    assert answer.status_code == 409
    assert "was deployed by somebody-else" in answer.text


def test_pages_name_no_other_address_and_need_no_script(client: FlaskClient, state: State) -> None:
    number = attempted(state, "PredictFlow")
    pages = ["/", f"/runs/{number}", "/deployments/PredictFlow", "/runs/99", "/style.css"]
    for path in pages:
        answer = client.get(path)
        assert not re.findall(r"https?://|<script|//[a-z]|url\(", answer.text)
        assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'; style-src 'self'")
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_a_deleted_deployments_runs_can_still_be_read(client: FlaskClient, state: State) -> None:
    number = attempted(state, "PredictFlow")
    state.set_status(number, "succeeded")
    state.delete("PredictFlow")
    assert "deleted" in text_of(client, "/deployments/PredictFlow")
    assert client.get(f"/runs/{number}").status_code == 200


def test_a_page_of_a_damaged_state_says_so(client: FlaskClient, state: State) -> None:
    with contextlib.closing(sqlite3.connect(state.folder / "state.db")) as other:
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = (state.folder / "state.db").read_bytes()
    with (state.folder / "state.db").open("r+b") as file:
        file.seek(4096)
        file.write(b"damage" * (len(content) // 6 - 1000))
    answer = client.get("/")
    assert answer.status_code == 503
    assert "state.db is damaged" in answer.text


def test_a_page_of_two_hundred_deployments_is_quick(state: State, client: FlaskClient) -> None:
    for number in range(200):
        deployed(state, f"Flow{number}", succeeds(), now=NOW, schedule=Schedule(f"{number % 60} 3 * * *"))
    client.get("/")
    began = time.perf_counter()
    assert client.get("/").text.count("<tr>") > 200
    assert time.perf_counter() - began < 1


def test_the_scheduler_serves_its_page_on_loopback_only(state: State) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with scheduling(state.folder, "--port", str(port)):
        wait_until(lambda: presence.read_about(state.folder).get("page"))
        address = presence.read_about(state.folder)["page"]
        assert re.fullmatch(rf"http://127\.0\.0\.1:{port}/\?token=[\w-]{{32}}", address)
        assert asked(port, "127.0.0.1") == 403
        assert asked(port, "127.0.0.1", address.partition("=")[2]) == 200
        told = CliRunner().invoke(main, ["scheduler", "page"], env={"DLPIPE_STATE": str(state.folder)})
        assert told.output == f"{address}\n"
        for name in ("scheduler.json", "page.token"):
            assert (state.folder / name).stat().st_mode & 0o077 == 0
        assert address.partition("=")[2] not in (state.folder / "scheduler.log").read_text()
        assert asked(port, "evil.example") == 403
        for address in others():
            with (
                pytest.raises((ConnectionError, TimeoutError)),
                socket.create_connection((address, port), timeout=1),
            ):
                pass


def test_connections_that_say_nothing_do_not_stop_the_page(state: State) -> None:
    with contextlib.closing(page.serve(page.make_app(state), 0)) as server, contextlib.ExitStack() as idle:
        port = int(server.effective_port)
        for _ in range(130):
            idle.enter_context(socket.create_connection(("127.0.0.1", port), timeout=5))
        began = time.monotonic()
        assert asked(port, "127.0.0.1") == 200
        assert time.monotonic() - began < 5


def test_a_run_that_waits_for_room_is_not_due_in_1970(client: FlaskClient, state: State) -> None:
    number = attempted(state, "PredictFlow")
    state.set_status(number, "waiting", reason="resumed by hand")
    for path in ("/", f"/runs/{number}"):
        assert "as soon as there is room" in text_of(client, path)
        assert "1970" not in text_of(client, path)


@pytest.mark.parametrize("path", ["/", "/runs/1", "/runs/1/0/log", "/runs/1/0/cards/0", "/style.css", "/nowhere"])
def test_nothing_is_shown_to_those_who_do_not_know_the_token(path: str, state: State) -> None:
    attempted(state, "PredictFlow", log="a customer's name\n")
    app = page.make_app(state, token="s3cr3t", clock=lambda: NOW)
    for asker in (path, f"{path}?token=", f"{path}?token=s3cr3", f"{path}?token=%ED%A0%80"):
        answer = app.test_client().get(asker)
        assert (answer.status_code, "customer" in answer.text) == (403, False)
    assert app.test_client().get(path, headers={"Authorization": "token s3cr3t"}).status_code in (200, 404)


def test_the_token_is_asked_for_once_and_taken_out_of_the_address(state: State) -> None:
    attempted(state, "PredictFlow")
    client = page.make_app(state, token="s3cr3t", clock=lambda: NOW).test_client()
    answer = client.get("/runs/1?token=s3cr3t")
    assert (answer.status_code, answer.headers["Location"]) == (302, "/runs/1")
    assert "HttpOnly" in answer.headers["Set-Cookie"]
    assert client.get("/runs/1").status_code == 200
    assert "s3cr3t" not in client.get("/runs/1").text
    assert client.get("/runs/1", headers={"Host": "evil.example"}).status_code == 403


def asked(port: int, host: str, token: str = "") -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/", headers={"Host": host, "Authorization": f"token {token}"})
    return connection.getresponse().status


def others() -> list[str]:
    """Addresses of this machine that are not 127.0.0.1."""
    found = subprocess.run(["hostname", "-I"], capture_output=True, text=True).stdout.split()
    return ["127.0.0.2", *(one for one in found if ":" not in one)]


def test_a_browser_shows_the_page(state: State, tmp_path: Path) -> None:
    attempted(state, "PredictFlow")
    with contextlib.closing(page.serve(page.make_app(state), 0)) as server:
        shot = tmp_path / "page.png"
        address = f"http://127.0.0.1:{server.effective_port}/"
        done = open_in_browser(address, "--window-size=1280,900", f"--screenshot={shot}", folder=tmp_path)
        assert shot.exists(), done.stderr
    # what the page's policy refuses, or does not find, Chromium says on its console
    assert "Content Security Policy" not in done.stderr
    assert shot.stat().st_size > 10_000
