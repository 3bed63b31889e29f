"""The section ``[data]`` of text regression: which column has the text, and which the number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import MinLen

from dlpipe.tables import Column, Label, RowForm, TableSettings


@dataclass(frozen=True)
class TextNumberData(TableSettings):
    """How sources become a table of texts with a number each."""

    text_column: Annotated[str, MinLen(1)] = "text"
    label_column: Annotated[str, MinLen(1)] = "label"

    @property
    def form(self) -> RowForm:
        """One text and a number."""
        text = Column("text", self.text_column, "text", setting="text_column")
        return RowForm((text,), Label((self.label_column,), "number", setting="label_column"))

    @property
    def task(self) -> str:
        """The name of the task that the rows are for."""
        return "text-regression"
