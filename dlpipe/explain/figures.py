"""The figure of an explanation: a row with its words coloured, over its strongest parts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dlpipe.explain.explanations import Explanation
from dlpipe.pictures import FAINT, GRID, INK, measure_text, new_figure, to_drawable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWN = 200  # words of a text that are drawn
BARS = 10
WIDTH, MARGIN = 9.0, 0.25  # inches
TEXT_SIZE, LINE = 11.0, 0.27  # points, inches
Placed = tuple[int, str, float]

FOR, AGAINST = "#b2182b", "#2166ac"


def make_row_figure(explanation: Explanation) -> Figure:
    """Return a row: its words coloured by what they add to the highest output, over bars of its strongest parts.

    Red words speak for the predicted label, blue ones against it; of a number, they raise and lower it. Of a text
    of more than 200 words the first 200 are drawn, with a note. A row without texts has the bars alone.
    """
    values = pick_predicted(explanation)
    texts = [wrap_text(explanation, column) for column in explanation.texts]
    bars = min(BARS, len(values))
    heights = [LINE * (len(lines) + 0.9) for lines in texts]
    bar_height = 0.28 * bars + (0.75 if bars else 0.0)
    height = 0.85 + sum(heights) + bar_height
    figure = new_figure(WIDTH, height)
    figure.set_layout_engine("none")
    write_title(figure, explanation, height)
    for number, lines in enumerate(texts):
        top = height - 0.85 - sum(heights[:number])
        write_lines(figure, lines, values, top=top, height=height)
        if len(texts) > 1:
            write_name(figure, explanation.texts[number], y=(top + 0.02) / height)
    write_note(figure, explanation, y=(bar_height + 0.06) / height)
    if bars:
        left = 1.9 if has_short_names(explanation) else 2.9
        area = (left / WIDTH, 0.5 / height, (WIDTH - left - 0.7) / WIDTH, 0.28 * bars / height)
        draw_bars(figure.add_axes(area), explanation, values)
    return figure


def pick_predicted(explanation: Explanation) -> list[float]:
    """Return what each part adds to the highest output."""
    column = explanation.highest
    return [float(value) for value in explanation.attributions[:, column]]


def wrap_text(explanation: Explanation, column: str) -> list[list[Placed]]:
    """Return the lines of the text in ``column``, as ``wrap_words`` does."""
    places = [place for place, of_part in enumerate(explanation.columns) if of_part == column][:SHOWN]
    lines = wrap_words([explanation.parts[place] for place in places])
    return [[(places[number], word, left) for number, word, left in line] for line in lines]


def wrap_words(words: Sequence[str]) -> list[list[Placed]]:
    """Return the lines of the text, each a list of (position, drawn word, left edge in inches)."""
    lines: list[list[Placed]] = [[]]
    left = 0.0
    for position, word in enumerate(words):
        drawn = to_drawable(word) or " "
        width = measure_text(drawn, size=TEXT_SIZE)
        if lines[-1] and left + width > WIDTH - 2 * MARGIN:
            lines.append([])
            left = 0.0
        lines[-1].append((position, drawn, left))
        left += width + (0.09 if word[-1:].isspace() else 0.02)
    return lines


def write_title(figure: Figure, explanation: Explanation, height: float) -> None:
    """Write what was predicted, how surely, and from where the parts moved it.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
    explanation : Explanation
    height : float
        Of the figure, in inches: titles keep their distance from its top whatever its height.
    """
    column = explanation.highest
    label = "predicted" if is_number(explanation) else to_drawable(explanation.output_name)
    left = MARGIN / WIDTH
    figure.text(left, 1 - 0.32 / height, label, fontsize=13, weight="bold", color=INK, parse_math=False)
    after = left + (measure_text(label, size=13) * 1.12 + 0.12) / WIDTH
    output = write_output(explanation.output[column], explanation)
    figure.text(after, 1 - 0.32 / height, output, fontsize=13, color=INK)
    without = "with usual values" if explanation.noun == "column" else f"without any {explanation.noun}"
    effect = "red raises it, blue lowers it" if is_number(explanation) else "red speaks for it, blue against it"
    base = write_output(explanation.base[column], explanation)
    figure.text(
        left,
        1 - 0.58 / height,
        f"{without} {base}   ·   row {to_drawable(explanation.row_id)}   ·   {effect}",
        fontsize=9,
        color=FAINT,
        parse_math=False,
    )


def is_number(explanation: Explanation) -> bool:
    """Return whether outputs are numbers of any size, and no probabilities."""
    return explanation.output_kind == "numbers"


def write_output(value: float, explanation: Explanation) -> str:
    """Return an output as people read it."""
    return f"{value:.4g}" if is_number(explanation) else f"{value:.1%}"


def write_name(figure: Figure, column: str, *, y: float) -> None:
    """Write the column of a text over it, where a row has several; ``y`` is a share of the figure's height."""
    figure.text(MARGIN / WIDTH, y, to_drawable(column), fontsize=8.5, color=FAINT, va="bottom", parse_math=False)


def write_lines(
    figure: Figure, lines: list[list[Placed]], values: Sequence[float], *, top: float, height: float
) -> None:
    """Write the words of a text, each on the colour of its value.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
    lines : list of list of (position, drawn word, left edge in inches)
        See ``wrap_words``; a position is that of the part.
    values : sequence of float
        Of all parts of the row. The strongest has the full colour, so that colours of two rows cannot be compared.
    top, height : float
        The upper edge of the text, and the height of the figure, in inches from its lower edge.
    """
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
                bbox={"facecolor": choose_colour(share), "edgecolor": "none", "boxstyle": "square,pad=0.18"},
            )


def choose_colour(share: float) -> tuple[float, float, float, float]:
    """Return red for words that speak for the output, blue for those against it, white for the rest."""
    from matplotlib import colormaps

    red, green, blue, alpha = colormaps["RdBu_r"](0.5 + share * 0.42)
    return (1.0, 1.0, 1.0, 0.0) if abs(share) < 0.03 else (red, green, blue, alpha)


def write_note(figure: Figure, explanation: Explanation, *, y: float) -> None:
    """Write what is missing from the figure, if anything is; ``y`` is a share of the figure's height."""
    if notes := list_notes(explanation):
        note = to_drawable("; ".join(notes), limit=200)
        figure.text(MARGIN / WIDTH, y, note, fontsize=9, style="italic", color=FAINT, va="bottom")


def list_notes(explanation: Explanation) -> list[str]:
    """Return what a picture of a row does not show, and why."""
    notes = []
    if not explanation.parts:
        notes.append(f"this {'text' if explanation.noun == 'word' else 'row'} has no {explanation.noun}s")
    for column in explanation.texts:
        count = explanation.columns.count(column)
        if count > SHOWN:
            of_text = f" in {column}" if len(explanation.texts) > 1 else ""
            notes.append(f"drawn are the first {SHOWN} of {count} words{of_text}")
    if not explanation.whole:
        notes.append(f"the model does not read the rest of this {'text' if explanation.noun == 'word' else 'row'}")
    return notes


def draw_bars(axes: Axes, explanation: Explanation, values: Sequence[float]) -> None:
    """Draw the parts with the largest absolute values, strongest on top.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
    explanation : Explanation
    values : sequence of float
        Of each part.
    """
    order = sorted(range(len(values)), key=lambda place: (-abs(values[place]), place))[:BARS]
    names = [to_drawable(explanation.title(place), limit=limit_name(explanation)) for place in order]
    plot_bars(axes, names, [values[place] for place in order])


def limit_name(explanation: Explanation) -> int:
    """Return how many characters of a part's name are drawn."""
    return 18 if has_short_names(explanation) else 30


def has_short_names(explanation: Explanation) -> bool:
    """Return whether parts are the words of one text: other names have that of a column in them."""
    return len(explanation.texts) == 1 and explanation.noun == "word"


def plot_bars(axes: Axes, names: Sequence[str], values: Sequence[float]) -> None:
    """Draw named horizontal bars from top to bottom, red to the right and blue to the left, with their numbers.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
    names : sequence of str
        Ready to draw.
    values : sequence of float
    """
    places = range(len(names))
    axes.barh(places, values, color=[FOR if value > 0 else AGAINST for value in values], height=0.68)
    axes.set_yticks(places, names, fontsize=9.5, parse_math=False)
    axes.set_ylim(max(len(names), 1) - 0.5, -0.5)
    reach = max(map(abs, values), default=0.0) or 1.0
    for place, value in zip(places, values, strict=True):
        side = "left" if value >= 0 else "right"
        shift = 0.015 * reach * (1 if value >= 0 else -1)
        number = f"{value:+.3f}" if reach < 100 else f"{value:+.4g}"
        axes.text(value + shift, place, number, va="center", ha=side, fontsize=8.5, color=FAINT)
    low, high = min([0.0, *values]), max([0.0, *values])
    if low == high:  # no part matters
        high = 1.0
    pad = 0.16 * (high - low)  # room for the numbers
    axes.set_xlim(low - (pad if low < 0 else 0), high + (pad if high > 0 else 0))
    axes.axvline(0, color=FAINT, linewidth=0.8)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=8, colors=FAINT)
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)
