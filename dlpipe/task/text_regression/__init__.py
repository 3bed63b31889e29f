"""Text regression: one text a row, a number."""

from dlpipe.task.numbers import Numbers
from dlpipe.task.protocol import Task
from dlpipe.task.text_regression.columns import suggest_columns
from dlpipe.task.text_regression.data import TextNumberData
from dlpipe.task.text_regression.inputs import TextNumberInputs

TASK = Task("text-regression", TextNumberInputs(), Numbers(), TextNumberData, suggest_columns)

__all__ = ["TASK", "TextNumberData"]
