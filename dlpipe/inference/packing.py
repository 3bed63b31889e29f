"""A classifier of the registry made into a pipeline of the registry."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from dlpipe.inference.languages import LanguageDetector
from dlpipe.inference.loading import PIPELINE_LOADER, model_folder
from dlpipe.inference.pipeline import CARD, CLASSIFIER, FORMAT, STAGES, PipelineSettings, pipeline_digest
from dlpipe.registry import ModelVersion, Packaging, register_companion
from dlpipe.registry.packaging import INFERENCE_PACKAGES, classifier_outputs
from dlpipe.tracking import open_store


@dataclass(frozen=True)
class PipelineFiles:
    """A pipeline as files, to be registered.

    Attributes
    ----------
    classifier : Path
        The folder with the classifier's files.
    labels : tuple of str
        The classifier's.
    model_version : ModelVersion
        The classifier's.
    """

    classifier: Path
    labels: tuple[str, ...]
    model_version: ModelVersion
    settings: PipelineSettings

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of weights and settings."""
        return pipeline_digest(self.model_version.digest, self.settings)

    def save(self, folder: Path) -> Path:
        """Write the files into ``folder`` (made if needed) and return it."""
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copytree(self.classifier, folder / CLASSIFIER, dirs_exist_ok=True)
        card = {"format": FORMAT, "model_version": self.model_version.uri, "settings": asdict(self.settings)}
        (folder / CARD).write_text(json.dumps(card, indent=1))
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
        A few texts, kept as the model's input example.
    challenger : bool, optional
        ``False`` moves no alias.
    """
    settings = settings or PipelineSettings()
    check_languages(settings)
    with tempfile.TemporaryDirectory() as scratch:
        folder = model_folder(open_store(), model, scratch=Path(scratch))
        files = PipelineFiles(folder, labels_in(folder), model, settings)
        return register_companion(
            files,
            model,
            kind="pipeline",
            settings=asdict(settings),
            example=example,
            challenger=challenger,
            packaging=Packaging(
                loader=PIPELINE_LOADER,
                outputs=pipeline_outputs(files.labels),
                packages=(*INFERENCE_PACKAGES, "ftfy", "py3langid"),
            ),
        )


def check_languages(settings: PipelineSettings) -> None:
    """Raise ``SettingError`` where ``settings`` name a language that nobody can detect."""
    LanguageDetector(settings.languages, min_letters=1, min_probability=0)


def labels_in(folder: Path) -> tuple[str, ...]:
    """Return the labels of the classifier whose files are in ``folder``."""
    from dlpipe.task.model import CARD as CLASSIFIER_CARD

    return tuple(json.loads((folder / CLASSIFIER_CARD).read_text())["labels"])


def pipeline_outputs(labels: Sequence[str]) -> list[tuple[str, str]]:
    """Return the columns that a pipeline's ``predict`` returns, each with its MLflow type.

    Examples
    --------
    >>> [name for name, _ in pipeline_outputs(["bad", "good"])][4:]
    ... # doctest: +NORMALIZE_WHITESPACE
    ['status', 'language', 'language_probability', 'cached', 'model_version',
     'row_ms', 'batch_clean_ms', 'batch_language_ms', 'batch_classify_ms']
    """
    return [
        *classifier_outputs(labels),
        ("status", "string"),
        ("language", "string"),
        ("language_probability", "double"),
        ("cached", "boolean"),
        ("model_version", "string"),
        ("row_ms", "double"),
        *((f"batch_{stage}_ms", "double") for stage in STAGES),
    ]
