"""Public data sets by name: downloaded once, verified against a pinned digest, unpacked, used offline afterwards.

The folder of a data set has its digest in its name, so a new pin is a new folder. It gets this name last, by a
rename, so a folder that exists is whole. A kill leaves a part of the download, which the next call continues; or
the archive, which it verifies and unpacks again, beside a hidden folder of half-unpacked files that stays.
"""

from __future__ import annotations

import errno
import hashlib
import re
import shutil
import stat
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from dlpipe.durable import make_folder, move, move_folder
from dlpipe.errors import DlpipeError, DownloadFailed, SettingError, SourceNotFound, StorageFull
from dlpipe.settings import check_name, read_settings
from dlpipe.sklearn_data import check_sklearn, write_sklearn
from dlpipe.tables import Sources

if TYPE_CHECKING:
    import requests

CHUNK = 2**14  # bytes; what a broken connection loses at most
ATTEMPTS = 3
TIMEOUTS = (10, 60)  # seconds: to connect, and between two pieces of an answer
MAX_UNPACKED = 4 * 2**30  # bytes; a small archive can be made to unpack to terabytes


@dataclass(frozen=True)
class Dataset:
    """An entry of the catalogue: where a data set is, the digest of its archive, and which files are its splits.

    Attributes
    ----------
    sklearn : str
        The name of a data set that comes with scikit-learn; nothing is downloaded then, and ``url``, ``train``
        and the like stay empty. Its classes are in the column ``class``.
    task : str
        The task that it suggests to a run whose settings name none; empty for no suggestion.
    data : mapping
        Settings of the section ``[data]`` that its files need, such as the names of the columns.
    """

    url: str = ""
    train: str = ""
    valid: str = ""
    test: str = ""
    sha256: str = ""
    sklearn: str = ""
    task: str = ""
    data: dict[str, Any] = field(default_factory=dict)

    @property
    def files(self) -> dict[str, str]:
        """The files of the archive that are used, by split."""
        named = {"train": self.train, "valid": self.valid, "test": self.test}
        return {split: name for split, name in named.items() if name}


def find_dataset(name: str, *, catalogue: Path) -> Dataset:
    """Return the entry of the data set ``name`` in the catalogue.

    Raises
    ------
    SettingError
        When the catalogue does not name it (the nearest name is suggested), or describes it badly.

    Examples
    --------
    >>> find_dataset("imdb", catalogue=Path("flows/datasets.toml")).files["train"]
    'imdb/train.csv'
    """
    sections = _read_catalogue(catalogue)
    check_name(name, list(sections), what="data set", where=str(catalogue))
    where = f"[{name}] in {catalogue}"
    dataset = read_settings(Dataset, sections[name], where=where)
    _check_dataset(dataset, where)
    return dataset


def fetch_dataset(name: str, *, catalogue: Path, folder: Path) -> Sources:
    """Return the local files of the data set ``name``, downloaded if need be.

    Parameters
    ----------
    name : str
    catalogue : Path
        A TOML file with a section for each data set, such as ``flows/datasets.toml``.
    folder : Path
        Where data sets are stored; one of scikit-learn is written there as CSV.

    Raises
    ------
    DownloadFailed
        When the archive cannot be downloaded, is not the one that the catalogue pins, or is not pinned yet.
    StorageFull
        When the device has no space left.
    """
    from filelock import FileLock

    dataset = find_dataset(name, catalogue=catalogue)
    if dataset.sklearn:
        return Sources(train=write_sklearn(dataset.sklearn, folder))
    home = folder / f"{name}-{dataset.sha256[:12]}"
    if not (dataset.sha256 and home.is_dir()):
        with _explain_disk_errors(folder):
            make_folder(folder)
            with FileLock(folder / f".{name}.lock"):
                _download_and_unpack(name, dataset, home, catalogue=catalogue)
    return Sources(**{split: home / file for split, file in dataset.files.items()})


def _download_and_unpack(name: str, dataset: Dataset, home: Path, *, catalogue: Path) -> None:
    if dataset.sha256 and home.is_dir():  # another process was first, and had the lock until now
        return
    # with the URL in the name, or a part of one archive would be continued with bytes of another
    origin = hashlib.sha256(dataset.url.encode()).hexdigest()[:8]
    archive = home.parent / f"{name}-{origin}.zip"
    if not archive.exists():
        _download(dataset.url, archive, name=name)
    _verify(archive, dataset, name=name, catalogue=catalogue)
    _unpack(archive, dataset, home)
    archive.unlink()


def _verify(archive: Path, dataset: Dataset, *, name: str, catalogue: Path) -> None:
    with archive.open("rb") as stream:
        seen = hashlib.file_digest(stream, "sha256").hexdigest()
    if not dataset.sha256:
        raise DownloadFailed(
            f"The archive of {name!r} is not pinned, so it was not unpacked: {archive} has the SHA-256 {seen}. "
            f'To accept it, write sha256 = "{seen}" under [{name}] in {catalogue}, and run again.'
        )
    if seen != dataset.sha256.lower():
        archive.unlink()
        raise DownloadFailed(
            f"{dataset.url} has the SHA-256 {seen}, but {catalogue} pins {dataset.sha256} for {name!r}; the file "
            f"was removed. Run again, or correct the pin under [{name}] if the data set was published anew."
        )


# --- download


def _download(url: str, archive: Path, *, name: str) -> None:
    """Download ``url`` to ``archive``, continuing the part that an earlier call left."""
    import requests

    part = archive.with_name(archive.name + ".part")
    for attempt in range(ATTEMPTS):
        try:
            _download_once(url, part, name=name)
            move(part, archive)
            _locate_validator(part).unlink(missing_ok=True)
            return
        except requests.RequestException as error:
            failure = error
        if isinstance(failure, requests.HTTPError):  # an answer, and not a broken connection
            break
        if attempt + 1 < ATTEMPTS:
            time.sleep(0.2 * (attempt + 1))
    have = part.stat().st_size if part.exists() else 0
    kept = f"{have:,} bytes are kept in {part}, and the next run goes on from there. " if have else ""
    raise DownloadFailed(
        f"{url} could not be downloaded: {_format_error(failure)}. {kept}"
        "Check the network, or download it by hand "
        f"and save it as {archive}."
    )


def _download_once(url: str, part: Path, *, name: str) -> None:
    """Download what ``part`` lacks; all of it where the server cannot continue or the archive has changed."""
    import requests

    have, headers = 0, {"Accept-Encoding": "identity"}
    if part.exists() and _locate_validator(part).exists():
        have = part.stat().st_size
        # If-Range: should the archive have changed, the server sends it whole
        headers |= {"Range": f"bytes={have}-", "If-Range": _locate_validator(part).read_text()}
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUTS) as answer:
        if answer.status_code == requests.codes.requested_range_not_satisfiable:
            part.unlink()
            raise requests.ConnectionError("the part that was there did not fit the archive and was removed")
        answer.raise_for_status()
        if answer.status_code != requests.codes.partial_content:
            have = 0
        _save_validator(part, answer)
        _save(answer, part, have=have, name=name)


def _save(answer: requests.Response, part: Path, *, have: int, name: str) -> None:
    import requests
    from tqdm import tqdm

    length = answer.headers.get("Content-Length")
    total = have + int(length) if length else None
    bar = tqdm(total=total, initial=have, unit="B", unit_scale=True, desc=name, file=sys.stderr, mininterval=1)
    with bar, part.open("r+b" if have else "wb") as stream:
        stream.seek(have)
        for chunk in answer.iter_content(CHUNK):
            stream.write(chunk)
            bar.update(len(chunk))
        got = stream.tell()
    if total is not None and got != total:
        raise requests.ConnectionError(f"the connection ended after {got:,} of {total:,} bytes")


def _save_validator(part: Path, answer: requests.Response) -> None:
    """Save what identifies the archive's content on the server; without it a part is not continued.

    Called before the first byte is written, so that a part never has the validator of another content.
    """
    # a weak ETag (W/) promises equal meaning, not equal bytes
    tag = answer.headers.get("ETag", "")
    validator = answer.headers.get("Last-Modified", "") if not tag or tag.startswith("W/") else tag
    if validator:
        _locate_validator(part).write_text(validator)
    else:
        _locate_validator(part).unlink(missing_ok=True)


def _locate_validator(part: Path) -> Path:
    """Return the file that ``_save_validator`` writes."""
    return part.with_name(part.name + ".tag")


# --- unpack


def _unpack(archive: Path, dataset: Dataset, home: Path) -> None:
    """Unpack the files of the splits to ``home``, all or nothing."""
    try:
        with zipfile.ZipFile(archive) as bundle:
            _check_members(bundle, dataset)
            staging = Path(tempfile.mkdtemp(prefix=f".{home.name}-", dir=home.parent))
            try:
                for file in dataset.files.values():
                    _unpack_file(bundle, file, staging / file)
                move_folder(staging, home)
            finally:
                shutil.rmtree(staging, ignore_errors=True)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise DownloadFailed(
            f"{archive} cannot be unpacked: {_format_error(error)}. Remove it and run again, or correct its url."
        ) from None


def _check_members(bundle: zipfile.ZipFile, dataset: Dataset) -> None:
    members = bundle.infolist()
    unsafe = next((member.filename for member in members if _is_unsafe(member)), None)
    if unsafe is not None:
        raise DownloadFailed(
            f"{dataset.url} holds an unsafe name or a link, {unsafe!r}; nothing was unpacked. Do not trust it."
        )
    names = [member.filename for member in members]
    for file in dataset.files.values():
        if file not in names:
            raise DownloadFailed(
                f"{dataset.url} does not hold {file!r}; it holds: {', '.join(names[:20])}. Correct the catalogue."
            )
    size = sum(member.file_size for member in members if member.filename in dataset.files.values())
    if size > MAX_UNPACKED:
        raise _make_size_error(dataset.url)


def _is_unsafe(member: zipfile.ZipInfo) -> bool:
    path = PurePosixPath(member.filename)
    outside = path.is_absolute() or ".." in path.parts or "\\" in member.filename or ":" in path.parts[:1]
    return outside or stat.S_ISLNK(member.external_attr >> 16)


def _unpack_file(bundle: zipfile.ZipFile, file: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with bundle.open(file) as packed, target.open("wb") as stream:
        # counted again: an archive can declare a smaller size than it holds
        while chunk := packed.read(CHUNK):
            written += len(chunk)
            if written > MAX_UNPACKED:
                raise _make_size_error(bundle.filename or file)
            stream.write(chunk)


def _make_size_error(what: str) -> DownloadFailed:
    return DownloadFailed(f"{what} would unpack to more than {MAX_UNPACKED:,} bytes; nothing was unpacked.")


# --- catalogue


def _read_catalogue(catalogue: Path) -> dict[str, dict[str, object]]:
    import tomllib

    try:
        return tomllib.loads(catalogue.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SourceNotFound(
            f"There is no catalogue of data sets at {str(catalogue)!r}. Check the path."
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise SettingError(f"{catalogue} is not valid TOML: {_format_error(error)}. Correct it.") from None


def _check_dataset(dataset: Dataset, where: str) -> None:
    if dataset.sklearn:
        check_sklearn(dataset.sklearn, where)
        if dataset.url or dataset.files or dataset.sha256:
            raise SettingError(
                f"{where}: sklearn = {dataset.sklearn!r} is refused beside url, sha256, train, valid or test: it "
                "comes with scikit-learn."
            )
        return
    if not dataset.train:
        raise SettingError(f"{where} lacks train, the file of the archive with the rows to train on.")
    if not dataset.url.startswith(("https://", "http://")):
        raise SettingError(f"{where}: url = {dataset.url!r} is refused: it must begin with https:// or http://.")
    if dataset.sha256 and not re.fullmatch(r"[0-9a-fA-F]{64}", dataset.sha256):
        raise SettingError(
            f"{where}: sha256 = {dataset.sha256!r} is refused: it must have 64 hex digits or be empty."
        )
    for split, file in dataset.files.items():
        if PurePosixPath(file).is_absolute() or ".." in PurePosixPath(file).parts:
            raise SettingError(f"{where}: {split} = {file!r} is refused: it must be a path inside the archive.")


@contextmanager
def _explain_disk_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except DlpipeError:
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull(
                f"No space is left on the device of {str(folder)!r} for the download. Free some space, run again."
            ) from None
        raise DownloadFailed(
            f"{str(folder)!r} cannot be written to: {_format_error(error)}. Pass another folder."
        ) from None


def _format_error(error: BaseException) -> str:
    return " ".join(str(error).split()).rstrip(".")[:300]
