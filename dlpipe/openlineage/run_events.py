"""Events of runs and of the attempts of their tasks: that they began, and how they ended.

An event is told once, so it says only what does not change any more: a beginning says nothing of what is made, and
an end is told when all that belongs to it is there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial

from openlineage.client.event_v2 import Job, Run, RunEvent, RunState
from openlineage.client.facet_v2 import (
    RunFacet,
    error_message_run,
    execution_parameters_run,
    job_dependencies_run,
    nominal_time_run,
    parent_run,
    processing_engine_run,
    tags_run,
)

from dlpipe.bridge.attempts import TaskAttempt
from dlpipe.bridge.graphs import find_steps_before
from dlpipe.bridge.reading import RunReading, name_experiment
from dlpipe.bridge.records import Status
from dlpipe.bridge.snapshots import RunSnapshot
from dlpipe.errors import RunNotFound
from dlpipe.lineage import Edge, Node, make_run_node
from dlpipe.lineage.schedules import ScheduleReader
from dlpipe.lineage.uses import UseReader
from dlpipe.openlineage.events import ADAPTER, Body, Event, EventType, to_body
from dlpipe.openlineage.job_facets import find_code_facts, make_flow_job, make_step_job
from dlpipe.openlineage.naming import Name, format_time, make_run_id, name_job
from dlpipe.openlineage.outputs import Outputs

ENDS: Mapping[Status, EventType] = {"FINISHED": "COMPLETE", "FAILED": "FAIL", "KILLED": "ABORT"}
PATHSPEC = "metaflow.pathspec"
"""The tag of a run that says which run, or which task, of Metaflow it is."""
ENGINE = "Metaflow"
BY_SCHEDULE = "schedule "
"""How the cause of a run begins that was due at a time, which follows."""


class Runs:
    """Runs as they were when they were first asked for, by pathspec."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[RunReading, RunSnapshot] | None] = {}

    def read(self, pathspec: str) -> tuple[RunReading, RunSnapshot] | None:
        """Return a run; ``None`` where Metaflow has no such one, or it has only just begun."""
        if pathspec not in self._found:
            reading = RunReading(pathspec)
            try:
                self._found[pathspec] = reading, reading.read_snapshot()
            except RunNotFound:
                self._found[pathspec] = None
        return self._found[pathspec]

    def put(self, reading: RunReading, snapshot: RunSnapshot) -> None:
        """Keep a run that was read elsewhere."""
        self._found[snapshot.pathspec] = reading, snapshot

    def find_attempt(self, key: str) -> TaskAttempt | None:
        """Return an attempt by its key; ``None`` where Metaflow has it no more."""
        found = self.read("/".join(key.split("/")[:2])) if key.count("/") >= 4 else None
        return next((attempt for attempt in found[1].attempts if attempt.key == key), None) if found else None

    def find_job(self, key: str) -> tuple[str, str, str | None]:
        """Return namespace and name of the job of an attempt, and the id of its run where it is known."""
        flow, run, step = key.split("/")[:3]
        found, attempt = self.read(f"{flow}/{run}"), self.find_attempt(key)
        name = name_step(found[1], step) if found else name_job(flow, step)
        return name.namespace, name.name, make_attempt_id(attempt) if attempt else None


def make_attempt_id(attempt: TaskAttempt) -> str:
    """Return the id of the run that an attempt is in OpenLineage."""
    return make_run_id(attempt.start, attempt.key)


def name_flow(snapshot: RunSnapshot) -> Name:
    """Return what the flow of a run is called; of a project and its branch each is a job of its own."""
    return name_job(name_experiment(snapshot.system_tags, snapshot.pathspec.partition("/")[0]))


def name_step(snapshot: RunSnapshot, step: str) -> Name:
    """Return what a step of the flow of a run is called."""
    return name_job(name_flow(snapshot).name, step)


class RunEvents:
    """The events of one run.

    Parameters
    ----------
    reading : RunReading
    snapshot : RunSnapshot
        The run at a moment; ``outputs`` must have been read later.
    outputs : Outputs
    runs : Runs
        The other runs, which this one may have resumed.
    """

    def __init__(self, reading: RunReading, snapshot: RunSnapshot, outputs: Outputs, runs: Runs) -> None:
        self.reading, self.snapshot, self.outputs, self.runs = reading, snapshot, outputs, runs
        self.run_id = make_run_id(snapshot.created, snapshot.pathspec)

    def list(self) -> list[Event]:
        """Return what has happened so far, in the order in which it did."""
        created, end = self.snapshot.created, self.snapshot.end
        found = [Event(f"{self.run_id} START", created, partial(self._make_run_event, "START", created))]
        of_attempts = []
        for attempt in self.snapshot.attempts:
            run_id = make_attempt_id(attempt)
            of_attempts.append(Event(f"{run_id} START", attempt.start, partial(self._make_begin, attempt)))
            if attempt.end is not None:
                kind = ENDS[attempt.status]
                of_attempts.append(Event(f"{run_id} {kind}", attempt.end, partial(self._make_end, attempt)))
        # a stable sort: an attempt may end in the millisecond in which it began
        found += sorted(of_attempts, key=lambda event: event.at)
        if end is not None:
            kind = ENDS[self.snapshot.status]
            found.append(Event(f"{self.run_id} {kind}", end, partial(self._make_run_event, kind, end)))
        return found

    # -- the run --------------------------------------------------------------------------------------------------

    def _make_run_event(self, kind: EventType, at: int) -> Body:
        given = self.reading.read_given()  # from here on, what is secret in them is hidden wherever it stands
        edges = list(self._find_causes() if kind == "START" else self._find_origins())
        facets = {**self._make_shared_facets(), **self._make_origin_facets(edges)}
        if kind == "START":
            facets["executionParameters"] = make_parameters(given)
        elif kind == "FAIL" and (error := self._find_error()):
            facets["errorMessage"] = make_error(error)
        job = make_flow_job(name_flow(self.snapshot), self.snapshot)
        used = [edge.origin for edge in edges if edge.how == "used"]
        return make_run_event(self.run_id, kind, at, job, facets, outputs=self.outputs, used=used)

    def _find_error(self) -> str:
        failed = (attempt for attempt in self.snapshot.last_attempts.values() if attempt.status == "FAILED")
        return next((f"{attempt.step}: {attempt.error}" for attempt in failed if attempt.error), "")

    def _make_origin_facets(self, edges: Sequence[Edge]) -> dict[str, RunFacet]:
        """Return what started the run: due time, deployment, events, its code, and the run that it resumes."""
        tags, facets = {PATHSPEC: self.snapshot.pathspec}, dict[str, RunFacet]()
        tags |= find_code_facts(self.snapshot.code)
        for number, tag in enumerate(self.snapshot.user_tags):
            tags[f"metaflow.tag.{number}"] = tag
        events = 0
        for edge in edges:
            if edge.origin.kind == "code":  # the first task may have begun before the package was there
                tags["code.package"] = edge.origin.key
            elif edge.origin.kind == "deployment":
                tags |= {"dlpipe.deployment": str(edge.origin), "dlpipe.cause": edge.note}
                if due := read_due(edge.note):
                    facets["nominalTime"] = nominal_time_run.NominalTimeRunFacet(nominalStartTime=due)
            elif edge.origin.kind == "event":
                tags |= {f"dlpipe.event.{events}": edge.origin.id, f"dlpipe.event.{events}.name": edge.origin.name}
                events += 1
        facets["tags"] = make_tags(tags)
        if self.snapshot.origin:
            found = self.runs.read(self.snapshot.origin)
            name = name_flow(found[1]) if found else name_flow(self.snapshot)
            run_id = make_run_id(found[1].created, self.snapshot.origin) if found else None
            resumed = make_dependency(name, run_id, "RESUMED_FROM")
            facets["jobDependencies"] = job_dependencies_run.JobDependenciesRunFacet(upstream=[resumed])
        return facets

    def _find_origins(self) -> Iterator[Edge]:
        node = make_run_node(self.snapshot.pathspec)
        for reader in self.outputs.records.readers:
            if isinstance(reader, UseReader):  # the artifacts of its attempts were read for their events
                yield from reader.find_used(node, self.reading.read_run_totals(self.snapshot))
            else:
                yield from reader.find_origins(node)

    def _find_causes(self) -> Iterator[Edge]:
        """Yield what started the run: the artifacts of one that has only begun say nothing, and are not read."""
        node = make_run_node(self.snapshot.pathspec)
        for reader in self.outputs.records.readers:
            if isinstance(reader, ScheduleReader):
                yield from reader.find_origins(node)

    def _make_shared_facets(self) -> dict[str, RunFacet]:
        version = self.snapshot.code.get("metaflow_version", "unknown")
        return {
            "processing_engine": processing_engine_run.ProcessingEngineRunFacet(
                version=version, name=ENGINE, openlineageAdapterVersion=ADAPTER
            )
        }

    # -- attempts -------------------------------------------------------------------------------------------------

    def _make_begin(self, attempt: TaskAttempt) -> Body:
        self.reading.read_given()
        job = make_step_job(name_step(self.snapshot, attempt.step), self.snapshot, attempt.step, {})
        return make_run_event(make_attempt_id(attempt), "START", attempt.start, job, self._make_facets(attempt))

    def _make_end(self, attempt: TaskAttempt) -> Body:
        self.reading.read_given()
        # what a resumed run took over was made by the task that it goes back to
        made: Sequence[Node] = () if attempt.origin else self.outputs.by_attempt.get(attempt.key, ())
        facets = self._make_facets(attempt)
        if attempt.error or attempt.caught:
            facets["errorMessage"] = make_error(attempt.error or attempt.caught)
        job = make_step_job(
            name_step(self.snapshot, attempt.step),
            self.snapshot,
            attempt.step,
            self.outputs.make_lineage(made, attempt.key, self.runs.find_job),
        )
        at = attempt.start if attempt.end is None else attempt.end
        kind = ENDS[attempt.status]
        used = self._find_used(attempt)
        return make_run_event(
            make_attempt_id(attempt), kind, at, job, facets, outputs=self.outputs, made=made, used=used
        )

    def _find_used(self, attempt: TaskAttempt) -> Sequence[Node]:
        """Return what an attempt used, such as the version that it trained on; what failed left no artifacts."""
        if attempt.origin or attempt.status != "FINISHED":
            return ()
        return self.outputs.list_used(self.reading.read_totals(self.snapshot, attempt))

    def _make_facets(self, attempt: TaskAttempt) -> dict[str, RunFacet]:
        flow = name_flow(self.snapshot)
        parent = parent_run.ParentRunFacet(
            run=parent_run.Run(runId=self.run_id),
            job=parent_run.Job(flow.namespace, flow.name),
            root=parent_run.Root(
                run=parent_run.RootRun(runId=self.run_id), job=parent_run.RootJob(flow.namespace, flow.name)
            ),
        )
        tags = {PATHSPEC: attempt.pathspec, "metaflow.attempt": str(attempt.number)}
        if attempt.place:
            tags["metaflow.foreach"] = attempt.place
        return {
            **self._make_shared_facets(),
            "parent": parent,
            "tags": make_tags(tags),
            **self._make_dependencies(attempt),
        }

    def _make_dependencies(self, attempt: TaskAttempt) -> dict[str, RunFacet]:
        """Return the steps that lead to this one, and the task that a resumed run took its results from."""
        before = [
            make_dependency(name_step(self.snapshot, step), None, "DIRECT_INVOCATION")
            for step in find_steps_before(self.snapshot.graph, attempt.step)
        ]
        if attempt.origin:
            before.append(self._make_origin(attempt.origin))
        return {"jobDependencies": job_dependencies_run.JobDependenciesRunFacet(upstream=before)} if before else {}

    def _make_origin(self, origin: str) -> job_dependencies_run.JobDependency:
        flow, run, step = origin.split("/")[:3]
        found = self.runs.read(f"{flow}/{run}")
        last = found[1].last_attempts.get(origin) if found else None
        name = name_step(found[1] if found else self.snapshot, step)
        return make_dependency(name, make_attempt_id(last) if last else None, "RESUMED_FROM")


def make_run_event(
    run_id: str,
    kind: EventType,
    at: int,
    job: Job,
    facets: Mapping[str, RunFacet],
    *,
    outputs: Outputs | None = None,
    made: Sequence[Node] = (),
    used: Sequence[Node] = (),
) -> Body:
    """Return the event that a run began or ended, with what it made, and what it had in its hands besides."""
    event = RunEvent(
        eventType=RunState(kind),
        eventTime=format_time(at),
        run=Run(run_id, facets=dict(facets)),
        job=job,
        inputs=outputs.find_inputs(made, used) if outputs else [],
        outputs=outputs.make_outputs(made) if outputs else [],
    )
    if outputs:
        outputs.check_registry()
    return to_body(event)


def make_parameters(given: Mapping[str, str]) -> RunFacet:
    """Return the facet with the parameters of a run."""
    listed = [execution_parameters_run.ExecutionParameter(key=key, value=given[key]) for key in sorted(given)]
    return execution_parameters_run.ExecutionParametersRunFacet(parameters=listed)


def make_tags(tags: Mapping[str, object]) -> RunFacet:
    """Return the facet with tags of a run."""
    made = [
        tags_run.TagsRunFacetFields(
            key=key, value=str(value), source="DLPIPE" if key.startswith("dlpipe") else "METAFLOW"
        )
        for key, value in tags.items()
        if value is not None
    ]
    return tags_run.TagsRunFacet(tags=made)


def make_error(message: str) -> RunFacet:
    """Return the facet that says why a run failed."""
    return error_message_run.ErrorMessageRunFacet(message=message, programmingLanguage="PYTHON")


def make_dependency(name: Name, run_id: str | None, kind: str) -> job_dependencies_run.JobDependency:
    """Return a job, or a run of it, that must have ended before another began."""
    return job_dependencies_run.JobDependency(
        job=job_dependencies_run.JobIdentifier(name.namespace, name.name),
        run=job_dependencies_run.RunIdentifier(run_id) if run_id else None,
        dependency_type=kind,
        sequence_trigger_rule="FINISH_TO_START",
    )


def read_due(cause: str) -> str | None:
    """Return when a run was due by its schedule, as the scheduler tells its cause; ``None`` where it had none.

    Examples
    --------
    >>> read_due("schedule 2026-11-27T03:00:00+01:00"), read_due("by hand")
    ('2026-11-27T03:00:00+01:00', None)
    """
    if not cause.startswith(BY_SCHEDULE):
        return None
    try:
        return datetime.fromisoformat(cause.removeprefix(BY_SCHEDULE)).isoformat()
    except ValueError:
        return None
