"""Events of OpenLineage against the published schemas, and the graph that somebody can make who has only them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator, FormatChecker
from referencing import Registry, Resource

from dlpipe.lineage import OF_TABLES, Edge, Node, Records
from dlpipe.lineage.checking import list_nodes
from dlpipe.openlineage.model_facets import SCHEMA

SPEC = Path(__file__).with_name("openlineage_spec")
EVENTS = ("RunEvent", "JobEvent", "DatasetEvent")
KINDS = (*OF_TABLES, "file", "model", "requests", "run", "task", "deployment", "event", "move", "code")
"""What OpenLineage has a word for: data sets, runs, and tags of both."""
NOT_TOLD = ("moved by", "published by")
"""Edges for which it has none."""
PATHSPEC = "metaflow.pathspec"

Triple = tuple[str, str, str]


def read_schemas() -> dict[str, dict[str, Any]]:
    """Return the schemas by their address."""
    found = (json.loads(path.read_text()) for path in (*SPEC.glob("*.json"), SCHEMA))
    return {schema["$id"]: schema for schema in found}


SCHEMAS = read_schemas()
REGISTRY: Any = Registry().with_resources(
    [(address, Resource.from_contents(schema)) for address, schema in SCHEMAS.items()]
)


def find_problems(event: Mapping[str, Any]) -> list[str]:
    """Return how an event differs from the schemas that it names, of itself and of each facet."""
    found = [*check_against(event, event["schemaURL"])]
    if not any(event["schemaURL"].endswith(f"/{kind}") for kind in EVENTS):
        found.append(f"no event: {event['schemaURL']}")
    for name, facet in list_facets(event):
        found += [f"{name}: {problem}" for problem in check_against(facet, facet["_schemaURL"])]
    return found


def list_facets(event: Mapping[str, Any]) -> Iterable[tuple[str, Mapping[str, Any]]]:
    """Yield each facet of an event with its name."""
    parts = [event.get("run"), event.get("job"), event.get("dataset"), *event.get("inputs", [])]
    for part in filter(None, [*parts, *event.get("outputs", [])]):
        for kind in ("facets", "inputFacets", "outputFacets"):
            yield from part.get(kind, {}).items()


def check_against(value: Any, address: str) -> Iterable[str]:
    """Yield how a value differs from a schema; openlineage-python is a patch ahead of the spec in one facet."""
    base, _, place = address.partition("#")
    if base not in SCHEMAS:
        same = [known for known in SCHEMAS if strip_patch(known) == strip_patch(base)]
        assert same, f"no schema {base}"
        base = same[0]
    checked = Draft202012Validator(
        {"$ref": f"{base}#{place}"}, registry=REGISTRY, format_checker=FormatChecker(["uuid", "date-time"])
    )
    yield from (f"{error.json_path}: {error.message}" for error in checked.iter_errors(value))


def strip_patch(address: str) -> str:
    return re.sub(r"/(\d+)-(\d+)-\d+/", r"/\1-\2/", address)


# -- the graph of somebody who was told ------------------------------------------------------------------------


def rebuild(events: Sequence[Mapping[str, Any]]) -> set[Triple]:
    """Return who came of whom, and how, by the events alone."""
    paths = {
        event["run"]["runId"]: tags[PATHSPEC] for event in events if PATHSPEC in (tags := read_tags(event, "run"))
    }
    return {triple for event in events for triple in read_event(event, paths)} | set(read_moves(events))


def read_tags(event: Mapping[str, Any], part: str) -> dict[str, str]:
    facets = event.get(part, {}).get("facets", {})
    return {tag["key"]: tag["value"] for tag in facets.get("tags", {}).get("tags", ())}


def read_event(event: Mapping[str, Any], paths: Mapping[str, str]) -> Iterable[Triple]:
    inputs, outputs = event.get("inputs", []), event.get("outputs", [])
    entries = event.get("job", {}).get("facets", {}).get("lineage", {}).get("entries", [])
    for entry, output in zip(entries, outputs, strict=True):
        assert (entry["namespace"], entry["name"]) == (output["namespace"], output["name"])
        for origin in entry["inputs"]:
            yield from read_input(spell(output), origin, [*inputs, *outputs], paths)
    if "run" not in event:
        return
    tags, facets = read_tags(event, "run"), event["run"].get("facets", {})
    if path := tags.get(PATHSPEC):
        me = path
        yield from ((spell(output), "made by", me) for output in outputs if me.count("/") == 3)
        if "parent" in facets:
            yield me, "part of", paths[facets["parent"]["run"]["runId"]]
        for before in facets.get("jobDependencies", {}).get("upstream", ()):
            if before["dependency_type"] == "RESUMED_FROM":
                yield me, "resumed from", paths[before["run"]["runId"]]
        if me.count("/") == 1:
            yield from ((me, "used", spell(data)) for data in inputs)
            if package := tags.get("code.package"):
                yield me, "ran", f"code:{me.partition('/')[0]}@{package[:12]}"
        for key in tags:
            if re.fullmatch(r"dlpipe\.(deployment|event\.\d+)", key):
                yield me, "started by", tags[key]


def read_input(
    result: str, origin: Mapping[str, Any], datasets: Sequence[Mapping[str, Any]], paths: Mapping[str, str]
) -> Iterable[Triple]:
    hows = [how["description"].partition(": ") for how in origin["transformations"]]
    if origin["type"] == "JOB":
        run = origin.get("runId")
        yield result, "made by", paths[run] if run else hows[0][2].rpartition("/")[0]
        return
    named = [data for data in datasets if all(data[key] == origin[key] for key in ("namespace", "name"))]
    found = [spell(data) for data in named if spell(data) != result]
    assert found, f"{origin} is no input"
    yield from ((result, how, one) for how, _, _ in hows for one in found)


def read_moves(events: Iterable[Mapping[str, Any]]) -> Iterable[Triple]:
    numbers: dict[str, int] = {}
    for event in sorted(events, key=lambda event: str(event["eventTime"])):
        if "champion" in (tags := read_tags(event, "dataset")):
            name = event["dataset"]["name"]
            numbers[name] = numbers.get(name, 0) + 1
            if tags["champion"] != "none":
                yield f"models:/{name}@champion#{numbers[name]}", "points to", spell(event["dataset"])


def spell(dataset: Mapping[str, Any]) -> str:
    version = dataset.get("facets", {}).get("version", {}).get("datasetVersion", "")
    return f"{dataset['namespace']} {dataset['name']} {version}".strip()


# -- the graph of lineage itself -------------------------------------------------------------------------------


def list_edges(records: Records, runs: Iterable[str] = ()) -> set[Triple]:
    """Return the edges of lineage of the kinds that OpenLineage can say, from every node."""
    waiting = [*list_nodes(records), *(node for run in runs for node in records.find(run))]
    for model, _ in records.models.list_versions():
        waiting += [edge.result for edge in records.find_results(model)]
    for run in runs:
        waiting += [edge.result for node in records.find(run) for edge in records.find_results(node)]
    found: set[Triple] = set()
    seen: set[Node] = set()
    while waiting:
        node = waiting.pop()
        if node in seen or is_log(records, node):
            continue
        seen.add(node)
        for edge in records.find_origins(node):
            of_kind = edge.origin.kind in KINDS and node.kind in KINDS and node.kind != "deployment"
            if of_kind and edge.how not in NOT_TOLD:
                if not (edge.how == "part of" and records.describe(edge.result).gone):
                    found.add(spell_edge(edge))
                waiting.append(edge.origin)
    return found


def is_log(records: Records, node: Node) -> bool:
    record = records.catalog.find(node.name) if node.kind == "table" else None
    return record is not None and record.kind in ("requests", "feedback")


def spell_edge(edge: Edge) -> Triple:
    return spell_node(edge.result), edge.how, spell_node(edge.origin)


def spell_node(node: Node) -> str:
    if node.kind in (*OF_TABLES, "requests"):
        return f"file {node.name} {'' if node.number is None else node.number}".strip()
    if node.kind == "file":
        return f"file {Path(node.name).absolute()} {node.key}"
    if node.kind == "model":
        return f"mlflow://{Path('mlflow.db').absolute()} {node.name} {node.number}"
    return node.id if node.kind in ("event", "move") else str(node)
