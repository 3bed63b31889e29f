"""The section ``[data]`` of text multi-label: which column has the text, and which the labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import MinLen

from dlpipe.tables import Column, Label, RowForm, TableSettings


@dataclass(frozen=True)
class TextLabelsData(TableSettings):
    """How sources become a table of texts with any number of labels each."""

    text_column: Annotated[str, MinLen(1)] = "text"
    label_column: Annotated[str, MinLen(1)] = "labels"
    """A list in Parquet or JSON Lines; in CSV a JSON list, or labels with ``label_separator`` between them."""
    label_separator: Annotated[str, MinLen(1)] = "|"
    label_columns: tuple[str, ...] = ()
    """Instead of ``label_column``: a column of 0 and 1 for each label, called as the label."""

    @property
    def form(self) -> RowForm:
        """One text and any number of labels."""
        text = Column("text", self.text_column, "text", setting="text_column")
        setting = "label_columns" if self.label_columns else "label_column"
        sources = self.label_columns or (self.label_column,)
        return RowForm((text,), Label(sources, "labels", separator=self.label_separator, setting=setting))

    @property
    def task(self) -> str:
        """The name of the task that the rows are for."""
        return "text-multilabel"
