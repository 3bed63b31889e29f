"""Text classification: one text a row, one class of several."""

from dlpipe.task.classes import Classes
from dlpipe.task.protocol import Task
from dlpipe.task.text_classification.columns import suggest_columns
from dlpipe.task.text_classification.data import TextClassData
from dlpipe.task.texts import TextInputs

TASK = Task("text-classification", TextInputs(), Classes(), TextClassData, suggest_columns)

__all__ = ["TASK", "TextClassData"]
