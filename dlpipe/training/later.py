"""Modules that are imported when somebody asks for them, and not with the packages that pass their names on."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from types import ModuleType
from typing import Any, NamedTuple


class _Name(NamedTuple):
    """What a name of a module will be."""

    module: str
    name: str


class _StandIn(ModuleType):
    """A module all of whose names are promises."""

    def __getattr__(self, name: str) -> _Name:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Name(self.__name__, name)


@contextmanager
def imported_when_asked_for(modules: tuple[str, ...]) -> Iterator[None]:
    """Let packages be imported without these modules of theirs; the names that they pass on are found later.

    A module that is there already stays.
    """
    standing = {name: _StandIn(name) for name in modules if name not in sys.modules}
    sys.modules.update(standing)
    try:
        yield
    finally:
        for name in standing:
            del sys.modules[name]
    for package in {name.rpartition(".")[0] for name in standing}:
        _keep_promises(package)


def _keep_promises(package: str) -> None:
    """Make ``package``, and those above it that passed its names on, import what they promised."""
    while package:
        module = sys.modules[package]
        promised = {name: value for name, value in vars(module).items() if isinstance(value, _Name)}
        for name in promised:
            delattr(module, name)
        if promised:
            module.__getattr__ = partial(_kept, package, promised)  # type: ignore[method-assign]
        package = package.rpartition(".")[0]


def _kept(package: str, promised: dict[str, _Name], name: str) -> Any:
    if name not in promised:
        raise AttributeError(f"module {package!r} has no attribute {name!r}")
    return getattr(importlib.import_module(promised[name].module), promised[name].name)
