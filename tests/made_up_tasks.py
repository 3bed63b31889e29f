"""Tasks that are made up to be explained: other rows than one text, and a number as output."""

from __future__ import annotations

from dlpipe.tables import TableSettings
from dlpipe.task import Task
from dlpipe.task.classes import Classes
from dlpipe.task.row_parts import ColumnParts, JoinedParts
from dlpipe.task.texts import TextInputs
from dlpipe.task.texts.words import WordParts, split_words


class TwoTexts(TextInputs):
    """Rows are pairs of a question and an answer."""

    def find_columns(self, table, card=None):
        return ("question", "answer")

    def read_rows(self, rows):
        return list(zip(rows["question"].to_pylist(), rows["answer"].to_pylist(), strict=True))

    def format_row(self, row):
        return " | ".join(row)

    def split_parts(self, row, predictor):
        named = zip(row, ("question", "answer"), strict=True)
        return JoinedParts([WordParts(text, split_words(text), name) for text, name in named], tuple)


class Columns(TextInputs):
    """Rows are mappings of columns to values, whose usual values are in the card."""

    def find_columns(self, table, card=None):
        return tuple(name for name, _ in table.columns if name not in ("row_id", "split"))

    def read_rows(self, rows):
        return rows.drop_columns([name for name in ("row_id", "split") if name in rows.column_names]).to_pylist()

    def format_row(self, row):
        return str(row)

    def split_parts(self, row, predictor):
        columns = ColumnParts(
            {name: value for name, value in row.items() if name != "text"}, predictor.card["usual"]
        )
        if "text" not in row:
            return columns
        text = WordParts(row["text"], split_words(row["text"]), "text")
        return JoinedParts([columns, text], lambda kept: {**kept[0], "text": kept[1]})


class Shy(TextInputs):
    """Rows that nobody explains."""

    not_explained = "Rows of this kind are not explained: they are nobody's business."


class Number(Classes):
    """A number of any size."""

    output_kind = "numbers"

    def activate_tensor(self, logits, card):
        return 1000 * logits + 5


class Flags(Classes):
    """A probability for each label."""

    output_kind = "probabilities"

    def activate_tensor(self, logits, card):
        return logits.sigmoid()


TWO_TEXTS = Task("two-texts", TwoTexts(), Classes(), TableSettings)
COLUMNS = Task("columns", Columns(), Number(), TableSettings)
SHY = Task("shy", Shy(), Classes(), TableSettings)
ONE_NUMBER = Task("one-number", TextInputs(), Number(), TableSettings)
SOME_FLAGS = Task("some-flags", TextInputs(), Flags(), TableSettings)
