"""The cards of a search and of a training."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from metaflow import current
from metaflow.cards import Markdown, VegaChart

from dlpipe.flows.cards.parts import OPEN, Box, make_boxes, make_note, make_table, show
from dlpipe.flows.reporting import report_point
from dlpipe.task.evaluation import spell_metric

if TYPE_CHECKING:
    from dlpipe.flows.former import FormerTraining
    from dlpipe.training import EpochScore
    from dlpipe.tuning import Trial, Tuned

SCHEMA = "https://vega.github.io/schema/vega-lite/v5.json"
NEW, BEHIND = ("#1f6fb2", "#d97706", "#17803a", "#7c3aed"), OPEN
"""Colours of the curves of this training, and of those of a former one."""
EPOCHS = {"labelAngle": 0, "labelOverlap": True}
"""An axis of many epochs names some of them."""
WAITING = "# Training: waiting for the first epoch"
FEW_VALUES, SHORT_NUMBER = 5, 6
"""So many numbers of so many characters, such as 16 and 32, are drawn as names."""
ENOUGH_TRIALS = 10
"""Fewer say nothing about which setting matters."""


Point = tuple[int, str, float]
"""An epoch, the name of a curve, and its value."""


class LearningCurves:
    """The training's card, redrawn after each epoch while the step runs.

    Parameters
    ----------
    settings : mapping of str to Any, optional
        Those of the training, as it runs with them.
    former : FormerTraining, optional
        Whose curves are drawn behind the new ones.
    """

    def __init__(self, settings: Mapping[str, Any] | None = None, *, former: FormerTraining | None = None) -> None:
        self._epochs: list[EpochScore] = []
        self._former = former
        self._chart, self._line, self._boxes = VegaChart({}, show_controls=False), Markdown(WAITING), Markdown("")
        named = [*_list_settings(settings or {})]
        self._below = [Markdown("## Settings"), make_table(["setting", "value"], named)] if named else []
        self._card = current.card["training"]
        self._card.extend([self._line, *self._below])

    def add(self, score: EpochScore) -> None:
        """Draw one more epoch, and report it: MLflow has it at once."""
        self._epochs.append(score)
        report_point("epoch_scores", score)
        self._chart.update(draw_curves(self._epochs, self._former))
        self._line.update(make_training_title(self._epochs))
        self._boxes.update(make_training_boxes(self._epochs).render()["source"])
        if len(self._epochs) == 1:
            self._show_curves()
        self._card.refresh()

    def _show_curves(self) -> None:
        """Put boxes and curves between title and settings: a chart without a point in it would be a broken one."""
        behind = [make_note(f"Grey: {self._former}.")] if self._former else []
        self._card.clear()
        self._card.extend([self._line, self._boxes, self._chart, *behind, *self._below])

    def end(self) -> None:
        """Say on the card that no epoch follows."""
        if self._epochs:
            self._line.update(make_training_title(self._epochs, ended=True))

    def add_loss(self, step: int, loss: float) -> None:
        """Report the loss of the latest batches."""
        report_point("batches", {"step": step, "loss": loss})


def find_best(epochs: Sequence[EpochScore]) -> EpochScore:
    """Return the first epoch with the best deciding score: its weights are the model."""
    return max(epochs, key=lambda epoch: (epoch.score, -epoch.epoch))


def make_training_title(epochs: Sequence[EpochScore], *, ended: bool = False) -> str:
    """Return the first line of the card: the best epoch and its score."""
    best = find_best(epochs)
    score = f"{spell_metric(best.deciding.removeprefix('val_'))} {best.score:.3f}"
    words = "is the best" if ended else "is the best so far"
    return f"# Epoch {best.epoch} of {len(epochs)} {words}: {score} on the valid split"


def make_training_boxes(epochs: Sequence[EpochScore]) -> Markdown:
    """Return the best scores, what they took, and whether more epochs would help."""
    best = find_best(epochs)
    scores = {name.removeprefix("val_"): value for name, value in best.scores.items()}
    others = ", ".join(f"{spell_metric(name)} {value:.3f}" for name, value in scores.items())
    seconds = sum(epoch.seconds for epoch in epochs)
    speed = sum(epoch.rows_per_second * epoch.seconds for epoch in epochs) / seconds if seconds else 0.0
    after = len(epochs) - best.epoch
    more = f"{after} further epoch{'s' if after > 1 else ''} made it no better"
    trend = more if after else "the last epoch: more might be better"
    return make_boxes(
        Box("best epoch", str(best.epoch), trend),
        Box(f"{spell_metric(best.deciding.removeprefix('val_'))} on the valid split", f"{best.score:.3f}", others),
        Box("loss", f"{best.train_loss:.3f}", "of the train split, in that epoch"),
        Box("training took", f"{seconds:,.0f} s", f"{speed:,.0f} rows a second, without validation"),
    )


def draw_curves(epochs: Sequence[EpochScore], former: FormerTraining | None = None) -> dict[str, Any]:
    """Return a chart of losses and one of scores, each with its own axis; the best epoch is marked in both.

    Parameters
    ----------
    epochs : sequence of EpochScore
        Those that are done.
    former : FormerTraining, optional
        Its loss on the valid split and the score that chose its epoch stand behind, in grey.
    """
    losses = [(e.epoch, "train", e.train_loss) for e in epochs]
    losses += [(e.epoch, "valid", e.scores["val_loss"]) for e in epochs if "val_loss" in e.scores]
    scores = [
        (e.epoch, spell_metric(name.removeprefix("val_")), value)
        for e in epochs
        for name, value in e.scores.items()
        if name != "val_loss"
    ]
    best = find_best(epochs).epoch if epochs else None
    before = former.epochs if former else ()
    called = f"v{former.version.version}" if former else ""
    behind = [
        [(e.epoch, f"{called} valid", e.scores["val_loss"]) for e in before if "val_loss" in e.scores],
        [(e.epoch, f"{called} {spell_metric(e.deciding.removeprefix('val_'))}", e.score) for e in before],
    ]
    return {
        "$schema": SCHEMA,
        "description": "Learning curves",
        "hconcat": [
            _draw_lines("loss", losses, behind[0], best),
            _draw_lines("scores on the valid split", scores, behind[1], best),
        ],
        "bounds": "flush",  # titles of both stand at one height, however wide the numbers at their sides are
        "spacing": 60,
        "resolve": {"scale": {"color": "independent", "strokeDash": "independent"}},
    }


def _draw_lines(title: str, points: Sequence[Point], behind: Sequence[Point], best: int | None) -> dict[str, Any]:
    names = list(dict.fromkeys(name for _, name, _ in points))
    former = list(dict.fromkeys(name for _, name, _ in behind))
    colours = [*(NEW[at % len(NEW)] for at in range(len(names))), *(BEHIND for _ in former)]
    x = {"field": "epoch", "type": "ordinal", "axis": EPOCHS}
    y = {"field": "value", "type": "quantitative", "title": None, "scale": {"zero": False}}
    colour: dict[str, Any] = {"field": "name", "type": "nominal", "title": None, "legend": {"orient": "bottom"}}
    colour["scale"] = {"domain": [*names, *former], "range": colours}
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
    # what comes first is drawn first, and so stands behind
    values = [{"epoch": epoch, "name": name, "value": value} for epoch, name, value in (*behind, *points)]
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
    if not ended:
        yield Markdown(f"**No trial has ended with a score: {len(tuned.trials)} of {len(tuned.trials)} failed.**")
    else:
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
    columns = ["trial", *(name.replace("_", " ") for name in names), spell_deciding(ended), "epochs", "note"]
    yield make_table(columns, _list_trial_rows(tuned, names))


def _make_trial_boxes(tuned: Tuned, ended: Sequence[Trial]) -> Iterator[Box]:
    ranked = sorted(ended, key=lambda trial: -trial.score)
    deciding = spell_deciding(ended)
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


def spell_deciding(trials: Sequence[Trial]) -> str:
    """Return what trials are ranked by; ``score`` where none has one."""
    scores = [trial.scores[0] for trial in trials if trial.scores]
    return spell_metric(scores[0].deciding.removeprefix("val_")) if scores else "score"


def _draw_trial_curves(trials: Sequence[Trial]) -> dict[str, Any]:
    """Return the score of each trial by epoch; the two best stand out, since nobody can tell 25 colours apart."""
    ranked = sorted(trials, key=lambda trial: -trial.score)
    names = [f"trial {trial.number + 1}" for trial in ranked[:2]]
    names = [f"{name}, {place}" for name, place in zip(names, ("the best", "the next"), strict=False)]
    others = ["the others"] * (len(ranked) - len(names))
    values = [
        {"trial": str(trial.number + 1), "name": name, "epoch": score.epoch, "score": score.score}
        for trial, name in reversed(list(zip(ranked, [*names, *others], strict=True)))
        for score in trial.scores
    ]
    shown = [*names, *others[:1]]
    colours: dict[str, Any] = {"domain": shown, "range": [*NEW[: len(names)], BEHIND][: len(shown)]}
    return {
        "$schema": SCHEMA,
        "description": "Score by epoch",
        "data": {"values": values},
        "mark": {"type": "line", "point": True, "opacity": 0.7},
        "width": 620,
        "height": 240,
        "encoding": {
            "x": {"field": "epoch", "type": "ordinal", "axis": EPOCHS},
            "y": {
                "field": "score",
                "type": "quantitative",
                "title": spell_deciding(trials),
                "scale": {"zero": False},
            },
            "color": {
                "field": "name",
                "type": "nominal",
                "title": None,
                "scale": colours,
                "legend": {"orient": "bottom"},
            },
            "detail": {"field": "trial"},
            "tooltip": [{"field": "trial"}, {"field": "epoch"}, {"field": "score", "format": ".4f"}],
        },
    }


def _draw_slices(trials: Sequence[Trial], names: Sequence[str]) -> dict[str, Any]:
    """Return a chart for each setting that was varied: the score of each trial by its value."""
    charts, deciding = [], spell_deciding(trials)
    for name in names:
        values = [
            {"value": trial.values[name], "score": trial.score, "trial": trial.number + 1} for trial in trials
        ]
        given = [trial.values[name] for trial in trials]
        is_number = all(isinstance(value, int | float) and not isinstance(value, bool) for value in given)
        is_short = all(len(f"{value:g}") <= SHORT_NUMBER for value in given) if is_number else True
        is_number = is_number and (len(set(given)) > FEW_VALUES or not is_short)
        spread = is_number and min(given) > 0 and max(given) / min(given) >= 10
        x: dict[str, Any] = {"field": "value", "title": name.replace("_", " ")}
        x |= {"type": "quantitative"} if is_number else {"type": "ordinal", "axis": {"labelAngle": 0}}
        if is_number:
            x["axis"] = {"tickCount": 3, "labelOverlap": True, "format": "~g", "grid": not spread}
            x["scale"] = {"type": "log"} if spread else {"zero": False}
        charts.append(
            {
                "data": {"values": values},
                "mark": {"type": "point", "filled": True, "size": 70},
                "width": 165,
                "height": 165,
                "encoding": {
                    "x": x,
                    "y": {"field": "score", "type": "quantitative", "title": deciding, "scale": {"zero": False}},
                    "tooltip": [{"field": "trial"}, {"field": "value"}, {"field": "score", "format": ".4f"}],
                },
            }
        )
    return {"$schema": SCHEMA, "description": "What each setting did", "concat": charts, "columns": 3}


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
            rank = spearmanr(given, [trial.score for trial in trials])
            sign = "more is better" if rank.statistic > 0 else "less is better"
            words = sign if rank.pvalue < 0.05 else "no clear direction"
            found.append([name.replace("_", " "), f"{rank.statistic:+.2f}", words])
    if found:
        yield make_table(
            ["setting", f"rank correlation with {spell_deciding(trials)}", ""],
            sorted(found, key=lambda row: -abs(float(row[1]))),
        )


def _list_trial_rows(tuned: Tuned, names: Sequence[str]) -> Iterable[Sequence[Any]]:
    for trial in sorted(tuned.trials, key=lambda trial: (-trial.score, trial.number)):
        values = [_format_value(trial.values[name]) for name in names]
        score = f"{trial.score:.4f}" if trial.scores else "–"
        yield [trial.number + 1, *values, score, len(trial.scores), trial.error or ""]


def _format_value(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
