"""Metaflow's datastore read directly, within limits: artifacts and logs, and whether it can be used.

Metaflow's client would keep what is read in a cache in the temporary folder for good, and reads that cache even
where another reader has left half of an entry in it.
"""

from __future__ import annotations

import errno
import functools
import gzip
import json
import os
import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import IO, Any

from dlpipe.bridge.plain_files import NotPlainFile, make_opener, open_plain_file
from dlpipe.buckets import check_bucket, delete_objects
from dlpipe.errors import StorageUnavailable

S3_DATASTORE = "Metaflow's datastore (METAFLOW_DATASTORE_SYSROOT_S3)"
ARTIFACT_BYTES = 16 * 2**20
LOG_BYTES = 4 * 2**20
"""Of each file of a log, its end."""
RECENT_BYTES = 32 * 2**20
"""Of a datastore far away, what is kept in memory for the second look at a run."""
LOG_SOURCES = ("runtime", "task")
GONE = ("MetaflowS3NotFound", "MetaflowS3AccessDenied", "MetaflowS3InvalidObject", "MetaflowS3URLException")
"""Errors of a remote datastore about one file; any other is an outage."""


class Unreadable(Exception):
    """One file cannot be read, now and later; the message says why in a few words."""


@dataclass(frozen=True)
class DatastoreRoot:
    """A datastore: its kind, such as ``local`` or ``s3``, and its root."""

    kind: str
    root: str


def find_datastore() -> DatastoreRoot:
    """Return the datastore of Metaflow's configuration; neither local nor on S3, its root is its kind."""
    from metaflow import metaflow_config

    kind = metaflow_config.DEFAULT_DATASTORE
    roots = {"local": metaflow_config.DATASTORE_SYSROOT_LOCAL, "s3": metaflow_config.DATASTORE_SYSROOT_S3}
    return DatastoreRoot(kind, roots.get(kind) or kind)


def find_endpoint() -> str | None:
    """Return the S3 server of Metaflow's configuration, where it names one."""
    from metaflow import metaflow_config

    return metaflow_config.S3_ENDPOINT_URL or None


def check_datastore(kind: str = "", root: str | None = None) -> None:
    """Raise ``StorageUnavailable`` unless the datastore can be used; Metaflow itself would try for minutes.

    Parameters
    ----------
    kind, root : str, optional
        Such as ``s3`` and ``s3://bucket/metaflow``; by default those of Metaflow's configuration. A datastore that
        is not on S3 is not looked at.
    """
    from metaflow import metaflow_config

    kind = kind or metaflow_config.DEFAULT_DATASTORE
    root = root or metaflow_config.DATASTORE_SYSROOT_S3
    if kind == "s3" and root:
        check_bucket(
            root,
            what=S3_DATASTORE,
            endpoint=metaflow_config.S3_ENDPOINT_URL,
        )


def check_deletes_runs() -> None:
    """Raise ``StorageUnavailable`` where dlpipe deletes no runs.

    Runs whose files are in a folder or on S3 are deleted. A metadata service has no call for it.
    """
    from metaflow import metaflow_config

    metadata, datastore = metaflow_config.DEFAULT_METADATA, metaflow_config.DEFAULT_DATASTORE
    if metadata != "local":
        raise StorageUnavailable(
            f"Metaflow's metadata is of the kind {metadata!r} here, which deletes no run. Delete its rows in the "
            "service's database, and its files in the datastore."
        )
    if datastore not in ("local", "s3"):
        raise StorageUnavailable(
            f"Metaflow's datastore is of the kind {datastore!r} here, where dlpipe deletes nothing. Delete runs "
            "there with the tools of the store."
        )


def delete_remote_files(folders: Iterable[str]) -> None:
    """Delete what Metaflow's datastore has in these folders, where it is on S3; elsewhere nothing.

    Parameters
    ----------
    folders : iterable of str
        Below the datastore's root.
    """
    from metaflow import metaflow_config

    if metaflow_config.DEFAULT_DATASTORE == "s3":
        for folder in folders:
            delete_objects(
                f"{metaflow_config.DATASTORE_SYSROOT_S3.rstrip('/')}/{folder}",
                what=S3_DATASTORE,
                endpoint=metaflow_config.S3_ENDPOINT_URL,
            )


def has_file(kind: str, root: str, path: str) -> bool:
    """Return whether the datastore of this kind at ``root`` has the file ``path``; false when it does not say.

    Parameters
    ----------
    kind : str
        Such as ``local`` or ``s3``.
    root : str
        A folder or an address.
    path : str
        Below the root.
    """
    try:
        return bool(_open_storage(DatastoreRoot(kind, root)).is_file([path])[0])
    except Exception:  # an outage, or a kind that is not here
        return False


def open_flow_store(kind: str, root: str, flow: str) -> Any:
    """Return Metaflow's own datastore of a flow, for what has no other way in.

    Parameters
    ----------
    kind : str
        Such as ``local`` or ``s3``.
    root : str
        A folder or an address.
    flow : str
        Name of the flow.
    """
    from metaflow.datastore import FlowDataStore

    return FlowDataStore(flow_name=flow, environment=None, storage_impl=_find_implementation(kind), ds_root=root)


def find_place(kind: str, location: str, flow: str) -> DatastoreRoot:
    """Return the datastore that an artifact's metadata names; older ones name the artifact's whole address.

    Parameters
    ----------
    kind : str
        Such as ``local`` or ``s3``.
    location : str
        As the metadata has it: ``:root:`` with the datastore's root, or the whole address.
    flow : str
        Name of the flow, which is a part of the whole address.
    """
    if location.startswith(":root:"):
        return DatastoreRoot(kind, location[6:])
    return DatastoreRoot(kind, str(_find_implementation(kind).get_datastore_root_from_location(location, flow)))


def read_blob(place: DatastoreRoot, flow: str, digest: str) -> bytes:
    """Return the pickle that is kept under ``digest``.

    Parameters
    ----------
    place : DatastoreRoot
        The datastore.
    flow : str
        Name of the flow.
    digest : str
        SHA-1 or longer, in hexadecimal digits.

    Raises
    ------
    Unreadable
        When there is none, or it is damaged or larger than 16 MB.
    StorageUnavailable
        When a datastore that is not on this machine does not answer.
    """
    if not re.fullmatch(r"[0-9a-f]{40,128}", digest):  # part of a path
        raise Unreadable("its digest is none")
    return _read_recent(place, f"{flow}/data/{digest[:2]}/{digest}")


def read_sizes(place: DatastoreRoot, task: str, number: int) -> Mapping[str, Mapping[str, Any]]:
    """Return what the datastore says of each artifact of an attempt, such as its ``size``; else nothing.

    Parameters
    ----------
    place : DatastoreRoot
        The datastore.
    task : str
        Pathspec of the task.
    number : int
        Of the attempt.
    """
    try:
        with _OpenFile(place, f"{task}/{number}.data.json") as (file, _):
            content = json.loads(file.read(ARTIFACT_BYTES))
    except (Unreadable, FileNotFoundError, ValueError, RecursionError):
        return {}
    info = content.get("info") if isinstance(content, dict) else None
    return (
        {name: facts for name, facts in info.items() if isinstance(facts, dict)} if isinstance(info, dict) else {}
    )


def read_log(place: DatastoreRoot, task: str, number: int, stream: str) -> str:
    """Return the end of a log of an attempt: lines of the task and of its launcher, by time.

    Parameters
    ----------
    place : DatastoreRoot
        The datastore.
    task : str
        Pathspec of the task.
    number : int
        Of the attempt.
    stream : str
        ``stdout`` or ``stderr``.

    Raises
    ------
    Unreadable, StorageUnavailable
        As in ``read_blob``; a log that is not there is empty.
    """
    from metaflow.mflog.mflog import merge_logs

    parts = [_read_end(place, f"{task}/{number}.{source}_{stream}.log") for source in LOG_SOURCES]
    try:
        return b"".join(line.msg + b"\n" for line in merge_logs(parts)).decode("utf-8", "backslashreplace")
    except (TypeError, ValueError) as error:  # lines of another kind than Metaflow writes
        raise Unreadable(f"no log of Metaflow's: {type(error).__name__}") from None


def read_page(place: DatastoreRoot, path: str) -> str:
    """Return a card; raise ``Unreadable`` when it is not there, or larger than 16 MB."""
    try:
        with _OpenFile(place, path) as (file, _):
            content = file.read(ARTIFACT_BYTES + 1)
    except FileNotFoundError:
        raise Unreadable("its file is missing") from None
    if len(content) > ARTIFACT_BYTES:
        raise Unreadable(f"larger than {ARTIFACT_BYTES:,} bytes")
    return content.decode()


def _read_end(place: DatastoreRoot, path: str) -> bytes:
    try:
        with _OpenFile(place, path) as (file, _):
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - LOG_BYTES))
            content = file.read(LOG_BYTES)
    except FileNotFoundError:
        return b""
    whole = size <= LOG_BYTES or b"\n" not in content[:-1]
    return content if whole else content.partition(b"\n")[2]


_kept: OrderedDict[str, bytes] = OrderedDict()


def _read_recent(place: DatastoreRoot, path: str) -> bytes:
    """Return the content of a blob; of those far away, the latest ones are remembered."""
    if place.kind == "local":
        return _unpack(place, path)
    key = f"{place.root}/{path}"
    content = _kept.pop(key, None)
    content = _unpack(place, path) if content is None else content
    _kept[key] = content
    while sum(map(len, _kept.values())) > RECENT_BYTES:
        _kept.popitem(last=False)
    return content


def _unpack(place: DatastoreRoot, path: str) -> bytes:
    try:
        with _OpenFile(place, path) as (file, meta):
            packed = not (meta or {}).get("cas_raw")
            source = gzip.GzipFile(fileobj=file) if packed else file
            content = source.read(ARTIFACT_BYTES + 1)
    except FileNotFoundError:
        raise Unreadable("its file is missing") from None
    except (gzip.BadGzipFile, EOFError, ValueError, AttributeError, _find_zlib_error()) as error:
        raise Unreadable(f"its file is damaged: {type(error).__name__}") from None
    if len(content) > ARTIFACT_BYTES:
        raise Unreadable(f"larger than {ARTIFACT_BYTES:,} bytes")
    return content


def _find_zlib_error() -> type[Exception]:
    import zlib

    return zlib.error


class _OpenFile:
    """A file of a datastore, open, with what is kept beside it; errors as ``read_blob`` has them."""

    def __init__(self, place: DatastoreRoot, path: str) -> None:
        self._place, self._path = place, path
        self._file: IO[bytes] | None = None

    def __enter__(self) -> tuple[IO[bytes], Any]:
        try:
            self._results = _open_storage(self._place).load_bytes([self._path])
            ((_, local, meta),) = list(self._results.__enter__())
            if local is None:
                raise FileNotFoundError(self._path)
            near = self._place.kind == "local"
            self._file = open(local, "rb", opener=make_opener(self._place.root) if near else open_plain_file)
        except Exception as error:
            self.__exit__()
            raise self._translate(error) from None
        return self._file, meta

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()
        if hasattr(self, "_results"):
            self._results.__exit__(None, None, None)

    def _translate(self, error: Exception) -> Exception:
        if isinstance(error, FileNotFoundError | Unreadable):
            return error
        if isinstance(error, NotPlainFile):
            return Unreadable("no plain file")
        if isinstance(error, OSError) and error.errno == errno.ELOOP:
            return Unreadable("a link, which is not followed")
        name = type(error).__name__
        if self._place.kind == "local" or name in GONE:
            return Unreadable(f"cannot be read: {name}")
        words = (str(error).splitlines() or [name])[0]
        return StorageUnavailable(f"Metaflow's datastore at {self._place.root} cannot be read: {words}")


def _find_implementation(kind: str) -> Any:
    from metaflow.plugins import DATASTORES

    found = next((implementation for implementation in DATASTORES if kind == implementation.TYPE), None)
    if found is None:
        raise Unreadable(f"in a datastore of the kind {kind!r}, which is not here")
    return found


@functools.cache
def _open_storage(place: DatastoreRoot) -> Any:
    return _find_implementation(place.kind)(place.root)
