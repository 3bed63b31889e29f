"""What is compared: rows that came in, and rows of the training table with what was said of its test split."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dlpipe.errors import ModelNotFound, NoRows, TableVersionNotFound
from dlpipe.monitoring.statistics import wilson
from dlpipe.parts import Scoring
from dlpipe.registry import MADE_FROM, ModelVersion
from dlpipe.tables import TableVersion, decode_texts, read_table, stream_table, table_at

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    Predict = Callable[[Sequence[str]], pd.DataFrame]

PREDICTED = ("row_id", "predicted", "probability", "probabilities", "labels", "model_version", "source")


@dataclass(frozen=True)
class Sample:
    """Some rows.

    Attributes
    ----------
    texts : sequence of str
    predicted : sequence of str
        Labels that the model gave; of other rows, or of fewer, where another model scored some.
    probability : sequence of float
        Of two labels, that of the last one; of more, that of the predicted one.
    """

    texts: Sequence[str]
    predicted: Sequence[str] = ()
    probability: Sequence[float] = ()

    @property
    def lengths(self) -> list[int]:
        """The words of each text."""
        return [len(text.split()) for text in self.texts]


@dataclass(frozen=True)
class Quality:
    """How many new rows whose label is known by now were predicted right, and how many of the test split."""

    right: int
    rows: int
    test_right: int
    test_rows: int

    @property
    def accuracy(self) -> float:
        """The share of the new rows that is right; ``nan`` without rows."""
        return self.right / self.rows if self.rows else float("nan")

    @property
    def test_accuracy(self) -> float:
        """The share of the test split that was right."""
        return self.test_right / self.test_rows if self.test_rows else float("nan")

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of ``accuracy``."""
        return wilson(self.right, self.rows) if self.rows else (float("nan"), float("nan"))


@dataclass(frozen=True)
class Subject:
    """What is monitored.

    Attributes
    ----------
    model : ModelVersion
        The champion: a classifier, or a pipeline around one.
    trained_on : TableVersion
        What it was trained on.
    source : TableVersion
        The table whose rows it scores.
    predictions : TableVersion
        The table with what it said.
    """

    model: ModelVersion
    trained_on: TableVersion
    source: TableVersion
    predictions: TableVersion

    @property
    def classifier(self) -> str:
        """The URI that predictions name."""
        return self.model.tags.get(MADE_FROM, self.model.uri)


def subject_of(model: ModelVersion, source: TableVersion, predictions: TableVersion) -> Subject:
    """Return what is monitored, with the table version that the tags of ``model`` say it was trained on.

    Raises
    ------
    ModelNotFound
        When the tags do not say.
    TableNotFound, TableVersionNotFound
        When that version is gone.
    """
    path, version = model.tags.get("delta.table"), model.tags.get("delta.version")
    if not path or version is None:
        raise ModelNotFound(
            f"{model.uri} does not say what it was trained on: it has no tags delta.table and delta.version. "
            "Monitor a model that flows/train_flow.py registered."
        )
    trained_on = table_at(path, version=int(version))
    digest = model.tags.get("delta.digest", trained_on.digest)
    if trained_on.digest != digest:
        raise TableVersionNotFound(
            f"{str(trained_on)!r} is not what {model.uri} was trained on: its digest is {trained_on.digest[:12]}, "
            f"not {digest[:12]}. The table was made anew; train a model on it."
        )
    return Subject(model, trained_on, source, predictions)


def check_scored(subject: Subject) -> None:
    """Raise ``NoRows`` where the model has scored no row of the source: what came in there is not meant for it."""
    if has_scored(subject):
        return
    raise NoRows(
        f"No version of {model_of(subject)} has scored a row of {subject.source}: {subject.predictions} has none. "
        f"Score them first (python flows/predict_flow.py run --model {subject.model.uri} --table "
        f"{subject.source.name}), or name the table or the --target that it scores."
    )


def model_of(subject: Subject) -> str:
    """Return the name of the classifier in the registry."""
    return subject.classifier.removeprefix("models:/").rpartition("/")[0]


def has_scored(subject: Subject) -> bool:
    """Return whether a version of the model, this one or an earlier champion, has answered for the source."""
    import pyarrow.compute as pc

    name = subject.classifier.rpartition("/")[0]
    for batch in stream_table(subject.predictions, columns=["model_version", "source"], batch_rows=65536):
        own = pc.starts_with(batch["model_version"], pattern=f"{name}/")
        ours = pc.equal(batch["source"], subject.source.path)
        if pc.any(pc.and_(own, ours)).as_py():
            return True
    return False


@dataclass
class Incoming:
    """Rows that the model did not learn from, as they were scored: the last, and those with a label by now."""

    window: int
    labels: dict[str, str]
    classifier: str
    last: dict[str, tuple[str, float] | None] = field(default_factory=dict)
    """Row id -> what the champion said, the newest last; None where another model scored it."""
    right: dict[str, bool] = field(default_factory=dict)

    def add(self, row: dict[str, Any]) -> None:
        """Take in a row of a predictions table."""
        name, own = row["row_id"], row["model_version"] == self.classifier
        said = (row["predicted"], probability_of(row)) if own and row["predicted"] is not None else None
        before = self.last.pop(name, None)
        self.last[name] = said or before
        if len(self.last) > 2 * self.window:
            for oldest in list(self.last)[: self.window]:
                del self.last[oldest]
        if said and name in self.labels:
            self.right.pop(name, None)
            self.right[name] = said[0] == self.labels[name]


def probability_of(row: dict[str, Any]) -> float:
    """Return the probability that is compared: of two labels that of the last, else that of the predicted one."""
    shares = row["probabilities"]
    return float(shares[-1] if len(shares) == 2 else row["probability"])


def current_sample(subject: Subject, *, window: int) -> tuple[Sample, int, int, int]:
    """Return the last rows that came in, how many have a label by now, and how many of how many are right.

    A row came in if the version that the model was trained on does not have it.
    """
    learnt = known_ids(subject.trained_on)
    labels = labels_of(subject.source, learnt)
    incoming = Incoming(window, labels, subject.classifier)
    for row in scored_rows(subject, learnt):
        incoming.add(row)
    names = list(incoming.last)[-window:]
    said = [one for name in names if (one := incoming.last[name]) is not None]
    texts = texts_of_rows(subject.source, names)
    judged = list(incoming.right.values())[-window:]
    sample = Sample(texts, [label for label, _ in said], [value for _, value in said])
    return sample, len(labels), sum(judged), len(judged)


def known_ids(version: TableVersion) -> pa.Array:
    """Return the ids of all rows of a table version."""
    return read_table(version, columns=["row_id"])["row_id"].combine_chunks()


def labels_of(source: TableVersion, learnt: pa.Array) -> dict[str, str]:
    """Return the labels of the rows of ``source`` that have one and are not ``learnt``, by row id."""
    import pyarrow.compute as pc

    if "label" not in {name for name, _ in source.columns}:
        return {}
    found: dict[str, str] = {}
    for batch in stream_table(source, columns=["row_id", "label"], batch_rows=65536):
        new = batch.filter(pc.and_(pc.is_valid(batch["label"]), pc.invert(pc.is_in(batch["row_id"], learnt))))
        found.update(zip(new["row_id"].to_pylist(), new["label"].to_pylist(), strict=True))
    return found


def scored_rows(subject: Subject, learnt: pa.Array) -> Iterator[dict[str, Any]]:
    """Yield the rows of the predictions table that are of the source and not ``learnt``, as they were scored."""
    import pyarrow.compute as pc

    for batch in stream_table(subject.predictions, columns=list(PREDICTED), batch_rows=65536):
        ours = pc.equal(batch["source"], subject.source.path)
        yield from batch.filter(pc.and_(ours, pc.invert(pc.is_in(batch["row_id"], learnt)))).to_pylist()


def texts_of_rows(source: TableVersion, names: Sequence[str]) -> list[str]:
    """Return the texts of the rows with these ids."""
    import pyarrow as pa
    import pyarrow.compute as pc

    wanted = pa.array(names, pa.string())
    found: dict[str, str | None] = {}
    for batch in stream_table(source, columns=["row_id", "text"], batch_rows=65536):
        rows = decode_texts(batch, of=source)
        some = rows.filter(pc.is_in(rows["row_id"], wanted))
        found.update(zip(some["row_id"].to_pylist(), some["text"].to_pylist(), strict=True))
    return [found[name] or "" for name in names if name in found]


def reference_sample(subject: Subject, predict: Predict, *, rows: int, seed: int) -> tuple[Sample, int, int]:
    """Return rows of the training table, with what the model said of its test split: right ones, of how many.

    Texts are drawn from all splits. Predictions are those of the test split, since a model is surer of what it
    learnt. They are read where the train flow has left them, and made with ``predict`` otherwise.
    """
    texts = read_table(subject.trained_on, columns=["text", "split"]).to_pydict()
    learnt = [text or "" for text, split in zip(texts["text"], texts["split"], strict=True) if split]
    drawn = random.Random(seed).sample(learnt, min(rows, len(learnt)))
    test = read_table(subject.trained_on, split="test", columns=["row_id", "text", "label"]).to_pydict()
    truth = dict(zip(test["row_id"], test["label"], strict=True))
    said = said_of_test(subject, truth) or predicted_now(predict, test)
    right = sum(said[name][0] == truth[name] for name in said)
    sample = Sample(drawn, [label for label, _ in said.values()], [value for _, value in said.values()])
    return sample, right, len(said)


def said_of_test(subject: Subject, truth: dict[str, str]) -> dict[str, tuple[str, float]]:
    """Return what the predictions table has of the test split, by row id; nothing where some of it is missing."""
    import pyarrow.compute as pc

    own = Scoring(subject.trained_on, subject.model, subject.predictions.path).answer_set
    found: dict[str, tuple[str, float] | None] = {}
    for batch in stream_table(subject.predictions, columns=[*PREDICTED, "answer_set"], batch_rows=65536):
        for row in batch.filter(pc.equal(batch["answer_set"], own)).to_pylist():
            if row["row_id"] in truth:
                found[row["row_id"]] = (
                    (row["predicted"], probability_of(row)) if row["predicted"] is not None else None
                )
    return {name: said for name, said in found.items() if said} if len(found) == len(truth) else {}


def predicted_now(predict: Predict, test: dict[str, list[str]]) -> dict[str, tuple[str, float]]:
    """Return what the model says of the test split, by row id."""
    import pandas as pd

    made = predict(test["text"])
    shares = made[[name for name in made if name.startswith("p_")]].to_numpy()
    value = shares[:, -1] if shares.shape[1] == 2 else made["probability"].to_numpy()
    rows = zip(test["row_id"], made["predicted"], value, strict=True)
    return {name: (label, float(share)) for name, label, share in rows if not pd.isna(label)}
