"""Importing a package without some of its modules, which are imported when one of their names is used.

For modules that nobody here uses and that a package imports only to pass their names on. While the package is
imported, an empty stand-in takes the module's place in ``sys.modules``; afterwards a ``__getattr__`` of the
package imports the module for whoever asks for one of the names.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from types import ModuleType
from typing import Any, NamedTuple


class _Promise(NamedTuple):
    """Stands for a name of a module that is not imported yet."""

    module: str
    name: str


class _StandIn(ModuleType):
    """An empty module from which any name can be imported, as a promise."""

    def __getattr__(self, name: str) -> _Promise:
        if name.startswith("__"):  # the import system looks for __path__ and the like, and must not find a promise
            raise AttributeError(name)
        return _Promise(self.__name__, name)


@contextmanager
def defer_imports(modules: tuple[str, ...]) -> Iterator[None]:
    """Import packages within this context without ``modules`` of theirs, whose names are found later.

    A module that is imported already stays.
    """
    standing = {name: _StandIn(name) for name in modules if name not in sys.modules}
    sys.modules.update(standing)
    try:
        yield
    finally:
        for name in standing:
            del sys.modules[name]
    for package in {name.rpartition(".")[0] for name in standing}:
        _install_promises(package)


def _install_promises(package: str) -> None:
    """Make ``package``, and those above it that pass its names on, import what they promised when it is used."""
    while package:
        module = sys.modules[package]
        promised = {name: value for name, value in vars(module).items() if isinstance(value, _Promise)}
        for name in promised:
            delattr(module, name)
        if promised:
            module.__getattr__ = partial(_import_promised, package, promised)  # type: ignore[method-assign]
        package = package.rpartition(".")[0]


def _import_promised(package: str, promised: dict[str, _Promise], name: str) -> Any:
    if name not in promised:
        raise AttributeError(f"module {package!r} has no attribute {name!r}")
    return getattr(importlib.import_module(promised[name].module), promised[name].name)
