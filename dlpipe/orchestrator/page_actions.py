"""The buttons of the status page: start, suspend, resume and stop, for those who know its token.

A page from elsewhere cannot press them through the browser: only POST from the page itself is taken, with a word
that stands in its forms and nowhere else.
"""

from __future__ import annotations

import getpass
import hashlib
import hmac
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from dlpipe.errors import DeploymentNotFound, NotPermitted, RunNotFound, StateUnusable
from dlpipe.orchestrator.deployments import Version
from dlpipe.orchestrator.interventions import resume_run, suspend_run, terminate, trigger_run
from dlpipe.orchestrator.page_token import is_same
from dlpipe.orchestrator.state import State
from dlpipe.pages.hosts import is_same_origin

if TYPE_CHECKING:
    from flask import Flask
    from werkzeug.wrappers import Response

FIELD = "word"
USER_VARIABLES = ("METAFLOW_USER", "SUDO_USER", "USERNAME", "USER")
"""Where Metaflow looks for who deploys."""
NOT_FROM_HERE = "This did not come from a button of this page. Open the page anew, and press it there.\n"
NOT_DONE = DeploymentNotFound, RunNotFound, StateUnusable
"""Errors that pages have, too; with any other, what a button asked for was not done."""


class Actions:
    """What each button does."""

    def __init__(self, state: State, token: str) -> None:
        self._state = state
        self.word = hmac.new(token.encode(), b"buttons", hashlib.sha256).hexdigest()

    def add_to(self, app: Flask) -> None:
        """Give ``app`` the addresses of the buttons."""
        app.before_request(self._refuse_others)
        for path, act in (
            ("/deployments/<name>/trigger", self.trigger),
            ("/deployments/<name>/suspend", self.suspend_deployment),
            ("/deployments/<name>/unsuspend", self.unsuspend_deployment),
            ("/runs/<number:number>/resume", self.resume),
            ("/runs/<number:number>/suspend", self.suspend_run),
            ("/runs/<number:number>/unsuspend", self.unsuspend_run),
            ("/runs/<number:number>/stop", self.stop),
        ):
            app.add_url_rule(path, view_func=act, methods=["POST"])

    def trigger(self, name: str) -> Response:
        """Queue a run of the newest version, with its own parameters."""
        version = self._state.get_deployment(name).version
        check_author(version)
        return _go_to(f"/runs/{trigger_run(self._state, version, {}).number}")

    def suspend_deployment(self, name: str) -> Response:
        """Let it start nothing by itself."""
        return self._suspend_deployment(name, True)

    def unsuspend_deployment(self, name: str) -> Response:
        """Let it start runs again; what was due meanwhile is not made up for."""
        return self._suspend_deployment(name, False)

    def resume(self, number: int) -> Response:
        """Let a run that failed or was stopped go on."""
        return self._change(number, lambda run: resume_run(self._state, run))

    def suspend_run(self, number: int) -> Response:
        """Let a run begin no further step."""
        return self._change(number, lambda run: suspend_run(self._state, run, True))

    def unsuspend_run(self, number: int) -> Response:
        """Let a suspended run go on."""
        return self._change(number, lambda run: suspend_run(self._state, run, False))

    def stop(self, number: int) -> Response:
        """Stop a run."""
        return self._change(number, lambda run: terminate(self._state, run))

    def _suspend_deployment(self, name: str, suspended: bool) -> Response:
        check_author(self._state.get_deployment(name).version)
        self._state.suspend(name, suspended, now=time.time())
        return _go_to(f"/deployments/{name}")

    def _change(self, number: int, act: Callable[..., object]) -> Response:
        run = self._state.get_run(number)
        check_author(self._state.get_version(run.deployment, run.version))
        act(run)
        return _go_to(f"/runs/{number}")

    def _refuse_others(self) -> tuple[str, int] | None:
        """Take a POST from the page's own forms alone; browsers say where a form stood."""
        from flask import request

        if request.method != "POST":
            return None
        from_here = is_same_origin(request.headers.get("Origin", ""), request.headers.get("Host", ""))
        return None if from_here and is_same(request.form.get(FIELD, ""), self.word) else (NOT_FROM_HERE, 403)


def check_author(version: Version) -> None:
    """Refuse to change what somebody else deployed: who works the page is who started the scheduler.

    Raises
    ------
    NotPermitted
        With the way that a production token opens.
    """
    if version.author and version.author not in find_own_names():
        raise NotPermitted(
            f"{version.deployment} was deployed by {version.author}: ask them for the production token, and pass "
            "it with --authorize to `dlpipe runs` or `python FLOW.py local-scheduler`."
        )


def find_own_names() -> set[str]:
    """The names under which Metaflow deploys for who started this process."""
    names = {os.environ.get(name, "") for name in USER_VARIABLES}
    try:
        login = getpass.getuser()
    except (KeyError, OSError):  # a user id without an entry in the password file
        return {*names, "unknown-user"}
    # the last one is what dlpipe's config gives Metaflow instead of root
    return {*names, login, f"{login}-user"}


def _go_to(path: str) -> Response:
    from flask import redirect

    return redirect(path, 303)
