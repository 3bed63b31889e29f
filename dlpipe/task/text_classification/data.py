"""The section ``[data]`` of text classification: which column has the text, and which the class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import MinLen

from dlpipe.tables import Column, Label, RowForm, TableSettings


@dataclass(frozen=True)
class TextClassData(TableSettings):
    """How sources become a table of texts with one class each."""

    text_column: Annotated[str, MinLen(1)] = "review"
    label_column: Annotated[str, MinLen(1)] = "sentiment"

    @property
    def form(self) -> RowForm:
        """One text and one class of several."""
        text = Column("text", self.text_column, "text", setting="text_column")
        return RowForm((text,), Label((self.label_column,), "class", setting="label_column"))

    @property
    def task(self) -> str:
        """The name of the task that the rows are for."""
        return "text-classification"
