"""Data sets that come with scikit-learn, as CSV files: real numbers and classes without a network."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from dlpipe.durable import make_folder, write_file
from dlpipe.errors import SettingError

NAMES = ("breast_cancer", "iris", "wine")
LABEL = "class"
"""The column with the classes."""


def write_sklearn(name: str, folder: Path) -> Path:
    """Return the file ``folder/<name>.csv``; it is written where it is missing.

    Names of columns have underscores for blanks and slashes, and the last column is ``class``.

    Parameters
    ----------
    name : str
        ``breast_cancer`` (569 rows, 30 numbers, 2 classes), ``iris`` (150, 4, 3) or ``wine`` (178, 13, 3).
    folder : Path

    Raises
    ------
    SettingError
        When there is no such data set.
    """
    check_sklearn(name)
    file = folder / f"{name}.csv"
    if not file.exists():
        make_folder(folder)
        write_file(file, _to_csv(name))
    return file


def check_sklearn(name: str, where: str = "") -> None:
    """Raise ``SettingError`` where scikit-learn has no such data set of classes."""
    if name not in NAMES:
        raise SettingError(
            f"{where + ': ' if where else ''}sklearn = {name!r} is refused: it must be {', '.join(NAMES[:-1])} or "
            f"{NAMES[-1]}."
        )


def _to_csv(name: str) -> str:
    from sklearn import datasets

    bunch = getattr(datasets, f"load_{name}")()
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*map(_to_column, bunch.feature_names), LABEL])
    classes = [str(bunch.target_names[number]) for number in bunch.target]
    writer.writerows([*row, label] for row, label in zip(bunch.data.tolist(), classes, strict=True))
    return out.getvalue()


def _to_column(feature: str) -> str:
    return feature.replace(" (cm)", "").replace(" ", "_").replace("/", "_per_")
