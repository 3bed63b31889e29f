"""Rows that a registered model is known by, and shows as its example: a row to forget is left out of them.

With its text blanked the model would answer otherwise than at registration, and be taken for damaged. The other
rows stay; where none is left, the model has no example, as one that could not be opened at registration.
"""

from __future__ import annotations

import json
from typing import Any

from dlpipe.forgetting.words import Needles

ANSWERED, SHOWN, SERVED = "example.json", "input_example.json", "serving_input_example.json"
EXAMPLES = (ANSWERED, SHOWN, SERVED)


def leave_out_examples(name: str, content: bytes, needles: Needles) -> bytes | None:
    """Return the content of a file of examples without rows that are looked for; ``None`` where it is to go.

    The same object comes back where it has none, or is written in another way.

    Examples
    --------
    >>> needles = Needles.from_texts(["a fine old film"])
    >>> content = b'{"rows": [{"text": "A fine old film"}, {"text": "soup"}], "outputs": [[1], [2]]}'
    >>> json.loads(leave_out_examples("example.json", content, needles))
    {'rows': [{'text': 'soup'}], 'outputs': [[2]]}
    """
    if not needles.may_be_in(content):
        return content
    try:
        read = json.loads(content)
    except ValueError:
        return content
    if name == ANSWERED and isinstance(read, dict) and {"rows", "outputs"} <= read.keys():
        stays = [not is_in(row, needles) for row in read["rows"]]
        if all(stays):
            return content
        if not any(stays):
            return None
        for part in ("rows", "outputs"):
            read[part] = [one for one, stay in zip(read[part], stays, strict=True) if stay]
        return json.dumps(read, indent=1).encode()
    table = read.get("dataframe_split", read) if isinstance(read, dict) else {}
    rows = table.get("data")
    if not isinstance(rows, list) or not any(is_in(row, needles) for row in rows):
        return content
    stays = [not is_in(row, needles) for row in rows]
    if not any(stays):
        return content  # a model must have one: it is blanked
    for part in ("data", "index"):
        if isinstance(table.get(part), list):
            table[part] = [one for one, stay in zip(table[part], stays, strict=False) if stay]
    return json.dumps(read, indent=2 if name == SERVED else None).encode()


def is_in(row: Any, needles: Needles) -> bool:
    """Return whether a row has something that is looked for."""
    return bool(needles.find_spans(json.dumps(row, ensure_ascii=False)))
