"""Builds NumPy's arrays and scalars from their bytes; a dtype is read from its code, never from its own state.

NumPy's own way back trusts the state of a dtype: one that says that its fields are no objects makes pointers of
bytes. Here each dtype goes through NumPy's checks.
"""

from __future__ import annotations

import re
from typing import Any

from dlpipe.bridge.opening.build import Build, Builder
from dlpipe.bridge.opening.inert import Inert, find_name
from dlpipe.bridge.opening.results import make_refusal

_CODE = re.compile(r"[?biufcSUmMVO]\d*|b1|B")


def _build_dtype(build: Build, tree: Inert) -> Any:
    import numpy as np

    code, state = tree._args[0], tree._state or (3, "|", None, None, None)
    if not isinstance(code, str) or not _CODE.fullmatch(code) or not isinstance(state, tuple):
        raise make_refusal(tree)
    order = state[1] if state[1] in ("<", ">", "|", "=") else "="
    if code[0] == "V" and state[3]:
        return _build_record(build, code, state)
    if code[0] == "V" and state[2]:
        base, shape = state[2]
        return np.dtype((build.part(base), shape))
    if code[0] in "mM" and len(state) > 8:
        return np.dtype(f"{order}{code[0]}8[{_check_unit(*state[8][1])}]")
    return np.dtype(code if code[0] in "?VO" or order == "|" else f"{order}{code}")


def _check_unit(unit: Any, many: int = 1, *_: Any) -> str:
    name = unit.decode() if isinstance(unit, bytes) else str(unit)
    return "generic" if name == "generic" else f"{int(many)}{name}" if many != 1 else name


def _build_record(build: Build, code: str, state: tuple[Any, ...]) -> Any:
    import numpy as np

    names = state[3]
    parts = [state[4][name] for name in names]
    return np.dtype(
        {
            "names": list(names),
            "formats": [build.part(part[0]) for part in parts],
            "offsets": [part[1] for part in parts],
            "itemsize": int(code[1:]),
        }
    )


def _build_array(build: Build, tree: Inert) -> Any:
    """Return a plain array; one of a class of its own is not opened."""
    if find_name(tree._args[0]) != "numpy.ndarray" or not isinstance(tree._state, tuple):
        raise make_refusal(tree)
    _, shape, kind, fortran, content = tree._state
    return _fill_array(build, tree, build.part(kind), shape, "F" if fortran else "C", content)


def _build_from_buffer(build: Build, tree: Inert) -> Any:
    content, kind, shape, order = tree._args
    content = build.part(content)
    return _fill_array(build, tree, build.part(kind), shape, order, content)


def _fill_array(build: Build, tree: Inert, kind: Any, shape: Any, order: Any, content: Any) -> Any:
    import numpy as np

    if not isinstance(kind, np.dtype):
        raise make_refusal(tree)
    if kind == np.dtype(object):
        if not isinstance(content, list):
            raise make_refusal(tree)
        flat = np.empty(len(content), dtype=object)
        for at, inside in enumerate(content):
            flat[at] = build.value(inside)
        return flat.reshape(shape, order=order)
    if kind.hasobject or not isinstance(content, bytes | bytearray) or not kind.itemsize:
        raise make_refusal(tree)
    return np.ndarray(shape, kind, buffer=bytes(content), order=order).copy(order)


def _build_scalar(build: Build, tree: Inert) -> Any:
    import numpy as np

    kind, content = build.part(tree._args[0]), tree._args[1]
    if not isinstance(kind, np.dtype):
        raise make_refusal(tree)
    if kind == np.dtype(object):
        return build.part(content)
    return _fill_array(build, tree, kind, (), "C", content)[()]


BUILDERS: dict[str, Builder] = {
    "numpy:dtype": _build_dtype,
    "numpy:_reconstruct": _build_array,
    "numpy:_frombuffer": _build_from_buffer,
    "numpy:scalar": _build_scalar,
}
