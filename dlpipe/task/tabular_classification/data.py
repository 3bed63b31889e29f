"""The section ``[data]`` of tabular classification: which columns are read, and which has the class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import MinLen

from dlpipe.errors import SettingError
from dlpipe.tables import Column, Label, RowForm, TableSettings, to_column_name


@dataclass(frozen=True)
class TabularData(TableSettings):
    """How sources become a table of numbers, categories, optionally a text, and a class each.

    Columns are called in the table as in the sources, but for signs that a table's columns cannot have.
    """

    number_columns: tuple[str, ...] = ()
    category_columns: tuple[str, ...] = ()
    text_column: str = ""
    """Read by the backbone; empty where there is none."""
    label_column: Annotated[str, MinLen(1)] = "label"

    @property
    def form(self) -> RowForm:
        """The columns that are named, any of which may be missing in a row, and one class of several."""
        numbers = [
            Column(to_column_name(name), name, "number", optional=True, setting="number_columns")
            for name in self.number_columns
        ]
        categories = [
            Column(to_column_name(name), name, "category", optional=True, setting="category_columns")
            for name in self.category_columns
        ]
        text = [Column("text", self.text_column, "text", optional=True, setting="text_column")]
        inputs = (*numbers, *categories, *(text if self.text_column else []))
        if not inputs:
            raise SettingError(
                "[data] names no column to read. Set number_columns, category_columns or text_column, such as "
                'number_columns = ["age", "amount"] (--set data.number_columns=age,amount).'
            )
        label = Label((self.label_column,), "class", setting="label_column")
        # the same values with another label are no contradiction: people of one age and town are different people
        return RowForm(inputs, label, repeats=True)

    @property
    def task(self) -> str:
        """The name of the task that the rows are for."""
        return "tabular-classification"
