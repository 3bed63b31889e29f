"""What an explanation says in words: on a page, in a terminal, to a program."""

from __future__ import annotations

from typing import Any

from dlpipe.explain.explanations import Explanation


def describe_prediction(row: Explanation) -> tuple[str, str]:
    """Return what is predicted and how surely, and what would be without any part."""
    without = "with usual values" if row.noun == "column" else f"without any {row.noun}"
    output, base = (format_output(float(values[row.highest]), row) for values in (row.output, row.base))
    name = "predicted" if row.output_kind == "numbers" else row.output_name
    return f"{name} {output}", f"{without} {base}"


def describe_effect(row: Explanation) -> str:
    """Return what red and blue, or plus and minus, mean."""
    if row.output_kind == "numbers":
        return "+ and red raise it, - and blue lower it"
    return f"points of per cent: + and red speak for {row.output_name}, - and blue against it"


def format_output(value: float, row: Explanation) -> str:
    """Return an output as people read it: a probability in per cent, a number of any size in four digits."""
    return f"{value:.4g}" if row.output_kind == "numbers" else f"{100 * value:.1f} %"


def format_effect(value: float, row: Explanation) -> str:
    """Return what a part adds, with its sign; for a probability in points of per cent."""
    return f"{value:+.4g}" if row.output_kind == "numbers" else f"{100 * value:+.1f}"


def describe_row(row: Explanation) -> dict[str, Any]:
    """Return an explanation for JSON, its parts in the order of the row."""
    values = row.attributions[:, row.highest].tolist()
    return {
        "row": row.row,
        "predicted": row.predicted,
        "output_name": row.output_name,
        "output": float(row.output[row.highest]),
        "base_value": float(row.base[row.highest]),
        "whole": row.whole,
        "parts": [
            {"input_column": column, "part": part.strip(), "attribution": value}
            for column, part, value in zip(row.columns, row.parts, values, strict=True)
        ],
    }
