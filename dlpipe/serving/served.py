"""One registered version, loaded and ready: a model of any task, or a pipeline around one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from dlpipe.inference import Pipeline, download_model, is_pipeline
from dlpipe.inference.loading import PIPELINE_LOADER
from dlpipe.inference.pipeline import CLASSIFIER, open_pipeline
from dlpipe.registry import ModelVersion
from dlpipe.scratch import open_scratch
from dlpipe.task import Predictor, Task, find_task, open_predictor
from dlpipe.task.example import check_example, read_example
from dlpipe.task.requests import read_text_values
from dlpipe.tracking import open_store

Record = dict[str, Any]
CHARACTERS_A_TOKEN = 4
"""What a text costs is about its length: batches need no better guess, and its tokens are counted later anyway."""

ALONE, BESIDE = 4096, 384
"""Tokens of a batch that has all cores, and of one of several that have a core each and its cache.

In eight bits on a core, a snippet of 27 tokens took 1.83 ms in batches of 8, 1.88 of 16 and 2.07 of 32.
"""


class Served(Protocol):
    """A version that answers.

    Attributes
    ----------
    version : ModelVersion
    digest : str
        SHA-256 of what decides its answers.
    engine : str
        What computes, such as ``onnx-int8``.
    task : Task
    card : mapping
        Of the model.
    lanes : int
        How many threads may call ``predict_batch`` at a time.
    batch_tokens : int
        What a padded batch costs at most.
    checked : bool
        Whether it answered its registered example; a version that has none is taken as it is.
    takes_missing : bool
        Whether a row that is ``None`` gets an answer, whose status says so.
    example : sequence of records
        Rows that it was registered with: which columns it reads.
    """

    version: ModelVersion
    digest: str
    engine: str
    task: Task
    card: Mapping[str, Any]
    lanes: int
    batch_tokens: int
    checked: bool
    takes_missing: bool
    example: Sequence[Mapping[str, Any]]

    def read_request(self, given: Any) -> list[Any]:
        """Return the rows in what a client sends, ``None`` for a missing one.

        Raises
        ------
        SettingError
            When it holds something else; the message says what to pass.
        """

    def predict_batch(self, rows: Sequence[Any]) -> list[Record]:
        """Return for each row the columns of MLflow's ``predict`` as a record, computed in this thread."""


class ServedModel:
    """A model of a task."""

    takes_missing = False

    def __init__(
        self, version: ModelVersion, predictor: Predictor, *, checked: bool, example: Sequence[Record] = ()
    ) -> None:
        self.version, self.checked = version, checked
        self.card, self.digest, self.engine, self.lanes = (
            predictor.card,
            predictor.digest,
            predictor.engine,
            predictor.workers,
        )
        self.batch_tokens = ALONE if self.lanes == 1 else BESIDE
        self.task = find_task(self.card["task"])
        self.example: Sequence[Mapping[str, Any]] = example
        self._predict = predictor.predict_batch

    def read_request(self, given: Any) -> list[Any]:
        """Return the rows as the task reads them."""
        return self.task.inputs.read_request(given, self.card)

    def predict_batch(self, rows: Sequence[Any]) -> list[Record]:
        """Return the predictions for rows, none of which may be ``None``."""
        return self.task.target.make_records(self._predict(rows), self.card)


class ServedPipeline:
    """A pipeline: a row that cannot be read gets an answer as well."""

    takes_missing = True
    lanes = 1  # it keeps answers and measures its stages, and computes a batch on all cores
    batch_tokens = ALONE

    def __init__(
        self, version: ModelVersion, pipeline: Pipeline, *, checked: bool, example: Sequence[Record] = ()
    ) -> None:
        self.version, self.checked = version, checked
        self.card, self.digest, self.engine = (
            pipeline.predictor.card,
            pipeline.digest,
            pipeline.predictor.engine,
        )
        self.task = find_task(self.card["task"])
        self.example: Sequence[Mapping[str, Any]] = example
        self._pipeline = pipeline

    def read_request(self, given: Any) -> list[Any]:
        """Return what stands where texts should be, as it is."""
        return read_text_values(given)

    def predict_batch(self, rows: Sequence[Any]) -> list[Record]:
        """Return the answers for rows, whatever they are."""
        frame = self._pipeline.run(rows)
        columns = {name: frame[name].tolist() for name in frame}
        there = frame["predicted"].notna().tolist()
        # JSON has no NaN: a row that could not be read has no prediction
        predicted = {name for name, _ in self.task.target.list_frame_fields(self.card)}
        return [
            {
                name: None if name in predicted and not there[row] else values[row]
                for name, values in columns.items()
            }
            for row in range(len(frame))
        ]


def open_served(version: ModelVersion, *, engine: str | None = None) -> Served:
    """Return ``version`` loaded, after it has answered its registered example as it did at registration.

    Parameters
    ----------
    version : ModelVersion
        A model of a task, or a pipeline.
    engine : str, optional
        By default the one chosen at registration.

    Raises
    ------
    ModelNotFound
        When it is neither.
    ModelDamaged
        When it answers its example otherwise.
    EngineUnavailable
        When ``engine`` cannot be used.
    """
    store = open_store()
    with open_scratch() as scratch:
        if is_pipeline(version):
            folder = download_model(store, version, scratch=scratch, loader=PIPELINE_LOADER)
            pipeline = open_pipeline(folder, engine=engine)
            checked = check_example(folder / CLASSIFIER, pipeline.predictor)
            example = read_example(folder / CLASSIFIER)
            return ServedPipeline(version, pipeline, checked=checked, example=example)
        folder = download_model(store, version, scratch=scratch)
        predictor = open_predictor(folder, engine=engine)
        checked, example = check_example(folder, predictor), read_example(folder)
        return ServedModel(version, predictor, checked=checked, example=example)


def measure_costs(rows: Sequence[Any]) -> list[int]:
    """Return about how many tokens each row has, at least 1: what it costs beside others.

    Examples
    --------
    >>> measure_costs(["a text of some words", ("one", "two"), {"age": 3, "text": "a story"}, None])
    [6, 2, 2, 1]
    """
    return [1 + count_characters(row) // CHARACTERS_A_TOKEN for row in rows]


def count_characters(row: Any) -> int:
    """Return how many characters the texts in a row have, whatever its form."""
    if isinstance(row, str):
        return len(row)
    characters, left = 0, [row]
    while left:  # not by recursion: rows come from clients, who may nest them deeply
        value = left.pop()
        if isinstance(value, str):
            characters += len(value)
        elif isinstance(value, Mapping):
            left += value.values()
        elif isinstance(value, tuple | list):
            left += value
    return characters


Open = Callable[[ModelVersion], Served]
"""What loads a version, such as ``open_served``."""
