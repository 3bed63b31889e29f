"""Word attributions by SHAP: what each word of a text adds to each label's probability."""

from __future__ import annotations

import re
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import numpy as np
import numpy.typing as npt
from annotated_types import Ge, Le

from dlpipe.errors import ExplanationError
from dlpipe.explain.words import bare, split_words, tokenise

if TYPE_CHECKING:
    import pyarrow as pa

TOLERANCE = 1e-4
HIDDEN = " "  # a hidden word leaves a blank; shap folds white space, so the word is simply gone

Floats = npt.NDArray[np.floating[Any]]
Row = tuple[str, str]


class Scorer(Protocol):
    """What is explained: anything that gives each text a probability for each label."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels, in the order of the probabilities' columns."""

    @property
    def max_length(self) -> int:
        """How many tokens of a text count at most."""

    def predict_proba(self, texts: Sequence[str]) -> Floats:
        """Return probabilities of shape (n_texts, n_labels)."""


@dataclass(frozen=True)
class ExplainSettings:
    """How much to explain.

    Attributes
    ----------
    rows, mistakes : int
        How many rows to draw, and how many of the worst mistakes to add.
    max_evals : int
        Masked copies of a text that are scored at most. A text of n words needs about n * (n - 1) for exact Owen
        values, 342 for 19 words; beyond ``max_evals`` groups of words share the credit evenly.
    batch_rows : int
        Masked copies that are scored in one call.
    """

    rows: Annotated[int, Ge(0), Le(10_000)] = 8
    mistakes: Annotated[int, Ge(0), Le(1_000)] = 4
    max_evals: Annotated[int, Ge(10), Le(100_000)] = 300
    batch_rows: Annotated[int, Ge(2), Le(4_096)] = 64
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
        return float(np.abs(self.base + self.attributions.sum(axis=0) - self.output).max())


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
    """The explanations of some rows by one model."""

    rows: tuple[Explanation, ...]
    labels: tuple[str, ...]

    def words(self, label: str) -> tuple[WordEffect, ...]:
        """Return every word's effect on ``label``, the strongest in favour first, by total and then by name."""
        column = self.labels.index(label)
        found: dict[str, list[float]] = defaultdict(list)
        for row in self.rows:
            for word, values in zip(row.words, row.attributions, strict=True):
                found[bare(word)].append(float(values[column]))
        effects = [WordEffect(word, label, float(np.mean(each)), len(each)) for word, each in found.items()]
        return tuple(sorted(effects, key=lambda effect: (-effect.total, effect.word)))

    def to_table(self) -> pa.Table:
        """Return one row for each word and label of each text; a text without words has none.

        The columns are row_id, position, word, label, attribution, base_value and output.
        """
        import pyarrow as pa

        schema = pa.schema(
            [("row_id", pa.string()), ("position", pa.int32()), ("word", pa.string()), ("label", pa.string())]
            + [(name, pa.float64()) for name in ("attribution", "base_value", "output")]
        )
        records = (record for row in self.rows for record in word_records(row))
        columns = [list(column) for column in zip(*records, strict=True)]
        return pa.table(columns or [[] for _ in schema], schema=schema)


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
    random = np.random.default_rng(settings.seed)
    drawn = random.permutation(len(others))[: settings.rows]
    return (*first, *(others[index] for index in sorted(drawn)))


def explain_rows(predictor: Scorer, rows: Sequence[Row], *, settings: ExplainSettings) -> Explanations:
    """Return the word attributions of each (row_id, text), in the order of ``rows``.

    Attributions are Owen values over a tree of neighbouring words (shap's PartitionExplainer), of the
    probability of each label; a hidden word is left out of the text. The same seed gives the same numbers.
    Words after those that the model reads are not explained: the predictor's ``seen(text)`` says how much of a
    text that is, and one without such a method is taken to read its first ``max_length`` words.

    Raises
    ------
    ExplanationError
        When base value plus attributions is not the model's output within 1e-4.
    """
    if not rows:
        return Explanations((), tuple(predictor.labels))
    outputs = np.asarray(predictor.predict_proba([text for _, text in rows]), dtype=np.float64)
    made = tuple(
        explain_text(predictor, row_id, text, output, settings)
        for (row_id, text), output in zip(rows, outputs, strict=True)
    )
    return Explanations(made, tuple(predictor.labels))


def explain_text(
    predictor: Scorer, row_id: str, text: str, output: Floats, settings: ExplainSettings
) -> Explanation:
    """Return the checked explanation of one text, whose probabilities are ``output``."""
    seen = seen_text(predictor, text)
    words = split_words(seen)
    score = remembering(predictor, {seen: output} if seen == text else {})
    base, attributions = owen_values(score, seen, len(words), settings)
    made = Explanation(row_id, text, tuple(predictor.labels), words, base, attributions, output)
    if not made.gap <= TOLERANCE:
        raise ExplanationError(
            f"Row {row_id!r}: base value and attributions miss the model's output by {made.gap:.2g}, more than "
            f"{TOLERANCE:g}; make sure that the model gives the same text the same probabilities each time."
        )
    return made


def seen_text(predictor: Scorer, text: str) -> str:
    """Return the start of ``text`` that the model reads."""
    seen: Callable[[str], str] | None = getattr(predictor, "seen", None)
    if seen is not None:
        return seen(text)
    return "".join(split_words(text)[: predictor.max_length])


def remembering(predictor: Scorer, known: dict[str, Floats]) -> Callable[[Sequence[str]], Floats]:
    """Return ``predictor.predict_proba`` that scores each text once, in float64.

    shap folds white space; a text that equals a ``known`` one but for that has the known one's output.
    """
    memory = {folded(text): output for text, output in known.items()}

    def score(texts: Sequence[str]) -> Floats:
        asked = [str(text) for text in texts]
        new = list(dict.fromkeys(text for text in asked if text not in memory))
        if new:
            memory.update(zip(new, np.asarray(predictor.predict_proba(new), dtype=np.float64), strict=True))
        return np.stack([memory[text] for text in asked])

    return score


def folded(text: str) -> str:
    """Return ``text`` with its white space as shap's masker leaves it."""
    return re.sub(r"\s+", " ", text).strip()


def owen_values(
    score: Callable[[Sequence[str]], Floats], text: str, words: int, settings: ExplainSettings
) -> tuple[Floats, Floats]:
    """Return the base value (n_labels,) and the attributions (n_words, n_labels) of ``text``."""
    base, output = score(["", folded(text)])
    if words < 2:  # shap needs a tree, and a tree needs two words
        return base, np.repeat((output - base)[None], words, axis=0)
    with shap_quiet(settings.seed) as shap:
        explainer = shap.PartitionExplainer(score, shap.maskers.Text(tokenise, mask_token=HIDDEN))
        found = explainer([text], max_evals=settings.max_evals, batch_size=settings.batch_rows, silent=True)
    return np.asarray(found.base_values[0]), np.asarray(found.values[0])


@contextmanager
def shap_quiet(seed: int) -> Iterator[Any]:
    """Give shap without its warnings, NumPy's global state (which breaks its ties) seeded and put back after."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shap = import_shap()
        state = np.random.get_state()
        np.random.seed(seed)
        try:
            yield shap
        finally:
            np.random.set_state(state)


def import_shap() -> Any:
    """Return the module shap, with its numba functions left as plain Python.

    Compiling them took 7.6 s at the first explanation; as plain Python they take 26 ms a text.
    """
    from numba import config

    kept = getattr(config, "DISABLE_JIT", 0)
    vars(config)["DISABLE_JIT"] = 1
    try:
        import shap
    finally:
        vars(config)["DISABLE_JIT"] = kept
    return shap
