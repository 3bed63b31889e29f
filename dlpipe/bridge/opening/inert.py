"""A pickle as an inert tree: whatever it names stands there as a name, with what it was to be called with.

Python's own unpickler works on stand-ins, so that no class of the pickle is imported, and nothing of it is called.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from typing import Any


class _Naming(type):
    """Makes calling a stand-in different from ``__new__``, as ``pickle`` itself tells the two apart."""

    _name: str

    def __call__(cls, *args: Any, **named: Any) -> Any:
        made: Inert = Inert.__new__(cls, *args, **named)  # type: ignore[arg-type]
        made._called = True
        return made


class Inert(metaclass=_Naming):
    """An object that a pickle asks for: its class or function by name, arguments, state and items.

    Its class stands for the class or function itself, where the pickle means that and no object of it.
    """

    _name = ""
    _args: tuple[Any, ...]
    _named: dict[str, Any]
    _called: bool
    _state: Any
    _items: list[Any]
    _pairs: list[tuple[Any, Any]]

    def __new__(cls, *args: Any, **named: Any) -> Inert:
        """Return an object that remembers what it was to be made with."""
        made = object.__new__(cls)
        made._args, made._named, made._called = args, named, False
        made._state, made._items, made._pairs = None, [], []
        return made

    def __setstate__(self, state: Any) -> None:
        self._state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        self._pairs.append((key, value))

    def append(self, item: Any) -> None:
        """Keep an item that the pickle gives to a container of its own class."""
        self._items.append(item)

    def extend(self, items: Any) -> None:
        """Keep items."""
        self._items.extend(items)

    add = append

    def __call__(self, *args: Any) -> Inert:
        """Return what a call of this object would be, such as of a bound method."""
        made = Inert.__new__(_Result, *args)
        made._state, made._called = self, True
        return made


class _Result(Inert):
    """What the call of an object gives; the object is its state."""

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("a state for the result of a call")


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self._made: dict[str, Any] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Return a stand-in for what the pickle names."""
        whole = f"{module}.{name}"
        if whole not in self._made:
            self._made[whole] = type("Inert", (Inert,), {"_name": whole})
        return self._made[whole]

    def persistent_load(self, pid: Any) -> Any:
        """Refuse: nothing here is kept outside of the pickle."""
        raise pickle.UnpicklingError("an object that is kept elsewhere")

    @property
    def names(self) -> list[str]:
        """All that the pickle names, in its order."""
        return list(self._made)


def load_inert(data: bytes) -> tuple[Any, list[str]]:
    """Return the tree of a pickle and the names in it; without names, the tree is the value itself."""
    _check_places(data)
    unpickler = _Unpickler(io.BytesIO(data))
    return unpickler.load(), unpickler.names


def _check_places(data: bytes) -> None:
    """Raise ``UnpicklingError`` for places in the unpickler's memory that no pickle of this size has.

    For a place far out, the memory up to it would be filled.
    """
    for code, place, _ in pickletools.genops(data):
        if code.name in ("PUT", "BINPUT", "LONG_BINPUT") and (place or 0) > len(data):
            raise pickle.UnpicklingError("a place that no pickle of this size has")


def is_name(tree: Any) -> bool:
    """Return whether the tree is the name of a class or function."""
    return isinstance(tree, _Naming)


def find_name(tree: Any) -> str:
    """Return the whole name of the class or function that a tree is or asks for; empty for anything else."""
    while isinstance(tree, _Result):
        tree = tree._state
    return tree._name if isinstance(tree, Inert) or is_name(tree) else ""
