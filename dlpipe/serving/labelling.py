"""Labels as a server takes them: for rows that it has answered, of the kind that the model knows.

Which rows an answer had is known for the last requests of this process. Labels for others are taken: their request
may be of long ago, of another replica, or not in the log at all, which `dlpipe feedback` counts. Nor is known then
whether a label may leave out its row; the log tells it to those who join labels.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

from dlpipe.errors import DlpipeError, SettingError
from dlpipe.inference import read_card
from dlpipe.registry import CHAMPION, resolve
from dlpipe.serving.arrivals import check_rows
from dlpipe.serving.bodies import load_json
from dlpipe.serving.feedback import Given, describe_missing_row, read_given
from dlpipe.serving.refusals import bad_request
from dlpipe.task import find_task

KEPT = 10_000
"""Requests whose number of rows is remembered."""


class Answered:
    """The last requests that were answered, of which model, and how many rows each had."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, tuple[str, int]] = OrderedDict()

    def note(self, request_id: str, model: str, rows: int) -> None:
        """Remember a request."""
        self._known[request_id] = model, rows
        if len(self._known) > KEPT:
            self._known.popitem(last=False)

    def find_error(self, given: Given, model: str) -> str:
        """Return why there is no such row; empty where there is one, or that is not known any more.

        Examples
        --------
        >>> answered = Answered()
        >>> answered.note("id", "reviews", 2)
        >>> answered.find_error(Given("id", "good", 2), "reviews")
        'its request had 2 rows, counted from 0, and no row 2.'
        >>> answered.find_error(Given("id", "good"), "stars")
        'its request was answered by reviews.'
        >>> answered.find_error(Given("id", "good", names_row=False), "reviews")
        'its request had 2 rows: give the number of the row, `row`, from 0 to 1.'
        """
        asked, rows = self._known.get(given.request_id, (model, given.row + 1))
        if asked != model:
            return f"its request was answered by {asked}."
        if rows > 1 and not given.names_row:
            return describe_missing_row(rows)
        if given.row >= rows:
            return f"its request had {rows} row{'s' * (rows > 1)}, counted from 0, and no row {given.row}."
        return ""


def read_labels(body: bytes, most: int) -> list[Given]:
    """Return the labels in a body: an object with ``request_id``, ``label`` and perhaps ``row``, or several."""
    given = load_json(body)
    given = [given] if isinstance(given, dict) else given
    if not isinstance(given, list) or not all(isinstance(one, dict) for one in given):
        raise bad_request('Pass {"request_id": "...", "label": "..."}, or a list of such objects.')
    check_rows(len(given), most)
    return [read_given(one, where=f"Label {number}") for number, one in enumerate(given)]


def find_label_error(label: str, cards: Sequence[Mapping[str, Any]]) -> str:
    """Return why none of the versions with these cards knows a label; empty where one does, or there are none."""
    errors = [find_task(card["task"]).target.find_label_error(label, card) for card in cards]
    return errors[0] if errors and all(errors) else ""


def check_known(model: str, given: Sequence[Given]) -> None:
    """Raise ``SettingError`` where the champion of a model does not know a label, if there is a champion.

    Parameters
    ----------
    model : str
    given : sequence of Given
        Of which none is to be added then.
    """
    try:
        cards = [read_card(resolve(f"models:/{model}@{CHAMPION}"))]
    except DlpipeError:
        return  # gone, a pipeline, or a registry that does not answer: labels are worth keeping all the same
    for number, one in enumerate(given, 1):
        if error := find_label_error(one.label, cards):
            raise SettingError(f"Label {number}, for {one.request_id}: {error} Nothing was added.")
