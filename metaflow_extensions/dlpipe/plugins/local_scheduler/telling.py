"""What the commands say: of a deployment made, of its versions and runs, of the scheduler."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dlpipe.orchestrator.deployments import Policies, Version
    from dlpipe.orchestrator.runs import Run, Status
    from dlpipe.orchestrator.state import State

    from .creating import Created

NEXT = 3
"""So many due times are shown."""
LATEST = 3
"""So many runs are named where one was not found."""


# of a version ---------------------------------------------------------------------------------------------------


def created_lines(done: Created, state_folder: Path) -> list[str]:
    """Return what ``create`` says."""
    from .comparing import changes

    version = done.version
    if not done.is_new:
        first = f"Nothing has changed: version {version.number} of {version.deployment} stays deployed."
        return [first, *_indented(version_lines(version)[1:2])]
    said = [f"Deployed {version.deployment} version {version.number}.", *_indented(version_lines(version))]
    if done.before is not None:
        said += [f"Since version {done.before.number}:"]
        said += _indented(changes(done.before, version, done.package).lines() or ["only how it is deployed"])
    if done.outside:
        places = ", ".join(f"{name} ({file})" for name, file in done.outside.items())
        said += [f"Not frozen, because neither beside the flow nor installed; runs follow its edits: {places}"]
    return [*said, scheduler_line(state_folder)]


def version_lines(version: Version) -> list[str]:
    """Return a version for a person, a line a subject."""
    from dlpipe.orchestrator.overview import describe_trigger

    said = {
        "code": f"{version.digest[:12]} in {version.code}",
        "schedule": f"{version.schedule.cron} {version.schedule.zone_name}, next {', '.join(next_due(version))}"
        if version.schedule
        else "none",
        "trigger": describe_trigger(version.trigger) or "none",
        "parameters": said_parameters(version.parameters, version.parameter_names),
        "policies": said_policies(version.policies),
        "namespace": version.namespace,
        "tags": ", ".join(version.tags),
    }
    return [f"{name:<11} {value}" for name, value in said.items() if value]


def said_parameters(given: Mapping[str, Any], names: Sequence[str]) -> str:
    """Return the parameters of runs that are not static defaults of the flow.

    Examples
    --------
    >>> said_parameters({"rows": "10"}, ["rows", "model"]), said_parameters({}, ["model"]), said_parameters({}, [])
    ('rows=10, others by default', 'by default', 'none')
    """
    from dlpipe.redaction import show_value

    said = [f"{name}={show_value(name, value)}" for name, value in given.items()]
    others = ["others by default" if said else "by default"] if set(names) - given.keys() else []
    return ", ".join([*said, *others]) or "none"


def next_due(version: Version) -> list[str]:
    """Return the next due times in the schedule's time zone."""
    from dlpipe.orchestrator.time_formats import format_time

    if version.schedule is None:
        return []
    return [format_time(due, version.schedule.zone_name) for due in due_times(version)]


def due_times(version: Version) -> list[float]:
    """Return the next due times, in seconds since 1970; fewer where a schedule ends."""
    import math

    from dlpipe.orchestrator.timing import parse

    times: list[float] = []
    due = time.time()
    while version.schedule and len(times) < NEXT and (due := parse(version.schedule).after(due)) < math.inf:
        times.append(due)
    return times


def said_policies(policies: Policies) -> str:
    """Return policies in words.

    Examples
    --------
    >>> from dlpipe.orchestrator.deployments import Policies
    >>> said_policies(Policies(missed="all", time_limit=1800))
    'overlap skip, missed all (at most 10), time limit 30 min 0 s, 3 resumes from 30 s, changed environment warn'
    """
    from dlpipe.orchestrator.time_formats import format_span
    from dlpipe.redaction import show_target

    limit = f"time limit {format_span(policies.time_limit)}" if policies.time_limit else "no time limit"
    most = f" (at most {policies.missed_limit})" if policies.missed == "all" else ""
    resumes = (
        f"{policies.resumes} resumes from {format_span(policies.backoff)}" if policies.resumes else "no resumes"
    )
    if policies.run_time_limit:
        limit += f", {format_span(policies.run_time_limit)} for the whole run"
    order = f", priority {policies.priority}" if policies.priority else ""
    every = " on every end" if policies.alert_on == "end" else ""
    alert = f", alert {show_target(policies.alert)}{every}" if policies.alert else ""
    return (
        f"overlap {policies.overlap}, missed {policies.missed}{most}, {limit}, {resumes}, "
        f"changed environment {policies.changed_environment}{order}{alert}"
    )


# status ---------------------------------------------------------------------------------------------------------


def status_of(obj: Any, state: State) -> dict[str, Any]:
    """Return where the deployment stands and what differs from the working tree, for a program."""
    version = state.get_deployment(obj.deployment.text).version
    found = deployment_status(state, obj.deployment.text)
    return {**found, "difference": working_tree(obj, version, state.folder)}


def deployment_status(state: State, name: str) -> dict[str, Any]:
    """Return where a deployment stands, for a program."""
    from dlpipe.orchestrator.inbox import find_half
    from dlpipe.orchestrator.presence import find_scheduler
    from dlpipe.redaction import show_target, show_value

    deployment = state.get_deployment(name)
    version = deployment.version
    half = find_half(state, deployment, time.time())
    return {
        "deployment": deployment.name,
        "flow": version.flow,
        "version": version.number,
        "suspended": deployment.suspended,
        "schedule": asdict(version.schedule) if version.schedule else None,
        "next_due": [] if deployment.suspended else [iso(due) for due in due_times(version)],
        "trigger": asdict(version.trigger) if version.trigger else None,
        "held": {name: iso(event.at) for name, event in half.came.items()} if half else {},
        "parameters": {name: show_value(name, value) for name, value in version.parameters.items()},
        "parameter_names": list(version.parameter_names),
        "policies": {**asdict(version.policies), "alert": show_target(version.policies.alert)},
        "tags": list(version.tags),
        "namespace": version.namespace,
        "scheduler": _without_token(find_scheduler(state.folder)),
        "versions": [_version_row(one) for one in state.list_versions(name)],
    }


def _without_token(about: dict[str, Any] | None) -> dict[str, Any] | None:
    """What a scheduler says of itself, for an output that others may read."""
    return about and {**about, "page": about.get("page", "").partition("/?")[0]}


def _version_row(version: Version) -> dict[str, Any]:
    return {
        "version": version.number,
        "digest": version.digest[:12],
        "created": iso(version.created),
        "author": version.author,
        "code": version.code if os.path.isdir(version.code) else None,
    }


def working_tree(obj: Any, version: Version, state_folder: Path) -> dict[str, Any]:
    """Return what `create` would change now; of what its options say nothing is known."""
    from dataclasses import asdict, replace

    from dlpipe.errors import DlpipeError

    from . import creating, reading
    from .comparing import changes

    known = set(version.parameters) & set(reading.static_names(obj))  # given to `create`
    given = {name: version.parameters[name] for name in known}
    asked = creating.Asked(obj.deployment, asdict(version.policies), given, tags=version.tags)
    try:
        now = creating.version_of(obj, asked, version.token, state_folder)
    except DlpipeError as error:
        return {"error": str(error)}
    same = {"folder", "python", "variables", "run_options", "options"}
    now = replace(now, **{name: getattr(version, name) for name in same})
    return changes(version, now, creating.package_of(obj)).as_dict()


def status_lines(found: dict[str, Any]) -> list[str]:
    """Return where the deployment stands, for a person."""
    from dlpipe.orchestrator.deployments import Needed, Policies, Schedule, Trigger
    from dlpipe.orchestrator.overview import describe_trigger
    from dlpipe.orchestrator.time_formats import format_time

    schedule = Schedule(**found["schedule"]) if found["schedule"] else None
    trigger = found["trigger"]
    needed = tuple(Needed(**one) for one in trigger["needed"]) if trigger else ()
    zone = schedule.zone_name if schedule else "UTC"
    due = [format_time(datetime.fromisoformat(one).timestamp(), zone) for one in found["next_due"]]
    said = {
        "schedule": f"{schedule.cron} {zone}" if schedule else "none",
        "next due": ", ".join(due) or ("never: suspended" if found["suspended"] else "not by schedule"),
        "trigger": describe_trigger(Trigger(needed)) or "none" if needed else "none",
        **({"came": ", ".join(f"{name} {at}" for name, at in found["held"].items())} if found["held"] else {}),
        "parameters": said_parameters(found["parameters"], found["parameter_names"]),
        "policies": said_policies(Policies(**found["policies"])),
        "namespace": found["namespace"],
    }
    suspended = ", suspended" if found["suspended"] else ""
    return [
        f"{found['deployment']} version {found['version']}{suspended}",
        *_indented([f"{name:<11} {value}" for name, value in said.items()]),
        "",
        *table([_shown_version(one) for one in found["versions"]]).splitlines(),
        "",
        *_difference_lines(found["difference"], found["version"]),
    ]


def _shown_version(row: dict[str, Any]) -> dict[str, Any]:
    kept = {"code": "kept" if row["code"] else "removed"}
    return {**row, "created": row["created"].replace("T", " ").replace("+00:00", " UTC"), **kept}


def _difference_lines(found: dict[str, Any], number: int) -> list[str]:
    from dlpipe.orchestrator.freezing import CodeDifference

    from .comparing import Changes

    if "error" in found:
        return [f"The working tree cannot be deployed: {found['error']}"]
    files = CodeDifference(*(tuple(found[name]) for name in ("changed", "added", "removed")))
    others = (tuple(found[name]) for name in ("parameters", "settings", "packages"))
    lines = Changes(files, *others).lines()
    if not lines:
        return [f"The working tree is version {number}."]
    return [f"The working tree differs from version {number}:", *_indented(lines)]


# runs -----------------------------------------------------------------------------------------------------------


def run_rows(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return runs as rows of a table."""
    return [_run_row(run) for run in runs]


def _run_row(run: Run) -> dict[str, Any]:
    from dlpipe.orchestrator.overview import make_run_view

    seen = make_run_view(run)
    return {
        "run": run.number,
        "status": run.status,
        "suspended": True if run.suspended else None,
        "version": run.version,
        "cause": run.cause,
        "due": iso(run.due),
        "started": iso(seen.started) if seen.started else None,
        "ended": iso(seen.ended) if seen.ended else None,
        "attempts": len(run.attempts),
        "metaflow_run": metaflow_run(run),
        "reason": f"{seen.step}: {seen.why}" if seen.step and seen.why else seen.why or run.reason or None,
    }


def status_named(text: str) -> Status:
    """Return the status that ``text`` is, in any case.

    Raises
    ------
    SettingError
        When it is none.
    """
    from dlpipe.errors import SettingError
    from dlpipe.orchestrator.runs import ENDED, OPEN

    for status in (*OPEN, *ENDED):
        if text.lower() == status:
            return status
    raise SettingError(f"No run is {text!r}: a run is {', '.join((*OPEN, *ENDED))}.")


def check_limit(limit: int) -> None:
    """Raise ``SettingError`` when there cannot be so many runs."""
    from dlpipe.errors import SettingError

    if limit < 0:
        raise SettingError(f"--limit is {limit}: give a number from 1 on, or 0 for all runs.")


def metaflow_run(run: Run) -> str | None:
    """Return the id of the run's newest Metaflow run; of one in which nothing began, where there is no other."""
    known = [one for one in run.attempts if one.metaflow_run]
    return next(
        (one.metaflow_run for one in reversed(known) if one.began), known[-1].metaflow_run if known else None
    )


def find_run(state: State, deployment: str, text: str) -> Run:
    """Return the run of ``deployment`` that ``text`` names.

    Raises
    ------
    RunNotFound
        When there is none; the latest ones are named.
    """
    from dlpipe.errors import RunNotFound

    named = re.fullmatch(r"(?:[^/]+/)?ls-(\d+)", text.strip())
    try:
        run = state.find_run(named[1] if named else text)
    except RunNotFound:
        run = None
    if run is not None and run.deployment == deployment:
        return run
    what = (
        f"Run {text} is of {run.deployment}, not of {deployment}" if run else f"{deployment} has no run {text!r}"
    )
    latest = ", ".join(
        f"{one.number} ({one.status})" for one in state.list_runs(deployment=deployment, limit=LATEST)
    )
    raise RunNotFound(f"{what}. {f'The latest: {latest}' if latest else 'It has not run yet'}.")


# the scheduler --------------------------------------------------------------------------------------------------


def scheduler_line(folder: Path) -> str:
    """Return whether a scheduler runs, for a person."""
    from dlpipe.orchestrator.presence import find_scheduler

    found = find_scheduler(folder)
    if found is None:
        return "No scheduler is running here: `dlpipe scheduler` starts one, and until then nothing is run."
    return f"The scheduler is running (process {found['pid']})." if "pid" in found else "The scheduler is running."


# common ---------------------------------------------------------------------------------------------------------


def iso(at: float) -> str:
    """Return seconds since 1970 as ISO 8601 in UTC."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return rows as a table, without columns in which nothing stands."""
    from dlpipe.cli.printing import format_table

    names = [name for name in rows[0] if any(row[name] is not None for row in rows)]
    return "\n".join(format_table([{name: row[name] for name in names} for row in rows]))


def _indented(lines: Sequence[str]) -> list[str]:
    return [f"    {line}" for line in lines]
