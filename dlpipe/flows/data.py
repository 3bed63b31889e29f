"""From what the section ``[data]`` names to a version of a table."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dlpipe.flows.settings import DataSettings, TrainFlowSettings
    from dlpipe.tables import Ingest, Sources

DOWNLOADS = Path("data/downloads")


def ingest_rows(settings: TrainFlowSettings, *, retrain: bool = False) -> Ingest:
    """Return the version of the table to train on, printed in lines.

    Parameters
    ----------
    settings : TrainFlowSettings
    retrain : bool, optional
        Ingest nothing: take the rows with labels that the table has by now.

    Raises
    ------
    SettingError
        When the gate asks for a class that the rows do not have: it could never pass.
    """
    done = find_labelled(settings.data, settings.registry.model) if retrain else ingest_sources(settings.data)
    settings.task.target.check_thresholds(settings.gate, done.labels)
    print(*describe_ingest(done), sep="\n")
    return done


def ingest_sources(data: DataSettings) -> Ingest:
    """Make the sources' rows, and those that were appended, the table's content; return what was done."""
    from dlpipe.tables import ingest

    return ingest(find_sources(data), data.table, settings=data.table_settings())


def find_sources(data: DataSettings) -> Sources:
    """Return where the rows come from, downloaded first if a public data set is asked for."""
    if not data.dataset:
        return data.sources()
    from dlpipe.datasets import fetch_dataset

    return fetch_dataset(data.dataset, catalogue=Path(data.catalogue), folder=DOWNLOADS)


def find_labelled(data: DataSettings, model: str) -> Ingest:
    """Return what the table holds, which must have labels that the champion of ``model`` has not learnt from."""
    from dlpipe.monitoring import check_new_labels
    from dlpipe.registry import find_champion
    from dlpipe.tables import describe_table

    there = describe_table(data.table)
    check_new_labels(there.table, find_champion(model))
    return there


def check_sources_named(data: DataSettings, *, retrain: bool) -> None:
    """Raise ``SettingError`` where the sources that are named do not go together; none are read to retrain."""
    if not retrain and not data.dataset:
        data.sources().list_paths()


def check_data(data: DataSettings, *, retrain: bool = False) -> None:
    """See that the sources can be read, or that the table is there to ``retrain``; called before a run begins."""
    from dlpipe.tables import check_sources, table_at

    if retrain:
        table_at(data.table)
    elif not data.dataset:  # what is downloaded is not here yet
        check_sources(data.sources(), data.table, settings=data.table_settings())


def describe_ingest(ingest: Ingest) -> Iterator[str]:
    """Yield what an ingest did, and what to know about it."""
    bad = sum(ingest.bad_rows.values())
    yield f"{ingest.table}: {dict(ingest.split_rows)}, {bad} bad rows"
    yield from ingest.notes
