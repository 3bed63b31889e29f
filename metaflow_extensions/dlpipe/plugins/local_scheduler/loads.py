"""What a flow imports, seen from where it is: modules that are not its own, not installed and not Python's."""

from __future__ import annotations

import ast
import sys
import sysconfig
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any


def list_loads(script: Path) -> dict[str, Any]:
    """Return what the loaded flow imports, at its top and in its steps.

    Returns
    -------
    dict
        ``outside``: module -> file, of what is neither beside the flow nor installed; ``missing``: modules that
        are not found at all, as optional ones may be.
    """
    root = script.resolve().parent
    outside: dict[str, str] = {}
    missing = []
    for name in sorted(set(_list_imported(root))):
        origin = _find_origin(name)
        if origin is None:
            missing.append(name)
        elif origin and not _is_fixed(Path(origin), root):
            outside[name] = origin
    return {"outside": outside, "missing": missing}


def _list_imported(root: Path) -> Iterator[str]:
    """The top-level names of what is loaded, and of what the flow's own files import, wherever in them."""
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if not file or "." in name:
            continue
        if name != "__main__":
            yield name
        if Path(file).suffix == ".py" and Path(file).resolve().parent == root:
            yield from _list_names(Path(file))


def _list_names(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (name.name.partition(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def _find_origin(name: str) -> str | None:
    """Where a module is: empty for one that has no file, ``None`` for none."""
    loaded = sys.modules.get(name)
    if loaded is not None:
        return getattr(loaded, "__file__", None) or ""
    try:
        spec = find_spec(name)
    except (ImportError, ValueError):
        return None
    return None if spec is None else spec.origin if spec.has_location and spec.origin else ""


def _is_fixed(file: Path, root: Path) -> bool:
    places = [root, Path(sys.prefix), Path(sys.base_prefix), Path(sys.exec_prefix)]
    places += [Path(place) for place in sysconfig.get_paths().values()]
    return any(path.is_relative_to(place) for path in (file, file.resolve()) for place in places)
