"""Text classification: one text a row, one class of several."""

from dlpipe.tables import TableSettings
from dlpipe.task.classes import Classes
from dlpipe.task.protocol import Task
from dlpipe.task.texts import TextInputs

TASK = Task("text-classification", TextInputs(), Classes(), TableSettings)

__all__ = ["TASK"]
