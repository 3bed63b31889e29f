"""The texts in whatever a model of MLflow is given."""

from __future__ import annotations

from typing import Any

from dlpipe.errors import SettingError
from dlpipe.task.requests import describe_value, is_missing, read_text_values


def read_texts(model_input: Any) -> list[str | None]:
    """Return the texts in what ``mlflow.pyfunc`` was given, ``None`` for one that is missing.

    Raises
    ------
    SettingError
        When a row is no text, or nothing says which column has the texts.

    Examples
    --------
    >>> read_texts("good"), read_texts({"text": ["good", float("nan")]})
    (['good'], ['good', None])
    >>> read_texts(["good", 3])
    Traceback (most recent call last):
    ...
    dlpipe.errors.SettingError: Row 1 is no text but a number: 3. Pass texts; one that is missing is null (None).
    """
    rows = read_text_values(model_input)
    for at, row in enumerate(rows):
        if not isinstance(row, str) and not is_missing(row):
            raise SettingError(
                f"Row {at} is no text but {describe_value(row)}. Pass texts; one that is missing is null (None)."
            )
    # half a surrogate pair, as of a text cut inside an emoji, cannot be encoded: the pipeline reads it so too
    return [row.encode("utf-8", "replace").decode() if isinstance(row, str) else None for row in rows]
