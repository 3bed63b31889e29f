"""From an inert tree to values: by a builder for each class that is known, for the rest a name."""

from __future__ import annotations

import fnmatch
import functools
import importlib
import os
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from dlpipe.bridge.opening.inert import Inert, inert, is_name, name_of

CLASSES = "DLPIPE_BRIDGE_CLASSES"
"""Variable that names the classes whose own code may run, such as ``shop.Order film.*``; ``*`` for all."""
DEPTH = 100
PLAIN = frozenset({int, float, str, bool, bytes, bytearray, complex, type(None)})
Builder = Callable[["Build", Inert], Any]


class NotOpened(Exception):
    """A class or function that is named in a pickle was not opened; its whole name is the message."""


@dataclass(frozen=True)
class Unopened:
    """Stands for an object of a class that was not opened."""

    name: str


@dataclass(frozen=True, eq=False)
class Fields:
    """The fields of an object of one of our own classes, by name; the class itself is not needed."""

    name: str
    fields: Mapping[str, Any]


def fields_of(value: Any) -> Mapping[str, Any]:
    """Return the fields of a dataclass; none of anything else."""
    if isinstance(value, Fields):
        return value.fields
    return {name: getattr(value, name, None) for name in getattr(type(value), "__dataclass_fields__", {})}


@dataclass(frozen=True)
class IncludedFile:
    """A file that was given as a parameter: only its size is known; ``None`` if not even that."""

    size: int | None


def open_pickle(data: bytes, *, trust: str | None = None) -> Any:
    """Return the value in a pickle, of which no code runs but that of classes that ``trust`` names.

    Plain values, containers, dates, NumPy, pandas and Arrow come as themselves, dlpipe's dataclasses as
    ``Fields``. Whatever else there is comes as ``Unopened``, also inside containers.

    Parameters
    ----------
    trust : str, optional
        Patterns of whole names, with blanks or commas between them; by default those of ``DLPIPE_BRIDGE_CLASSES``.

    Raises
    ------
    Exception
        Of any kind, when the pickle is damaged.

    Examples
    --------
    >>> import datetime
    >>> open_pickle(pickle.dumps([1, datetime.date(2026, 11, 28), print]))
    [1, datetime.date(2026, 11, 28), Unopened(name='builtins.print')]
    """
    patterns = (os.environ.get(CLASSES, "") if trust is None else trust).replace(",", " ").split()
    if "*" in patterns:
        return pickle.loads(data)
    tree, names = inert(data)
    return Build(tuple(patterns)).value(tree) if names else tree


class Build:
    """One walk over a tree; what stands in it twice is built once.

    Parameters
    ----------
    patterns : tuple of str
        Whole names of classes and functions that may be imported and called.
    """

    def __init__(self, patterns: tuple[str, ...]) -> None:
        self._patterns = patterns
        self._memo: dict[int, Any] = {}
        self._depth = 0

    def value(self, tree: Any) -> Any:
        """Return the value of a tree; an object that cannot be built is ``Unopened``."""
        try:
            return self.part(tree)
        except NotOpened as error:
            return Unopened(str(error))

    def part(self, tree: Any) -> Any:
        """Return the value of a tree that something else is built of.

        Raises
        ------
        NotOpened
            When the tree is of a class that is not known.
        """
        if type(tree) in PLAIN:
            return tree
        if id(tree) in self._memo:
            return self._memo[id(tree)]
        self._depth += 1
        try:
            if self._depth > DEPTH:
                raise ValueError(f"nested deeper than {DEPTH}")
            made = self._part(tree)
        finally:
            self._depth -= 1
        self._memo[id(tree)] = made
        return made

    def _part(self, tree: Any) -> Any:
        if isinstance(tree, Inert):
            return self._object(tree)
        if is_name(tree):
            return self._named(tree)
        kind = type(tree)
        if kind in (tuple, set, frozenset):
            return kind(map(self.value, tree))
        if kind is list:
            made: list[Any] = []
            self._memo[id(tree)] = made  # it may hold itself
            made.extend(map(self.value, tree))
            return made
        if kind is dict:
            pairs: dict[Any, Any] = {}
            self._memo[id(tree)] = pairs
            pairs.update((self.value(key), self.value(inner)) for key, inner in tree.items())
            return pairs
        return tree

    def _named(self, tree: Any) -> Any:
        name = name_of(tree)
        if self.trusts(name):
            return self._resolved(name)
        if key_of(name) == "pandas:NA":
            from pandas import NA

            return NA
        raise NotOpened(name)

    def _object(self, tree: Inert) -> Any:
        name = name_of(tree)
        if self.trusts(name):
            return self._trusted(tree)
        if name == "copyreg._reconstructor":
            return self._reconstructed(tree)
        builder = builders().get(key_of(name)) or (own_fields() if name.startswith("dlpipe.") else None)
        if builder is None:
            raise NotOpened(name)
        return builder(self, tree)

    def _reconstructed(self, tree: Inert) -> Any:
        """Return an object of pickle's first protocols, which name the class as an argument."""
        cls, base, _ = tree._args
        if not is_name(cls) or name_of(base) != "builtins.object":
            raise NotOpened(name_of(cls) or name_of(tree))
        again = cls.__new__(cls)
        again._state = tree._state
        return self.part(again)

    def trusts(self, name: str) -> bool:
        """Return whether the setting names this class or function."""
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in self._patterns)

    def _resolved(self, name: str) -> Any:
        """Import and return what the setting names; what a module there has from elsewhere is not named by it."""
        thing = resolve(name)
        if not self.trusts(f"{getattr(thing, '__module__', '')}.{getattr(thing, '__qualname__', '')}"):
            raise NotOpened(name)
        return thing

    def _trusted(self, tree: Inert) -> Any:
        """Return a real object, made as ``pickle`` would."""
        if not type(tree)._name:  # the result of a call
            return self.part(tree._state)(*map(self.value, tree._args))
        thing = self._resolved(name_of(tree))
        args, named = [self.value(one) for one in tree._args], self.value(tree._named)
        made = thing(*args) if tree._called else thing.__new__(thing, *args, **named)
        self._memo[id(tree)] = made
        for item in tree._items:
            made.add(self.value(item)) if hasattr(made, "add") else made.append(self.value(item))
        for key, inner in tree._pairs:
            made[self.value(key)] = self.value(inner)
        if tree._state is not None:
            _set_state(made, self.value(tree._state))
        return made


def _set_state(made: Any, state: Any) -> None:
    if hasattr(made, "__setstate__"):
        made.__setstate__(state)
        return
    plain, slots = state if isinstance(state, tuple) and len(state) == 2 else (state, None)
    for name, value in {**(plain or {}), **(slots or {})}.items():
        object.__setattr__(made, name, value)


def resolve(name: str) -> Any:
    """Import and return a class or function that the setting names."""
    words = name.split(".")
    for at in range(len(words) - 1, 0, -1):
        try:
            found: Any = importlib.import_module(".".join(words[:at]))
        except ModuleNotFoundError:
            continue
        return functools.reduce(getattr, words[at:], found)
    raise NotOpened(name)


def key_of(name: str) -> str:
    """Return the key of a builder: packages move their classes between modules."""
    return f"{name.partition('.')[0]}:{name.rpartition('.')[2]}"


@functools.cache
def builders() -> Mapping[str, Builder]:
    """Return the builders by top-level package and last name."""
    from dlpipe.bridge.opening import arrays, frames, plain, tables

    return {**plain.BUILDERS, **arrays.BUILDERS, **tables.BUILDERS, **frames.BUILDERS}


def own_fields() -> Builder:
    """Return the builder of dlpipe's own dataclasses."""
    from dlpipe.bridge.opening import plain

    return plain.fields
