"""What is made from a registered classifier and registered beside it, such as its pipeline and its explainer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dlpipe.registry.deletion import delete_unfinished
from dlpipe.registry.families import registered_numbers
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
    """Return the registered classifier ``name`` and what is made from it, all of them challengers from now on.

    Parameters
    ----------
    register_classifier, register_companions : callables
        Each returns a version and moves no alias; a companion's gets the classifier.

    Raises
    ------
    DlpipeError
        When one of them fails. A classifier that was new is taken back then: none stays without companions.
    """
    before = registered_numbers(name)
    classifier = register_classifier()
    try:
        made = [register(classifier) for register in register_companions]
    except Exception:
        if classifier.version not in before:
            delete_unfinished(classifier)
        raise
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
    """Return the registered ``<classifier>-<kind>``, made if need be, with the classifier's lineage.

    Parameters
    ----------
    files : Loggable
        What is registered. The same digest is the same version.
    classifier : ModelVersion
        What it was made from.
    settings : mapping
        Kept as params, with the kind in front of their names.
    example : sequence of rows
        Kept as the input example.
    challenger : bool, optional
        ``False`` moves no alias.
    """
    return log_and_register(
        files,
        name=companion_name(classifier.name, kind),
        example=example,
        params={f"{kind}_{name}": value for name, value in settings.items()},
        metrics={},
        tags={**lineage(classifier), MADE_FROM: classifier.uri, KIND: kind},
        packaging=packaging,
        challenger=challenger,
    )


def lineage(model: ModelVersion) -> dict[str, str]:
    """Return the tags of ``model`` that say what it came from."""
    return {
        name: value
        for name, value in model.tags.items()
        if (name.startswith(("delta.", "git.", "metaflow.")) and name != "metaflow.task") or name == "seed"
    }
