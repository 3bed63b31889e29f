"""What MLflow should hold for a Metaflow run: its records, from its metadata and what its tasks left."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from types import MappingProxyType

from dlpipe.bridge.artifacts import read_artifact_digests
from dlpipe.bridge.attempts import TaskAttempt
from dlpipe.bridge.contents import Contents, read_contents, read_values
from dlpipe.bridge.description import AttemptSummary, describe_results, describe_run, describe_task, draw_run
from dlpipe.bridge.given import Given, make_given, read_parameters
from dlpipe.bridge.graphs import find_steps_above, find_steps_before
from dlpipe.bridge.names import find_former_name, name_attempt, name_run
from dlpipe.bridge.records import GRAPH, Document, Metric, RunRecord, Status, parse_object
from dlpipe.bridge.reported import Reported
from dlpipe.bridge.resuming import build_resume
from dlpipe.bridge.runs import MetaflowRun
from dlpipe.bridge.snapshots import RunSnapshot, count_foreach_tasks
from dlpipe.bridge.steps import make_step_record
from dlpipe.bridge.totals import RunTotals, TaskTotals, make_run_totals, make_task_totals
from dlpipe.redaction import find_secrets, redact, set_secrets
from dlpipe.tracking import FLOW

FOREACH_TASKS = 50


def name_experiment(system_tags: Collection[str], flow: str) -> str:
    """Return the experiment of a run: the flow, with ``@project``'s name and branch in front where it has them.

    Examples
    --------
    >>> name_experiment(["project:films", "project_branch:user.ana"], "TrainFlow")
    'films.user.ana.TrainFlow'
    """
    tags = dict(tag.split(":", 1) for tag in system_tags if ":" in tag)
    parts = [tags[name] for name in ("project", "project_branch") if name in tags]
    return ".".join([*parts, flow])


class RunReading:
    """The records of one run, read again and again while it runs.

    What a task left is read once, when it is complete, and is not kept: memory does not grow with it. Only its
    totals are.

    Parameters
    ----------
    pathspec : str
        Flow and run.
    totals : mapping, optional
        Those that an earlier reading of the same run has found, by the attempt's key.
    """

    def __init__(self, pathspec: str, totals: Mapping[str, TaskTotals] = MappingProxyType({})) -> None:
        self.run = MetaflowRun(pathspec)
        self.totals = dict(totals)
        self._digests: dict[str, frozenset[tuple[str, str]]] = {}
        self._given: Given | None = None
        self._secrets: tuple[str, ...] = ()
        self._reported: dict[str, Reported] = {}
        self._unions: dict[tuple[str, ...], frozenset[tuple[str, str]]] = {}

    def read_snapshot(self, *, launcher_gone: bool = False, only: str = "", closed: str = "") -> RunSnapshot:
        """Return the run as its metadata tells it now; the arguments are those of ``MetaflowRun.read``."""
        return self.run.read(launcher_gone=launcher_gone, only=only, closed=closed)

    def make_records(
        self, snapshot: RunSnapshot, *, skip: Mapping[str, tuple[Status, int | None]] = MappingProxyType({})
    ) -> Iterator[RunRecord]:
        """Yield the records: each attempt, and at last the run itself, which so ends only when all of them have.

        A step of more than 50 tasks is one record with a table of them: MLflow's page would drown in their runs.

        Parameters
        ----------
        skip : mapping of str to (str, int), optional
            Keys of attempts whose record is not wanted again while status and end are these.
        """
        widths = dict(count_foreach_tasks(snapshot))
        for step, attempts in snapshot.by_step.items():
            wide = widths[step] > FOREACH_TASKS
            if wide:
                reporting = not self.run.marks.list_reporting().isdisjoint(attempt.key for attempt in attempts)
                yield make_step_record(snapshot, step, attempts, widths[step], reporting=reporting)
            parent = f"{snapshot.pathspec}/{step}" if wide else snapshot.pathspec
            digits = max(2, len(str(widths[step] - 1)))
            for attempt in attempts:
                wanted = not wide or attempt.uses_mlflow
                if wanted and skip.get(attempt.key) != (attempt.status, attempt.end):
                    yield self.make_attempt_record(snapshot, attempt, parent, digits=digits)
        yield self.make_run_record(snapshot)

    def list_keys(self, snapshot: RunSnapshot) -> set[str]:
        """Return the keys of all records."""
        widths = dict(count_foreach_tasks(snapshot))
        keys = {snapshot.pathspec}
        for step, attempts in snapshot.by_step.items():
            wide = widths[step] > FOREACH_TASKS
            keys |= {f"{snapshot.pathspec}/{step}"} if wide else set()
            keys |= {attempt.key for attempt in attempts if not wide or attempt.uses_mlflow}
        return keys

    def make_run_record(self, snapshot: RunSnapshot, *, begun: bool = False) -> RunRecord:
        """Return the record of the run itself; ``begun`` leaves out all that changes while it runs."""
        given = self._read_given()
        params, documents, notes = given.params, given.documents, given.notes
        set_secrets(self._secrets)
        totals = RunTotals() if begun else self.read_run_totals(snapshot)
        tags = {
            FLOW: snapshot.pathspec.partition("/")[0],
            "metaflow.pathspec": snapshot.pathspec,
            "mlflow.user": snapshot.user,
            **_make_code_tags(snapshot.code),
        }
        if snapshot.origin:
            tags["metaflow.origin"] = snapshot.origin
        if not begun:
            if snapshot.user_tags:
                tags["metaflow.tags"] = json.dumps([redact(tag) for tag in snapshot.user_tags])
            attempts = [_summarize(attempt) for attempt in snapshot.attempts]
            tags["mlflow.note.content"] = redact(
                describe_run(
                    snapshot.graph,
                    attempts,
                    reached=describe_results(totals),
                    head=_describe_origin(snapshot),
                    resume=self._build_resume(snapshot),
                )
            )
            if caught := [
                f"{attempt.step}/{attempt.task}: {attempt.caught}"
                for attempt in snapshot.attempts
                if attempt.caught
            ]:
                tags["metaflow.caught"] = redact("; ".join(caught))
            if snapshot.status != "RUNNING":
                documents = (
                    *documents,
                    Document(GRAPH, redact(draw_run(snapshot.graph, attempts)).encode()),
                )
        if notes := (*notes, *totals.notes):
            tags["metaflow.notes"] = redact("; ".join(notes))
        if diff := self.run.marks.diff():
            documents = (*documents, Document("uncommitted.diff", redact(diff.decode(errors="replace")).encode()))
        flow, run_id = snapshot.pathspec.split("/")
        caught_words = " (exception caught)" if "metaflow.caught" in tags else ""
        known = {**given.config, **params}
        name = name_run(flow, snapshot.created, totals, known, stopped="" if begun else _find_stop(snapshot))
        earlier = (  # while it went on
            name_run(flow, snapshot.created, RunTotals(datasets=datasets), known)
            for datasets in ((), totals.datasets)
        )
        params, config = _choose_given(given, totals.settings, is_over=not begun and snapshot.status != "RUNNING")
        return RunRecord(
            key=snapshot.pathspec,
            parent=None,
            name=name + caught_words,
            status="RUNNING" if begun else snapshot.status,
            start=snapshot.created,
            end=None if begun else snapshot.end,
            params={**_put_aside(totals.settings, params), **config, **params},
            metrics=totals.metrics,
            tags=tags,
            documents=documents,
            datasets=totals.datasets,
            models=totals.models,
            former_names=(run_id, f"{run_id} (exception caught)", *earlier),
            former_note=(_make_former_begin(snapshot), "|"),
        )

    def _build_resume(self, snapshot: RunSnapshot) -> str:
        """Return how a run that stopped before its end is resumed; nothing for one that has not stopped."""
        if not _find_stop(snapshot):
            return ""
        script = self.run.marks.script() or snapshot.code.get("script-name") or "FLOW.py"
        return build_resume(snapshot.pathspec.partition("/")[2], script, snapshot.system_tags)

    def make_attempt_record(
        self, snapshot: RunSnapshot, attempt: TaskAttempt, parent: str, *, digits: int = 2
    ) -> RunRecord:
        """Return the record of one attempt; what it left is read when it is complete.

        Parameters
        ----------
        snapshot : RunSnapshot
            The run at this moment.
        attempt : TaskAttempt
            One of the snapshot's.
        parent : str
            Key of the record that it stands under: of the run, or of a step with many tasks.
        digits : int, optional
            Of its place in a foreach.
        """
        tags = {
            "metaflow.pathspec": attempt.pathspec,
            "metaflow.step": attempt.step,
            "metaflow.attempt": str(attempt.number),
            "mlflow.user": snapshot.user,
        }
        contents, totals = Contents(), TaskTotals()
        self._read_given()
        if attempt.caught:
            tags["metaflow.caught"] = redact(attempt.caught)
        if attempt.origin:
            tags["metaflow.origin"] = attempt.origin
        elif attempt.status == "RUNNING":
            contents.metrics = [*self.read_reported(attempt.key)]
        else:
            self.read_reported(attempt.key)
            reported = self._reported.pop(attempt.key)
            reported.add_aside(self.run.marks.read_resources(attempt.key))
            passed_on = self._find_passed_on(snapshot, attempt)
            known = self._find_known(snapshot, attempt)
            contents = read_contents(attempt, passed_on, known=known, secrets=self._secrets, reported=reported)
            totals = self.totals[attempt.key] = make_task_totals(contents)
        if contents.notes:
            tags["metaflow.notes"] = redact("; ".join(contents.notes))
        if page := describe_task(snapshot.graph, _summarize_task(snapshot, attempt), totals):
            tags["mlflow.note.content"] = redact(page)
        return RunRecord(
            key=attempt.key,
            parent=parent,
            name=name_attempt(attempt, snapshot.graph.get("steps", {}), digits=digits),
            status=attempt.status,
            start=attempt.start,
            end=attempt.end,
            params=contents.params,
            metrics=tuple(contents.metrics),
            tags=tags,
            documents=tuple(contents.documents),
            datasets=tuple(contents.datasets),
            models=tuple(contents.models),
            shared=attempt.uses_mlflow,
            former_names=(find_former_name(attempt),),
        )

    def read_run_totals(self, snapshot: RunSnapshot) -> RunTotals:
        """Return what the artifacts of all attempts of a run hold together."""
        return make_run_totals(snapshot, lambda task, names: self._find_totals(snapshot, task, names))

    def read_totals(self, snapshot: RunSnapshot, attempt: TaskAttempt) -> TaskTotals:
        """Return what an attempt's own artifacts hold, versions of tables and models among them."""
        return self._find_totals(snapshot, attempt, frozenset())

    def read_reported(self, key: str) -> tuple[Metric, ...]:
        """Return the points that an attempt has reported so far; of its file, what is new is read."""
        reported = self._reported.setdefault(key, Reported())
        reported.add(self.run.marks.read_points(key, reported.read))
        return reported.metrics

    def _find_totals(self, snapshot: RunSnapshot, attempt: TaskAttempt, names: frozenset[str]) -> TaskTotals:
        """Return the totals of an attempt that has no record of its own, or one without contents, too.

        Artifacts of these names are its own even where the step before holds the same.
        """
        known = self.totals.get(attempt.key)
        if known is None or not names <= known.names:
            self._read_given()
            passed_on = self._find_passed_on(snapshot, attempt)
            kept = frozenset((name, digest) for name, digest in passed_on if name not in names)
            left = {name: made for name, made in self._find_known(snapshot, attempt).items() if name not in names}
            reported = Reported()
            reported.add(self.run.marks.read_points(attempt.key))
            contents = read_values(attempt, kept, known=left, secrets=self._secrets, reported=reported)
            self.totals[attempt.key] = make_task_totals(contents, names)
        return self.totals[attempt.key]

    def _find_known(self, snapshot: RunSnapshot, attempt: TaskAttempt) -> dict[str, str]:
        """Return what the steps that lead to an attempt have left, by artifact: of those with one task."""
        above = find_steps_above(snapshot.graph, attempt.step)
        known: dict[str, str] = {}
        for step, its in snapshot.by_step.items():  # in the order in which they began: the latest counts
            begun = [other for other in its if other.start < attempt.start] if step in above else []
            if len({other.pathspec for other in begun}) == 1 and not begun[0].place:
                known |= self._find_totals(snapshot, begun[-1], frozenset()).prints
        return known

    def _find_passed_on(self, snapshot: RunSnapshot, attempt: TaskAttempt) -> frozenset[tuple[str, str]]:
        """Return name and digest of what the run was given, and of what the tasks before it held."""
        held = self._read_digests(f"{snapshot.pathspec}/_parameters/{self.run.find_parameters_task()}", 0)
        for step in find_steps_before(snapshot.graph, attempt.step):
            its = snapshot.by_step.get(step, [])
            if step == attempt.step:  # it comes back to itself
                its = [other for other in its if other.start < attempt.start]
            held |= self._find_held(its)
        return held

    def _find_held(self, attempts: list[TaskAttempt]) -> frozenset[tuple[str, str]]:
        """Return what any of these attempts held; each task after a wide foreach asks for the same ones."""
        key = tuple(attempt.key for attempt in attempts)
        if key in self._unions:
            return self._unions[key]
        held = frozenset[tuple[str, str]]().union(
            *(self._read_digests(attempt.pathspec, attempt.number) for attempt in attempts)
        )
        if all(attempt.complete for attempt in attempts):
            self._unions = {key: held}
        return held

    def _read_digests(self, task: str, number: int) -> frozenset[tuple[str, str]]:
        try:
            found = self._digests.get(f"{task}/{number}") or read_artifact_digests(task, number)
        except (ValueError, LookupError, TypeError):  # a damaged list; the attempt's own record has a note of it
            found = frozenset()
        self._digests[f"{task}/{number}"] = found
        return found

    def read_given(self) -> Mapping[str, str]:
        """Return parameters and values of the configuration by name, also those that the record leaves out."""
        given = self._read_given()
        return {**given.config, **given.params}

    def _read_given(self) -> Given:
        if self._given is None:
            values = read_parameters(self.run)
            if values is None:
                return Given()
            self._secrets = tuple(secret for name, value in values.items() for secret in find_secrets(value, name))
            set_secrets(self._secrets)
            self._given = make_given(values)
        return self._given


def _choose_given(
    given: Given, settings: Mapping[str, str], *, is_over: bool
) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """Return the parameters and the values of the configuration for which no setting stands, as it was in force.

    MLflow takes no parameter back: of a run with a configuration, nothing stands before a step has told its
    settings or the run is over.
    """
    if not given.config:
        return given.params, {}
    config = {name: value for name, value in given.config.items() if name.partition("/")[2] not in settings}
    ends = {(name.rpartition("/")[2], value) for name, value in settings.items() if "/" in name}
    params = {name: value for name, value in given.params.items() if (name, value) not in ends}
    return params if settings or is_over else {}, config if is_over else {}


def _put_aside(settings: Mapping[str, str], params: Mapping[str, str]) -> dict[str, str]:
    """Return settings under names that no parameter of the run has with another value."""
    return {
        name if params.get(name, value) == value else f"params/{name}": value for name, value in settings.items()
    }


def _make_code_tags(code: Mapping[str, str]) -> dict[str, str]:
    """Return where the code came from, by MLflow's own names."""
    git = parse_object(code.get("git-info"))
    named = {
        "mlflow.source.git.commit": git.get("commit_sha"),
        "mlflow.source.git.branch": git.get("branch_name"),
        "metaflow.git.uncommitted": git.get("has_uncommitted_changes"),
        "metaflow.code_package": parse_object(code.get("code-package")).get("sha"),
    }
    if "script-name" not in code:
        return {}
    script = {"mlflow.source.name": code["script-name"], "mlflow.source.type": "LOCAL"}
    return {**script, **{name: redact(str(value)) for name, value in named.items() if value is not None}}


def _describe_origin(snapshot: RunSnapshot) -> str:
    """Return the line of facts above the graph."""
    words = [f"Metaflow run `{snapshot.pathspec}`"]
    if snapshot.origin:
        words.append(f"resumed from `{snapshot.origin}`")
    words.append(f"started by {snapshot.user}")
    commit = parse_object(snapshot.code.get("git-info")).get("commit_sha")
    if commit:
        uncommitted = parse_object(snapshot.code.get("git-info")).get("has_uncommitted_changes")
        words.append(f"code {str(commit)[:12]}{' with uncommitted changes' if uncommitted else ''}")
    return ", ".join(words) + "."


def _make_former_begin(snapshot: RunSnapshot) -> str:
    """Return how a description of the run began before it said what the run has reached."""
    doc = str(snapshot.graph.get("doc") or "").strip()
    return redact("\n\n".join(part for part in (doc, _describe_origin(snapshot)) if part))


def _summarize(attempt: TaskAttempt) -> AttemptSummary:
    return AttemptSummary(
        step=attempt.step,
        task=attempt.task,
        number=attempt.number,
        status=attempt.status,
        start=attempt.start,
        end=attempt.end,
        origin=attempt.origin,
        caught=attempt.caught,
        error=attempt.error,
    )


def _summarize_task(snapshot: RunSnapshot, attempt: TaskAttempt) -> list[AttemptSummary]:
    """Return the attempts of a task up to this one."""
    its = snapshot.by_step[attempt.step]
    return [
        _summarize(other) for other in its if other.pathspec == attempt.pathspec and other.number <= attempt.number
    ]


def _find_stop(snapshot: RunSnapshot) -> str:
    """Return how and where a run stopped before its end; nothing of one that has not."""
    if snapshot.status not in ("FAILED", "KILLED"):
        return ""
    steps = [attempt.step for attempt in snapshot.last_attempts.values() if attempt.status in ("FAILED", "KILLED")]
    return f"{snapshot.status.lower()}{f' in {steps[0]}' if steps else ''}"
