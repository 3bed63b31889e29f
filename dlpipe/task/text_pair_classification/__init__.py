"""Text-pair classification: two texts a row, one class of several, such as duplicate or not."""

from dlpipe.task.classes import Classes
from dlpipe.task.protocol import Task
from dlpipe.task.text_pair_classification.columns import suggest_columns
from dlpipe.task.text_pair_classification.data import TextPairData
from dlpipe.task.texts.pairs import TextPairInputs

TASK = Task("text-pair-classification", TextPairInputs(), Classes(), TextPairData, suggest_columns)

__all__ = ["TASK", "TextPairData"]
