"""Text multi-label: one text a row, any number of labels."""

from dlpipe.task.labels import Labels
from dlpipe.task.protocol import Task
from dlpipe.task.text_multilabel.columns import suggest_columns
from dlpipe.task.text_multilabel.data import TextLabelsData
from dlpipe.task.texts import TextInputs

TASK = Task("text-multilabel", TextInputs(), Labels(), TextLabelsData, suggest_columns)

__all__ = ["TASK", "TextLabelsData"]
