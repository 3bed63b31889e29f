"""Settings: frozen dataclasses read from a mapping, with errors that say what to do.

A room declares its settings as a frozen dataclass whose fields carry ``annotated_types`` bounds::

    @dataclass(frozen=True)
    class TrainingSettings:
        epochs: Annotated[int, Ge(1), Le(100)] = 3
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Mapping
from typing import Any, TypeVar

from dlpipe.errors import SettingError
from dlpipe.redaction import show_value

T = TypeVar("T")


def read_settings(cls: type[T], values: Mapping[str, Any], *, where: str) -> T:
    """Return an instance of the settings dataclass ``cls`` made from ``values``.

    Parameters
    ----------
    cls : a frozen dataclass
        Fields without a value in ``values`` keep their defaults.
    values : mapping
        As read from a TOML section; ``None`` means "not given".
    where : str
        What to call the place in errors, such as ``[training] in flows/train_flow.toml``.

    Raises
    ------
    SettingError
        When a name is unknown (the nearest known one is suggested) or a value has the wrong type or range.

    Examples
    --------
    >>> @dataclasses.dataclass(frozen=True)
    ... class Oven:
    ...     degrees: int = 180
    >>> read_settings(Oven, {"degrees": 200}, where="[oven]")
    Oven(degrees=200)
    >>> read_settings(Oven, {"degres": 200}, where="[oven]")
    Traceback (most recent call last):
    ...
    dlpipe.errors.SettingError: [oven] has no setting 'degres'; did you mean 'degrees'? Known: degrees.
    """
    import pydantic

    # before pydantic, whose message for an unknown name suggests none
    names = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
    given = {name: value for name, value in values.items() if value is not None}
    for name in given:
        check_name(name, names, what="setting", where=where)
    # pydantic resolves string annotations of stdlib dataclasses and knows annotated_types' bounds
    adapter = pydantic.TypeAdapter(cls)
    try:
        return adapter.validate_python(given)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"]) or "value"
        reason = first["msg"][0].lower() + first["msg"][1:]
        if first["type"] in ("tuple_type", "list_type"):
            reason = 'write a list, such as ["a", "b"]'
        elif isinstance(first["input"], float) and math.isnan(first["input"]):
            reason = "it is not a number"  # pydantic names the bound that it does not keep
        raise SettingError(
            f"{where}: {name} = {show_value(name, repr(first['input']))} is refused: {reason}."
        ) from None


def check_name(name: str, known: list[str], *, what: str, where: str) -> None:
    """Raise ``SettingError`` unless ``name`` is one of ``known``, suggesting the nearest one.

    Parameters
    ----------
    name : str
    known : list of str
    what : str
        The noun of what is named, such as ``setting``.
    where : str
        What to call the place, such as ``[training] in flows/train_flow.toml``.
    """
    if name in known:
        return
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    raise SettingError(f"{where} has no {what} {name!r}{hint} Known: {', '.join(known)}.")
