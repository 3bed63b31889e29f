"""Versions that can never answer: explainers, and models that something else than dlpipe made."""

from __future__ import annotations

from collections import OrderedDict

from dlpipe.errors import ModelNotFound
from dlpipe.registry import KIND, ModelVersion, classifier_name

MOST = 1_000
"""Versions that are remembered."""


class Unservable:
    """What is known of such versions: they never change, so each is opened once.

    A number that belongs to another version by now, as its model was deleted, is another version.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, int], tuple[ModelVersion, ModelNotFound]] = OrderedDict()

    def note(self, version: ModelVersion, error: ModelNotFound) -> None:
        """Remember why a version cannot be opened."""
        self._known[version.name, version.version] = version, error
        while len(self._known) > MOST:
            self._known.popitem(last=False)

    def find(self, name: str, number: int | None) -> str:
        """Return why a version can never answer; empty where that is not known."""
        _, error = self._known.get((name, number or 0), (None, ""))
        return str(error)

    def check(self, version: ModelVersion) -> None:
        """Raise ``ModelNotFound`` where it is known that a version can never answer.

        Examples
        --------
        >>> tags = {KIND: "explainer"}
        >>> Unservable().check(ModelVersion("reviews-explainer", 1, "", "", "", "", tags=tags))
        Traceback (most recent call last):
        ...
        dlpipe.errors.ModelNotFound: reviews-explainer explains and does not predict: ask /models/reviews/explain.
        """
        if version.tags.get(KIND) == "explainer":
            address = f"/models/{classifier_name(version.name) or 'NAME'}/explain"
            raise ModelNotFound(f"{version.name} explains and does not predict: ask {address}.")
        known, error = self._known.get((version.name, version.version), (None, None))
        if known is None or error is None:
            return
        if known.identity == version.identity:
            raise error.with_traceback(None)
        del self._known[version.name, version.version]
