"""`dlpipe models show`: where a version comes from, how good it is, against whom, and what uses it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from dlpipe.cli.deployed_uses import DeployedUse, find_uses_of_models
from dlpipe.cli.printing import as_json, say, spell_for_json
from dlpipe.errors import DlpipeError
from dlpipe.terminal import format_table
from dlpipe.time_formats import format_moment, to_moment

if TYPE_CHECKING:
    from dlpipe.lineage import Node, Records
    from dlpipe.registry import VersionDetails
    from dlpipe.task import Evaluation

ENGINE_NUMBERS = ("speedup", "accuracy_lost", "label_agreement", "largest_difference", "refused")
GIT = {"true": "with uncommitted changes", "false": "committed"}


@click.command()
@click.argument("uri", metavar="VERSION")
@as_json
def show(uri: str, json_: bool) -> None:
    """Show where VERSION comes from, how good it is, against whom, and what uses it.

    VERSION is models:/NAME@ALIAS, NAME@ALIAS or NAME/3; a bare NAME means its champion. Scores are those of the
    test split, with 95 % intervals. What uses it: its pipeline and explainer, tables of predictions and
    explanations, and deployments of this machine whose runs are given it, or its pipeline, as aliases stand now.

    \b
    Examples:
      dlpipe models show reviews@champion
      dlpipe models show reviews/1 --json
    """
    from dlpipe.registry import read_details

    details = read_details(uri)
    tables, not_seen = find_tables_made_by(details.version.uri)
    uses = find_uses_of_models({made.uri for made in (details.version, *details.companions)})
    facts = {**describe_details(details), "tables": tables, "deployments": [use._asdict() for use in uses]}
    if json_:
        say(json.dumps(facts, indent=2, default=spell_for_json))
        return
    say("\n".join(lay_out_details(facts)))
    if not_seen:
        say(not_seen, err=True)


def describe_details(details: VersionDetails) -> dict[str, Any]:
    """Return what the registry knows of a version, for JSON."""
    from dlpipe.registry import MADE_FROM, describe_forgotten, list_compared, read_verdict

    version, tags = details.version, details.version.tags
    verdict = read_verdict(tags)
    return {
        "uri": version.uri,
        "model": version.name,
        "version": version.version,
        "aliases": list(version.aliases),
        "task": version.task,
        "registered": to_moment(details.registered),
        "made_from": tags.get(MADE_FROM),
        "origin": describe_origin(tags),
        "forgotten": describe_forgotten(tags) or None,
        "weights": version.digest,
        "run_id": version.run_id,
        "model_id": version.model_id,
        "scores": [describe_scores(name, made) for name, made in list_compared(tags, verdict)],
        "gate": {"passed": verdict.passed, "reason": verdict.reason, "against": verdict.champion}
        if verdict
        else None,
        "champion_moves": [asdict(move) for move in details.moves],
        "engines": describe_engines(tags),
        "companions": [{"uri": made.uri, "aliases": list(made.aliases)} for made in details.companions],
        "description": details.description,
    }


def describe_origin(tags: Mapping[str, str]) -> dict[str, str | None]:
    """Return which run trained a version, on what, and by which code; ``None`` for what its tags do not say."""
    from dlpipe.registry import format_source

    commit = tags.get("git.commit", "unknown")
    return {
        "task": tags.get("metaflow.pathspec"),
        "table": format_source(tags) or None,
        "table_path": tags.get("delta.table"),
        "table_digest": tags.get("delta.digest"),
        "commit": None if commit == "unknown" else commit,
        "changes": GIT.get(tags.get("git.uncommitted", "")) if commit != "unknown" else None,
        "seed": tags.get("seed"),
        "dlpipe": tags.get("dlpipe.version"),
    }


def describe_scores(name: str, made: Evaluation) -> dict[str, Any]:
    """Return an evaluation with its name, for JSON: each metric with its value and the ends of its interval."""
    from dlpipe.registry.scores import to_plain

    plain = to_plain(made)
    metrics = {
        metric: dict(zip(("value", "low", "high"), (value, *plain["intervals"].get(metric, ())), strict=False))
        for metric, value in plain["metrics"].items()
    }
    return {"of": name, "rows": made.rows, "metrics": metrics}


def describe_engines(tags: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return each engine that was compared with torch at registration, with the chosen one marked.

    Examples
    --------
    >>> describe_engines({"engine.chosen": "onnx", "mlflow.dlpipe.engines": '{"onnx": {"speedup": 2.15}}'})
    [{'engine': 'onnx', 'chosen': 'chosen', 'speedup': '2.15'}]
    """
    from dlpipe.task import ENGINE, read_engine_numbers

    chosen, compared = tags.get(ENGINE, "torch"), read_engine_numbers(tags)
    if chosen not in compared:
        compared = {chosen: {}, **compared}
    return [
        {
            "engine": name,
            "chosen": "chosen" if name == chosen else "",
            **{number: format_number(numbers[number]) for number in ENGINE_NUMBERS if number in numbers},
        }
        for name, numbers in sorted(compared.items(), key=lambda engine: (engine[0] != "torch", engine[0]))
    ]


def format_number(value: object) -> str:
    """Return a number with four digits, and whatever else as text.

    Examples
    --------
    >>> format_number(1.192e-06), format_number(1.0), format_number("no AVX2")
    ('1.192e-06', '1', 'no AVX2')
    """
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def find_tables_made_by(uri: str) -> tuple[list[dict[str, Any]], str]:
    """Return the tables under the tables root that have predictions or explanations of a version, newest first.

    Parameters
    ----------
    uri : str
        Such as ``models:/reviews/1``.

    Returns
    -------
    tables : list of dict
        The table, the version that its rows came with, of which table they are, and when they were written.
    problem : str
        Why tables were not looked at; empty where all were.
    """
    from dlpipe.lineage import Records, parse_model_node

    records, node = Records(), parse_model_node(uri)
    try:
        edges = list(records.answers.find_results(node)) if node else []
    except DlpipeError as error:  # of a store that does not answer; what the registry says is shown
        return [], str(error)
    found = [describe_answers(records, edge.result) for edge in edges if edge.how != "compared"]
    # a damaged table says so by itself, and hides no other
    problems = [records.catalog.problems.get(location) for _, location in records.catalog.list_names()]
    problem = next(filter(None, reversed(problems)), "")
    return sorted(found, key=lambda row: row["written"], reverse=True), problem


def describe_answers(records: Records, node: Node) -> dict[str, Any]:
    """Return what a commit of predictions or explanations is of, and when it was made."""
    made_of = [edge.origin for edge in records.answers.find_origins(node) if edge.how in ("scored", "explained")]
    return {
        "table": str(node),
        "what": node.kind,
        "of": "".join(f"{source.name.rpartition('/')[2]}@v{source.number}" for source in made_of),
        "written": to_moment(records.describe(node).at or 0),
    }


def lay_out_details(facts: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines that a person reads: scores and the gate first, after where the version comes from."""
    aliases = f" ({', '.join(facts['aliases'])})" if facts["aliases"] else ""
    yield f"{facts['uri']}{aliases}"
    yield ""
    yield from lay_out_names(list_origin(facts))
    if facts["scores"]:
        yield ""
        yield from lay_out_scores(facts["scores"])
    decided = [*lay_out_names(list_decisions(facts))]
    if decided:
        yield ""
        yield from decided
    if facts["engines"] and facts["made_from"] is None:
        yield ""
        spelt = [{name.replace("_", " "): value for name, value in engine.items()} for engine in facts["engines"]]
        yield from format_table(spelt)
    yield ""
    used = [{"used by": made["uri"], "what": ", ".join(made["aliases"])} for made in facts["companions"]]
    used += [
        {"used by": f"deployment {use['deployment']}", "what": DeployedUse(**use).line()}
        for use in facts["deployments"]
    ]
    used += [
        {"used by": table["table"], "what": f"{table['what']} of {table['of']}", "written": table["written"]}
        for table in facts["tables"]
    ]
    yield from format_table(used) if used else ["used by nothing that is known here"]


def list_origin(facts: Mapping[str, Any]) -> list[tuple[str, str | None]]:
    """Return where a version comes from, as lines with names."""
    origin = facts["origin"]
    code = " ".join(filter(None, ((origin["commit"] or "")[:12], origin["changes"])))
    return [
        ("task", facts["task"]),
        ("made from", facts["made_from"]),
        ("trained by", origin["task"]),
        ("table", origin["table"]),
        ("forgotten", facts["forgotten"]),
        ("code", code),
        ("seed", origin["seed"]),
        ("weights", facts["weights"]),
        ("registered", format_moment(facts["registered"])),
        ("MLflow run", facts["run_id"]),
    ]


def list_decisions(facts: Mapping[str, Any]) -> list[tuple[str, str | None]]:
    """Return what the gate said and when the version became champion or was replaced, as lines with names."""
    lines: list[tuple[str, str | None]] = [("gate", facts["gate"]["reason"] if facts["gate"] else None)]
    for move in facts["champion_moves"]:
        came = move["after"] == facts["version"]
        other = move["before"] if came else move["after"]
        beside = f"{'after' if came else 'replaced by'} v{other}" if other is not None else ""
        # the reason of the gate is the line above
        why = f": {move['why']}" if move["why"] and move["how"] != "gate" else ""
        at, by = format_moment(datetime.fromisoformat(move["at"])), f"by {move['how']}, {move['who']}"
        words = " ".join(filter(None, (at, beside, by)))
        lines.append(("champion" if came else "no longer", f"{words}{why}"))
    return lines


def lay_out_names(lines: Sequence[tuple[str, str | None]]) -> Iterator[str]:
    """Yield lines with their names before them, without those that have nothing to say.

    Examples
    --------
    >>> list(lay_out_names([("table", "reviews@v0"), ("seed", None)]))
    ['table        reviews@v0']
    """
    for name, value in lines:
        if value:
            yield f"{name:<12} {value}"


def lay_out_scores(scores: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the table of scores: a row for each that is compared, a column a metric."""
    from dlpipe.task.evaluation import spell_metric

    metrics, first = list(scores[0]["metrics"]), f"{scores[0]['rows']:,} test rows"

    def format_row(score: Mapping[str, Any]) -> dict[str, Any]:
        cells = {spell_metric(name): format_metric(score["metrics"].get(name)) for name in metrics}
        return {first: score["of"], **cells}

    return format_table([format_row(score) for score in scores])


def format_metric(metric: Mapping[str, float | None] | None) -> str:
    """Return a value with the ends of its interval.

    Examples
    --------
    >>> format_metric({"value": 0.5, "low": 0.25, "high": 0.75}), format_metric({"value": None})
    ('0.500 (0.250 to 0.750)', '')
    """
    if not metric or metric["value"] is None:
        return ""
    low, high = metric.get("low"), metric.get("high")
    interval = f" ({low:.3f} to {high:.3f})" if low is not None and high is not None else ""
    return f"{metric['value']:.3f}{interval}"
