"""The section ``[data]`` of text-pair classification: which columns have the texts, and which the class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import MinLen

from dlpipe.tables import Column, Label, RowForm, TableSettings


@dataclass(frozen=True)
class TextPairData(TableSettings):
    """How sources become a table of two texts and a class each."""

    text_column: Annotated[str, MinLen(1)] = "text"
    text_pair_column: Annotated[str, MinLen(1)] = "text_pair"
    label_column: Annotated[str, MinLen(1)] = "label"

    @property
    def form(self) -> RowForm:
        """Two texts and one class of several."""
        texts = (
            Column("text", self.text_column, "text", setting="text_column"),
            Column("text_pair", self.text_pair_column, "text", setting="text_pair_column"),
        )
        return RowForm(texts, Label((self.label_column,), "class", setting="label_column"))

    @property
    def task(self) -> str:
        """The name of the task that the rows are for."""
        return "text-pair-classification"
