"""The status page: what is deployed, due, running and done, for a browser on this machine.

It needs no script and no other address, listens on loopback only, and answers only those who ask for it by a name
of this machine, so that a page from elsewhere cannot read it through the browser, and who know its token, so that
others with an account here cannot read logs and cards. Without a token it has no buttons (``page_actions``).
"""

from __future__ import annotations

import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlpipe.errors import DeploymentNotFound, DlpipeError, RunNotFound
from dlpipe.orchestrator import overview
from dlpipe.orchestrator.attempt_files import (
    CardFile,
    find_cards,
    find_log,
    find_mlflow_run,
    find_running_mlflow_run,
)
from dlpipe.orchestrator.deployments import Policies, Version
from dlpipe.orchestrator.overview import RunView, view_run
from dlpipe.orchestrator.page_actions import FIELD, NOT_DONE, Actions
from dlpipe.orchestrator.page_token import make_guard
from dlpipe.orchestrator.progress import Progress, read_progress
from dlpipe.orchestrator.runs import ENDED, OPEN, Run, RunAttempt
from dlpipe.orchestrator.state import State
from dlpipe.pages import HEADERS, POLICY, STYLE, make_loader, prepare
from dlpipe.pages.hosts import is_loopback
from dlpipe.redaction import show_value
from dlpipe.time_formats import format_distance, format_span

if TYPE_CHECKING:
    from flask import Flask, Response
    from waitress.server import BaseWSGIServer
    from werkzeug.routing import BaseConverter

ADDRESS = "127.0.0.1"
LAST_RUNS = 30
RUNS_OF_DEPLOYMENT = 100
LOG_BYTES = 1024 * 1024
CARD_POLICY = (  # a card brings its own scripts: they run as if from another site, and reach nothing
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'unsafe-inline'; img-src data: blob:; font-src data:; frame-ancestors 'none'"
)


def make_app(
    state: State, *, token: str = "", about: Mapping[str, Any] = {}, clock: Callable[[], float] = time.time
) -> Flask:
    """The status page as a WSGI application.

    Parameters
    ----------
    state : State
        What is shown, and changed by the buttons.
    token : str
        What those must know who ask; empty for nothing, and then there are no buttons.
    about : mapping
        What the page's foot shows of the scheduler.
    clock : callable
        The time in seconds since 1970.
    """
    from flask import Flask

    app = Flask("dlpipe.orchestrator", static_folder=None)
    app.jinja_loader = make_loader(Path(__file__).with_name("templates"))  # type: ignore[misc]
    prepare(app.jinja_env, product="dlpipe scheduler")
    app.jinja_env.globals.update(about=dict(about), field=FIELD, word="")
    app.before_request(refuse_foreign_hosts)
    app.after_request(add_headers)
    app.register_error_handler(DlpipeError, show_error)
    app.url_map.converters["number"] = make_number_converter()
    if token:
        app.before_request(make_guard(token))
        actions = Actions(state, token)
        actions.add_to(app)
        app.jinja_env.globals.update(word=actions.word)
    pages = Pages(state, clock)
    app.add_url_rule("/", view_func=pages.status)
    app.add_url_rule("/style.css", view_func=pages.style)
    app.add_url_rule("/deployments/<name>", view_func=pages.deployment)
    app.add_url_rule("/runs/<number:number>", view_func=pages.run)
    app.add_url_rule("/runs/<number:number>/<number:attempt>/log", view_func=pages.log)
    app.add_url_rule("/runs/<number:number>/<number:attempt>/cards/<number:place>", view_func=pages.card)
    return app


def make_number_converter() -> type[BaseConverter]:
    """What a number in an address may be: longer ones are found nowhere, and Python reads none of 5,000 digits."""
    from werkzeug.routing import IntegerConverter

    return type("Number", (IntegerConverter,), {"regex": r"\d{1,18}"})


class Pages:
    """What each address shows."""

    def __init__(self, state: State, clock: Callable[[], float]) -> None:
        self._state = state
        self._clock = clock

    def status(self) -> str:
        """Deployments, the runs that have not ended, and the last ones."""
        now = self._clock()
        deployments = overview.view_deployments(self._state, now)
        open_runs = self._view_runs(self._state.list_runs(status=OPEN))
        return self._show(
            "status.html",
            now,
            words=overview.summarize(deployments, open_runs),
            failed=overview.list_failed(deployments),
            deployments=deployments,
            open_runs=open_runs,
            runs=self._view_runs(self._state.list_runs(status=[*ENDED], limit=LAST_RUNS)),
        )

    def deployment(self, name: str) -> str:
        """One deployment, its versions and its runs; of a deleted one nothing that could be changed."""
        now = self._clock()
        versions = self._state.list_versions(name)
        try:
            view = overview.view_deployment(self._state, self._state.get_deployment(name), now)
        except DeploymentNotFound:
            view = None
        runs = self._view_runs(self._state.list_runs(deployment=name, limit=RUNS_OF_DEPLOYMENT))
        policies = list_policies(versions[0].policies)
        values = {"name": name, "view": view, "versions": versions, "runs": runs, "policies": policies}
        return self._show("deployment.html", now, **values)

    def run(self, number: int) -> str:
        """One run with its attempts."""
        run = self._state.get_run(number)
        version = overview.find_version(self._state, run)
        attempts = [view_attempt(attempt, version) for attempt in reversed(run.attempts)]
        return self._show(
            "run.html", self._clock(), view=view_run(self._state, run), version=version, attempts=attempts
        )

    def log(self, number: int, attempt: int) -> Response:
        """The end of an attempt's log, as text."""
        from flask import Response

        path = find_log(self._attempt(number, attempt))
        text = read_end(path, f"dlpipe logs {number} --attempt {attempt}")
        return Response(text, mimetype="text/plain")

    def card(self, number: int, attempt: int, place: int) -> Response:
        """A card, which may run its own scripts and reach nothing.

        Parameters
        ----------
        number : int
            Of the run.
        attempt : int
            Number of the attempt.
        place : int
            Which of its cards, from 0, in the order of ``find_cards``.
        """
        from flask import abort, send_file

        version = overview.find_version(self._state, self._state.get_run(number))
        cards = find_cards(version, self._attempt(number, attempt)) if version else []
        if place >= len(cards):
            abort(404)
        answer = send_file(cards[place].file, mimetype="text/html")
        answer.headers["Content-Security-Policy"] = CARD_POLICY
        return answer

    def style(self) -> Response:
        """The style of all pages."""
        from flask import send_file

        return send_file(STYLE, mimetype="text/css")

    def _attempt(self, number: int, attempt: int) -> RunAttempt:
        attempts = self._state.get_run(number).attempts
        if attempt >= len(attempts):
            raise RunNotFound(f"Run {number} has no attempt {attempt}; it has {len(attempts)}.")
        return attempts[attempt]

    def _view_runs(self, runs: list[Run]) -> list[RunView]:
        return [view_run(self._state, run) for run in runs]

    def _show(self, template: str, now: float, **values: Any) -> str:
        from flask import render_template

        values["show_value"] = show_value
        values["distance"] = lambda at: format_distance(at, now)
        values["describe_trigger"] = overview.describe_trigger
        values["left_by"] = lambda run: view_attempt(run.attempts[-1], overview.find_version(self._state, run))
        return render_template(template, now=now, **values)


@dataclass(frozen=True)
class AttemptView:
    """An attempt with what it said of itself, and the cards and the MLflow run that it left."""

    attempt: RunAttempt
    mlflow: str
    cards: list[CardFile]
    progress: Progress

    @property
    def mlflow_link(self) -> str:
        """The address of its MLflow run; empty if it has none."""
        return self.mlflow if self.mlflow.startswith(("http://", "https://")) else ""

    @property
    def named_cards(self) -> list[tuple[int, str]]:
        """The place of each card and what it is called: its step, with what tells it from others of the step.

        They stand in the order in which the steps began.
        """
        steps = Counter(card.step for card in self.cards)
        tasks = Counter((card.step, card.task) for card in self.cards)
        names = []
        for card in self.cards:
            name = card.step if tasks[card.step, card.task] == steps[card.step] else f"{card.step}/{card.task}"
            names.append(f"{name} {card.name}" if tasks[card.step, card.task] > 1 else name)
        order = [step.step for step in self.progress.steps]
        places = {step: place for place, step in enumerate(order)}
        return sorted(enumerate(names), key=lambda named: places.get(self.cards[named[0]].step, len(places)))


def view_attempt(attempt: RunAttempt, version: Version | None) -> AttemptView:
    """What the page shows of an attempt."""
    cards = find_cards(version, attempt) if version else []
    mlflow = find_mlflow_run(attempt) or (find_running_mlflow_run(version, attempt) if version else "")
    return AttemptView(attempt, mlflow, cards, read_progress(find_log(attempt)))


def list_policies(policies: Policies) -> list[tuple[str, str]]:
    """Return the policies of a deployment, as options of `create`; without the alert's address."""
    given = {name: value for name, value in asdict(policies).items() if name not in ("alert", "alert_on")}
    if policies.alert:
        given["alert_on"] = policies.alert_on
    return [
        (name.replace("_", "-"), format_limit(value) if isinstance(value, float) else str(value))
        for name, value in given.items()
    ]


def format_limit(seconds: float) -> str:
    """Return a length of time that is a policy; 0 is no limit.

    Examples
    --------
    >>> [format_limit(seconds) for seconds in (0.0, 30.0, 1800.0, 5400.0)]
    ['none', '30 s', '30 min', '1 h 30 min']
    """
    return re.sub(r"(?<=\w) 0 \w+$", "", format_span(seconds)) if seconds else "none"


def read_end(path: Path, command: str) -> str:
    """The last mebibyte of a log; ``command`` shows all of it."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - LOG_BYTES))
            text = file.read(LOG_BYTES).decode(errors="replace")
    except FileNotFoundError:
        return "There is no log yet.\n"
    if size <= LOG_BYTES:
        return text
    return f"[The beginning is left out; all of it: {command}]\n{text.partition(chr(10))[2]}"


def refuse_foreign_hosts() -> tuple[str, int] | None:
    """Answer 403 to those who ask for this page by a name that is not this machine's."""
    from flask import request

    return None if is_loopback(request.headers.get("Host", "")) else ("Foreign Host header.\n", 403)


def add_headers(answer: Response) -> Response:
    """Let browsers keep nothing, guess nothing and load nothing from elsewhere."""
    answer.headers.setdefault("Content-Security-Policy", POLICY)
    answer.headers.update(HEADERS)
    return answer


def show_error(error: DlpipeError) -> tuple[str, int]:
    """What is not there, why the state cannot be read, or why what a button asked for was not done."""
    from flask import render_template, request

    code = 404 if isinstance(error, RunNotFound | DeploymentNotFound) else 503
    if request.method == "POST" and not isinstance(error, NOT_DONE):
        code = 409
    return render_template("error.html", error=str(error), code=code), code


def serve(app: Flask, port: int) -> BaseWSGIServer:
    """Answer on loopback from a thread, until the process ends.

    Raises
    ------
    OSError
        When the port is taken.
    """
    from dlpipe.orchestrator.page_server import make_server

    server = make_server(app, ADDRESS, port)
    threading.Thread(target=server.run, name="page", daemon=True).start()
    return server
