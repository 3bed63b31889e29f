"""Pictures on the page of a card, as files, which MLflow shows without opening the page."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote_to_bytes

from dlpipe.bridge.charts import draw_chart
from dlpipe.bridge.records import Document
from dlpipe.redaction import redact

MOST_PICTURES = 100
"""So many of one card."""
ENDINGS = {"png": "png", "jpeg": "jpg", "jpg": "jpg", "gif": "gif", "webp": "webp", "svg+xml": "svg"}
_DATA = re.compile(r'window\.__MF_DATA__\["[^"]*"\] = "(?P<data>[A-Za-z0-9+/=]+)"')
_ADDRESS = re.compile(r"data:image/(?P<kind>[a-z+]+)(?P<more>[^,]{0,100}),\s*(?P<data>.*)", re.DOTALL)
_IN_HTML = re.compile(
    r"""<img\b[^>]*?\bsrc\s*=\s*(?P<quote>["'])(?P<src>data:image/.*?)(?P=quote)[^>]*>""", re.DOTALL
)
_ALT = re.compile(r"""\balt\s*=\s*(?P<quote>["'])(?P<alt>.*?)(?P=quote)""", re.DOTALL)


def find_pictures(page: str, folder: str) -> tuple[list[Document], str]:
    """Return the pictures on a card as files in ``folder``, in their order, and what is left out.

    Parameters
    ----------
    page : str
        HTML of a card, of Metaflow's own components or of any other kind, without credentials.
    folder : str
        Where the files stand.
    """
    documents: list[Document] = []
    charts = 0
    for label, ending, content in _list_pictures(page):
        if not content:
            charts += 1
            continue
        if len(documents) == MOST_PICTURES:
            return documents, f"more than {MOST_PICTURES} pictures: the rest stands on the page alone"
        name = re.sub(r"[^A-Za-z0-9_.-]+", "_", label).strip("_.")[:60]
        number = f"{len(documents) + 1:02}"
        documents.append(Document(f"{folder}/{number}{'-' if name else ''}{name}.{ending}", content))
    return documents, f"{charts} of its charts cannot be drawn here: on the page alone" if charts else ""


def _list_pictures(page: str) -> Iterator[tuple[str, str, bytes]]:
    """Yield label, ending and content; no content of a chart that is not drawn here."""
    found = _DATA.findall(page)
    for data in found:
        try:
            yield from _walk(json.loads(base64.b64decode(data)))
        except (ValueError, RecursionError):  # no data of Metaflow's
            continue
    if not found:
        for image in _IN_HTML.finditer(page):
            label = _ALT.search(image[0])
            yield from _open_address(image["src"], label["alt"] if label else "")


def _walk(part: Any) -> Iterator[tuple[str, str, bytes]]:
    """Yield the pictures of a part of a card and of those within it."""
    if isinstance(part, list):
        for inner in part:
            yield from _walk(inner)
    elif isinstance(part, Mapping):
        if part.get("type") == "image" and isinstance(part.get("src"), str):
            yield from _open_address(part["src"], str(part.get("label") or ""))
        elif part.get("type") == "vegaChart" and isinstance(part.get("spec"), Mapping):
            yield _find_title(part["spec"]), "svg", draw_chart(part["spec"]).encode()
        else:
            for inner in part.values():
                yield from _walk(inner)


def _find_title(spec: Mapping[str, Any]) -> str:
    title = spec.get("title") or spec.get("description")  # of charts side by side, whose titles are inside
    return str(title.get("text") if isinstance(title, Mapping) else title or "chart")


def _open_address(address: str, label: str) -> Iterator[tuple[str, str, bytes]]:
    """Yield the picture that an address holds itself; nothing where it holds none."""
    found = _ADDRESS.match(address)
    if not found or found["kind"] not in ENDINGS:
        return
    try:
        packed = "base64" in found["more"]
        content = base64.b64decode(found["data"]) if packed else unquote_to_bytes(found["data"])
    except (binascii.Error, ValueError):
        return
    if ENDINGS[found["kind"]] == "svg":
        content = redact(content.decode(errors="replace")).encode()
    if content:
        yield label, ENDINGS[found["kind"]], content
