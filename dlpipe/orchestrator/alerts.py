"""News of runs for people who do not look: a command or a webhook when a run fails, is refused or recovers.

An alert is noted in the state in the same moment as the run's end, and sent by a thread afterwards. It is kept
until it has been sent or tried often enough, so a kill may send it twice but never loses it.
"""

from __future__ import annotations

import http.client
import json
import logging
import os
import re
import shlex
import shutil
import signal
import socket
import sqlite3
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any, Literal

from dlpipe.errors import DeploymentNotFound, DlpipeError, SettingError
from dlpipe.orchestrator.deployments import Policies
from dlpipe.orchestrator.overview import view_run, was_refused
from dlpipe.orchestrator.runs import Alert, Run
from dlpipe.orchestrator.state import State
from dlpipe.redaction import show_target
from dlpipe.time_formats import format_iso, format_time

SECONDS = 30.0
"""What a command or a webhook may take."""
TRIES = 16
FIRST_WAIT = 5.0
WEB = ("http://", "https://")
LONGEST_WAIT = 3600.0

Kind = Literal["failed", "recovered", "refused", "succeeded", "terminated"]

log = logging.getLogger(__name__)


class Alerts:
    """Notes alerts, and sends them without holding up the caller.

    Parameters
    ----------
    state : State
        Where alerts are kept until they are sent.
    clean : callable
        Takes credentials out of text before it is kept.
    clock : callable
        The time in seconds since 1970.
    seconds : float
        What a command or a webhook may take.
    """

    def __init__(
        self,
        state: State,
        *,
        clean: Callable[[str], str] = str,
        clock: Callable[[], float] = time.time,
        seconds: float = SECONDS,
    ) -> None:
        self._state = state
        self._clean = clean
        self._clock = clock
        self._seconds = seconds
        self._sending: threading.Thread | None = None
        self._closed = threading.Event()

    def note(self, run: Run) -> None:
        """Note the alert that the end of ``run`` is, if it is one and somebody wants it."""
        kind = self._choose_kind(run)
        if kind is None or not find_target(self._state, run.deployment, run.version):
            return
        key = f"{kind}:{run.number}:{len(run.attempts)}"
        body = {"kind": kind, **self._make_body(run)}
        self._state.add_alert(Alert(0, run.deployment, key, kind, body, self._clock()))

    def send(self) -> None:
        """Begin to send the alerts that are due, unless some are being sent."""
        if self._sending is not None and self._sending.is_alive():
            return
        if self._state.list_alerts_to_send(self._clock()):
            self._sending = threading.Thread(target=self._send_due, name="alerts", daemon=True)
            self._sending.start()

    def close(self, seconds: float = 5.0) -> None:
        """Wait a moment for what is being sent; what is not sent by then is sent by the next scheduler."""
        self._closed.set()
        if self._sending is not None:
            self._sending.join(seconds)

    def _choose_kind(self, run: Run) -> Kind | None:
        if run.status == "failed":
            return "refused" if was_refused(run) else "failed"
        last = self._state.find_last_alert(run.deployment)
        if run.status == "succeeded" and last is not None and last.kind in ("failed", "refused"):
            return "recovered"
        if run.status in ("succeeded", "terminated") and wants_every_end(self._state, run.deployment, run.version):
            return run.status
        return None

    def _make_body(self, run: Run) -> dict[str, Any]:
        view = view_run(self._state, run)
        last = run.attempts[-1] if run.attempts else None
        subject = f"{run.deployment}: run {run.number}"
        return {
            "deployment": run.deployment,
            "version": run.version,
            "run": run.number,
            "metaflow_run": last.metaflow_run if last else "",
            "cause": self._clean(run.cause),
            "due": format_iso(run.due),
            "ended": format_iso(view.ended or self._clock()),
            "attempts": len(run.attempts),
            "step": view.step,
            "reason": self._clean(view.why),
            "resume": view.resume,
            "host": socket.gethostname(),
            "text": self._clean(self._make_sentence(run, subject)),
        }

    def _make_sentence(self, run: Run, subject: str) -> str:
        view = view_run(self._state, run)
        if run.status == "succeeded":
            again = " again" if self._choose_kind(run) == "recovered" else ""
            return f"{subject} succeeded{again}, due {format_time(run.due)}."
        if run.status == "terminated":
            return f"{subject} was terminated: {view.why}. Resume it with: {view.resume}"
        where = f" in step {view.step}" if view.step else ""
        resume = f" Resume it with: {view.resume}" if view.resume else ""
        return f"{subject} failed{where}: {view.why or 'nothing is known of why'}.{resume}"

    def _send_due(self) -> None:
        try:
            for alert in self._state.list_alerts_to_send(self._clock()):
                self._send_alert(alert)
                if self._closed.is_set():
                    return
        except (DlpipeError, OSError, sqlite3.Error) as error:  # no space, or the scheduler has ended: sent again
            log.warning("alerts are not noted as sent: %s", error)

    def _send_alert(self, alert: Alert) -> None:
        target = find_target(self._state, alert.deployment, alert.body["version"])
        # noted after it was sent: a kill in between sends it again, the other way round would lose it
        problem = deliver(target, alert.body, seconds=self._seconds) if target else ""
        tries = alert.tries + 1
        if not problem:
            self._state.set_alert(alert.number, tries=tries, next_try=None)
            log.info("alert sent: %s", alert.body["text"])
        elif tries >= TRIES:
            self._state.set_alert(alert.number, tries=tries, next_try=None)
            log.error("alert given up after %d tries, %s: %s", tries, problem, alert.body["text"])
        else:
            wait = min(FIRST_WAIT * 2**alert.tries, LONGEST_WAIT)
            self._state.set_alert(alert.number, tries=tries, next_try=self._clock() + wait)
            log.warning("alert not sent, %s; try %d of %d in %.0f s", problem, tries + 1, TRIES, wait)


def find_target(state: State, deployment: str, version: int) -> str:
    """Where alerts of a deployment go."""
    return find_policies(state, deployment, version).alert


def wants_every_end(state: State, deployment: str, version: int) -> bool:
    """Whether there is an alert for the end of every run, not only for failures and recoveries."""
    return find_policies(state, deployment, version).alert_on == "end"


def find_policies(state: State, deployment: str, version: int) -> Policies:
    """The policies of a deployment's newest version, or of the given one if it was deleted."""
    try:
        return state.get_deployment(deployment).version.policies
    except DeploymentNotFound:
        return state.get_version(deployment, version).policies


def deliver(target: str, body: Mapping[str, Any], *, seconds: float = SECONDS) -> str:
    """Give ``body`` to a command's standard input or to a webhook; return what went wrong, if anything.

    Parameters
    ----------
    target : str
        A command line, or an address that begins with http:// or https://.
    body : mapping
        The alert; it is sent as one JSON object.
    seconds : float, optional
        After so many the command is killed and the webhook given up.
    """
    content = json.dumps(body, ensure_ascii=False).encode(errors="backslashreplace")
    try:
        if target.startswith(WEB):
            return post_to_webhook(target, content, seconds)
        return run_command(target, content, seconds)
    except Exception as error:  # of one alert: those behind it are sent all the same
        return f"it cannot be sent there ({type(error).__name__})"


def check_target(target: str) -> str:
    """Return ``target``, to which alerts can be sent as far as can be seen now.

    Raises
    ------
    SettingError
        When it is an address that is none, or a command that does not exist.
    """
    wrong = (
        _find_address_problem(target)
        if target.startswith(WEB)
        else _find_command_problem(target)
        if target
        else ""
    )
    if wrong:
        raise SettingError(
            f"--alert: {wrong}. Give an address such as https://hooks.example/alerts, or a command with its words."
        )
    return target


def _find_address_problem(address: str) -> str:
    """What is wrong with a webhook's address, which may be a secret; empty for nothing."""
    try:
        parts = urllib.parse.urlsplit(address)
        found = bool(parts.hostname) and parts.port != 0
    except ValueError:  # which quotes what may be a password
        return "the address cannot be read"
    if not found or re.search(r"[\s\x00-\x1f\x7f]", address):
        return "the address has no host, or a blank in it"
    return ""


def _find_command_problem(line: str) -> str:
    try:
        words = shlex.split(line)
    except ValueError as error:
        return f"the command {show_target(line)!r} cannot be read ({error})"
    if not words:
        return "the command is blank"
    if os.sep in words[0] and not os.path.isabs(words[0]):
        return f"the scheduler would look for {words[0]!r} in its own folder; give the full path"
    return "" if shutil.which(words[0]) else f"there is no command {words[0]!r}"


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """A webhook that answers with another address has not taken the alert."""

    def redirect_request(self, *_: Any) -> None:
        """Go nowhere else."""


def post_to_webhook(address: str, content: bytes, seconds: float) -> str:
    """POST JSON; the address is not in what comes back, for it may be a secret.

    Parameters
    ----------
    address : str
        Where to; redirections are not followed.
    content : bytes
        JSON in UTF-8.
    seconds : float
        What connecting and each read may take.
    """
    host = urllib.parse.urlsplit(address).hostname or "no host"
    request = urllib.request.Request(
        address, content, {"Content-Type": "application/json", "User-Agent": "dlpipe"}, method="POST"
    )
    try:
        with urllib.request.build_opener(NoRedirect).open(request, timeout=seconds):
            return ""
    except urllib.error.HTTPError as error:
        return f"the webhook at {host} answered {error.code}"
    except (OSError, ValueError, http.client.HTTPException) as error:
        return f"the webhook at {host} does not answer ({type(error).__name__})"


def run_command(line: str, content: bytes, seconds: float) -> str:
    """Run a command, without a shell and in a process group of its own, which is ended when it takes too long.

    Parameters
    ----------
    line : str
        The command with its words, quoted as for a shell.
    content : bytes
        Its standard input: JSON in UTF-8.
    seconds : float
        After so many its process group is killed.
    """
    with tempfile.TemporaryFile() as errors:
        try:
            words = shlex.split(line)
            process = subprocess.Popen(
                words,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            return f"the command {line.split(maxsplit=1)[0]!r} cannot be started ({error})"
        try:
            process.communicate(content, timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return f"the command {words[0]!r} took more than {seconds:.0f} s and was ended"
        errors.seek(0)
        last = errors.read().decode(errors="replace").strip().splitlines()[-1:]
    last = [show_target(text) for text in last]  # curl says the address that it could not reach
    ended = f"the command {words[0]!r} ended with {process.returncode}{': ' if last else ''}{''.join(last)}"
    return ended if process.returncode else ""
