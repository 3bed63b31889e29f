"""The examples in docstrings run and give what they show."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def modules_with_examples() -> list[str]:
    """Return the names of the modules that have a line which begins as an example does."""
    rooms = ("dlpipe", "metaflow_extensions")
    paths = sorted(path for room in rooms for path in (ROOT / room).rglob("*.py"))
    with_examples = [path.relative_to(ROOT) for path in paths if ">>> " in path.read_text()]
    return [".".join(path.with_suffix("").parts) for path in with_examples]


@pytest.mark.parametrize("name", modules_with_examples())
def test_examples_give_what_they_show(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "flows").symlink_to(ROOT / "flows")
    monkeypatch.chdir(tmp_path)
    shown = doctest.testmod(
        importlib.import_module(name.removesuffix(".__init__")),
        optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS,
    )
    assert shown.attempted
    assert not shown.failed
    assert [entry.name for entry in tmp_path.iterdir()] == ["flows"], (
        "an example leaves files in the folder that it runs in"
    )
