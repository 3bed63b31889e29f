"""A registered model trained again in a folder of its own, and compared."""

from __future__ import annotations

import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dlpipe.errors import NotReproducible, TableVersionNotFound
from dlpipe.registry import KIND, ModelVersion, describe_forgotten, list_versions, resolve
from dlpipe.reproducing.apart import compare_models
from dlpipe.reproducing.code import TrainingCode, unpack_code
from dlpipe.reproducing.differences import compare_code, compare_domains, compare_rows, compare_settings
from dlpipe.reproducing.disk import explain_full_disk
from dlpipe.reproducing.origin import TRAINED_BY, Changes, Origin, find_origin, find_trained, parse
from dlpipe.reproducing.outcome import Reproduction, judge
from dlpipe.reproducing.process import train_again
from dlpipe.scratch import open_shared_scratch, remove_left_scratch
from dlpipe.tables import TableVersion, mirror_version, table_at
from dlpipe.task import find_task
from dlpipe.training import Domain


def list_trained() -> list[ModelVersion]:
    """Return every version in the registry that a flow trained."""
    return [
        version
        for version, _ in list_versions()
        if KIND not in version.tags and TRAINED_BY in version.tags and "delta.table" in version.tags
    ]


def reproduce(
    uri: str, *, changes: Changes | None = None, say: Callable[[str], None] = lambda line: None
) -> Reproduction:
    """Train the version that ``uri`` names again, and compare.

    Nothing of the user's is written: the new model, and features of its rows, are in a temporary folder and go
    with it.

    Parameters
    ----------
    uri : str
        ``models:/NAME@ALIAS``, ``NAME/VERSION`` or a name, which means its champion; of a pipeline or an explainer
        its classifier is meant.
    changes : Changes, optional
        What is to be otherwise; each shows among the differences.
    say : callable, optional
        Gets as lines which version is trained instead of a pipeline or an explainer, whether rows of its were
        forgotten since, and the training's progress.

    Raises
    ------
    NotReproducible
        When code, settings or lineage were not kept, or the training fails.
    TableNotFound, TableVersionNotFound
        When its rows are gone.
    StorageFull
        When the temporary folder is.
    """
    asked, trained = resolve(uri), find_trained(uri)
    if asked.uri != trained.uri:
        say(f"{asked.uri} is made from {trained.uri}, which is trained again")
    if forgotten := describe_forgotten(trained.tags):
        say(f"{trained.uri} was {forgotten}")
    origin, changes = find_origin(trained.uri), changes or Changes()
    settings = choose_settings(origin, changes)
    rows = origin.table if changes.rows is None else table_at(origin.table.path, version=changes.rows)
    for left in remove_left_scratch():
        say(f"removed {left}, which a command that was killed had left")
    with explain_full_disk(), open_shared_scratch() as (scratch, lock):
        kept, used = find_code(origin, changes, scratch / "code")
        result = train_again(
            origin,
            rows=mirror_rows(rows, scratch / "tables"),
            settings=settings,
            code=used,
            scratch=scratch,
            lock=lock,
            say=say,
        )
        domain = Domain.from_plain(result["domain"]) if result["domain"] else None
        differences = (
            *compare_rows(origin, rows),
            *compare_settings(origin.settings, settings),
            *(compare_code(kept, used) if kept else ()),
            *compare_domains(origin.domain, domain),
        )
        is_same = result["weights"] == origin.version.digest
        apart = None if is_same else compare_models(origin, scratch / "model", rows=rows)
    return judge(origin, result["weights"], differences, apart, code=used.words, seconds=result["seconds"])


def mirror_rows(rows: TableVersion, folder: Path) -> TableVersion:
    """Return the rows to train on as a table in a new folder.

    Raises
    ------
    TableVersionNotFound
        When files of the version were removed; the message says how to train on the rows of another.
    """
    folder.mkdir()
    try:
        return mirror_version(rows, folder)
    except TableVersionNotFound as error:
        raise TableVersionNotFound(
            f"{error} With --version N a model is trained on the rows of another."
        ) from None


def choose_settings(origin: Origin, changes: Changes) -> dict[str, Any]:
    """Return the settings to train with: as they were, with what makes the domain the same, and the changes.

    Raises
    ------
    SettingError
        When a changed setting does not exist or its value is refused.
    """
    from dlpipe.settings import check_name, read_settings

    cls = find_task(origin.version.task).inputs.training
    hints = typing.get_type_hints(cls)
    changed = {}
    for name, text in changes.settings.items():
        check_name(name, list(hints), what="setting", where="[training]")
        changed[name] = parse(text, hints[name])
    of_domain = {}
    if origin.domain:
        of_domain = {"threads": origin.domain.threads, "precision": origin.domain.precision}
    if changes.threads is not None:
        of_domain["threads"] = changes.threads
    settings = {**origin.settings, **of_domain, **changed}
    if changed:
        read_settings(cls, settings, where="[training] with --set")
    return settings


def find_code(origin: Origin, changes: Changes, folder: Path) -> tuple[TrainingCode | None, TrainingCode]:
    """Return the code that a version was trained with, if it was kept, and the code to train with now."""
    here = TrainingCode("the installed dlpipe")
    try:
        kept = unpack_code(origin, folder)
    except NotReproducible:
        if changes.code == "kept":
            raise
        return None, here
    return kept, kept if changes.code == "kept" else here
