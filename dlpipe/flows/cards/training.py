"""The cards of a search and of a training."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from metaflow import current
from metaflow.cards import Markdown, VegaChart

from dlpipe.flows.cards.parts import Box, make_boxes, make_note, make_table, show
from dlpipe.flows.reporting import report_point
from dlpipe.task.gate import spell_metric

if TYPE_CHECKING:
    from dlpipe.training import EpochScore
    from dlpipe.tuning import Trial, Tuned

SCHEMA = "https://vega.github.io/schema/vega-lite/v5.json"
ENOUGH_TRIALS = 10
"""Fewer say nothing about which setting matters."""


class LearningCurves:
    """The training's card, redrawn after each epoch while the step runs.

    Parameters
    ----------
    settings : mapping of str to Any, optional
        Those of the training, as it runs with them.
    """

    def __init__(self, settings: Mapping[str, Any] | None = None) -> None:
        self._epochs: list[EpochScore] = []
        self._chart = VegaChart(draw_curves([]), show_controls=False)
        self._line = Markdown("# Training: waiting for the first epoch")
        self._boxes = Markdown("")
        self._card = current.card["training"]
        parts = [self._line, self._boxes, self._chart]
        if settings:
            parts += [Markdown("## Settings"), make_table(["setting", "value"], _list_settings(settings))]
        self._card.extend(parts)

    def add(self, score: EpochScore) -> None:
        """Draw one more epoch, and report it: MLflow has it at once."""
        self._epochs.append(score)
        report_point("epoch_scores", score)
        self._chart.update(draw_curves(self._epochs))
        self._line.update(make_training_title(self._epochs))
        self._boxes.update(make_training_boxes(self._epochs).render()["source"])
        self._card.refresh()

    def add_loss(self, step: int, loss: float) -> None:
        """Report the loss of the latest batches."""
        report_point("batches", {"step": step, "loss": loss})


def find_best(epochs: Sequence[EpochScore]) -> EpochScore:
    """Return the first epoch with the best deciding score: its weights are the model."""
    return max(epochs, key=lambda epoch: (epoch.score, -epoch.epoch))


def make_training_title(epochs: Sequence[EpochScore]) -> str:
    """Return the first line of the card: the best epoch and its score."""
    best = find_best(epochs)
    score = f"{spell_metric(best.deciding.removeprefix('val_'))} {best.score:.3f}"
    return f"# Epoch {best.epoch} of {len(epochs)} is the best so far: {score} on the valid split"


def make_training_boxes(epochs: Sequence[EpochScore]) -> Markdown:
    """Return the best scores, what they took, and whether more epochs would help."""
    best = find_best(epochs)
    scores = {name.removeprefix("val_"): value for name, value in best.scores.items()}
    others = ", ".join(f"{spell_metric(name)} {value:.3f}" for name, value in scores.items())
    seconds = sum(epoch.seconds for epoch in epochs)
    speed = sum(epoch.rows_per_second * epoch.seconds for epoch in epochs) / seconds if seconds else 0.0
    after = len(epochs) - best.epoch
    trend = f"{after} further epochs made it no better" if after else "the last epoch: more might be better"
    return make_boxes(
        Box("best epoch", str(best.epoch), trend),
        Box("on the valid split", f"{best.score:.3f}", others),
        Box("loss", f"{best.train_loss:.3f}", "of the train split, in that epoch"),
        Box("training took", f"{seconds:,.0f} s", f"{speed:,.0f} rows a second, without validation"),
    )


def draw_curves(epochs: Sequence[EpochScore]) -> dict[str, Any]:
    """Return a chart of losses and one of scores, each with its own axis; the best epoch is marked in both."""
    losses = [(e.epoch, "train", e.train_loss) for e in epochs]
    losses += [(e.epoch, "valid", e.scores["val_loss"]) for e in epochs if "val_loss" in e.scores]
    scores = [
        (e.epoch, spell_metric(name.removeprefix("val_")), value)
        for e in epochs
        for name, value in e.scores.items()
        if name != "val_loss"
    ]
    best = find_best(epochs).epoch if epochs else None
    return {
        "$schema": SCHEMA,
        "hconcat": [_draw_lines("loss", losses, best), _draw_lines("scores on the valid split", scores, best)],
        "resolve": {"scale": {"color": "independent", "strokeDash": "independent"}},
    }


def _draw_lines(title: str, points: Sequence[tuple[int, str, float]], best: int | None) -> dict[str, Any]:
    x = {"field": "epoch", "type": "ordinal", "axis": {"labelAngle": 0}}
    y = {"field": "value", "type": "quantitative", "title": None, "scale": {"zero": False}}
    colour = {"field": "name", "type": "nominal", "title": None, "legend": {"orient": "bottom"}}
    shape = {"field": "name", "type": "nominal", "legend": None}  # of two lines in one place, both are seen
    lines = {
        "mark": {"type": "line", "point": {"size": 50}, "opacity": 0.8},
        "encoding": {"x": x, "y": y, "color": colour, "strokeDash": shape},
    }
    mark = {
        "data": {"values": [{"epoch": best}] if best else []},
        "mark": {"type": "rule", "strokeDash": [4, 4], "color": "#6b7280"},
        "encoding": {"x": x, "tooltip": {"value": "the best epoch"}},
    }
    values = [{"epoch": epoch, "name": name, "value": value} for epoch, name, value in points]
    return {"title": title, "width": 300, "height": 220, "data": {"values": values}, "layer": [lines, mark]}


def _list_settings(settings: Mapping[str, Any]) -> Iterator[list[str]]:
    for name, value in settings.items():
        if value is not None and value != "":
            yield [name.replace("_", " "), _format_value(value)]


def show_trials(tuned: Tuned) -> None:
    """Show what was tried, the best first."""
    show(make_trial_parts(tuned), card="trials")


def make_trial_parts(tuned: Tuned) -> Iterator[Any]:
    """Yield what the card shows of a search: the winner and what it beat, then how trials and settings did."""
    ended = [trial for trial in tuned.trials if trial.scores]
    best = ", ".join(f"{name.replace('_', ' ')} {_format_value(value)}" for name, value in tuned.best.items())
    yield Markdown(f"# Trained with {best}" if best else "# The settings are used as they stand")
    if tuned.note:
        yield Markdown(f"{tuned.note[0].upper()}{tuned.note[1:]}.")
    if not tuned.trials:
        yield Markdown("No search: no trials were asked for, or there is nothing to search.")
        return
    if ended:
        yield make_boxes(*_make_trial_boxes(tuned, ended))
        if max(len(trial.scores) for trial in ended) > 1:
            yield Markdown("## Score by epoch")
            yield VegaChart(_draw_trial_curves(ended), show_controls=False)
        names = [name for name in tuned.trials[0].values if len({str(trial.values[name]) for trial in ended}) > 1]
        if names:
            yield Markdown("## What each setting did")
            yield VegaChart(_draw_slices(ended, names), show_controls=False)
            yield from _make_importance(ended, names)
    yield Markdown("## Trials")
    names = list(tuned.trials[0].values)
    yield make_table(["trial", *names, "score", "epochs", "note"], _list_trial_rows(tuned, names))


def _make_trial_boxes(tuned: Tuned, ended: Sequence[Trial]) -> Iterator[Box]:
    ranked = sorted(ended, key=lambda trial: -trial.score)
    deciding = spell_metric(ranked[0].scores[0].deciding.removeprefix("val_"))
    is_used = bool(tuned.best) and all(ranked[0].values.get(name) == value for name, value in tuned.best.items())
    taken = "its values are used" if is_used else "not surely better than the settings as they stand"
    yield Box(
        f"best {deciding}", f"{ranked[0].score:.3f}", f"trial {ranked[0].number + 1}: {taken}", is_used or None
    )
    if len(ranked) > 1:
        median = ranked[len(ranked) // 2].score
        yield Box(
            "the next one", f"{ranked[1].score:.3f}", f"trial {ranked[1].number + 1}; the median is {median:.3f}"
        )
    failed = len(tuned.trials) - len(ended)
    yield Box("trials", str(len(tuned.trials)), f"{failed} failed" if failed else "all ended", failed == 0 or None)


def _draw_trial_curves(trials: Sequence[Trial]) -> dict[str, Any]:
    values = [
        {"trial": str(trial.number + 1), "epoch": score.epoch, "score": score.score}
        for trial in trials
        for score in trial.scores
    ]
    return {
        "$schema": SCHEMA,
        "data": {"values": values},
        "mark": {"type": "line", "point": True, "opacity": 0.7},
        "width": 620,
        "height": 240,
        "encoding": {
            "x": {"field": "epoch", "type": "ordinal", "axis": {"labelAngle": 0}},
            "y": {"field": "score", "type": "quantitative", "scale": {"zero": False}},
            "color": {"field": "trial", "type": "nominal"},
        },
    }


def _draw_slices(trials: Sequence[Trial], names: Sequence[str]) -> dict[str, Any]:
    """Return a chart for each setting that was varied: the score of each trial by its value."""
    charts = []
    for name in names:
        values = [
            {"value": trial.values[name], "score": trial.score, "trial": trial.number + 1} for trial in trials
        ]
        given = [trial.values[name] for trial in trials]
        is_number = all(isinstance(value, int | float) and not isinstance(value, bool) for value in given)
        spread = is_number and min(given) > 0 and max(given) / min(given) >= 10
        x: dict[str, Any] = {"field": "value", "title": name.replace("_", " ")}
        x |= {"type": "quantitative"} if is_number else {"type": "nominal", "axis": {"labelAngle": 0}}
        if is_number:
            x["scale"] = {"type": "log"} if spread else {"zero": False}
        charts.append(
            {
                "data": {"values": values},
                "mark": {"type": "point", "filled": True, "size": 70},
                "width": 200,
                "height": 180,
                "encoding": {
                    "x": x,
                    "y": {"field": "score", "type": "quantitative", "scale": {"zero": False}},
                    "tooltip": [{"field": "trial"}, {"field": "value"}, {"field": "score", "format": ".4f"}],
                },
            }
        )
    return {"$schema": SCHEMA, "concat": charts, "columns": 3}


def _make_importance(trials: Sequence[Trial], names: Sequence[str]) -> Iterator[Any]:
    """Yield how closely the score follows each setting that is a number, by Spearman's rank correlation."""
    if len(trials) < ENOUGH_TRIALS:
        yield make_note(
            f"{len(trials)} trials are too few to say which setting matters; {ENOUGH_TRIALS} begin to."
        )
        return
    from scipy.stats import spearmanr

    found = []
    for name in names:
        given = [trial.values[name] for trial in trials]
        if all(isinstance(value, int | float) for value in given):
            rank = float(spearmanr(given, [trial.score for trial in trials]).statistic)
            found.append(
                [name.replace("_", " "), f"{rank:+.2f}", "more is better" if rank > 0 else "less is better"]
            )
    if found:
        yield make_table(
            ["setting", "rank correlation with the score", ""], sorted(found, key=lambda row: -abs(float(row[1])))
        )


def _list_trial_rows(tuned: Tuned, names: Sequence[str]) -> Iterable[Sequence[Any]]:
    for trial in sorted(tuned.trials, key=lambda trial: (-trial.score, trial.number)):
        values = [_format_value(trial.values[name]) for name in names]
        score = f"{trial.score:.4f}" if trial.scores else "–"
        yield [trial.number + 1, *values, score, len(trial.scores), trial.error or ""]


def _format_value(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
