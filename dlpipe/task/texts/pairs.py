"""TextPairInputs: the half of a task that reads two texts from each row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dlpipe.errors import SettingError
from dlpipe.task.protocol import DriftSeries, Inputs
from dlpipe.task.requests import is_missing, is_scalar, unwrap_scalar
from dlpipe.task.texts.inputs import TextInputs

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import pyarrow as pa

    from dlpipe.tables import TableVersion
    from dlpipe.task.predictor import Predictor
    from dlpipe.task.row_parts import JoinedParts

COLUMNS = ("text", "text_pair")

Pair = tuple[str, str]


class TextPairInputs(TextInputs):
    """Two texts a row, in the columns ``text`` and ``text_pair``; the network reads them one after the other."""

    is_single_text = False
    rows_noun = "pairs of texts"

    def find_columns(self, table: TableVersion, card: Mapping[str, Any] | None = None) -> tuple[str, ...]:
        """Return ``("text", "text_pair")``."""
        return COLUMNS

    def read_rows(self, rows: pa.Table | pa.RecordBatch) -> list[Pair]:  # type: ignore[override]
        """Return the pairs; a missing text is an empty one."""
        texts = ([text or "" for text in rows.column(name).to_pylist()] for name in COLUMNS)
        return list(zip(*texts, strict=True))

    def deduplicate_rows(self, rows: pa.Table) -> tuple[list[Pair], np.ndarray]:  # type: ignore[override]
        """Return the different pairs and, for each row, the number of its own."""
        return Inputs.deduplicate_rows(self, rows)

    def read_request(self, given: Any, card: Mapping[str, Any]) -> list[Pair | None]:  # type: ignore[override]
        """Return the pairs of a frame or of records with both columns, or of a list of pairs.

        A pair that lacks a text is ``None``.

        Examples
        --------
        >>> inputs = TextPairInputs()
        >>> inputs.read_request([("a", "b"), {"text": "c", "text_pair": None}], {})
        [('a', 'b'), None]
        """
        return [self._read_pair(at, row) for at, row in enumerate(read_pairs(given))]

    def _read_pair(self, at: int, row: Any) -> Pair | None:
        texts = [row.get(name) for name in COLUMNS] if isinstance(row, Mapping) else list(row)
        if len(texts) != 2 or any(not isinstance(text, str) and not is_missing(text) for text in texts):
            raise SettingError(
                f"Row {at} is no pair of texts: {repr(row)[:60]}. Pass the columns 'text' and 'text_pair', or "
                "lists of two texts."
            )
        first, second = texts
        if not isinstance(first, str) or not isinstance(second, str):
            return None
        return first.encode("utf-8", "replace").decode(), second.encode("utf-8", "replace").decode()

    def format_row(self, row: Pair) -> str:  # type: ignore[override]
        """Return both texts."""
        return " | ".join(row)

    def name_values(self, row: Pair) -> dict[str, str]:  # type: ignore[override]
        """Return the texts under ``text`` and ``text_pair``."""
        return dict(zip(COLUMNS, row, strict=True))

    def make_example(self, rows: Sequence[Pair]) -> pd.DataFrame:  # type: ignore[override]
        """Return a frame with both columns."""
        import pandas as pd

        return pd.DataFrame(list(rows), columns=list(COLUMNS))

    def make_featurizer(self, rows: Sequence[Pair]) -> Any:  # type: ignore[override]
        """Return an unfitted transformer: TF-IDF of both texts, what they share, and by what they differ."""
        from dlpipe.task.texts.pair_features import PairVectorizer

        return PairVectorizer(super().make_featurizer([text for pair in rows for text in pair]))

    def split_parts(self, row: Pair, predictor: Predictor) -> JoinedParts:  # type: ignore[override]
        """Return the words of both texts, each text a branch of its own, as far as the model reads them."""
        from dlpipe.task.row_parts import JoinedParts
        from dlpipe.task.texts.words import WordParts, split_seen_words_of_each

        seen = split_seen_words_of_each(predictor, row)
        pieces = [WordParts(*each) for each in zip(row, seen, COLUMNS, strict=True)]
        return JoinedParts(pieces, tuple)

    def make_domain_featurizer(self, rows: Sequence[Pair]) -> Any:  # type: ignore[override]
        """Return the same features over single words."""
        from dlpipe.task.texts.pair_features import PairVectorizer

        return PairVectorizer(super().make_domain_featurizer([text for pair in rows for text in pair]))

    def make_drift_series(self, rows: Sequence[Pair]) -> list[DriftSeries]:  # type: ignore[override]
        """Return the lengths of the texts in words, and the share of words that both have."""
        first, second = ([float(len(row[at].split())) for row in rows] for at in (0, 1))
        return [
            DriftSeries("length", "words in the first text", first),
            DriftSeries("length_pair", "words in the second text", second),
            DriftSeries("overlap", "share of words in both texts", [measure_overlap(*row) for row in rows]),
        ]


def read_pairs(given: Any) -> list[Any]:
    """Return the rows of a request, of which each should be a pair: records, or sequences of two.

    Raises
    ------
    SettingError
        When a column is missing, or it is one text.
    """
    if hasattr(given, "to_pylist"):  # of pyarrow; pandas, which has to_dict, is asked without importing it
        return list(given.to_pylist())
    if hasattr(given, "to_dict") and hasattr(given, "columns"):
        _check_columns(list(given.columns))
        return [dict(zip(COLUMNS, row, strict=True)) for row in given[list(COLUMNS)].itertuples(index=False)]
    if isinstance(given, Mapping):
        _check_columns(list(given))
        columns = [given[name] for name in COLUMNS]
        if all(is_scalar(unwrap_scalar(column)) for column in columns):
            return [dict(zip(COLUMNS, map(unwrap_scalar, columns), strict=True))]
        return [dict(zip(COLUMNS, row, strict=True)) for row in zip(*columns, strict=True)]
    if isinstance(given, str):
        raise SettingError("One text is no pair. Pass the columns 'text' and 'text_pair', or lists of two texts.")
    rows = list(given)
    # two texts are one pair, not two rows that are no pairs
    return [rows] if len(rows) == 2 and all(isinstance(row, str) for row in rows) else rows


def _check_columns(names: list[Any]) -> None:
    if missing := [name for name in COLUMNS if name not in names]:
        raise SettingError(
            f"The pairs lack the column {missing[0]!r}; got {', '.join(map(repr, names)) or 'none'}. Pass "
            "data[['text', 'text_pair']]."
        )


def measure_overlap(first: str, second: str) -> float:
    """Return the share of words that both texts have among all words of the two (Jaccard).

    Examples
    --------
    >>> measure_overlap("a good film", "A film")
    0.6666666666666666
    """
    left, right = ({*text.casefold().split()} for text in (first, second))
    return len(left & right) / max(1, len(left | right))
