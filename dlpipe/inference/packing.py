"""Register the pipeline around a registered classifier."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dlpipe.errors import SettingError
from dlpipe.inference.languages import LanguageDetector
from dlpipe.inference.loading import PIPELINE_LOADER, download_model
from dlpipe.inference.pipeline import CARD, CLASSIFIER, FORMAT, STAGES, PipelineSettings, digest_pipeline
from dlpipe.registry import ModelVersion, Packaging, register_companion
from dlpipe.scratch import open_scratch
from dlpipe.task import find_task
from dlpipe.task.model import load_card
from dlpipe.tracking import open_store


@dataclass(frozen=True)
class PipelineFiles:
    """A pipeline as files, to be registered.

    Attributes
    ----------
    classifier : Path
        The folder with the classifier's files.
    card : mapping
        The classifier's.
    model_version : ModelVersion
        The classifier's.
    """

    classifier: Path
    card: Mapping[str, Any]
    model_version: ModelVersion
    settings: PipelineSettings

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of weights and settings."""
        return digest_pipeline(self.model_version.digest, self.settings)

    def save(self, folder: Path) -> Path:
        """Write the files into ``folder`` (made if needed) and return it."""
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copytree(self.classifier, folder / CLASSIFIER, dirs_exist_ok=True)
        made = {"format": FORMAT, "model_version": self.model_version.uri, "settings": asdict(self.settings)}
        (folder / CARD).write_text(json.dumps(made, indent=1))
        return folder


def register_pipeline(
    model: ModelVersion,
    *,
    settings: PipelineSettings | None = None,
    example: Sequence[str] = ("A fine example.",),
    challenger: bool = True,
) -> ModelVersion:
    """Return the registered pipeline ``<model>-pipeline`` around the classifier ``model``, made if need be.

    The same classifier with the same settings is the same version. It has the classifier's lineage.

    Parameters
    ----------
    model : ModelVersion
        A registered classifier.
    settings : PipelineSettings, optional
        By default, the defaults.
    example : sequence of str
        A few texts, stored as the model's input example.
    challenger : bool, optional
        ``False`` moves no alias.

    Raises
    ------
    SettingError
        When the rows of the classifier's task are not one text each, or ``settings`` name an unknown language.
    """
    settings = settings or PipelineSettings()
    check_languages(settings)
    if not find_task(model.task).inputs.is_single_text:
        raise SettingError(
            f"{model.uri} is of the task {model.task!r}, whose rows are not one text each; a pipeline cleans one "
            "text a row. Use the model itself."
        )
    with open_scratch() as scratch:
        folder = download_model(open_store(), model, scratch=scratch)
        files = PipelineFiles(folder, load_card(folder), model, settings)
        return register_companion(
            files,
            model,
            kind="pipeline",
            settings=asdict(settings),
            example=example,
            challenger=challenger,
            packaging=Packaging(
                loader=PIPELINE_LOADER,
                outputs=list_outputs(files.card),
                packages=("ftfy", "py3langid"),
            ),
        )


def check_languages(settings: PipelineSettings) -> None:
    """Raise ``SettingError`` where ``settings`` name a language that nobody can detect."""
    LanguageDetector(settings.languages, min_letters=1, min_probability=0)


def list_outputs(card: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the columns that the ``predict`` of a pipeline around a model returns, each with its MLflow type.

    Examples
    --------
    >>> [name for name, _ in list_outputs({"task": "text-classification", "labels": ["bad", "good"]})][4:]
    ... # doctest: +NORMALIZE_WHITESPACE
    ['status', 'language', 'language_probability', 'cached', 'model_version',
     'row_ms', 'batch_clean_ms', 'batch_language_ms', 'batch_classify_ms']
    """
    return [
        *find_task(card["task"]).target.list_frame_fields(card),
        ("status", "string"),
        ("language", "string"),
        ("language_probability", "double"),
        ("cached", "boolean"),
        ("model_version", "string"),
        ("row_ms", "double"),
        *((f"batch_{stage}_ms", "double") for stage in STAGES),
    ]
