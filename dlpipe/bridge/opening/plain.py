"""Builds dates, numbers, containers, dlpipe's own dataclasses, and what Metaflow itself keeps.

A builder calls constructors that check what they are given, never a class's own way of restoring itself.
"""

from __future__ import annotations

import collections
import datetime
import decimal
import fractions
import re
import uuid
from typing import Any

from dlpipe.bridge.opening.build import Build, Builder
from dlpipe.bridge.opening.inert import Inert, find_name
from dlpipe.bridge.opening.results import Fields, IncludedFile, make_refusal

DIGITS = 5000


def build_fields(build: Build, tree: Inert) -> Any:
    """Return the fields of an object that is made of nothing but its state."""
    state = tree._state
    if isinstance(state, tuple) and len(state) == 2 and state[0] in (None, {}):  # of slots
        state = state[1]
    if tree._args or tree._called or tree._items or tree._pairs or not isinstance(state, dict):
        raise make_refusal(tree)
    return Fields(find_name(tree), {str(name): build.value(inner) for name, inner in state.items()})


# -- dates -----------------------------------------------------------------------------------------------------


def _build_date(build: Build, tree: Inert) -> datetime.date:
    (packed,) = tree._args
    high, low, month, day = packed
    return datetime.date(high * 256 + low, month, day)


def _build_datetime(build: Build, tree: Inert) -> datetime.datetime:
    packed, zone = tree._args[0], build.part(tree._args[1]) if len(tree._args) > 1 else None
    high, low, month, day, hour, minute, second, *micro = packed
    fold, month = (1, month - 128) if month > 127 else (0, month)
    parts = (high * 256 + low, month, day, hour, minute, second, int.from_bytes(bytes(micro), "big"))
    return datetime.datetime(*parts, tzinfo=zone, fold=fold)


def _build_time(build: Build, tree: Inert) -> datetime.time:
    packed, zone = tree._args[0], build.part(tree._args[1]) if len(tree._args) > 1 else None
    hour, minute, second, *micro = packed
    fold, hour = (1, hour - 128) if hour > 127 else (0, hour)
    return datetime.time(hour, minute, second, int.from_bytes(bytes(micro), "big"), tzinfo=zone, fold=fold)


def _build_timedelta(build: Build, tree: Inert) -> datetime.timedelta:
    days, seconds, micro = tree._args
    return datetime.timedelta(days, seconds, micro)


def _build_timezone(build: Build, tree: Inert) -> datetime.timezone:
    return datetime.timezone(*(build.part(arg) for arg in tree._args))


def _build_zone(build: Build, tree: Inert) -> Any:
    """Return a zone by its key: ``getattr(ZoneInfo, "_unpickle")``, called with the key."""
    import zoneinfo

    method = tree._state
    if not isinstance(method, Inert) or [find_name(method._args[0]), *method._args[1:]] != [
        "zoneinfo.ZoneInfo",
        "_unpickle",
    ]:
        raise make_refusal(tree)
    return zoneinfo.ZoneInfo(str(tree._args[0]))


# -- numbers and other plain values ------------------------------------------------------------------------------


def _check_text(tree: Inert, pattern: str) -> str:
    (text,) = tree._args
    if not isinstance(text, str) or len(text) > DIGITS or not re.fullmatch(pattern, text):
        raise make_refusal(tree)
    return text


def _build_decimal(build: Build, tree: Inert) -> decimal.Decimal:
    return decimal.Decimal(_check_text(tree, r"[\w.+-]+"))


def _build_fraction(build: Build, tree: Inert) -> fractions.Fraction:
    if len(tree._args) == 2:
        if not all(isinstance(arg, int) and arg.bit_length() < DIGITS for arg in tree._args):
            raise make_refusal(tree)
        return fractions.Fraction(*tree._args)
    return fractions.Fraction(_check_text(tree, r"-?\d+(/\d+)?"))


def _build_uuid(build: Build, tree: Inert) -> uuid.UUID:
    return uuid.UUID(int=tree._state["int"])


def _build_complex(build: Build, tree: Inert) -> complex:
    real, imaginary = tree._args
    return complex(real, imaginary)


def _build_whole(build: Build, tree: Inert) -> Any:
    return {"range": range, "slice": slice}[find_name(tree).rpartition(".")[2]](*tree._args)


def _build_bytearray(build: Build, tree: Inert) -> bytearray:
    (content,) = tree._args or (b"",)
    if not isinstance(content, bytes):  # a number would ask for as much memory
        raise make_refusal(tree)
    return bytearray(content)


# -- containers ------------------------------------------------------------------------------------------------


def _build_set(build: Build, tree: Inert) -> Any:
    kind = frozenset if find_name(tree).endswith("frozenset") else set
    return kind(map(build.value, *tree._args)) if tree._args else kind()


def _build_mapping(build: Build, tree: Inert) -> Any:
    """Return an ``OrderedDict``, ``Counter`` or ``defaultdict``; the last without what makes its values."""
    kind = find_name(tree).rpartition(".")[2]
    made: Any = {"OrderedDict": collections.OrderedDict, "Counter": collections.Counter}.get(
        kind, collections.defaultdict
    )()
    build._memo[id(tree)] = made
    pairs = [*tree._pairs, *(tree._args[0].items() if kind == "Counter" and tree._args else ())]
    for key, inner in pairs:
        made[build.value(key)] = build.value(inner)
    return made


def _build_deque(build: Build, tree: Inert) -> Any:
    given = tree._args[0] if tree._args else ()
    made = collections.deque(map(build.value, given), maxlen=tree._args[1] if len(tree._args) > 1 else None)
    made.extend(map(build.value, tree._items))
    return made


# -- Metaflow's own ----------------------------------------------------------------------------------------------


def _build_exception(build: Build, tree: Inert) -> Any:
    """Return the wrapper in which Metaflow keeps an exception: texts alone."""
    return Fields(find_name(tree), {str(name): build.value(inner) for name, inner in (tree._state or {}).items()})


def _build_foreach_frame(build: Build, tree: Inert) -> tuple[Any, ...]:
    """Return a place in a foreach: step, variable, how many, index, value."""
    return tuple(map(build.value, tree._args))


def _build_configuration(build: Build, tree: Inert) -> Any:
    return build.part(*tree._args)


def _build_included(build: Build, tree: Inert) -> Any:
    described = (tree._state or {}).get("_descriptor")
    size = described.get("size") if isinstance(described, dict) else None
    return IncludedFile(size if isinstance(size, int) else None)


BUILDERS: dict[str, Builder] = {
    "datetime:date": _build_date,
    "datetime:datetime": _build_datetime,
    "datetime:time": _build_time,
    "datetime:timedelta": _build_timedelta,
    "datetime:timezone": _build_timezone,
    "builtins:getattr": _build_zone,
    "decimal:Decimal": _build_decimal,
    "fractions:Fraction": _build_fraction,
    "uuid:UUID": _build_uuid,
    "builtins:complex": _build_complex,
    "builtins:range": _build_whole,
    "builtins:slice": _build_whole,
    "builtins:bytearray": _build_bytearray,
    "builtins:set": _build_set,
    "builtins:frozenset": _build_set,
    "collections:OrderedDict": _build_mapping,
    "collections:Counter": _build_mapping,
    "collections:defaultdict": _build_mapping,
    "collections:deque": _build_deque,
    "metaflow:MetaflowExceptionWrapper": _build_exception,
    "__main__:ForeachFrame": _build_foreach_frame,
    "metaflow:ForeachFrame": _build_foreach_frame,
    "metaflow:ConfigValue": _build_configuration,
    "metaflow:IncludedFile": _build_included,
    "dlpipe:*": build_fields,
}
