"""From an inert tree to values: by a builder for each class that is known, for the rest a name."""

from __future__ import annotations

import fnmatch
import functools
import importlib
from collections.abc import Callable, Mapping
from typing import Any

from dlpipe.bridge.opening.inert import Inert, find_name, is_name
from dlpipe.bridge.opening.results import Fields, NotOpened, Unopened

DEPTH = 100
PLAIN = frozenset({int, float, str, bool, bytes, bytearray, complex, type(None)})
Builder = Callable[["Build", Inert], Any]


class Build:
    """One walk over a tree; what stands in it twice is built once.

    Parameters
    ----------
    patterns : tuple of str
        Whole names of classes and functions that may be imported and called.
    builders : mapping
        The builder for each ``find_key`` of a name; that of ``package:*`` is for all other classes of the package.
    """

    def __init__(self, patterns: tuple[str, ...], builders: Mapping[str, Builder]) -> None:
        self._patterns, self._builders = patterns, builders
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
            made = self._build_part(tree)
        finally:
            self._depth -= 1
        self._memo[id(tree)] = made
        return made

    def _build_part(self, tree: Any) -> Any:
        if isinstance(tree, Inert):
            return self._build_object(tree)
        if is_name(tree):
            return self._build_named(tree)
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

    def _build_named(self, tree: Any) -> Any:
        name = find_name(tree)
        if self.trusts(name):
            return self._resolve(name)
        if find_key(name) == "pandas:NA":
            from pandas import NA

            return NA
        raise NotOpened(name)

    def _build_object(self, tree: Inert) -> Any:
        name = find_name(tree)
        if self.trusts(name):
            return self._build_trusted(tree)
        if name == "copyreg._reconstructor":
            return self._build_reconstructed(tree)
        key = find_key(name)
        builder = self._builders.get(key) or self._builders.get(f"{key.partition(':')[0]}:*")
        return builder(self, tree) if builder else self._build_record(tree)

    def _build_record(self, tree: Inert) -> Fields:
        """Return the fields of an object of any class that is nothing but named values, such as a dataclass.

        A name with an underscore in front says that more than values make such an object: the parts of a network,
        what a fitted estimator keeps for itself.
        """
        name, state = find_name(tree), tree._state
        more = tree._args or tree._named or tree._called or tree._items or tree._pairs
        if more or not isinstance(state, dict) or not state or not all(map(_is_public, state)):
            raise NotOpened(name)
        self._memo[id(tree)] = Unopened(name)  # it may hold itself
        return Fields(name, {key: self.value(inner) for key, inner in state.items()})

    def _build_reconstructed(self, tree: Inert) -> Any:
        """Return an object of pickle's first protocols, which name the class as an argument."""
        cls, base, _ = tree._args
        if not is_name(cls) or find_name(base) != "builtins.object":
            raise NotOpened(find_name(cls) or find_name(tree))
        again = cls.__new__(cls)
        again._state = tree._state
        return self.part(again)

    def trusts(self, name: str) -> bool:
        """Return whether the setting names this class or function."""
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in self._patterns)

    def _resolve(self, name: str) -> Any:
        """Import and return what the setting names; what a module there has from elsewhere is not named by it."""
        thing = resolve(name)
        if not self.trusts(f"{getattr(thing, '__module__', '')}.{getattr(thing, '__qualname__', '')}"):
            raise NotOpened(name)
        return thing

    def _build_trusted(self, tree: Inert) -> Any:
        """Return a real object, made as ``pickle`` would."""
        if not type(tree)._name:  # the result of a call
            return self.part(tree._state)(*map(self.value, tree._args))
        thing = self._resolve(find_name(tree))
        args, named = [self.value(arg) for arg in tree._args], self.value(tree._named)
        made = thing(*args) if tree._called else thing.__new__(thing, *args, **named)
        self._memo[id(tree)] = made
        for item in tree._items:
            made.add(self.value(item)) if hasattr(made, "add") else made.append(self.value(item))
        for key, inner in tree._pairs:
            made[self.value(key)] = self.value(inner)
        if tree._state is not None:
            _set_state(made, self.value(tree._state))
        return made


def _is_public(name: Any) -> bool:
    return isinstance(name, str) and name.isidentifier() and not name.startswith("_")


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


def find_key(name: str) -> str:
    """Return the key of a builder: packages move their classes between modules."""
    return f"{name.partition('.')[0]}:{name.rpartition('.')[2]}"
