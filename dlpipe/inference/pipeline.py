"""Multi-step inference as one model: clean-up, language, cache and classifier.

A batch goes through as a batch: each step handles all rows before the next begins. A row that cannot be read gets
an answer whose status says why: one bad row does not cost the others. MLflow opens a registered pipeline by
``_load_pyfunc``; its folder holds ``pipeline.json`` and the classifier's files as they were registered, so that it
can be served where there is no registry.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Ge, Le

from dlpipe.inference.answers import Answer, AnswerCache, digest_text
from dlpipe.inference.cleaning import UNREADABLE, Cleaning, Status, clean
from dlpipe.inference.languages import UNDETERMINED, Language, LanguageDetector
from dlpipe.inference.loading import PIPELINE_LOADER, download_model
from dlpipe.registry import resolve
from dlpipe.scratch import open_scratch
from dlpipe.settings import read_settings
from dlpipe.task import find_task
from dlpipe.task.requests import read_text_values
from dlpipe.tracking import open_store

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from dlpipe.task import Predictor

CARD, CLASSIFIER = "pipeline.json", "classifier"
FORMAT = 1
STAGES = ("clean", "language", "classify")


@dataclass(frozen=True)
class PipelineSettings:
    """What a pipeline does before and after its classifier.

    Attributes
    ----------
    languages : tuple of str
        ISO 639 codes that the language is chosen from; empty: the 28 most common ones.
    expected_languages : tuple of str
        A text in another of ``languages`` has the status ``other language``; empty: none is.
    min_letters, min_language_probability : int and float
        A text with fewer letters, or whose language is less probable, is in the language ``und``.
    cache_rows : int
        Answers in the cache, for texts that come again; 0 turns it off.
    """

    repair_encoding: bool = True
    strip_html: bool = True
    strip_controls: bool = True
    max_characters: Annotated[int, Ge(100), Le(10_000_000)] = 100_000
    languages: tuple[str, ...] = ()
    expected_languages: tuple[str, ...] = ()
    min_letters: Annotated[int, Ge(1)] = 8
    min_language_probability: Annotated[float, Ge(0), Le(1)] = 0.5
    cache_rows: Annotated[int, Ge(0), Le(10_000_000)] = 10_000

    @property
    def cleaning(self) -> Cleaning:
        """The steps of the clean-up."""
        return Cleaning(self.repair_encoding, self.strip_html, self.strip_controls, self.max_characters)


def _load_pyfunc(path: str) -> Pipeline:
    """Return the pipeline in the folder ``path``: MLflow calls this from ``mlflow.pyfunc.load_model``."""
    return open_pipeline(Path(path))


def open_pipeline(folder: Path, *, engine: str | None = None) -> Pipeline:
    """Return the pipeline whose files are in ``folder``."""
    from dlpipe.task import open_predictor

    card = json.loads((folder / CARD).read_text())
    settings = read_settings(PipelineSettings, card["settings"], where=str(folder / CARD))
    predictor = open_predictor(folder / CLASSIFIER, engine=engine)
    return Pipeline(predictor, settings=settings, model_version=card["model_version"])


def load_pipeline(uri: str, *, engine: str | None = None) -> Pipeline:
    """Return the registered pipeline that ``uri`` names, such as ``models:/reviews-pipeline@champion``.

    Parameters
    ----------
    engine : str, optional
        Of its classifier, by default the one chosen at registration.

    Raises
    ------
    ModelNotFound
        When there is no such model, version or alias, or it is not a pipeline.
    """
    version = resolve(uri)
    with open_scratch() as scratch:
        folder = download_model(open_store(), version, scratch=scratch, loader=PIPELINE_LOADER)
        return open_pipeline(folder, engine=engine)


@dataclass(frozen=True)
class Answers:
    """What a pipeline found of a batch of rows.

    Attributes
    ----------
    outputs : float32 array of shape (n_rows, n_outputs)
        NaN for a row that cannot be read.
    readable : bool array of shape (n_rows,)
    columns : mapping of name to values, or to one value for all rows
        The columns of ``list_outputs`` beside what the target makes of outputs.
    """

    outputs: np.ndarray
    readable: np.ndarray
    columns: Mapping[str, Any]


class Pipeline:
    """A classifier with what comes before and after it, ready.

    Parameters
    ----------
    predictor : Predictor
        The classifier.
    model_version : str
        URI of the classifier's version, which each answer names.
    """

    def __init__(self, predictor: Predictor, *, settings: PipelineSettings, model_version: str) -> None:
        self.predictor, self.settings, self.model_version = predictor, settings, model_version
        self.labels, self.target = predictor.labels, find_task(predictor.card["task"]).target
        self.digest = digest_pipeline(predictor.digest, settings)
        self._cache = AnswerCache(settings.cache_rows)
        self._detect = LanguageDetector(
            settings.languages,
            min_letters=settings.min_letters,
            min_probability=settings.min_language_probability,
        )

    def predict(self, model_input: Any, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Return one row for each row given, with the columns of ``list_outputs``.

        Parameters
        ----------
        model_input : str, sequence, Series, DataFrame or mapping of columns
            A table's texts are its column ``text`` or its only one.
        params : dict, optional
            Not used; MLflow passes it.
        """
        return self.run(read_text_values(model_input))

    def run(self, rows: Sequence[object]) -> pd.DataFrame:
        """Return the answer for each of ``rows``, whatever they are, in their order."""
        return self.make_frame(self.answer(rows))

    def answer(self, rows: Sequence[object]) -> Answers:
        """Return the outputs for each of ``rows``, whatever they are, in their order, and how they came about."""
        clock = Clock()
        with clock.stage("clean"):
            cleaned = [clean(row, self.settings.cleaning) for row in rows]
            keys = [None if status in UNREADABLE else digest_text(text) for text, status in cleaned]
            texts = {key: text for key, (text, _) in zip(keys, cleaned, strict=True) if key is not None}
            known = self._cache.find(texts)
        fresh = self._answers({key: text for key, text in texts.items() if key not in known}, clock)
        self._cache.keep(fresh)
        return self._collect(keys, [status for _, status in cleaned], {**known, **fresh}, set(fresh), clock)

    def make_frame(self, answers: Answers) -> pd.DataFrame:
        """Return what the target makes of outputs, and beside it the columns of a pipeline."""
        import pandas as pd

        predicted = self.target.make_frame(answers.outputs, self.predictor.card)
        columns = {name: predicted[name] for name in predicted}
        return pd.DataFrame({**columns, **answers.columns}, index=range(len(answers.outputs)))

    def _answers(self, texts: Mapping[bytes, str], clock: Clock) -> dict[bytes, Answer]:
        """Return the answers for texts that are not known yet, all in one batch."""
        with clock.stage("language"):
            languages = [self._detect(text) for text in texts.values()]
        with clock.stage("classify"):
            outputs = self.predictor.predict_outputs(list(texts.values())) if texts else ()
        # a row of its own, so that the cache does not keep whole batches alive
        return {
            key: Answer(row.copy(), language) for key, row, language in zip(texts, outputs, languages, strict=True)
        }

    def _collect(
        self,
        keys: Sequence[bytes | None],
        statuses: Sequence[Status],
        answers: Mapping[bytes, Answer],
        fresh: set[bytes],
        clock: Clock,
    ) -> Answers:
        import numpy as np

        nothing = Answer(np.full(len(self.labels), np.nan, np.float32), Language())
        found = [nothing if key is None else answers[key] for key in keys]
        computed = mark_computed(keys, fresh)
        columns: dict[str, Any] = {
            "status": [self._status(*pair) for pair in zip(statuses, found, strict=True)],
            "language": [answer.language.code for answer in found],
            "language_probability": [answer.language.probability for answer in found],
            "cached": [key is not None and not new for key, new in zip(keys, computed, strict=True)],
            "model_version": self.model_version,
            "row_ms": clock.shares(computed),
            **{f"batch_{stage}_ms": clock.milliseconds[stage] for stage in STAGES},
        }
        outputs = np.array([answer.outputs for answer in found], np.float32).reshape(len(found), len(self.labels))
        return Answers(outputs, np.array([key is not None for key in keys], bool), columns)

    def _status(self, status: Status, answer: Answer) -> Status:
        expected, code = self.settings.expected_languages, answer.language.code
        if status == "ok" and expected and code not in (*expected, UNDETERMINED):
            return "other language"
        return status


class Clock:
    """The milliseconds that each stage of a batch took."""

    def __init__(self) -> None:
        self.milliseconds = dict.fromkeys(STAGES, 0.0)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count what happens inside as time of the stage ``name``."""
        started = time.perf_counter()
        yield
        self.milliseconds[name] += 1000 * (time.perf_counter() - started)

    def shares(self, computed: Sequence[bool]) -> np.ndarray:
        """Return each row's share: all are cleaned, those that are computed share the rest. They add up."""
        import numpy as np

        new = np.asarray(computed, bool)
        cleaning = self.milliseconds["clean"] / max(1, len(new))
        rest = (self.milliseconds["language"] + self.milliseconds["classify"]) / max(1, int(new.sum()))
        return cleaning + rest * new


def mark_computed(keys: Sequence[bytes | None], fresh: set[bytes]) -> list[bool]:
    """Return for each row whether it is the first with a fresh key: a repeat in the batch costs nothing.

    Examples
    --------
    >>> mark_computed([b"a", b"b", b"b", None], {b"b"})
    [False, True, False, False]
    """
    left = set(fresh)
    found = []
    for key in keys:
        found.append(key in left)
        left.discard(key)  # type: ignore[arg-type]
    return found


def digest_pipeline(weights: str, settings: PipelineSettings) -> str:
    """Return the SHA-256 (hex) of what decides a pipeline's answers: the classifier's weights and the settings.

    Examples
    --------
    >>> digest_pipeline("ab", PipelineSettings()) == digest_pipeline("ab", PipelineSettings(strip_html=False))
    False
    """
    decides = {"format": FORMAT, "weights": weights, "settings": asdict(settings)}
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()
