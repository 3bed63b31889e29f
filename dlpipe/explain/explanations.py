"""Explanations: what each word of a text adds to each label's probability."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

from annotated_types import Ge, Le

from dlpipe.errors import ExplanationError
from dlpipe.explain.words import bare, split_words

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

    from dlpipe.explain.agreement import Agreement
    from dlpipe.tables import TableVersion

    Floats = npt.NDArray[np.floating[Any]]

Row = tuple[str, str]
Method = Literal["partition", "gradient"]


class Scorer(Protocol):
    """What is explained: anything that gives each text a probability for each label."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels, in the order of the probabilities' columns."""

    @property
    def max_length(self) -> int:
        """How many tokens of a text count at most."""

    def predict_outputs(self, texts: Sequence[str]) -> Floats:
        """Return probabilities of shape (n_texts, n_labels)."""


@dataclass(frozen=True)
class ExplainSettings:
    """How much to explain.

    Attributes
    ----------
    rows, mistakes : int
        How many rows to draw, and how many of the worst mistakes to add. Of a whole table, ``rows`` are looked at.
    method : 'partition' or 'gradient'
        Owen values; or integrated gradients, which are near those in a fraction of the time.
    max_evals : int
        For Owen values: masked copies of a text that are scored at most. A text of n words needs about n * (n - 1)
        for exact ones, 342 for 19 words; beyond ``max_evals`` groups of words share the credit evenly.
    batch_rows : int
        For Owen values: masked copies of a text that are scored before the next ones are chosen.
    steps : int
        For gradients: points between no word and all words.
    compared : int
        How many of the texts are explained by the other method as well, to say how far the two agree.
    """

    rows: Annotated[int, Ge(0), Le(10_000)] = 8
    mistakes: Annotated[int, Ge(0), Le(1_000)] = 4
    method: Method = "partition"
    max_evals: Annotated[int, Ge(10), Le(100_000)] = 300
    batch_rows: Annotated[int, Ge(2), Le(4_096)] = 64
    steps: Annotated[int, Ge(2), Le(256)] = 6
    compared: Annotated[int, Ge(0), Le(1_000)] = 8
    seed: Annotated[int, Ge(0), Le(2**32 - 1)] = 0


@dataclass(frozen=True)
class Explanation:
    """What each word of one text adds to each label's probability.

    Attributes
    ----------
    words : tuple of str
        The words that the model sees, with their white space: joined, they are the start of ``text`` (all of it
        unless it is longer than the model reads).
    base : array of shape (n_labels,)
        The probabilities of a text without words.
    attributions : array of shape (n_words, n_labels)
        ``base + attributions.sum(axis=0)`` is ``output`` within 1e-4.
    output : array of shape (n_labels,)
        The probabilities of ``text``.
    """

    row_id: str
    text: str
    labels: tuple[str, ...]
    words: tuple[str, ...]
    base: Floats
    attributions: Floats
    output: Floats

    @property
    def predicted(self) -> str:
        """The label with the highest probability."""
        return self.labels[int(self.output.argmax())]

    @property
    def gap(self) -> float:
        """The largest distance of base value plus attributions from the model's output."""
        return float(abs(self.base + self.attributions.sum(axis=0) - self.output).max())

    def to_shap(self, label: str | None = None) -> Any:
        """Return this as a ``shap.Explanation``, for the plots of shap.

        Parameters
        ----------
        label : str, optional
            By default all labels, as ``shap.plots.text`` takes them; ``waterfall`` and ``bar`` take one.

        Raises
        ------
        ExplanationError
            When the text has no words.
        """
        from dlpipe.explain.for_shap import as_shap

        if not self.words:
            raise ExplanationError(f"Row {self.row_id!r} has no words: shap has no plot of it.")
        return as_shap(self.words, self.base, self.attributions, labels=self.labels, label=label)


@dataclass(frozen=True)
class WordEffect:
    """What a word adds to a label's probability: on average over its ``count`` occurrences, and in total."""

    word: str
    label: str
    mean: float
    count: int

    @property
    def total(self) -> float:
        """The sum over all occurrences."""
        return self.mean * self.count


@dataclass(frozen=True)
class Explanations:
    """The explanations of some rows by one model.

    Attributes
    ----------
    agreement : Agreement, optional
        How far the two methods agree about these rows, where that was looked at.
    """

    rows: tuple[Explanation, ...]
    labels: tuple[str, ...]
    method: Method = "partition"
    agreement: Agreement | None = None

    def words(self, label: str) -> tuple[WordEffect, ...]:
        """Return every word's effect on ``label``, the strongest in favour first, by total and then by name."""
        column = self.labels.index(label)
        found: dict[str, list[float]] = defaultdict(list)
        for row in self.rows:
            for word, values in zip(row.words, row.attributions, strict=True):
                found[bare(word)].append(float(values[column]))
        effects = [WordEffect(word, label, fmean(each), len(each)) for word, each in found.items()]
        return tuple(sorted(effects, key=lambda effect: (-effect.total, effect.word)))

    def to_table(self, *, model: str, source: TableVersion) -> pa.Table:
        """Return one row for each word and label of each text; a text without words has none.

        The columns are row_id, position, word, label, attribution, base_value, output, method, model_version (the
        URI ``model``), source (the path of the table) and source_version.
        """
        import pyarrow as pa

        records = (record for row in self.rows for record in word_records(row))
        columns: list[Any] = [list(column) for column in zip(*records, strict=True)] or [[]] * len(WORD_COLUMNS)
        count = len(columns[0])
        origin = (self.method, model, source.path, source.version)
        columns += [pa.repeat(pa.scalar(value), count) for value in origin]
        return pa.table(columns, schema=explanation_schema())


WORD_COLUMNS = ("row_id", "position", "word", "label", "attribution", "base_value", "output")


def explanation_schema() -> pa.Schema:
    """Return the columns of a table of explanations."""
    import pyarrow as pa

    text, number = pa.string(), pa.float64()
    words = zip(WORD_COLUMNS, (text, pa.int32(), text, text, number, number, number), strict=True)
    origin = [("method", text), ("model_version", text), ("source", text), ("source_version", pa.int64())]
    return pa.schema([*words, *origin])


def word_records(row: Explanation) -> Iterator[tuple[str, int, str, str, float, float, float]]:
    """Yield (row_id, position, word, label, attribution, base value, output) of one text."""
    for position, word in enumerate(row.words):
        for column, label in enumerate(row.labels):
            value = float(row.attributions[position, column])
            base, output = float(row.base[column]), float(row.output[column])
            yield row.row_id, position, word.strip(), label, value, base, output


def choose_rows(
    rows: Sequence[Row], *, mistakes: Sequence[Row] = (), settings: ExplainSettings
) -> tuple[Row, ...]:
    """Return the first ``settings.mistakes`` of ``mistakes``, then ``settings.rows`` others drawn from ``rows``.

    Examples
    --------
    >>> rows = [("a", "fine"), ("b", "bad"), ("c", "poor")]
    >>> choose_rows(rows, mistakes=[("c", "poor")], settings=ExplainSettings(rows=1, mistakes=1))
    (('c', 'poor'), ('b', 'bad'))
    """
    first = list(mistakes[: settings.mistakes])
    taken = {row_id for row_id, _ in first}
    others = [row for row in rows if row[0] not in taken]
    number = min(settings.rows, len(others))
    drawn = random.Random(settings.seed).sample(range(len(others)), number)
    return (*first, *(others[index] for index in sorted(drawn)))


def seen_words(predictor: Scorer, text: str) -> tuple[str, ...]:
    """Return the words of the part of ``text`` that the model reads, ``max_length`` of them at most.

    A tokenizer can take a million characters for one unknown token; the last word then takes all that is left.
    """
    seen_characters: Callable[[str], int] | None = getattr(predictor, "seen_characters", None)
    if seen_characters is None:
        return split_words(text)[: predictor.max_length]
    words = split_words(text[: seen_characters(text)])
    if len(words) <= predictor.max_length:
        return words
    last = predictor.max_length - 1
    return *words[:last], "".join(words[last:])
