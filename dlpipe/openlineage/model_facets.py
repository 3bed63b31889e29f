"""What is to be told of a version of a model: a facet of our own, since OpenLineage has none for models yet.

Its schema lies beside this module; what a receiver does not know, it passes over or shows as it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attr
from openlineage.client.facet_v2 import DatasetFacet, dataset_type_dataset

from dlpipe.lineage.indexed_models import REGISTERED_BY, TRAINED_BY
from dlpipe.lineage.models import parse_model_node
from dlpipe.openlineage.naming import Name, name_location, name_model
from dlpipe.registry import KIND, MADE_FROM, ModelVersion, read_scores
from dlpipe.task import ENGINE, Evaluation

FACET = "dlpipe_modelVersion"
SCHEMA = Path(__file__).with_name("schemas") / "DlpipeModelVersionDatasetFacet.json"
SCHEMA_ID = "urn:dlpipe:openlineage:1-0-0:DlpipeModelVersionDatasetFacet.json"


@attr.define
class DlpipeModelVersionDatasetFacet(DatasetFacet):
    """A version of a registered model: what it is, where it comes from, how good it is.

    Attributes
    ----------
    uri, kind, task : str
        How it is written; ``model``, ``pipeline`` or ``explainer``; what it was trained for.
    others
        As the schema has them.
    """

    uri: str
    kind: str
    task: str
    digest: str | None = None
    engine: str | None = None
    seed: int | None = None
    scores: dict[str, Any] | None = None
    trainedOn: dict[str, str] | None = None
    trainedOnDigest: str | None = None
    madeFrom: dict[str, str] | None = None
    trainedBy: str | None = None
    registeredBy: str | None = None
    commit: str | None = None
    uncommitted: bool | None = None
    mlflowRunId: str | None = None
    mlflowModelId: str | None = None

    @staticmethod
    def _get_schema() -> str:
        return f"{SCHEMA_ID}#/$defs/DlpipeModelVersionDatasetFacet"


def make_model_facets(version: ModelVersion) -> dict[str, DatasetFacet]:
    """Return what is to be told of a version beside its number."""
    kind = version.tags.get(KIND, "model")
    return {
        "datasetType": dataset_type_dataset.DatasetTypeDatasetFacet(datasetType="MODEL", subType=kind.upper()),
        FACET: make_model_facet(version),
    }


def make_model_facet(version: ModelVersion) -> DlpipeModelVersionDatasetFacet:
    """Return what the tags of a version say of it; what they do not say is left out."""
    tags = version.tags
    made_from, trained_by = parse_model_node(tags.get(MADE_FROM, "")), tags.get(TRAINED_BY)
    changed = tags.get("git.uncommitted")
    return DlpipeModelVersionDatasetFacet(
        uri=version.uri,
        kind=tags.get(KIND, "model"),
        task=version.task,
        digest=version.digest or None,
        engine=tags.get(ENGINE, "torch"),
        seed=int(tags["seed"]) if tags.get("seed", "").lstrip("-").isdecimal() else None,
        scores={name: spell_scores(made) for name, made in read_scores(tags).items()} or None,
        trainedOn=_name_rows(tags),
        trainedOnDigest=tags.get("delta.digest"),
        madeFrom=spell_version(name_model(made_from.name), str(made_from.number)) if made_from else None,
        trainedBy=f"{trained_by}/{tags.get('metaflow.attempt', '0')}" if trained_by else None,
        registeredBy=tags.get(REGISTERED_BY),
        commit=tags["git.commit"] if tags.get("git.commit", "unknown") != "unknown" else None,
        uncommitted=changed == "true" if changed in ("true", "false") else None,
        mlflowRunId=version.run_id or None,
        mlflowModelId=version.model_id or None,
    )


def _name_rows(tags: Mapping[str, str]) -> dict[str, str] | None:
    if "delta.table" not in tags or not tags.get("delta.version", "").isdecimal():
        return None
    return spell_version(name_location(tags["delta.table"]), tags["delta.version"])


def spell_version(name: Name, version: str) -> dict[str, str]:
    """Return a version of a data set as the facet has it."""
    return {"namespace": name.namespace, "name": name.name, "version": version}


def spell_scores(made: Evaluation) -> dict[str, Any]:
    """Return an evaluation as the facet has it, without what is no number.

    Examples
    --------
    >>> metrics, intervals = {"accuracy": 0.9, "auroc": math.nan}, {"accuracy": (0.8, 1.0)}
    >>> spell_scores(Evaluation(metrics, intervals, (), 10, (), "accuracy"))
    {'rows': 10, 'headline': 'accuracy', 'metrics': {'accuracy': 0.9}, 'intervals': {'accuracy': [0.8, 1.0]}}
    """
    return {
        "rows": made.rows,
        "headline": made.headline,
        "metrics": {name: value for name, value in made.metrics.items() if math.isfinite(value)},
        "intervals": {name: [*ends] for name, ends in made.intervals.items() if all(map(math.isfinite, ends))},
    }
