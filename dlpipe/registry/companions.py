"""What is made from a registered classifier and registered beside it, such as its pipeline and its explainer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from dlpipe.registry.registration import Loggable, Packaging, log_and_register
from dlpipe.registry.versions import ModelVersion

Kind = Literal["pipeline", "explainer"]
KIND = "dlpipe.kind"
"""The tag of a companion's version that says what it is."""
MADE_FROM = "dlpipe.classifier"
"""The tag of a companion's version that names the version of its classifier."""


def register_companion(
    files: Loggable,
    classifier: ModelVersion,
    *,
    kind: Kind,
    settings: Mapping[str, Any],
    example: Sequence[str],
    packaging: Packaging,
) -> ModelVersion:
    """Return the registered ``<classifier>-<kind>``, made if need be, with the classifier's lineage.

    Parameters
    ----------
    files : Loggable
        What is registered. The same digest is the same version.
    classifier : ModelVersion
        What it was made from.
    settings : mapping
        Kept as params, with the kind in front of their names.
    example : sequence of str
        A few texts, kept as the input example.
    """
    return log_and_register(
        files,
        name=companion_name(classifier.name, kind),
        example=example,
        params={f"{kind}_{name}": value for name, value in settings.items()},
        metrics={},
        tags={**lineage(classifier), MADE_FROM: classifier.uri, KIND: kind},
        packaging=packaging,
    )


def companion_name(classifier: str, kind: Kind) -> str:
    """Return the name under which what is made from ``classifier`` is registered.

    Examples
    --------
    >>> companion_name("reviews", "pipeline")
    'reviews-pipeline'
    """
    return f"{classifier}-{kind}"


def lineage(model: ModelVersion) -> dict[str, str]:
    """Return the tags of ``model`` that say what it came from."""
    return {
        name: value
        for name, value in model.tags.items()
        if (name.startswith(("delta.", "git.", "metaflow.")) and name != "metaflow.task") or name == "seed"
    }
