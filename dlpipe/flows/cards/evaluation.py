"""The cards of an evaluation and of the gate's verdict."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from metaflow.cards import Markdown

from dlpipe.evaluation import (
    Evaluation,
    Rival,
    RowComparison,
    Thresholds,
    compare_row_by_row,
    list_checks,
)
from dlpipe.flows.cards.parts import Box, make_boxes, make_image, make_note, make_score_table, make_table, show
from dlpipe.task import Check, find_task
from dlpipe.task.evaluation import cut_text, format_interval, spell_metric

if TYPE_CHECKING:
    from dlpipe.flows.registering import Registered
    from dlpipe.tables import TableVersion
    from dlpipe.task import Model, Task


def show_evaluation(
    evaluation: Evaluation,
    baseline: Evaluation,
    *,
    model: Model,
    rows: TableVersion,
    gate: Thresholds | None = None,
    name: str = "",
) -> None:
    """Show how good a model is beside its baseline, in which rows, and what the gate says so far.

    Parameters
    ----------
    evaluation, baseline : Evaluation
        Of the model and of the plain model, on the same test rows.
    model : Model
        The one that was evaluated: its task knows what tables and pictures suit its labels.
    rows : TableVersion
        The table whose test split they are of.
    gate : Thresholds, optional
        What the model must reach; without it, nothing is said of a gate.
    name : str, optional
        By which the model is to be registered.
    """
    show(make_evaluation_parts(evaluation, baseline, model=model, rows=rows, gate=gate, name=name))


def make_evaluation_parts(
    evaluation: Evaluation,
    baseline: Evaluation,
    *,
    model: Model,
    rows: TableVersion,
    gate: Thresholds | None = None,
    name: str = "",
) -> Iterator[Any]:
    """Yield what the card of an evaluation shows; ``show_evaluation`` has the parameters."""
    task = find_task(model.task)
    checks = list_known_checks(evaluation, baseline, gate, task)
    beside = compare_row_by_row(evaluation, baseline, rows, task=task, card=model.card)
    score = f"{spell_first(evaluation.headline)} {evaluation.metrics[evaluation.headline]:.3f}"
    yield Markdown(f"# {score}{write_judgement(checks)}")
    yield make_boxes(
        make_score_box("this model", evaluation, f"{evaluation.rows:,} test rows"),
        make_rival_box("baseline", baseline, beside),
        *([make_gate_box(checks)] if checks else []),
    )
    called = f"`{name}`, " if name else ""
    yield Markdown(
        f"Model: {called}{model.task}, weights `{model.digest[:12]}`. Measured on the {evaluation.rows:,} rows of "
        f"the test split of **{rows}** ({rows.rows:,} rows). Intervals are of 95 %."
    )
    if checks:
        yield from make_gate_parts(checks)
        yield make_note("The former champion is compared in the step register, whose card has the verdict.")
    yield Markdown("## Scores")
    yield make_table(["metric", "this model", "baseline"], list_scores([evaluation, baseline], task))
    for table in task.target.make_tables(evaluation, baseline):
        yield from make_score_table(table)
    yield from make_comparison_parts(beside, "the baseline")
    yield from make_mistake_parts(evaluation)
    for caption, figure in task.target.draw_figures(evaluation, baseline):
        yield make_image(figure, caption)


def list_known_checks(
    evaluation: Evaluation, baseline: Evaluation, gate: Thresholds | None, task: Task
) -> list[Check]:
    """Return what the gate asks that does not need the champion."""
    if gate is None:
        return []
    return list_checks(evaluation, baseline=baseline, champion=None, thresholds=gate, target=task.target)


def write_judgement(checks: Sequence[Check]) -> str:
    """Return what follows the score in the first line of a card."""
    if not checks:
        return ""
    return ": enough for the gate so far" if all(check.passed for check in checks) else ": the gate will refuse it"


def make_score_box(title: str, evaluation: Evaluation, note: str) -> Box:
    """Return the headline of an evaluation."""
    low, high = evaluation.intervals[evaluation.headline]
    value = f"{evaluation.metrics[evaluation.headline]:.3f}"
    return Box(f"{title}: {spell_metric(evaluation.headline)}", value, f"{low:.3f} to {high:.3f}, {note}")


def make_rival_box(title: str, rival: Evaluation, comparison: RowComparison | None) -> Box:
    """Return the headline of another model's evaluation, with how much better or worse this one is."""
    value = f"{rival.metrics[rival.headline]:.3f}"
    name = f"{title}: {spell_metric(rival.headline)}"
    if comparison is None:
        low, high = rival.intervals[rival.headline]
        return Box(name, value, f"{low:.3f} to {high:.3f}")
    return Box(name, value, f"this model: {comparison.line()}", comparison.is_better)


def make_gate_box(checks: Sequence[Check]) -> Box:
    """Return how many checks are passed, and the first that is not."""
    failed = [check for check in checks if not check.passed]
    passed = len(checks) - len(failed)
    note = failed[0].words if failed else "the champion is compared in the step register"
    return Box("gate, so far", f"{passed} of {len(checks)} passed", note, not failed)


def make_gate_parts(checks: Sequence[Check]) -> Iterator[Any]:
    """Yield each check with its answer, those that failed first."""
    yield Markdown("## What the gate asks")
    ordered = sorted(checks, key=lambda check: check.passed)
    yield make_table(["", "check"], ([["✗ failed", "✓ passed"][check.passed], check.words] for check in ordered))


def list_scores(evaluations: Sequence[Evaluation], task: Task) -> Iterator[list[str]]:
    """Yield a line for each metric, with its interval for each of the evaluations."""
    for name in evaluations[0].metrics:
        less = " (less is better)" if name in task.target.lower_is_better else ""
        scores = [
            format_interval(made.metrics[name], made.intervals[name]) if name in made.metrics else "–"
            for made in evaluations
        ]
        yield [f"{spell_metric(name)}{less}", *scores]


def make_comparison_parts(comparison: RowComparison | None, rival: str) -> Iterator[Any]:
    """Yield on which rows a model is better and worse than a rival.

    Parameters
    ----------
    comparison : RowComparison, optional
        ``None`` where it is not known what was predicted of each row.
    rival : str
        What a sentence calls the other model.
    """
    if comparison is None:
        return
    same = comparison.rows - comparison.won - comparison.lost
    yield Markdown(f"## Row by row against {rival}")
    yield Markdown(
        f"Better on {comparison.won:,} of {comparison.rows:,} rows, worse on {comparison.lost:,}, as good on "
        f"{same:,}: {comparison.line()}."
    )
    for title, rows, count in (
        ("Lost", comparison.lost_rows, comparison.lost),
        ("Won", comparison.won_rows, comparison.won),
    ):
        if rows:
            yield Markdown(f"### {title}: {len(rows)} of {count:,}")
            cells = ([cut_text(row.text), row.label, row.predicted, row.rival_predicted] for row in rows)
            yield make_table(["row", "true", "this model", rival], cells)


def make_mistake_parts(evaluation: Evaluation) -> Iterator[Any]:
    """Yield the worst mistakes."""
    mistakes = [mistake.to_cells() for mistake in evaluation.mistakes]
    yield Markdown("## Worst mistakes")
    if mistakes:
        yield make_table(list(mistakes[0]), (list(cells.values()) for cells in mistakes))
    else:
        yield Markdown("None: every row was predicted right.")


def spell_first(metric: str) -> str:
    """Return a metric's name as a sentence begins with it."""
    name = spell_metric(metric)
    return name[0].upper() + name[1:]


def show_verdict(
    done: Registered,
    evaluation: Evaluation,
    baseline: Evaluation,
    *,
    model: Model,
    rows: TableVersion,
    gate: Thresholds,
) -> None:
    """Show whether a version became champion and why, beside the former one row by row.

    Parameters
    ----------
    done : Registered
        What was registered, and the gate's verdict.
    evaluation, baseline : Evaluation
        Of the model and of the plain model, on the same test rows.
    model : Model
    rows : TableVersion
        The table whose test split they are of.
    gate : Thresholds
        What the model had to reach.
    """
    show(make_verdict_parts(done, evaluation, baseline, model=model, rows=rows, gate=gate))


def make_verdict_parts(
    done: Registered,
    evaluation: Evaluation,
    baseline: Evaluation,
    *,
    model: Model,
    rows: TableVersion,
    gate: Thresholds,
) -> Iterator[Any]:
    """Yield what the card of a registration shows; ``show_verdict`` has the parameters."""
    task, rival, version = find_task(model.task), done.rival, done.classifier
    title, champion = f"{version.name} v{version.version}", f"champion v{rival.version}" if rival else "champion"
    checks = list_checks(evaluation, baseline=baseline, champion=rival, thresholds=gate, target=task.target)
    beside = None
    if rival and rival.evaluation and rival.candidate:
        beside = compare_row_by_row(rival.candidate, rival.evaluation, rows, task=task, card=model.card)
    score = f"{spell_metric(evaluation.headline)} {evaluation.metrics[evaluation.headline]:.3f}"
    verdict = "passes the gate" if done.verdict.passed else "is refused by the gate"
    yield Markdown(f"# {title}, {score}, {verdict}")
    yield make_boxes(
        make_score_box(title, evaluation, f"{evaluation.rows:,} test rows"),
        make_champion_box(champion, rival, beside),
        make_rival_box("baseline", baseline, None),
        Box(
            "aliases",
            "promoted" if done.promotion.moved else "not moved",
            str(done.promotion),
            done.verdict.passed,
        ),
    )
    yield Markdown(f"Measured on the test split of **{rows}**. Intervals are of 95 %.")
    yield from make_gate_parts(checks)
    if rival and rival.evaluation and rival.candidate:
        yield Markdown("## Scores on the same rows")
        yield make_table(["metric", title, champion], list_scores([rival.candidate, rival.evaluation], task))
        yield from make_comparison_parts(beside, champion)


def make_champion_box(title: str, rival: Rival | None, comparison: RowComparison | None) -> Box:
    """Return the box of the former champion, or why there is nothing to compare with.

    Parameters
    ----------
    title : str
        What the champion is called.
    rival : Rival, optional
        ``None`` where there was no champion.
    comparison : RowComparison, optional
        Of the candidate beside it.
    """
    if rival is None:
        return Box(title, "none before", "nothing to compare with")
    if rival.evaluation is None:
        return Box(title, "not comparable", rival.problem)
    return make_rival_box(title, rival.evaluation, comparison)
