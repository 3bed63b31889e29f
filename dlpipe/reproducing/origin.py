"""How a version was trained: its rows, settings, code and domain, from the records of its run and the registry."""

from __future__ import annotations

import ast
import re
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from dlpipe.bridge.artifacts import read_artifact_value
from dlpipe.bridge.metadata import find_runs
from dlpipe.errors import DlpipeError, ModelNotFound, NotReproducible, RunNotFound
from dlpipe.registry import KIND, MADE_FROM, ModelVersion, read_logged_values, resolve
from dlpipe.tables import TableVersion, history, table_at
from dlpipe.task import find_task
from dlpipe.training import Domain

TRAINED_BY = "metaflow.pathspec"
"""The tag of a version with the task that trained it."""
LINEAGE = {
    TRAINED_BY: re.compile(r"\w+/[\w.-]+/\w+/[\w.-]+"),
    "delta.table": re.compile(r".+"),
    "delta.version": re.compile(r"\d{1,18}"),
}
"""The tags by which a version can be made again, and their forms."""


@dataclass(frozen=True)
class Changes:
    """What is asked to be otherwise than it was.

    Attributes
    ----------
    threads : int, optional
        Of torch.
    rows : int, optional
        Another version of the table.
    settings : mapping of str to str
        Settings of the training, as a command line has them.
    code : str
        ``kept``: what the run kept. ``here``: what is installed.
    """

    threads: int | None = None
    rows: int | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    code: Literal["kept", "here"] = "kept"


@dataclass(frozen=True)
class Origin:
    """How a version was trained.

    Attributes
    ----------
    version : ModelVersion
    training : str
        The task of Metaflow that trained it, ``Flow/run/step/task``.
    table : TableVersion
        Whose rows it learnt from.
    settings : mapping of str to any
        Of its training, with tuned values in place.
    domain : Domain or None
        In which its weights were computed; ``None`` where nobody noted it.
    resumed : bool
        Whether a part of its training was computed in another domain.
    has_records : bool
        Whether the run's own records are here; the registry's stand in for them.
    """

    version: ModelVersion
    training: str
    table: TableVersion
    settings: Mapping[str, Any]
    domain: Domain | None
    resumed: bool
    has_records: bool

    @property
    def run(self) -> str:
        """The run of the training, ``Flow/run``."""
        return "/".join(self.training.split("/")[:2])


def list_models(asked: str) -> list[str]:
    """Return the URI that ``asked`` is, or those of the models whose predictions or explanations a table has.

    Parameters
    ----------
    asked : str
        A version of a model, or the name or path of such a table.

    Raises
    ------
    ModelNotFound
        When there is neither.
    """
    try:
        return [resolve(asked).uri]
    except ModelNotFound:
        try:
            commits = history(asked)
        except DlpipeError:
            commits = []
        keys = [commit["key"] for commit in reversed(commits) if isinstance(commit.get("key"), dict)]
        if found := list(dict.fromkeys(str(key["model"]) for key in keys if key.get("model"))):
            return found
        if commits:
            raise ModelNotFound(
                f"{asked!r} is a table without predictions or explanations of a model. Name a version of a model, "
                "such as reviews/3; of a log of requests, the one that `dlpipe lineage REQUEST` tells."
            ) from None
        raise


def find_trained(uri: str) -> ModelVersion:
    """Return the version that ``uri`` names; of a pipeline or an explainer, the classifier inside it.

    Raises
    ------
    NotReproducible
        When dlpipe did not train it.
    """
    version = resolve(uri)
    version = resolve(version.tags[MADE_FROM]) if KIND in version.tags else version
    missing = [name for name, form in LINEAGE.items() if not form.fullmatch(version.tags.get(name, ""))]
    if missing:
        words = (f"{name} ({version.tags[name]!r} is none)" if name in version.tags else name for name in missing)
        raise NotReproducible(
            f"{version.uri} does not say how it was made: it has no tag {' and no tag '.join(words)}. Only "
            "models that a flow trained and registered can be made again."
        )
    return version


def find_origin(uri: str) -> Origin:
    """Return how the version that ``uri`` names was trained.

    Raises
    ------
    NotReproducible
        When its settings are not known any more.
    TableNotFound, TableVersionNotFound
        When its rows are gone.
    """
    version = find_trained(uri)
    training = version.tags[TRAINED_BY]
    found = read_records(training)
    params: Any = found.get("params", {}).get("training") if isinstance(found.get("params"), dict) else None
    settings = params or read_registered_settings(version)
    if not settings:
        raise NotReproducible(
            f"Nothing says with which settings {version.uri} was trained: the records of {training} are not in "
            "this folder's .metaflow, and the registry has no parameters of it. Stand in the folder of its run."
        )
    return Origin(
        version=version,
        training=training,
        table=table_at(version.tags["delta.table"], version=int(version.tags["delta.version"])),
        settings=settings,
        domain=Domain.from_tags(version.tags),
        resumed=bool(found.get("trained_before_in")),
        has_records=bool(found),
    )


def read_records(training: str) -> dict[str, Any]:
    """Return the artifacts of a training that say how it went; none where its run is not here."""
    try:
        find_runs("/".join(training.split("/")[:2]))
    except RunNotFound:
        return {}
    found = {name: read_artifact_value(f"{training}/{name}") for name in ("params", "trained_before_in")}
    return {name: value for name, value in found.items() if value is not None}


def read_registered_settings(version: ModelVersion) -> dict[str, Any]:
    """Return the settings of a training from the parameters that the registry keeps as words."""
    params, _ = read_logged_values(version)
    cls = find_task(version.task).inputs.training
    hints = typing.get_type_hints(cls)
    return {each.name: parse(params[each.name], hints[each.name]) for each in fields(cls) if each.name in params}


def parse(text: str, hint: Any) -> Any:
    """Return the value of a setting that is given as words.

    Examples
    --------
    >>> parse("2", int), parse("1e-4", float | None), parse("False", bool), parse("32", str)
    (2, 0.0001, False, '32')
    >>> parse("no_freeze", str), parse("32", Literal["auto", "32"]), parse("(1, 2)", tuple[int, ...])
    ('no_freeze', '32', [1, 2])
    """
    if hint is str or (typing.get_origin(hint) is Literal and text in typing.get_args(hint)):
        return text
    try:
        value = ast.literal_eval({"true": "True", "false": "False"}.get(text, text))
    except (ValueError, SyntaxError):
        return text
    return list(value) if isinstance(value, tuple) else value
