"""Detect the language of a text, offline."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dlpipe.errors import SettingError
from dlpipe.inference.cleaning import LETTER

UNDETERMINED = "und"
"""ISO 639's code for a text whose language is not determined."""
SEEN_CHARACTERS = 1_000  # telling more apart takes no more
# from all 140 languages, five of 800 English one-sentence reviews came out as rare ones
COMMON = (
    "ar", "cs", "da", "de", "el", "en", "es", "fi", "fr", "he", "hi", "hu", "id", "it", "ja",
    "ko", "nl", "no", "pl", "pt", "ro", "ru", "sv", "th", "tr", "uk", "vi", "zh",
)  # fmt: skip


@dataclass(frozen=True)
class Language:
    """An ISO 639 code, or ``und``, and how probable it is among the languages that were asked about."""

    code: str = UNDETERMINED
    probability: float = 0.0


class LanguageDetector:
    """Tells the language of texts: ``py3langid``, a naive Bayes model that comes with its package.

    Parameters
    ----------
    languages : sequence of str
        The codes to choose from, by default ``COMMON``; probabilities add up to 1 over them.
    min_letters : int
        A text with fewer letters is ``und``.
    min_probability : float
        Below this, a text is ``und``.

    Examples
    --------
    >>> detect = LanguageDetector(["de", "en"], min_letters=8, min_probability=0.6)
    >>> detect("Der Film war schlecht").code, detect("ok").code
    ('de', 'und')
    """

    def __init__(self, languages: Sequence[str], *, min_letters: int, min_probability: float) -> None:
        self._identifier = load_identifier(tuple(languages) or COMMON)
        self._min_letters, self._min_probability = min_letters, min_probability

    def __call__(self, text: str) -> Language:
        """Return the language of ``text``."""
        seen = text[:SEEN_CHARACTERS]
        if len(LETTER.findall(seen)) < self._min_letters:
            return Language()
        code, probability = self._identifier.classify(seen)
        return Language(code if probability >= self._min_probability else UNDETERMINED, float(probability))


@functools.cache
def load_identifier(languages: tuple[str, ...]) -> Any:
    """Return py3langid's identifier for ``languages``; reading its model takes half a second."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    made = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    if unknown := sorted(set(languages) - set(made.labels)):
        raise SettingError(
            f"Languages that cannot be detected: {', '.join(unknown)}. Known: {', '.join(sorted(made.labels))}."
        )
    made.set_languages(languages)
    return made
