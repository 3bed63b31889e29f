"""Words that only the rows to forget have: a list of words would tell that somebody wrote them.

A word is not one of them if any other row of a data set has it, if it stands in dlpipe's own code, whose names and
styles are in artifacts and pages, or if something is called so.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from dlpipe.errors import DlpipeError
from dlpipe.forgetting.choosing import RowChooser
from dlpipe.forgetting.splitting import fold, split_words

if TYPE_CHECKING:
    from dlpipe.lineage import Records
    from dlpipe.lineage.catalog import TableRecord

LETTERS = re.compile(r"[^\W\d_]+")
UNFOLDED = "ßς"
"""What is spelled in another way only where case does not count."""
FEWEST_LETTERS = 5
MOST_WORDS = 2000
"""So many are looked for at most: of a file with thousands of rows, the texts alone."""


def find_own_words(records: Records, chooser: RowChooser, experiments: Iterable[str] = ()) -> frozenset[str]:
    """Return the words that stand in these rows and in no other row of the latest versions of data sets.

    Parameters
    ----------
    records : Records
    chooser : RowChooser
    experiments : iterable of str, optional
        What experiments of MLflow are called.
    """
    texts = [text for row in chooser.rows for text in row.texts]
    words = {word.text for text in texts for word in split_words(text)}
    words = {word for word in words if word.isalpha() and len(word) >= FEWEST_LETTERS} - read_code_words()
    for name in (*_list_names(records), *experiments) if words else ():
        words.difference_update(LETTERS.findall(fold(name)))
    for record in records.catalog.list_records("data"):
        if not words or len(words) > MOST_WORDS:
            break
        words = _leave_out_common(record, chooser, words)
    return frozenset(words if len(words) <= MOST_WORDS else ())


def _list_names(records: Records) -> Iterator[str]:
    """Yield what tables, their columns, models and who runs this are called."""
    from dlpipe.registry.history import get_user

    for record in records.catalog.list_records():
        yield from (record.name, *(column for column, _ in record.latest.columns))
    yield from records.models.records
    yield get_user()


def _leave_out_common(record: TableRecord, chooser: RowChooser, words: set[str]) -> set[str]:
    import pyarrow as pa
    import pyarrow.compute as pc

    from dlpipe.tables import stream_table

    names = [name for name, kind in record.latest.columns if kind == "string" and name not in ("row_id", "split")]
    left = set(words)
    try:
        for batch in stream_table(record.latest, batch_rows=65536):
            others = batch.filter(pc.invert(chooser.choose(batch, record.location)))
            for name in names:
                column = pc.utf8_lower(pc.utf8_normalize(pc.unique(others[name].cast(pa.string())), "NFKC"))
                for letter in UNFOLDED:
                    column = pc.replace_substring(column, letter, fold(letter))
                left -= {word for word in left if pc.any(pc.match_substring(column, word)).as_py()}
    except DlpipeError:  # said elsewhere: a table that cannot be read hides no other
        return left
    return left


@functools.cache
def read_code_words() -> frozenset[str]:
    """Return the words of dlpipe's own code, in lower case."""
    folder = Path(__file__).resolve().parents[1]
    files = (path for kind in ("*.py", "*.html", "*.css", "*.js") for path in folder.rglob(kind))
    return frozenset(word for path in files for word in re.findall(r"[a-z]+", path.read_text().lower()))
