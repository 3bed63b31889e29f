"""What a card says, from the parts that it is made of."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any


def read(parts: Iterable[Any]) -> str:
    """Return what a card says: its Markdown and HTML, with pictures by their captions."""
    shown = [part.render() for part in parts]
    return "\n".join(part.get("source") or f"[picture: {part['label']}]" for part in shown)


def read_cells(page: str, heading: str) -> list[list[str]]:
    """Return the cells of the first table below a heading, line by line."""
    table = re.search(r"<tbody>(.*?)</tbody>", page[page.index(heading) :], re.DOTALL)[1]
    return [re.findall(r"<td[^>]*>(.*?)</td>", line) for line in table.split("</tr>")[:-1]]
