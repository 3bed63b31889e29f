"""Public data sets, fetched from a real server on loopback."""

from __future__ import annotations

import hashlib
import io
import os
import re
import stat
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from disks import tiny_disk

from dlpipe.datasets import fetch_dataset, find_dataset
from dlpipe.errors import DownloadFailed, SettingError, SourceNotFound, StorageFull
from dlpipe.tables import ingest, read_table
from dlpipe.task.text_classification import TextClassData

FLOWS = Path(__file__).resolve().parents[1] / "flows"


@dataclass
class Shelf:
    """What the server has, how it behaves, and what it was asked."""

    body: bytes = b""
    tag: str | None = '"one"'
    ranges: bool = True
    cut_after: list[int] = field(default_factory=list)
    """For each coming request, after how many bytes the connection breaks."""
    status: int = 200
    asked: list[str | None] = field(default_factory=list)
    url: str = ""


def handler_of(shelf: Shelf) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            shelf.asked.append(wanted)
            start = 0
            if wanted and shelf.ranges and self.headers.get("If-Range") == shelf.tag:
                start = int(wanted.removeprefix("bytes=").rstrip("-"))
            body = shelf.body[start:]
            good = 206 if start else 200
            self.send_response(shelf.status if shelf.status != 200 else good if body else 416)
            self.send_header("Content-Length", str(len(body)))
            if shelf.tag:
                self.send_header("ETag", shelf.tag)
            self.end_headers()
            cut = shelf.cut_after.pop(0) if shelf.cut_after else None
            self.wfile.write(body[:cut])
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@pytest.fixture
def shelf() -> Iterator[Shelf]:
    shelf = Shelf(body=packed(GOOD))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(shelf))
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    shelf.url = f"http://127.0.0.1:{server.server_address[1]}/imdb.zip"
    yield shelf
    server.shutdown()
    server.server_close()


def rows(word: str, count: int) -> bytes:
    lines = [f"{word} {n} {os.urandom(20).hex()},{'positive' if n % 2 else 'negative'}" for n in range(count)]
    return "\n".join(["review,sentiment", *lines, ""]).encode()


GOOD = {"imdb/train.csv": rows("a", 4000), "imdb/valid.csv": rows("b", 20), "imdb/test.csv": rows("c", 20)}


def packed(files: dict[str, bytes]) -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as bundle:
        for name, content in files.items():
            bundle.writestr(name, content)
    return written.getvalue()


def catalogue(folder: Path, shelf: Shelf, *, sha256: str | None = None) -> Path:
    pin = hashlib.sha256(shelf.body).hexdigest() if sha256 is None else sha256
    path = folder / "datasets.toml"
    path.write_text(
        f'[imdb]\nurl = "{shelf.url}"\nsha256 = "{pin}"\n'
        'train = "imdb/train.csv"\nvalid = "imdb/valid.csv"\ntest = "imdb/test.csv"\n'
    )
    return path


def files_under(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.rglob("*") if p.is_file() and not p.name.endswith(".lock"))


def test_data_set_is_downloaded_once_and_can_be_ingested(tmp_path, shelf, capfd):
    path = catalogue(tmp_path, shelf)
    sources = fetch_dataset("imdb", catalogue=path, folder=tmp_path / "raw")
    assert fetch_dataset("imdb", catalogue=path, folder=tmp_path / "raw") == sources
    assert shelf.asked == [None]
    assert Path(str(sources.train)).read_bytes() == GOOD["imdb/train.csv"]
    assert files_under(tmp_path / "raw") == ["test.csv", "train.csv", "valid.csv"]
    assert "imdb: 100%" in capfd.readouterr().err
    done = ingest(sources, tmp_path / "reviews", settings=TextClassData())
    assert dict(done.split_rows) == {"train": 4000, "valid": 20, "test": 20}
    assert read_table(done.table).num_rows == 4040


def test_broken_connection_is_taken_up_where_it_broke(tmp_path, shelf):
    shelf.cut_after = [40_000]
    fetch_dataset("imdb", catalogue=catalogue(tmp_path, shelf), folder=tmp_path / "raw")
    assert shelf.asked == [None, "bytes=32768-"]


def test_next_run_goes_on_from_the_part_that_is_there(tmp_path, shelf):
    shelf.cut_after = [17_000, 17_000, 17_000]
    path = catalogue(tmp_path, shelf)
    with pytest.raises(DownloadFailed, match=r".* 49,152 bytes are kept in .*\.zip\.part"):
        fetch_dataset("imdb", catalogue=path, folder=tmp_path / "raw")
    fetch_dataset("imdb", catalogue=path, folder=tmp_path / "raw")
    assert shelf.asked == [None, "bytes=16384-", "bytes=32768-", "bytes=49152-"]


def test_server_without_ranges_sends_it_whole_again(tmp_path, shelf):
    shelf.ranges, shelf.cut_after = False, [3000]
    sources = fetch_dataset("imdb", catalogue=catalogue(tmp_path, shelf), folder=tmp_path / "raw")
    assert Path(str(sources.test)).read_bytes() == GOOD["imdb/test.csv"]


def test_server_without_tags_is_asked_for_the_whole_again(tmp_path, shelf):
    shelf.tag, shelf.cut_after = None, [3000]
    fetch_dataset("imdb", catalogue=catalogue(tmp_path, shelf), folder=tmp_path / "raw")
    assert shelf.asked == [None, None]


def test_archive_that_changed_in_between_is_not_glued_together(tmp_path, shelf):
    shelf.cut_after = [17_000, 17_000, 17_000]
    with pytest.raises(DownloadFailed):
        fetch_dataset("imdb", catalogue=catalogue(tmp_path, shelf), folder=tmp_path / "raw")
    shelf.body, shelf.tag = packed({**GOOD, "imdb/test.csv": rows("new", 30)}), '"two"'
    sources = fetch_dataset("imdb", catalogue=catalogue(tmp_path, shelf), folder=tmp_path / "raw")
    assert Path(str(sources.test)).read_bytes().startswith(b"review,sentiment\nnew 0")


def interrupt(tmp_path: Path, shelf: Shelf) -> tuple[Path, Path]:
    """Break all tries of a download, and return the catalogue and the part that is there."""
    shelf.cut_after = [17_000, 17_000, 17_000]
    path = catalogue(tmp_path, shelf)
    with pytest.raises(DownloadFailed):
        fetch_dataset("imdb", catalogue=path, folder=tmp_path / "raw")
    (part,) = (tmp_path / "raw").glob("*.part")
    return path, part


def test_part_that_does_not_fit_is_dropped(tmp_path, shelf):
    path, part = interrupt(tmp_path, shelf)
    part.write_bytes(b"\0" * 49_152)
    with pytest.raises(DownloadFailed, match="has the SHA-256"):
        fetch_dataset("imdb", catalogue=path, folder=tmp_path / "raw")
    assert fetch_dataset("imdb", catalogue=path, folder=tmp_path / "raw").train


def test_part_that_is_too_long_is_dropped(tmp_path, shelf):
    path, part = interrupt(tmp_path, shelf)
    part.write_bytes(shelf.body + b"more")
    assert fetch_dataset("imdb", catalogue=path, folder=tmp_path / "raw").train


def test_wrong_digest_is_refused_and_the_file_removed(tmp_path, shelf):
    path = catalogue(tmp_path, shelf, sha256="0" * 64)
    with pytest.raises(DownloadFailed, match=r"datasets.toml pins 0{64} for 'imdb'; the file was removed"):
        fetch_dataset("imdb", catalogue=path, folder=tmp_path / "raw")
    assert files_under(tmp_path / "raw") == []


def test_unpinned_archive_is_kept_and_the_error_says_how_to_accept_it(tmp_path, shelf):
    path = catalogue(tmp_path, shelf, sha256="")
    for _ in range(2):
        with pytest.raises(DownloadFailed) as caught:
            fetch_dataset("imdb", catalogue=path, folder=tmp_path / "raw")
    seen = hashlib.sha256(shelf.body).hexdigest()
    assert f'write sha256 = "{seen}" under [imdb] in {path}' in str(caught.value)
    assert [name[-4:] for name in files_under(tmp_path / "raw")] == [".zip"]
    fetch_dataset("imdb", catalogue=catalogue(tmp_path, shelf), folder=tmp_path / "raw")
    assert shelf.asked == [None]


def link(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


@pytest.mark.parametrize(
    "name", ["../evil.csv", "/etc/evil.csv", "imdb/../../evil.csv", "..\\evil.csv", link("imdb/l")]
)
def test_unsafe_archive_is_not_unpacked(tmp_path, shelf, name):
    written = io.BytesIO(shelf.body)
    with zipfile.ZipFile(written, "a") as bundle:
        bundle.writestr(name, "/etc/passwd")
    shelf.body = written.getvalue()
    with pytest.raises(DownloadFailed, match="unsafe name or a link"):
        fetch_dataset("imdb", catalogue=catalogue(tmp_path, shelf), folder=tmp_path / "raw")
    assert not list(tmp_path.rglob("*.csv"))


def test_archive_that_grows_without_bound_is_not_unpacked(tmp_path, shelf, monkeypatch):
    monkeypatch.setattr("dlpipe.datasets.MAX_UNPACKED", 100_000)
    shelf.body = packed({**GOOD, "imdb/train.csv": b"\0" * 5_000_000})
    with pytest.raises(DownloadFailed, match="would unpack to more than 100,000 bytes"):
        fetch_dataset("imdb", catalogue=catalogue(tmp_path, shelf), folder=tmp_path / "raw")
    assert not list(tmp_path.rglob("*.csv"))


def test_archive_that_lies_about_its_size_is_not_unpacked(tmp_path, shelf, monkeypatch):
    honest = packed({**GOOD, "imdb/train.csv": b"\0" * 5_000_000})
    shelf.body = honest.replace((5_000_000).to_bytes(4, "little"), (50).to_bytes(4, "little"))
    assert shelf.body != honest
    with pytest.raises(DownloadFailed):
        fetch_dataset("imdb", catalogue=catalogue(tmp_path, shelf), folder=tmp_path / "raw")
    assert not list(tmp_path.rglob("*.csv"))


def test_archive_without_the_files_says_what_it_holds(tmp_path, shelf):
    shelf.body = packed({"reviews.csv": b"x"})
    with pytest.raises(DownloadFailed, match=r"does not hold 'imdb/train.csv'; it holds: reviews\.csv"):
        fetch_dataset("imdb", catalogue=catalogue(tmp_path, shelf), folder=tmp_path / "raw")


def test_page_instead_of_an_archive_is_refused(tmp_path, shelf):
    shelf.body = b"<html>please log in</html>"
    with pytest.raises(DownloadFailed, match="cannot be unpacked: File is not a zip file"):
        fetch_dataset("imdb", catalogue=catalogue(tmp_path, shelf), folder=tmp_path / "raw")


def test_missing_page_is_asked_for_once(tmp_path, shelf):
    shelf.status = 404
    with pytest.raises(DownloadFailed, match="404 Client Error"):
        fetch_dataset("imdb", catalogue=catalogue(tmp_path, shelf), folder=tmp_path / "raw")
    assert len(shelf.asked) == 1


def test_server_that_is_not_there_is_one_clear_line(tmp_path):
    path = catalogue(tmp_path, Shelf(url="http://127.0.0.1:9/imdb.zip"))
    with pytest.raises(DownloadFailed, match=r"or download it by hand and save it as .*imdb-.*zip") as caught:
        fetch_dataset("imdb", catalogue=path, folder=tmp_path / "raw")
    assert "\n" not in str(caught.value)


def test_archive_saved_by_hand_needs_no_network(tmp_path):
    shelf = Shelf(body=packed(GOOD), url="http://127.0.0.1:9/imdb.zip")
    path = catalogue(tmp_path, shelf)
    with pytest.raises(DownloadFailed) as caught:
        fetch_dataset("imdb", catalogue=path, folder=tmp_path / "raw")
    Path(re.search(r"save it as (\S+zip)", str(caught.value))[1]).write_bytes(shelf.body)
    assert fetch_dataset("imdb", catalogue=path, folder=tmp_path / "raw").train


def test_full_disk_is_one_clear_line(tmp_path, shelf):
    shelf.body = os.urandom(2_000_000)
    with tiny_disk(tmp_path / "disk") as disk, pytest.raises(StorageFull, match="No space is left"):
        fetch_dataset("imdb", catalogue=catalogue(tmp_path, shelf), folder=disk / "raw")


def test_unknown_name_suggests_the_right_one(tmp_path, shelf):
    with pytest.raises(SettingError, match="has no data set 'imbd'; did you mean 'imdb'"):
        fetch_dataset("imbd", catalogue=catalogue(tmp_path, shelf), folder=tmp_path)
    with pytest.raises(SourceNotFound, match="no catalogue of data sets at '"):
        fetch_dataset("imdb", catalogue=tmp_path / "none.toml", folder=tmp_path)


BAD_LINES = [
    ('url = "ftp://x/y.zip"', "must begin with https"),
    ('sha256 = "12"', "64 hex"),
    ('train = "../x"', "inside the archive"),
]


@pytest.mark.parametrize(("line", "message"), BAD_LINES)
def test_bad_catalogue_is_refused(tmp_path, line, message):
    entry = {"url": 'url = "https://x/y.zip"', "train": 'train = "a.csv"'} | {line.split()[0]: line}
    (tmp_path / "datasets.toml").write_text("\n".join(["[imdb]", *entry.values()]))
    with pytest.raises(SettingError, match=message):
        find_dataset("imdb", catalogue=tmp_path / "datasets.toml")


def test_catalogue_that_ships_names_the_book_s_data_set():
    imdb = find_dataset("imdb", catalogue=FLOWS / "datasets.toml")
    assert imdb.url == "https://pl-flash-data.s3.amazonaws.com/imdb.zip"
    assert (imdb.data, imdb.task) == ({"text_column": "review", "label_column": "sentiment"}, "")
