"""Cards that do not change while their step runs are drawn once, at its end."""

from __future__ import annotations

from typing import Any

LIVE = "refresh_interval"
METAFLOWS_OWN = 5  # seconds; a card that changes while its step runs names others


def draw_once(flow: Any, step_name: str) -> None:
    """Keep Metaflow from starting a second process that refreshes the finished card of a step."""
    for decorator in getattr(flow, step_name).decorators:
        if decorator.name == "card" and decorator.attributes[LIVE] == METAFLOWS_OWN:
            decorator._is_runtime_card = False
