"""Names of models, and what a version says of what it was made from."""

from __future__ import annotations

import re
from typing import Literal

from dlpipe.errors import SettingError

CHALLENGER, CHAMPION = "challenger", "champion"
KEY = "dlpipe.key"
"""The tag by which a registration finds what an earlier one has made: see ``make_registration_key``."""
DIGEST = "dlpipe.weights"
"""The tag of a version with the SHA-256 of its weights and of what decides beside them."""
MODEL_ID = "dlpipe.model_id"
"""The tag of a version that names its logged model; MLflow's table of versions has no column for it."""
TASK = "dlpipe.task"
"""The tag of a version, and the entry in the metadata of its MLflow model, that names its task."""
KIND = "dlpipe.kind"
"""The tag of a companion's version that says what it is."""
MADE_FROM = "dlpipe.classifier"
"""The tag of a companion's version that names the version of its classifier."""
SCORES = "mlflow.dlpipe.scores"
"""The tag of a version with its scores and those of the baseline, as JSON: see ``make_scores_tag``.

MLflow's pages do not show tags that begin like this: people read what it keeps in the version's description.
"""
ABOUT = "mlflow.dlpipe.about"
"""The tag of a registered model with a digest of the description that dlpipe gave it: people may write another."""
VERDICT = "mlflow.dlpipe.verdict"
"""The tag of a version with what the gate said last, as JSON: see ``RecordedVerdict``."""

USES = "mlflow.dlpipe.uses"
"""The tag of a version with the files that taught it and what it was used for, as JSON: see ``VersionUses``."""

Kind = Literal["pipeline", "explainer"]
KINDS: tuple[Kind, ...] = ("pipeline", "explainer")


def check_model_name(name: str) -> None:
    """Raise ``SettingError`` unless ``name`` can be a model's name in the registry and in a URI.

    Examples
    --------
    >>> check_model_name("reviews/en")
    Traceback (most recent call last):
    ...
    dlpipe.errors.SettingError: 'reviews/en' cannot name a model: use letters, digits, '-', '_', '.' or spaces.
    """
    if not re.fullmatch(r"[\w.-]+( [\w.-]+)*", name):
        raise SettingError(f"{name!r} cannot name a model: use letters, digits, '-', '_', '.' or spaces.")


def companion_name(classifier: str, kind: Kind) -> str:
    """Return the name under which what is made from ``classifier`` is registered.

    Examples
    --------
    >>> companion_name("reviews", "pipeline")
    'reviews-pipeline'
    """
    return f"{classifier}-{kind}"


def classifier_name(name: str) -> str | None:
    """Return the classifier whose companion would have ``name``; ``None`` for any other name.

    Examples
    --------
    >>> classifier_name("reviews-pipeline"), classifier_name("reviews"), classifier_name("-pipeline")
    ('reviews', None, None)
    """
    return next((name.removesuffix(f"-{kind}") or None for kind in KINDS if name.endswith(f"-{kind}")), None)
