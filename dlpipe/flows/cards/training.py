"""The cards of a search and of a training."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from metaflow import current
from metaflow.cards import Markdown, VegaChart

from dlpipe.flows.cards.parts import make_table, show
from dlpipe.flows.reporting import report_point

if TYPE_CHECKING:
    from dlpipe.training import EpochScore
    from dlpipe.tuning import Tuned


class LearningCurves:
    """The training's card, redrawn after each epoch while the step runs."""

    def __init__(self) -> None:
        self._epochs: list[EpochScore] = []
        self._chart = VegaChart(_draw_curves([]), show_controls=False)
        self._line = Markdown("Waiting for the first epoch.")
        self._card = current.card["training"]
        self._card.extend([Markdown("# Training"), self._line, self._chart])

    def add(self, score: EpochScore) -> None:
        """Draw one more epoch, and report it: MLflow has it at once."""
        self._epochs.append(score)
        report_point("epoch_scores", score)
        self._chart.update(_draw_curves(self._epochs))
        self._line.update(
            f"Epoch {score.epoch}: {_format_scores(score)} on the valid split, "
            f"{score.rows_per_second:,.0f} rows/s."
        )
        self._card.refresh()

    def add_loss(self, step: int, loss: float) -> None:
        """Report the loss of the latest batches."""
        report_point("batches", {"step": step, "loss": loss})


def _format_scores(score: EpochScore) -> str:
    scores = {name: value for name, value in score.scores.items() if name != "val_loss"}
    return ", ".join(f"{name.removeprefix('val_')} {value:.3f}" for name, value in scores.items())


def _collect_scores(score: EpochScore) -> dict[str, float]:
    return {"train_loss": score.train_loss, **score.scores}


def _draw_curves(epochs: Sequence[EpochScore]) -> dict[str, Any]:
    points = [(e.epoch, name, value) for e in epochs for name, value in _collect_scores(e).items()]
    values = [{"epoch": epoch, "name": name, "value": value} for epoch, name, value in points]
    axis = {"type": "quantitative", "scale": {"zero": False}}
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "data": {"values": values},
        "mark": {"type": "line", "point": True},
        "width": 460,
        "height": 280,
        "encoding": {
            "x": {"field": "epoch", "type": "ordinal", "axis": {"labelAngle": 0}},
            "y": {"field": "value", "title": None, **axis},
            "color": {"field": "name", "type": "nominal", "title": None},
        },
    }


def show_trials(tuned: Tuned) -> None:
    """Show what was tried, the best first."""
    show(make_trial_parts(tuned), card="trials")


def make_trial_parts(tuned: Tuned) -> Iterator[Any]:
    """Yield what the card shows of a search."""
    names = list(tuned.trials[0].values) if tuned.trials else []
    best = ", ".join(f"{name} {_format_value(value)}" for name, value in tuned.best.items())
    yield Markdown("# Trials")
    yield Markdown(f"Used: {best}" if best else "No search: the settings are used as they stand.")
    if tuned.note:
        yield Markdown(f"{tuned.note[0].upper()}{tuned.note[1:]}.")
    if names:
        yield make_table(["trial", *names, "score", "epochs", "note"], _list_trial_rows(tuned, names))


def _list_trial_rows(tuned: Tuned, names: Sequence[str]) -> Iterable[Sequence[Any]]:
    for trial in sorted(tuned.trials, key=lambda trial: (-trial.score, trial.number)):
        values = [_format_value(trial.values[name]) for name in names]
        yield [trial.number + 1, *values, f"{trial.score:.4f}", len(trial.scores), trial.error or ""]


def _format_value(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
