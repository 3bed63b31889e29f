"""Tabular classification: numbers, categories and optionally a text a row, one class of several."""

from dlpipe.task.classes import Classes
from dlpipe.task.protocol import Task
from dlpipe.task.tabular import TabularInputs
from dlpipe.task.tabular_classification.columns import suggest_columns
from dlpipe.task.tabular_classification.data import TabularData

TASK = Task("tabular-classification", TabularInputs(), Classes(), TabularData, suggest_columns)

__all__ = ["TASK", "TabularData"]
