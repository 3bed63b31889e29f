"""How the flows keep artifacts: as any Metaflow reads them, and without compressing what does not shrink."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from metaflow.datastore.content_addressed_store import ContentAddressedStore
from metaflow.plugins.datastores.local_storage import LocalStorage

from dlpipe.flows import compression


def test_what_does_not_shrink_is_kept_as_it_is_and_read_by_any_metaflow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, text = random.Random(0).randbytes(2_000_000), b"the plot was good " * 100_000
    reader = ContentAddressedStore("data", LocalStorage(str(tmp_path)))
    plain = reader.save_blobs([weights])
    monkeypatch.setattr(ContentAddressedStore, "_pack_v1", compression.pack)
    kept = ContentAddressedStore("own", LocalStorage(str(tmp_path))).save_blobs([weights, text])
    assert kept[0].key == plain[0].key
    sizes = {path.name: path.stat().st_size for path in (tmp_path / "own").rglob("*") if path.is_file()}
    assert len(weights) < sizes[kept[0].key] < len(weights) + 1000
    assert sizes[kept[1].key] < len(text) / 50
    monkeypatch.undo()
    found = ContentAddressedStore("own", LocalStorage(str(tmp_path))).load_blobs([one.key for one in kept])
    assert dict(found) == {kept[0].key: weights, kept[1].key: text}
