"""Registering companions: the pipeline and the explainer that are made from a registered classifier."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dlpipe.registry.deletion import delete_unfinished
from dlpipe.registry.descriptions import describe_companion
from dlpipe.registry.families import list_registered_numbers
from dlpipe.registry.names import KIND, MADE_FROM, Kind, companion_name
from dlpipe.registry.packaging import Loggable, Packaging
from dlpipe.registry.promotion import challenge
from dlpipe.registry.registration import log_and_register
from dlpipe.registry.versions import ModelVersion
from dlpipe.task import Row


def register_family(
    name: str,
    register_classifier: Callable[[], ModelVersion],
    register_companions: Sequence[Callable[[ModelVersion], ModelVersion]],
) -> tuple[ModelVersion, ...]:
    """Register the classifier ``name`` and its companions, make all of them challengers, and return them.

    A process that is killed on the way leaves versions without an alias; the next call with the same files finds
    and completes them.

    Parameters
    ----------
    name : str
        The registered model of the classifier.
    register_classifier, register_companions : callables
        Each returns a version and moves no alias; a companion's gets the classifier.

    Raises
    ------
    DlpipeError
        When one of them fails. A classifier that was new is deleted again then: none stays without companions.
    """
    # an older version that is only found again must survive the failure of a new companion
    before = list_registered_numbers(name)
    classifier = register_classifier()
    try:
        made = [register(classifier) for register in register_companions]
    except Exception:
        if classifier.version not in before:
            delete_unfinished(classifier)
        raise
    # last, and in one move: `@challenger` never names a classifier whose companions do not exist yet
    return tuple(challenge(classifier, made))


def register_companion(
    files: Loggable,
    classifier: ModelVersion,
    *,
    kind: Kind,
    settings: Mapping[str, Any],
    example: Sequence[Row],
    packaging: Packaging,
    challenger: bool = True,
) -> ModelVersion:
    """Return the version of ``<classifier>-<kind>`` with these files, registered if need be.

    It has the lineage of the classifier, and is not the same version as the same files made from another one.

    Parameters
    ----------
    files : Loggable
        What is registered. The same digest is the same version.
    classifier : ModelVersion
        The version that the companion was made from.
    kind : str
        ``pipeline`` or ``explainer``.
    settings : mapping
        Params of the model in MLflow, with the kind in front of their names.
    example : sequence of rows
        Stored as the input example.
    packaging : Packaging
        How MLflow opens the files.
    challenger : bool, optional
        ``False`` moves no alias.
    """
    return log_and_register(
        files,
        name=companion_name(classifier.name, kind),
        example=example,
        params={f"{kind}_{name}": value for name, value in settings.items()},
        description=describe_companion(kind, classifier.uri, classifier.tags),
        tags={**select_lineage(classifier), MADE_FROM: classifier.uri, KIND: kind},
        packaging=packaging,
        challenger=challenger,
    )


def select_lineage(version: ModelVersion) -> dict[str, str]:
    """Return the tags of ``version`` that say where it came from; not its task attempt, which is another one's."""
    return {
        name: value
        for name, value in version.tags.items()
        if (name.startswith(("delta.", "git.", "metaflow.")) and name != "metaflow.task") or name == "seed"
    }
