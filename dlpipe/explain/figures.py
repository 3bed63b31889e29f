"""Pictures of explanations: a text with its words coloured, and the words that matter most over a sample."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dlpipe.explain.explanations import Explanation, Explanations, WordEffect
from dlpipe.pictures import FAINT, GRID, INK, drawable, new_figure, text_width

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWN = 200  # words of a text that are drawn
BARS = 10
PANELS = 6  # labels of which words_figure shows the words
WIDTH, MARGIN = 9.0, 0.25  # inches
TEXT_SIZE, LINE = 11.0, 0.27  # points, inches
Placed = tuple[int, str, float]

FOR, AGAINST = "#b2182b", "#2166ac"


def row_figure(explanation: Explanation) -> Figure:
    """Return the text, words coloured by what they add to the predicted label, over a bar chart of the strongest.

    Red words speak for the predicted label, blue ones against it. Of a text of more than 200 words the first 200
    are drawn, with a note.
    """
    values = toward_prediction(explanation)
    lines = wrap(explanation.words[:SHOWN])
    bars = min(BARS, len(values))
    text_height = LINE * (len(lines) + 0.9)
    bar_height = 0.28 * bars + (0.75 if bars else 0.0)
    height = 0.85 + text_height + bar_height
    figure = new_figure(WIDTH, height)
    figure.set_layout_engine("none")
    write_title(figure, explanation, height)
    write_lines(figure, lines, values, top=height - 0.85, height=height)
    write_note(figure, explanation, y=(bar_height + 0.06) / height)
    if bars:
        area = (1.9 / WIDTH, 0.5 / height, (WIDTH - 2.6) / WIDTH, 0.28 * bars / height)
        draw_bars(figure.add_axes(area), explanation.words, values)
    return figure


def toward_prediction(explanation: Explanation) -> list[float]:
    """Return what each word adds to the probability of the predicted label."""
    column = explanation.labels.index(explanation.predicted)
    return [float(value) for value in explanation.attributions[:, column]]


def wrap(words: Sequence[str]) -> list[list[Placed]]:
    """Return the lines of the text, each a list of (position, drawn word, left edge in inches)."""
    lines: list[list[Placed]] = [[]]
    left = 0.0
    for position, word in enumerate(words):
        drawn = drawable(word) or " "
        width = text_width(drawn, size=TEXT_SIZE)
        if lines[-1] and left + width > WIDTH - 2 * MARGIN:
            lines.append([])
            left = 0.0
        lines[-1].append((position, drawn, left))
        left += width + (0.09 if word[-1:].isspace() else 0.02)
    return lines


def write_title(figure: Figure, explanation: Explanation, height: float) -> None:
    """Write what was predicted, how surely, and from where the words moved it."""
    column = explanation.labels.index(explanation.predicted)
    label = drawable(explanation.predicted)
    left = MARGIN / WIDTH
    figure.text(left, 1 - 0.32 / height, label, fontsize=13, weight="bold", color=INK, parse_math=False)
    after = left + (text_width(label, size=13) * 1.12 + 0.12) / WIDTH
    figure.text(after, 1 - 0.32 / height, f"{explanation.output[column]:.1%}", fontsize=13, color=INK)
    figure.text(
        left,
        1 - 0.58 / height,
        f"without any word {explanation.base[column]:.1%}   ·   row {drawable(explanation.row_id)}   ·   "
        "red speaks for it, blue against it",
        fontsize=9,
        color=FAINT,
        parse_math=False,
    )


def write_lines(
    figure: Figure, lines: list[list[Placed]], values: Sequence[float], *, top: float, height: float
) -> None:
    """Write the words below ``top`` inches, each on the colour of its value."""
    scale = max(map(abs, values), default=0.0) or 1.0
    for number, line in enumerate(lines):
        middle = (top - (number + 0.5) * LINE) / height
        for position, word, left in line:
            share = values[position] / scale
            figure.text(
                (MARGIN + left) / WIDTH,
                middle,
                word,
                fontsize=TEXT_SIZE,
                va="center_baseline",
                parse_math=False,
                color="white" if abs(share) > 0.6 else INK,
                bbox={"facecolor": colour(share), "edgecolor": "none", "boxstyle": "square,pad=0.18"},
            )


def colour(share: float) -> tuple[float, float, float, float]:
    """Return red for words that speak for the label, blue for those against it, white for the rest."""
    from matplotlib import colormaps

    red, green, blue, alpha = colormaps["RdBu_r"](0.5 + share * 0.42)
    return (1.0, 1.0, 1.0, 0.0) if abs(share) < 0.03 else (red, green, blue, alpha)


def write_note(figure: Figure, explanation: Explanation, *, y: float) -> None:
    """Write what is missing from the picture, if anything is."""
    notes = []
    if not explanation.words:
        notes.append("this text has no words")
    if len(explanation.words) > SHOWN:
        notes.append(f"drawn are the first {SHOWN} of {len(explanation.words)} words")
    if len("".join(explanation.words)) < len(explanation.text.rstrip()):
        notes.append("the model does not read the rest of this text")
    if notes:
        note = "; ".join(notes)
        figure.text(MARGIN / WIDTH, y, note, fontsize=9, style="italic", color=FAINT, va="bottom")


def draw_bars(axes: Axes, words: Sequence[str], values: Sequence[float]) -> None:
    """Draw the words with the largest values, strongest on top."""
    order = sorted(range(len(values)), key=lambda place: (-abs(values[place]), place))[:BARS]
    names = [drawable(words[place].strip(), limit=18) for place in order]
    plot_bars(axes, names, [values[place] for place in order])


def plot_bars(axes: Axes, names: Sequence[str], values: Sequence[float]) -> None:
    """Draw named horizontal bars from top to bottom, red to the right and blue to the left, with their numbers."""
    places = range(len(names))
    axes.barh(places, values, color=[FOR if value > 0 else AGAINST for value in values], height=0.68)
    axes.set_yticks(places, names, fontsize=9.5, parse_math=False)
    axes.set_ylim(max(len(names), 1) - 0.5, -0.5)
    reach = max(map(abs, values), default=0.0) or 1.0
    for place, value in zip(places, values, strict=True):
        side = "left" if value >= 0 else "right"
        shift = 0.015 * reach * (1 if value >= 0 else -1)
        axes.text(value + shift, place, f"{value:+.3f}", va="center", ha=side, fontsize=8.5, color=FAINT)
    low, high = min([0.0, *values]), max([0.0, *values])
    if low == high:  # no word matters
        high = 1.0
    pad = 0.16 * (high - low)  # room for the numbers
    axes.set_xlim(low - (pad if low < 0 else 0), high + (pad if high > 0 else 0))
    axes.axvline(0, color=FAINT, linewidth=0.8)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=8, colors=FAINT)
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)


def words_figure(explanations: Explanations) -> Figure:
    """Return, for each label (six at most), the words that add most to its probability over all rows.

    The words are those of the largest total; the bars are the mean over a word's occurrences, whose number
    stands behind the word. Of two labels each panel shows what the other one loses.
    """
    panels = [(label, strongest(explanations, label)) for label in explanations.labels[:PANELS]]
    columns = min(2, len(panels))
    lines = -(-len(panels) // columns)
    bars = max([1, *(len(effects) for _, effects in panels)])
    reach = max([0.0, *(effect.mean for _, effects in panels for effect in effects)]) or 1.0
    figure = new_figure(WIDTH, lines * (0.9 + 0.28 * bars) + 0.5)
    grid = figure.subplots(lines, columns, squeeze=False).ravel()
    for axes, (label, effects) in zip(grid, panels, strict=False):
        draw_panel(axes, label, effects)
        axes.set_xlim(0, 1.2 * reach)
        axes.set_ylim(bars - 0.5, -0.5)
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    figure.suptitle(words_title(explanations), fontsize=11, color=FAINT)
    return figure


def words_title(explanations: Explanations) -> str:
    """Return the line over all panels."""
    hidden = len(explanations.labels) - PANELS
    more = f"; labels not drawn: {hidden}" if hidden > 0 else ""
    return f"mean effect of a word on the label's probability, over {len(explanations.rows)} texts{more}"


def strongest(explanations: Explanations, label: str) -> list[WordEffect]:
    """Return the words with the largest total in favour of ``label``, the largest mean first."""
    top = [effect for effect in explanations.words(label) if effect.total > 0][:BARS]
    return sorted(top, key=lambda effect: -effect.mean)


def draw_panel(axes: Axes, label: str, effects: Sequence[WordEffect]) -> None:
    """Draw the words of one label, or say that there are none."""
    axes.set_title(drawable(label), fontsize=12, weight="bold", color=INK, loc="left", parse_math=False)
    if not effects:
        axes.set_axis_off()
        axes.text(0, 0.9, "no word speaks for it", transform=axes.transAxes, color=FAINT, style="italic")
        return
    names = [f"{drawable(effect.word, limit=18)}  ×{effect.count}" for effect in effects]
    plot_bars(axes, names, [effect.mean for effect in effects])
