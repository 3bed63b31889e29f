"""Makes MLflow hold what it should: reads what it holds, and writes the difference."""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from dlpipe.bridge.records import (
    DIGEST,
    KEY,
    NOTE,
    TAKEN,
    Dataset,
    Difference,
    Document,
    HeldRecord,
    Metric,
    RunRecord,
    find_differences,
    find_own_tags,
    has_older_name,
    is_held,
    parse_object,
)
from dlpipe.scratch import open_scratch

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput, Run
    from mlflow.store.artifact.artifact_repo import ArtifactRepository

RUN, STAMP = "metaflow.run", "metaflow.task"
PARENT, CONTEXT, RUN_NAME = "mlflow.parentRunId", "mlflow.data.context", "mlflow.runName"
SHARED = "metaflow.shared"
"""Tag of a run that a step logs to itself."""
REMOVED = "metaflow.removed"
"""Tag of a run that the bridge itself has deleted: what people deleted stays deleted."""
OLD_DIGEST = "metaflow.digest"
"""Where the digest stood before, on the run's page and of no use to anybody there."""
BATCH_PARAMS, BATCH_METRICS = 100, 1000
PAGE = 1000
OLD_SECONDS = 10.0
"""After so long, people may have given a run another name or description than was read."""
SOURCE_TYPE = "delta_rs"


class Mirror:
    """What one experiment holds for one Metaflow run, kept up to date while records are written.

    A record takes three calls beside its files: one makes the run, one logs, one says how it ended.

    Parameters
    ----------
    client : MlflowClient
    experiment_id : str
    run : str
        Pathspec of the Metaflow run.
    """

    def __init__(self, client: MlflowClient, experiment_id: str, run: str) -> None:
        self._client, self.experiment_id, self._run = client, experiment_id, run
        self._runs: dict[str, Run] = {}
        self._keys: dict[str, str] = {}
        self._doubles: list[Run] = []
        self._deleted: dict[str, Run] = {}
        self._experiments: list[str] = []
        self._points: dict[str, set[Metric]] = {}
        self._outputs: dict[str, set[str]] = {}
        self._read_at: dict[str, float] = {}

    def refresh(self) -> None:
        """Read the runs of this Metaflow run again; of two with one key, the older counts."""
        self._runs, self._doubles, self._deleted, self._experiments = {}, [], {}, []
        self._points, self._outputs = {}, {}
        for run in self._search_runs():
            key = run.data.tags.get(KEY, "")
            if not _is_active(run):
                if REMOVED not in run.data.tags:
                    self._deleted[key] = run
            elif key in self._runs:
                self._doubles.append(run)
            else:
                self._runs[key] = run
        self._keys = {run.info.run_id: key for key, run in self._runs.items()}
        self._read_at = dict.fromkeys(self._runs, time.monotonic())

    def is_deleted(self, key: str, parent: str | None = None) -> bool:
        """Return whether somebody has deleted the run of a record, of its parent, or of the whole Metaflow run."""
        return any(
            record_key in self._deleted and record_key not in self._runs
            for record_key in (key, parent or key, self._run)
        )

    def restore(self) -> None:
        """Bring back all runs that somebody has deleted, with what they hold."""
        nested = (
            {run.info.run_id for run in self._find_nested() if not _is_active(run)} if self._deleted else set()
        )
        for run_id in nested | {run.info.run_id for run in self._deleted.values()}:
            self._client.restore_run(run_id)
        self.refresh()

    def delete(self) -> int:
        """Delete all runs, and return how many; MLflow can restore them."""
        runs = [*self._doubles, *reversed(self._runs.values())]  # the parent last: it has all others under it
        known = {run.info.run_id for run in runs}
        runs = [*(run for run in self._find_nested() if run.info.run_id not in known and _is_active(run)), *runs]
        for run in runs:
            self._client.delete_run(run.info.run_id)
        return len(runs)

    def _find_nested(self) -> list[Run]:
        """Return the runs that steps have made themselves, such as those of trials, and those of their tasks."""
        found = self._search_runs(f"tags.`{STAMP}` LIKE '{self._run}/%'")
        return [
            run for run in found if run.data.tags[STAMP].startswith(f"{self._run}/")
        ]  # an underscore is any letter

    def _search_runs(self, chosen: str = "") -> list[Run]:
        from mlflow.entities import ViewType

        found: list[Run] = []
        token: str | None = None
        while True:
            page = self._client.search_runs(
                [self.experiment_id],
                chosen or f"tags.`{RUN}` = '{self._run}'",
                run_view_type=ViewType.ALL,
                max_results=PAGE,
                page_token=token,
            )
            found += page
            if not (token := page.token):
                return sorted(found, key=lambda run: (run.info.start_time, run.info.run_id))

    def run_id(self, key: str) -> str | None:
        """Return the id of the MLflow run that holds the record ``key``."""
        return self._runs[key].info.run_id if key in self._runs else None

    def compare(self, record: RunRecord) -> list[Difference]:
        """Return how MLflow differs from ``record``, with every file and every metric point read."""
        inside = self.find_left_running(record)
        return [
            *find_differences(record, self._read_held(record, thorough=True, contents=True)),
            *(Difference(record.key, f"run {run.info.run_id} inside", record.status, "RUNNING") for run in inside),
        ]

    def compare_surplus(self, keys: Collection[str]) -> list[Difference]:
        """Return the runs of ours that no key stands for, and those that are there twice."""
        once = [Difference(key, "run", "absent", "one") for key in self._find_surplus(keys)]
        return [
            *once,
            *(Difference(double.data.tags[KEY], "run", "there once", "another") for double in self._doubles),
        ]

    def remove_surplus(self, keys: Collection[str]) -> int:
        """Delete the runs that ``compare_surplus`` names, and return how many there were."""
        extra = [*self._find_surplus(keys).values(), *self._doubles]
        for surplus in extra:
            # the tag first: a run that is deleted without it counts as deleted by a person, and stays so
            self._client.set_tag(surplus.info.run_id, REMOVED, "by the bridge")
            self._client.delete_run(surplus.info.run_id)
        self._runs = {key: run for key, run in self._runs.items() if run not in extra}
        self._doubles = []
        return len(extra)

    def _find_surplus(self, keys: Collection[str]) -> dict[str, Run]:
        """Return the runs that no key stands for, but for those that hold what a step has logged itself."""
        return {key: run for key, run in self._runs.items() if key not in keys and SHARED not in run.data.tags}

    def ensure(self, record: RunRecord) -> str:
        """Return the id of the record's run, which is made if it is not there; nothing is logged to it."""
        found = self.run_id(record.key)
        return found if found is not None else self._create(record)

    def write(self, record: RunRecord, *, thorough: bool = True, contents: bool = False) -> list[Difference]:
        """Make MLflow hold ``record`` and return what was different.

        Parameters
        ----------
        thorough : bool, optional
            Whether files are looked for, and not only what says that they were written.
        contents : bool, optional
            Whether they are read, too: one that has changed may be as long as before.
        """
        self._read_again(record)
        found = find_differences(record, held := self._read_held(record, listed=thorough, contents=contents))
        digest = None if held is None else held.tags.get(DIGEST)
        inside = self.find_left_running(record)
        if not found and digest == record.digest and not inside:
            return []
        if held is None and record.status == "RUNNING" and not _has_contents(record):
            self._create(record, {DIGEST: record.digest})
            return found
        run_id = held.run_id if held else self._create(record)
        # files before the digest, which says that all are there, and the end last: a run that has ended is whole
        whats = {difference.what for difference in found}
        self._log_documents(
            record.key,
            [document for document in record.documents if held is None or f"file {document.path}" in whats],
        )
        self._log_inputs(run_id, record, held)
        self._log(run_id, record, held)
        if record.end is not None and (held is None or whats & {"status", "end"}):
            self._client.set_terminated(run_id, record.status, record.end)
        for inner in inside:
            self._client.set_terminated(inner.info.run_id, record.status, record.end)
        return found

    def _read_again(self, record: RunRecord) -> None:
        """Read a run again before its name or description changes: what people have written meanwhile stays."""
        run = self._runs.get(record.key)
        if run is None or (run.info.run_name, run.data.tags.get(NOTE)) == (record.name, record.tags.get(NOTE)):
            return
        if record.shared or time.monotonic() - self._read_at[record.key] > OLD_SECONDS:
            self._runs[record.key] = self._client.get_run(run.info.run_id)
            self._read_at[record.key] = time.monotonic()

    def find_left_running(self, record: RunRecord) -> list[Run]:
        """Return the runs that a step began inside its own and never ended, though it has ended itself."""
        if not record.shared or record.status == "RUNNING":
            return []
        if not self._experiments:  # a step may log to any experiment
            self._experiments = [experiment.experiment_id for experiment in self._client.search_experiments()]
        inside = f"tags.`{STAMP}` = '{record.key}' and attributes.status = 'RUNNING'"
        return list(self._client.search_runs(self._experiments, inside, max_results=PAGE))

    def _create(self, record: RunRecord, more: Mapping[str, str] = MappingProxyType({})) -> str:
        tags = {**record.all_tags, **more, KEY: record.key, RUN: self._run}
        if record.shared:
            tags[SHARED] = "true"
        if record.parent is not None and (parent := self.run_id(record.parent)):
            tags[PARENT] = parent
        # key and run are tags from the start: a kill after this call leaves a run that the next mirror finds
        made = self._client.create_run(self.experiment_id, record.start, tags, record.name)
        self._runs[record.key], self._read_at[record.key] = made, time.monotonic()
        self._keys[made.info.run_id] = record.key
        return str(made.info.run_id)

    def _log(self, run_id: str, record: RunRecord, held: HeldRecord | None) -> None:
        """Write parameters, metrics and tags in as few calls as MLflow takes."""
        from mlflow.entities import Metric as MlflowMetric
        from mlflow.entities import Param, RunTag

        params = [Param(name, value) for name, value in _find_new_params(record, held)]
        points = [metric for metric in record.metrics if held is None or not held.has_point(metric)]
        metrics = [MlflowMetric(point.key, point.value, point.time, point.step) for point in points]
        tags_of_ours = find_own_tags(record, held) if held else {}
        changed = {name: value for name, value in tags_of_ours.items() if held and held.tags.get(name) != value}
        if held is not None and record.parent is not None and held.parent != record.parent:
            changed[PARENT] = str(self.run_id(record.parent))
        if held is not None and has_older_name(record, held):
            changed[RUN_NAME] = record.name
        # the digest comes last: a run that has it has all of its files
        tags = [RunTag(name, value) for name, value in {**changed, DIGEST: record.digest}.items()]
        if held is not None and OLD_DIGEST in held.tags:
            self._client.delete_tag(run_id, OLD_DIGEST)
        while params or metrics or tags:
            last = len(params) <= BATCH_PARAMS and len(metrics) <= BATCH_METRICS - 2 * BATCH_PARAMS
            some_tags = tags[:BATCH_PARAMS] if last else []
            room = BATCH_METRICS - 2 * BATCH_PARAMS
            self._client.log_batch(run_id, metrics[:room], params[:BATCH_PARAMS], some_tags)
            metrics, params = metrics[room:], params[BATCH_PARAMS:]
            tags = tags[len(some_tags) :]
        self._points.setdefault(record.key, set()).update(points)
        if record.status != "RUNNING":  # it grows no more
            del self._points[record.key]

    def _log_documents(self, key: str, documents: Sequence[Document]) -> None:
        if not documents:
            return
        with open_scratch() as place:
            for document in documents:
                path = Path(place, document.path)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(document.content)
            self._open_files(self._runs[key]).log_artifacts(place)

    def _open_files(self, run: Run) -> ArtifactRepository:
        """Return where a run's files are; MLflow's client would ask for the run once more."""
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        return get_artifact_repository(run.info.artifact_uri, tracking_uri=self._client.tracking_uri)

    def _log_inputs(self, run_id: str, record: RunRecord, held: HeldRecord | None) -> None:
        """Write data sets and models that the run read, and models that it made."""
        from mlflow.entities import LoggedModelInput, LoggedModelOutput

        datasets = [
            _make_dataset_input(dataset)
            for dataset in record.datasets
            if held is None or not is_held(dataset, held.datasets)
        ]
        new = [
            model for key, model in record.logged_models.items() if held is None or key not in held.logged_models
        ]
        used = [LoggedModelInput(model.model_id) for model in new if model.role == "used"]
        made = [LoggedModelOutput(model.model_id, step=0) for model in new if model.role == "made"]
        if datasets or used:
            self._client.log_inputs(run_id, datasets, used)
        if made:
            self._client.log_outputs(run_id, made)
            # MLflow fails on an output that is logged twice, and the run is not read again before each write
            self._outputs.setdefault(record.key, set()).update(output.model_id for output in made)

    def _read_held(
        self, record: RunRecord, *, thorough: bool = False, listed: bool = True, contents: bool = False
    ) -> HeldRecord | None:
        run = self._runs.get(record.key)
        if run is None:
            return None
        tags = run.data.tags
        complete = tags.get(DIGEST) == record.digest
        if contents:
            files = self._read_digests(run)
        elif listed:
            files = self._read_listed(run, record, complete=complete)
        else:
            files = {document.path: document.digest for document in record.documents} if complete else {}
        if thorough:
            points = _read_points(self._client, run, run.data.metrics)
        elif complete and not listed:
            points = iter(record.metrics)
        else:
            points = self._read_points_once(run, record)
        return HeldRecord(
            run_id=run.info.run_id,
            parent=self._keys.get(tags.get(PARENT, "")),
            name=run.info.run_name,
            status=run.info.status,
            start=run.info.start_time,
            end=run.info.end_time,
            params=run.data.params,
            metrics=frozenset(points),
            tags=tags,
            documents=files,
            datasets=frozenset(read_datasets(run)),
            logged_models=frozenset(self._read_logged_models(run, record)),
        )

    def _read_points_once(self, run: Run, record: RunRecord) -> Iterator[Metric]:
        """Yield the record's points that are there; of a series that grows, what was written here is known."""
        known = self._points.setdefault(record.key, set())
        names = {metric.key for metric in known}
        new = tuple(metric for metric in record.metrics if metric.key not in names)
        known.update(_read_record_points(self._client, run, replace(record, metrics=new)))
        yield from known

    def _read_logged_models(self, run: Run, record: RunRecord) -> Iterator[tuple[str, str]]:
        """Yield role and id of each logged model; those that a run read are not told by MLflow's search."""
        outputs = {output.model_id for output in run.outputs.model_outputs} if run.outputs else set()
        yield from (("made", model_id) for model_id in outputs | self._outputs.get(record.key, set()))
        if any(role == "used" for role, _ in record.logged_models):
            inputs = self._client.get_run(run.info.run_id).inputs
            for model_input in inputs.model_inputs if inputs else []:
                yield "used", model_input.model_id

    def _read_listed(self, run: Run, record: RunRecord, *, complete: bool) -> Mapping[str, str]:
        """Return the record's files that are there with the right size; none of them if they may be older ones."""
        if not complete:
            return {}
        sizes = dict(_list_files(self._open_files(run))) if record.documents else {}
        return {
            document.path: document.digest
            for document in record.documents
            if sizes.get(document.path) == len(document.content)
        }

    def _read_digests(self, run: Run) -> Mapping[str, str]:
        store = self._open_files(run)
        with open_scratch() as place:
            return {
                path: hashlib.sha256(Path(store.download_artifacts(path, place)).read_bytes()).hexdigest()
                for path, _ in _list_files(store)
            }


def _is_active(run: Run) -> bool:
    return bool(run.info.lifecycle_stage == "active")


def _has_contents(record: RunRecord) -> bool:
    return bool(record.params or record.metrics or record.documents or record.datasets or record.models)


def _find_new_params(record: RunRecord, held: HeldRecord | None) -> Iterator[tuple[str, str]]:
    """Yield the parameters to write. MLflow refuses a batch that changes one: those stand under another name."""
    known = held.params if held else {}
    for name, value in record.params.items():
        if name not in known:
            yield name, value
        elif known[name] != value and TAKEN + name not in known:
            yield TAKEN + name, value


def _make_dataset_input(dataset: Dataset) -> DatasetInput:
    from mlflow.entities import Dataset as MlflowDataset
    from mlflow.entities import DatasetInput, InputTag

    kinds = {"long": "long", "integer": "integer", "double": "double", "float": "float", "boolean": "boolean"}
    columns = [
        {"name": name, "type": kinds.get(kind, "string"), "required": False} for name, kind in dataset.columns
    ]
    described = MlflowDataset(
        dataset.name,
        dataset.digest,
        SOURCE_TYPE,
        dataset.source,
        schema=json.dumps({"mlflow_colspec": columns}) if columns else None,
        profile=json.dumps({"num_rows": dataset.rows}),
    )
    return DatasetInput(described, [InputTag(CONTEXT, dataset.role)])


def _list_files(store: ArtifactRepository, folder: str | None = None) -> Iterator[tuple[str, int]]:
    for entry in store.list_artifacts(folder):
        if entry.is_dir:
            yield from _list_files(store, entry.path)
        else:
            yield entry.path, entry.file_size


def _read_points(client: MlflowClient, run: Run, keys: Collection[str]) -> Iterator[Metric]:
    for key in keys:
        for point in client.get_metric_history(run.info.run_id, key):
            yield Metric(point.key, point.value, point.timestamp, point.step)


def _read_record_points(client: MlflowClient, run: Run, record: RunRecord) -> Iterator[Metric]:
    """Yield the record's points that are there; the only point of its metric needs no call of its own.

    Of a series, MLflow says the latest point without being asked, which a kill may have left without the others.
    """
    counts = Counter(metric.key for metric in record.metrics)
    # with its step: the step of the flow may have logged the same number itself, as a point of a series
    latest = {(metric.key, metric.value, metric.step) for metric in run.data._metric_objs}
    to_read = {
        metric.key
        for metric in record.metrics
        if counts[metric.key] > 1 or (metric.key, metric.value, metric.step) not in latest
    }
    yield from (metric for metric in record.metrics if metric.key not in to_read)
    yield from _read_points(client, run, [key for key in to_read if key in run.data.metrics])


def read_datasets(run: Run) -> Iterator[Dataset]:
    """Yield the data sets that MLflow has of a run, without their columns."""
    for dataset_input in run.inputs.dataset_inputs if run.inputs else []:
        context = next((tag.value for tag in dataset_input.tags if tag.key == CONTEXT), "")
        source, profile = parse_object(dataset_input.dataset.source), parse_object(dataset_input.dataset.profile)
        yield Dataset(
            path=str(source.get("path", "")),
            version=int(source.get("version", -1)),
            digest=dataset_input.dataset.digest,
            rows=int(profile.get("num_rows", -1)),
            role=context,
        )
