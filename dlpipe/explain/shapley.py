"""Owen values of words by SHAP, checked; the only file that names it."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from dlpipe.errors import ExplanationError
from dlpipe.explain.explanations import ExplainSettings, Explanation, Scorer
from dlpipe.explain.words import split_words, tokenise

TOLERANCE = 1e-4
HIDDEN = " "  # a hidden word leaves a blank; shap folds white space, so the word is simply gone

Floats = npt.NDArray[np.floating[Any]]


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
    seen_characters: Callable[[str], int] | None = getattr(predictor, "seen_characters", None)
    if seen_characters is not None:
        return text[: seen_characters(text)]
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
    import numba

    config: Any = numba.config
    kept, config.DISABLE_JIT = config.DISABLE_JIT, 1
    try:
        import shap
    finally:
        config.DISABLE_JIT = kept
    return shap
