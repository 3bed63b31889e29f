"""The description of a version: where it comes from, how good it is, and what the gate said.

It is made of the version's tags alone. Registration writes it with the version in one transaction, without a
verdict; each judgement renews it. What people write below the line of the gate stays.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dlpipe.registry.forgotten import add_forgotten
from dlpipe.registry.names import KIND, Kind, classifier_name
from dlpipe.registry.scores import format_score, format_source, read_scores
from dlpipe.registry.uses import describe_uses
from dlpipe.registry.verdicts import Judgement, RecordedVerdict, make_verdict_tag, read_verdict
from dlpipe.task import ENGINE, Evaluation, find_task, read_engine_numbers
from dlpipe.task.evaluation import spell_metric

if TYPE_CHECKING:
    from mlflow import MlflowClient

LONGEST = 5000  # MLflow's limit
LONGEST_REASON = 2000
GATE = "Gate: "
SPACE = "&ensp;"
TORCH = "torch"  # what all models run on
MOST_NAMES = 12
COMPANIONS: dict[str | None, str] = {
    "pipeline": "it cleans what it is asked and predicts, and takes any value",
    "explainer": "it says which parts of a row decide, by SHAP's values",
}
"""What is made from a model, and does what."""
NOT_JUDGED = RecordedVerdict(False, "not asked yet")


def describe_version(tags: Mapping[str, str]) -> str:
    """Return the description of a version with these tags, in Markdown.

    Examples
    --------
    >>> print(describe_version({"delta.table": "data/reviews", "delta.version": "0", "seed": "7"}))
    Trained on reviews@v0, seed 7.
    <BLANKLINE>
    Gate: not asked yet
    """
    origin = f"Trained{describe_origin(tags)}."
    verdict = read_verdict(tags) or NOT_JUDGED
    parts = [origin, *describe_scores(tags, verdict), *describe_engine(tags), *describe_uses(tags)]
    parts.append(describe_verdict(verdict))
    return add_forgotten("\n\n".join(parts), tags)[:LONGEST]


def describe_companion(kind: Kind, classifier: str, tags: Mapping[str, str]) -> str:
    """Return the description of a pipeline or an explainer, in Markdown.

    Parameters
    ----------
    kind : str
        ``pipeline`` or ``explainer``.
    classifier : str
        The URI of the version that it was made from.
    tags : mapping of str to str
        Of that version.
    """
    lines = [f"The {kind} of {classifier}, which was trained{describe_origin(tags)}."]
    scores = read_scores(tags)
    if test := scores.get("test"):
        name = test.headline
        beside = scores.get("baseline")
        against = f"; its baseline has {format_score(beside, name)}" if beside else ""
        score = f"{spell_metric(name)} {format_score(test, name)}"
        lines.append(f"That version has {score} on {test.rows:,} test rows{against}.")
    return "\n\n".join(lines)[:LONGEST]


def describe_model(name: str, card: Mapping[str, Any], tags: Mapping[str, str], example: Sequence[Any]) -> str:
    """Return the description of a registered model, whatever its versions: what it is, and how it is used.

    Parameters
    ----------
    name : str
    card : mapping
        Of the files of a version.
    tags : mapping of str to str
        Of that version.
    example : sequence of rows
        As the task reads them.

    Examples
    --------
    >>> card = {"task": "text-classification", "labels": ["negative", "positive"]}
    >>> print(describe_model("reviews", card, {"delta.table": "data/tables/reviews"}, ["a fine film"]))
    A model for text-classification: negative, positive. It learns from the table reviews.
    <BLANKLINE>
    `dlpipe predict --model reviews@champion`, or `mlflow.pyfunc.load_model("models:/reviews@champion")`
    """
    if (kind := tags.get(KIND)) in COMPANIONS:
        base = classifier_name(name)
        what = f"The {kind} of {base}: {COMPANIONS[kind]}. Its champion is made from that of {base}."
    else:
        labels = card.get("labels", ()) if find_task(card["task"]).target.has_right_rows else ()
        what = f"A model for {card['task']}{f': {_list_some(labels)}' if labels else ''}."
        if example and isinstance(example[0], Mapping):
            what += f" It reads the columns {_list_some(list(example[0]))}."
        if table := tags.get("delta.table", "").rstrip("/").rpartition("/")[2]:
            what += f" It learns from the table {table}."
    use = "" if kind == "explainer" else f"`dlpipe predict --model {name}@champion`, or "
    return f'{what}\n\n{use}`mlflow.pyfunc.load_model("models:/{name}@champion")`'[:LONGEST]


def _list_some(names: Sequence[str]) -> str:
    more = [f"{len(names) - MOST_NAMES} more"] if len(names) > MOST_NAMES else []
    return ", ".join([*map(str, names[:MOST_NAMES]), *more])


def describe_origin(tags: Mapping[str, str]) -> str:
    """Return which run trained a version, on what and by which code, as a sentence goes on.

    Examples
    --------
    >>> describe_origin({"metaflow.pathspec": "TrainFlow/7/train/3", "git.commit": "a9c9ec9", "seed": "0"})
    ' by TrainFlow/7/train/3, code a9c9ec9, seed 0'
    """
    by, on, commit = tags.get("metaflow.pathspec"), format_source(tags), tags.get("git.commit", "unknown")
    changed = " with uncommitted changes" if tags.get("git.uncommitted") == "true" else ""
    first = "".join([f" by {by}" if by else "", f" on {on}" if on else ""])
    code = f"code {commit[:12]}{changed}" if commit != "unknown" else ""
    seed = f"seed {tags['seed']}" if "seed" in tags else ""
    return ", ".join([first, *filter(None, (code, seed))])


def describe_scores(tags: Mapping[str, str], verdict: Judgement) -> Iterator[str]:
    """Yield the table of scores: of the version, the baseline and the champion that it was judged against.

    Nothing where the tags keep no scores.
    """
    compared = list_compared(tags, verdict)
    if not compared:
        return
    rows = compared[0][1].rows
    metrics = list(compared[0][1].metrics)
    lines = [
        [f"{rows:,} test rows", *map(spell_metric, metrics)],
        ["---"] * (len(metrics) + 1),
        *([name, *(format_score(made, metric) for metric in metrics)] for name, made in compared),
    ]
    # MLflow's page leaves no room between the columns of a table
    yield "\n".join(f"| {f' | {SPACE}'.join(cells)} |".replace(f"{SPACE}---", "---") for cells in lines)


def describe_engine(tags: Mapping[str, str]) -> Iterator[str]:
    """Yield by which engine a version predicts, and how that one did beside torch; nothing where it is torch.

    Examples
    --------
    >>> numbers = '{"onnx": {"speedup": 2.15, "accuracy_lost": 0.25}}'
    >>> list(describe_engine({"engine.chosen": "onnx", "mlflow.dlpipe.engines": numbers}))
    ['Predicts by the engine onnx: 2.15 times as fast as torch, accuracy lost 0.25 points.']
    """
    engine = tags.get(ENGINE, TORCH)
    numbers = read_engine_numbers(tags).get(engine, {})
    if engine == TORCH:
        return
    speed = f"{numbers['speedup']:.2f} times as fast as torch" if "speedup" in numbers else ""
    lost = f"accuracy lost {numbers['accuracy_lost']:.2f} points" if "accuracy_lost" in numbers else ""
    said = ", ".join(filter(None, (speed, lost)))
    yield f"Predicts by the engine {engine}{f': {said}' if said else ''}."


def list_compared(tags: Mapping[str, str], verdict: Judgement | None) -> list[tuple[str, Evaluation]]:
    """Return the evaluations to compare with their names, the version's first; none where its tags keep none."""
    scores = read_scores(tags)
    if "test" not in scores:
        return []
    found = [("this version", scores["test"])]
    if "baseline" in scores:
        found.append(("baseline", scores["baseline"]))
    if verdict is not None and verdict.rival is not None:
        # it may know fewer classes, and is scored on the rows of those
        some = "" if verdict.rival.rows == scores["test"].rows else f", {verdict.rival.rows:,} rows"
        found.append((f"champion v{verdict.champion}{some}", verdict.rival))
    return found


def describe_verdict(verdict: Judgement) -> str:
    """Return the line of the gate."""
    return f"{GATE}{' '.join(verdict.reason.split())[:LONGEST_REASON]}"


def renew_description(before: str, tags: Mapping[str, str]) -> str:
    """Return the description with what ``tags`` have by now; what people wrote below the line of the gate stays.

    A description that does not begin as ours is returned as it is.

    Examples
    --------
    >>> tags = {"delta.table": "reviews", "delta.version": "0"}
    >>> before = describe_version(tags) + "\\n\\nUsed by the shop."
    >>> name, value = make_verdict_tag(RecordedVerdict(True, "passed"))
    >>> print(renew_description(before, {**tags, name: value}))
    Trained on reviews@v0.
    <BLANKLINE>
    Gate: passed
    <BLANKLINE>
    Used by the shop.
    """
    made = describe_version(tags)
    lines = before.splitlines()
    gate = next((number for number, line in enumerate(lines) if line.startswith(GATE)), None)
    if gate is None or lines[0] != made.splitlines()[0]:
        return before or made
    return "\n".join([made, *lines[gate + 1 :]])[:LONGEST]


def record_verdict(
    client: MlflowClient, name: str, version: int, judgement: Judgement, *, unless_known: bool
) -> None:
    """Keep what the gate said of a version in its tag and its description.

    Parameters
    ----------
    client : MlflowClient
    name, version : str and int
    judgement : Judgement
    unless_known : bool
        Leave what is kept already.
    """
    tag = make_verdict_tag(judgement)
    there = client.get_model_version(name, str(version))
    if not (unless_known and tag[0] in there.tags):
        client.set_model_version_tag(name, str(version), *tag)
        renewed = renew_description(there.description or "", {**there.tags, tag[0]: tag[1]})
        if renewed != there.description:
            client.update_model_version(name, str(version), renewed)
