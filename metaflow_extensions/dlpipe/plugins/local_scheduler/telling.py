"""What the commands say: of a deployment made, of its versions and runs, of the scheduler."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
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


def format_created(done: Created, state_folder: Path) -> list[str]:
    """Return what ``create`` says."""
    from .comparing import find_changes

    version = done.version
    if not done.is_new:
        first = f"Nothing has changed: version {version.number} of {version.deployment} stays deployed."
        return [first, *_indent(format_version(version)[1:2])]
    lines = [f"Deployed {version.deployment} version {version.number}.", *_indent(format_version(version))]
    if done.before is not None:
        lines += [f"Since version {done.before.number}:"]
        lines += _indent(find_changes(done.before, version, done.package).lines() or ["only how it is deployed"])
    if done.outside:
        places = ", ".join(f"{name} ({file})" for name, file in done.outside.items())
        lines += [f"Not frozen, because neither beside the flow nor installed; runs follow its edits: {places}"]
    return [*lines, format_scheduler(state_folder)]


def format_version(version: Version) -> list[str]:
    """Return a version for a person, a line a subject."""
    from dlpipe.orchestrator.overview import describe_trigger

    facts = {
        "code": f"{version.digest[:12]} in {version.code}",
        "schedule": (
            f"{version.schedule.cron} {version.schedule.zone_name}, next {', '.join(format_next_due(version))}"
        )
        if version.schedule
        else "none",
        "trigger": describe_trigger(version.trigger) or "none",
        "parameters": format_parameters(version.parameters, version.parameter_names),
        "policies": format_policies(version.policies),
        "namespace": version.namespace,
        "tags": ", ".join(version.tags),
    }
    return [f"{name:<11} {value}" for name, value in facts.items() if value]


def format_parameters(given: Mapping[str, Any], names: Sequence[str]) -> str:
    """Return the parameters of runs that are not static defaults of the flow.

    Examples
    --------
    >>> given = {"rows": "10"}
    >>> format_parameters(given, ["rows", "model"]), format_parameters({}, ["model"]), format_parameters({}, [])
    ('rows=10, others by default', 'by default', 'none')
    """
    from dlpipe.redaction import show_value

    words = [f"{name}={show_value(name, value)}" for name, value in given.items()]
    others = ["others by default" if words else "by default"] if set(names) - given.keys() else []
    return ", ".join([*words, *others]) or "none"


def format_next_due(version: Version) -> list[str]:
    """Return the next due times in the schedule's time zone."""
    from dlpipe.time_formats import format_time

    if version.schedule is None:
        return []
    return [format_time(due, version.schedule.zone_name) for due in find_due_times(version)]


def find_due_times(version: Version) -> list[float]:
    """Return the next due times, in seconds since 1970; fewer where a schedule ends."""
    import math

    from dlpipe.orchestrator.timing import parse

    times: list[float] = []
    due = time.time()
    while version.schedule and len(times) < NEXT and (due := parse(version.schedule).after(due)) < math.inf:
        times.append(due)
    return times


def format_policies(policies: Policies) -> str:
    """Return policies in words.

    Examples
    --------
    >>> from dlpipe.orchestrator.deployments import Policies
    >>> format_policies(Policies(missed="all", time_limit=1800))
    'overlap skip, missed all (at most 10), time limit 30 min 0 s, 3 resumes from 30 s, changed environment warn'
    """
    from dlpipe.redaction import show_target
    from dlpipe.time_formats import format_span

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


def describe_status(obj: Any, state: State) -> dict[str, Any]:
    """Return where the deployment stands and what differs from the working tree, for a program."""
    version = state.get_deployment(obj.deployment.text).version
    found = describe_deployment(state, obj.deployment.text)
    return {**found, "difference": compare_working_tree(obj, version, state.folder)}


def describe_deployment(state: State, name: str) -> dict[str, Any]:
    """Return where a deployment stands, for a program."""
    from dlpipe.orchestrator.inbox import find_held
    from dlpipe.orchestrator.presence import find_scheduler
    from dlpipe.redaction import show_target, show_value
    from dlpipe.time_formats import format_iso

    deployment = state.get_deployment(name)
    version = deployment.version
    held = find_held(state, deployment, time.time())
    return {
        "deployment": deployment.name,
        "flow": version.flow,
        "version": version.number,
        "suspended": deployment.suspended,
        "schedule": asdict(version.schedule) if version.schedule else None,
        "next_due": [] if deployment.suspended else [format_iso(due) for due in find_due_times(version)],
        "trigger": asdict(version.trigger) if version.trigger else None,
        "held": {name: format_iso(event.at) for name, event in held.came.items()} if held else {},
        "parameters": {name: show_value(name, value) for name, value in version.parameters.items()},
        "parameter_names": list(version.parameter_names),
        "policies": {**asdict(version.policies), "alert": show_target(version.policies.alert)},
        "tags": list(version.tags),
        "namespace": version.namespace,
        "scheduler": _drop_token(find_scheduler(state.folder)),
        "versions": [_describe_version(version) for version in state.list_versions(name)],
    }


def _drop_token(about: dict[str, Any] | None) -> dict[str, Any] | None:
    """What a scheduler says of itself, for an output that others may read."""
    return about and {**about, "page": about.get("page", "").partition("/?")[0]}


def _describe_version(version: Version) -> dict[str, Any]:
    from dlpipe.time_formats import format_iso

    return {
        "version": version.number,
        "digest": version.digest[:12],
        "created": format_iso(version.created),
        "author": version.author,
        "code": version.code if os.path.isdir(version.code) else None,
    }


def compare_working_tree(obj: Any, version: Version, state_folder: Path) -> dict[str, Any]:
    """Return what `create` would change now; of what its options say nothing is known."""
    from dataclasses import asdict, replace

    from dlpipe.errors import DlpipeError

    from . import creating, reading
    from .comparing import find_changes

    known = set(version.parameters) & set(reading.list_static(obj))  # given to `create`
    given = {name: version.parameters[name] for name in known}
    asked = creating.Asked(obj.deployment, asdict(version.policies), given, tags=version.tags)
    try:
        now = creating.make_version(obj, asked, version.token, state_folder)
    except DlpipeError as error:
        return {"error": str(error)}
    same = {"folder", "python", "variables", "run_options", "options"}
    now = replace(now, **{name: getattr(version, name) for name in same})
    return find_changes(version, now, creating.make_package(obj)).as_dict()


def format_status(found: dict[str, Any]) -> list[str]:
    """Return where the deployment stands, for a person."""
    from dlpipe.orchestrator.deployments import NeededEvent, Policies, Schedule, Trigger
    from dlpipe.orchestrator.overview import describe_trigger
    from dlpipe.time_formats import format_time

    schedule = Schedule(**found["schedule"]) if found["schedule"] else None
    trigger = found["trigger"]
    needed = tuple(NeededEvent(**entry) for entry in trigger["needed"]) if trigger else ()
    zone = schedule.zone_name if schedule else "UTC"
    due = [format_time(datetime.fromisoformat(entry).timestamp(), zone) for entry in found["next_due"]]
    facts = {
        "schedule": f"{schedule.cron} {zone}" if schedule else "none",
        "next due": ", ".join(due) or ("never: suspended" if found["suspended"] else "not by schedule"),
        "trigger": describe_trigger(Trigger(needed)) or "none" if needed else "none",
        **({"came": ", ".join(f"{name} {at}" for name, at in found["held"].items())} if found["held"] else {}),
        "parameters": format_parameters(found["parameters"], found["parameter_names"]),
        "policies": format_policies(Policies(**found["policies"])),
        "namespace": found["namespace"],
    }
    suspended = ", suspended" if found["suspended"] else ""
    return [
        f"{found['deployment']} version {found['version']}{suspended}",
        *_indent([f"{name:<11} {value}" for name, value in facts.items()]),
        "",
        *format_table([_show_version(version) for version in found["versions"]]).splitlines(),
        "",
        *_format_differences(found["difference"], found["version"]),
    ]


def _show_version(row: dict[str, Any]) -> dict[str, Any]:
    kept = {"code": "kept" if row["code"] else "removed"}
    return {**row, "created": row["created"].replace("T", " ").replace("+00:00", " UTC"), **kept}


def _format_differences(found: dict[str, Any], number: int) -> list[str]:
    from dlpipe.orchestrator.freezing import CodeDifference

    from .comparing import Changes

    if "error" in found:
        return [f"The working tree cannot be deployed: {found['error']}"]
    files = CodeDifference(*(tuple(found[name]) for name in ("changed", "added", "removed")))
    others = (tuple(found[name]) for name in ("parameters", "settings", "packages"))
    lines = Changes(files, *others).lines()
    if not lines:
        return [f"The working tree is version {number}."]
    return [f"The working tree differs from version {number}:", *_indent(lines)]


# runs -----------------------------------------------------------------------------------------------------------


def describe_runs(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return runs as rows of a table."""
    return [_describe_run(run) for run in runs]


def _describe_run(run: Run) -> dict[str, Any]:
    from dlpipe.orchestrator.overview import make_run_view
    from dlpipe.time_formats import format_iso

    view = make_run_view(run)
    return {
        "run": run.number,
        "status": run.status,
        "suspended": True if run.suspended else None,
        "version": run.version,
        "cause": run.cause,
        "due": format_iso(run.due),
        "started": format_iso(view.started) if view.started else None,
        "ended": format_iso(view.ended) if view.ended else None,
        "attempts": len(run.attempts),
        "metaflow_run": find_metaflow_run(run),
        "reason": f"{view.step}: {view.why}" if view.step and view.why else view.why or run.reason or None,
    }


def parse_status(text: str) -> Status:
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


def find_metaflow_run(run: Run) -> str | None:
    """Return the id of the run's newest Metaflow run; of one in which nothing began, where there is no other."""
    known = [attempt for attempt in run.attempts if attempt.metaflow_run]
    return next(
        (attempt.metaflow_run for attempt in reversed(known) if attempt.began),
        known[-1].metaflow_run if known else None,
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
        f"{run.number} ({run.status})" for run in state.list_runs(deployment=deployment, limit=LATEST)
    )
    raise RunNotFound(f"{what}. {f'The latest: {latest}' if latest else 'It has not run yet'}.")


# the scheduler --------------------------------------------------------------------------------------------------


def format_scheduler(folder: Path) -> str:
    """Return whether a scheduler runs, for a person."""
    from dlpipe.orchestrator.presence import find_scheduler

    found = find_scheduler(folder)
    if found is None:
        return "No scheduler is running here: `dlpipe scheduler` starts one, and until then nothing is run."
    return f"The scheduler is running (process {found['pid']})." if "pid" in found else "The scheduler is running."


# common ---------------------------------------------------------------------------------------------------------


def format_table(rows: Sequence[dict[str, Any]]) -> str:
    """Return rows as a table, without columns in which nothing stands."""
    from dlpipe.terminal import format_table

    names = [name for name in rows[0] if any(row[name] is not None for row in rows)]
    return "\n".join(format_table([{name: row[name] for name in names} for row in rows]))


def _indent(lines: Sequence[str]) -> list[str]:
    return [f"    {line}" for line in lines]
