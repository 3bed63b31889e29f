"""What is monitored: a model, what it was trained on, the table that it scores and its predictions."""

from __future__ import annotations

from dataclasses import dataclass

from dlpipe.errors import ModelNotFound, NoRows, TableVersionNotFound
from dlpipe.registry import MADE_FROM, ModelVersion
from dlpipe.tables import TableVersion, stream_table, table_at
from dlpipe.task import Task, find_task


@dataclass(frozen=True)
class Subject:
    """What is monitored.

    Attributes
    ----------
    model : ModelVersion
        The champion: the model of a task, or a pipeline around it.
    trained_on : TableVersion
        What it was trained on.
    source : TableVersion
        The table whose rows it scores.
    predictions : TableVersion
        The table with what it predicted.
    """

    model: ModelVersion
    trained_on: TableVersion
    source: TableVersion
    predictions: TableVersion

    @property
    def classifier(self) -> str:
        """The URI that predictions name."""
        return self.model.tags.get(MADE_FROM, self.model.uri)

    @property
    def model_name(self) -> str:
        """The name of the classifier in the registry."""
        return self.classifier.removeprefix("models:/").rpartition("/")[0]

    @property
    def task(self) -> Task:
        """What the model was trained for."""
        return find_task(self.model.task)

    @property
    def columns(self) -> list[str]:
        """The columns that the model reads: those of the table that it was trained on."""
        return list(self.task.inputs.find_columns(self.trained_on))


def find_subject(model: ModelVersion, source: TableVersion, predictions: TableVersion) -> Subject:
    """Return what is monitored, with the table version that the tags of ``model`` say it was trained on.

    Parameters
    ----------
    model : ModelVersion
        Of the registry, a model or a pipeline.
    source : TableVersion
        The table whose rows it scores, as it is now: labels may have come in since they were scored.
    predictions : TableVersion
        The table with its predictions.

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
        f"No version of {subject.model_name} has scored a row of {subject.source}: {subject.predictions} has "
        f"none. Score them first (python flows/predict_flow.py run --model {subject.model.uri} --table "
        f"{subject.source.name}), or name the table or the --target that it scores."
    )


def has_scored(subject: Subject) -> bool:
    """Return whether a version of the model, this one or an earlier champion, has answered for the source.

    Rows that were never meant for a model differ from its training by nature; those of a champion's predecessor
    are the same stream, so that a new champion is compared from its first look on.
    """
    import pyarrow.compute as pc

    name = subject.classifier.rpartition("/")[0]
    for batch in stream_table(subject.predictions, columns=["model_version", "source"], batch_rows=65536):
        own = pc.starts_with(batch["model_version"], pattern=f"{name}/")
        ours = pc.equal(batch["source"], subject.source.path)
        if pc.any(pc.and_(own, ours)).as_py():
            return True
    return False
