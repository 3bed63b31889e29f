"""Files beside tables in which a text may stand: what Metaflow, MLflow and the scheduler keep, and users' own.

Those of Metaflow and MLflow may be objects of a bucket.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from dlpipe.buckets import BucketFolder, StoredObject, check_bucket, is_s3
from dlpipe.durable import PART, write_beside
from dlpipe.errors import DlpipeError, StorageUnavailable
from dlpipe.forgetting.contents import blank_content
from dlpipe.forgetting.examples import EXAMPLES, leave_out_examples
from dlpipe.forgetting.held import overwrite_file
from dlpipe.forgetting.reading import Misses, NotSearched, read, read_each
from dlpipe.forgetting.words import Needles
from dlpipe.redaction import show_address
from dlpipe.scratch import PREFIX

if TYPE_CHECKING:
    from dlpipe.tracking import TrackingStore

WHOLE = ("model", "checkpoint")
"""What would be another model with a word less."""
HELD = ("state", "log")
"""Among these are files to which a process that lives appends, and those of which one has read a part."""
JOURNAL = ".journal"
"""How files end of which servers bring the lines into tables."""
DATABASES = (".db", ".db-wal", ".db-shm", ".db-journal", ".sqlite")
EVERY, PAGE = 3, 1000
"""Of MLflow: experiments that were deleted, too; how many at once."""
NOT_LOOKED_INTO = frozenset({"__pycache__", "node_modules", "site-packages", "lost+found"})


@dataclass(frozen=True)
class FoundIn:
    """A file that tells something of a row.

    Attributes
    ----------
    what : str
        ``artifact``, ``card``, ``log``, ``file in MLflow``, ``model``, ``state``.
    path : Path or StoredObject
    """

    what: str
    path: Path | StoredObject


@dataclass(frozen=True)
class OwnFile:
    """A file of the user's that tells something of a row.

    Attributes
    ----------
    path : Path
    lines : tuple of int
        Of one that is text.
    """

    path: Path
    lines: tuple[int, ...] = ()


@dataclass(frozen=True)
class Roots:
    """Where files are, and where they are that nobody looks into.

    Attributes
    ----------
    metaflow, state : Path
    mlflow : tuple of Path
        Without those within others.
    tables : Path or None
    metaflow_bucket : BucketFolder or None
    mlflow_buckets : tuple of BucketFolder
    experiment_roots : frozenset of PurePath
        Where experiments of MLflow have their files, in folders and buckets; one may be within another.
    elsewhere : tuple of str
        Addresses of stores that nobody looks into, or that do not answer.
    experiments : tuple of str
        What those of MLflow are called.
    """

    metaflow: Path
    state: Path
    mlflow: tuple[Path, ...]
    tables: Path | None
    metaflow_bucket: BucketFolder | None
    mlflow_buckets: tuple[BucketFolder, ...]
    experiment_roots: frozenset[PurePath]
    elsewhere: tuple[str, ...]
    experiments: tuple[str, ...]

    def list_kept(self, misses: Misses) -> Iterator[tuple[str, Path | StoredObject]]:
        """Yield what each file is that dlpipe, Metaflow or MLflow keep, databases and tables aside."""
        for path in _walk(self.metaflow, misses):
            yield _name_metaflow_file(path.relative_to(self.metaflow)), path
        for root in self.mlflow:
            for path in _walk(root, misses):
                yield _name_mlflow_file(path, self.experiment_roots), path
        for found in self.metaflow_bucket.list_objects() if self.metaflow_bucket else ():
            yield _name_metaflow_file(found.path), found
        for folder in self.mlflow_buckets:
            for found in folder.list_objects():
                place = PurePosixPath("/", found.bucket, found.key)
                yield _name_mlflow_file(place, self.experiment_roots), found
        for path in _walk(self.state, misses):
            if path.suffix != JOURNAL:
                yield "state", path

    def list_folders(self) -> Iterator[Path]:
        """Yield every folder of this project that dlpipe writes files to."""
        for root in filter(None, (self.metaflow, *self.mlflow, self.state, self.tables)):
            yield from (Path(folder) for folder, _, _ in os.walk(root))
        yield from (folder for folder, _ in self._walk_own(Misses()))

    def list_own(self, misses: Misses) -> Iterator[Path]:
        """Yield the user's own files under the working folder."""
        for folder, files in self._walk_own(misses):
            for name in sorted(files):
                path = folder / name
                is_own = not name.startswith(".") and path.suffix not in DATABASES
                if is_own and _may_be_read(path):
                    yield path

    def _walk_own(self, misses: Misses) -> Iterator[tuple[Path, list[str]]]:
        kept = {path.resolve() for path in (self.metaflow, self.state, *self.mlflow, self.tables) if path}
        for folder, names, files in os.walk(Path.cwd(), onerror=misses.add_folder):
            here = Path(folder)
            names[:] = [
                name
                for name in names
                if not name.startswith((".", PREFIX))
                and name not in NOT_LOOKED_INTO
                and (here / name).resolve() not in kept
                and not os.path.exists(here / name / "pyvenv.cfg")
            ]
            yield here, files


def find_roots() -> Roots:
    """Return where files of this project are."""
    from dlpipe.bridge.datastore import find_datastore, find_endpoint
    from dlpipe.bridge.marks import find_state_root
    from dlpipe.orchestrator.state import state_folder
    from dlpipe.tables import tables_root
    from dlpipe.tracking import open_store, tracking_errors

    elsewhere = []
    root = tables_root()
    tables = None if "://" in root else Path(root)
    experiments: dict[str, str] = {}
    try:
        store = open_store()
        with tracking_errors(store):
            experiments = dict(_list_experiments(store))
        uris = dict.fromkeys([store.uri, store.registry_uri])
        elsewhere += [f"MLflow's database ({show_address(uri)})" for uri in uris if not uri.startswith("sqlite:")]
    except DlpipeError as error:
        elsewhere.append(f"MLflow's files and database ({error})")
    mlflow, buckets = set[Path](), list[BucketFolder]()
    for location in sorted(set(experiments.values())):
        local = location.removeprefix("file://")
        if is_s3(location):
            if not any(f"{location}/".startswith(f"{bucket.address.rstrip('/')}/") for bucket in buckets):
                endpoint = os.environ.get("MLFLOW_S3_ENDPOINT_URL")
                buckets += _open_bucket(location, "MLflow's files", endpoint, elsewhere)
        elif "://" in local or local.startswith("mlflow-artifacts:"):
            elsewhere.append(f"MLflow's files at {show_address(location)}")
        elif Path(local).is_dir():
            mlflow.add(Path(local).resolve())
    outer = [path for path in mlflow if not any(other in path.parents for other in mlflow)]
    metaflow = list[BucketFolder]()
    if (datastore := find_datastore()).kind == "s3":
        metaflow += _open_bucket(datastore.root, "Metaflow's artifacts", find_endpoint(), elsewhere)
    elif datastore.kind != "local":
        elsewhere.append(f"Metaflow's artifacts at {show_address(datastore.root)}")
    return Roots(
        find_state_root(),
        state_folder(),
        tuple(sorted(outer)),
        tables,
        metaflow[0] if metaflow else None,
        tuple(buckets),
        frozenset([*mlflow, *map(_find_place, filter(is_s3, experiments.values()))]),
        tuple(elsewhere),
        tuple(experiments),
    )


def _list_experiments(store: TrackingStore) -> Iterator[tuple[str, str]]:
    """Yield name and address of all experiments, deleted ones among them."""
    token = None
    while True:
        page = store.client().search_experiments(view_type=EVERY, max_results=PAGE, page_token=token)
        yield from ((experiment.name, experiment.artifact_location) for experiment in page)
        if not (token := page.token):
            return


def _open_bucket(address: str, what: str, endpoint: str | None, elsewhere: list[str]) -> Iterator[BucketFolder]:
    """Yield a folder of a bucket; one that does not answer is noted as not searched."""
    try:
        check_bucket(address, what=what, endpoint=endpoint)
    except StorageUnavailable as error:
        elsewhere.append(f"{what} ({error})")
    else:
        yield BucketFolder(address, what, endpoint)


def find_kept(roots: Roots, needles: Needles, misses: Misses) -> Iterator[FoundIn]:
    """Yield the files of dlpipe, Metaflow and MLflow that tell something."""
    for what, path, before in read_each(roots.list_kept(misses), misses):
        try:
            has_it = _change(what, path, before, needles) is not before
        except NotSearched as error:
            misses.add(path, error)
            continue
        if has_it:
            yield FoundIn(what, path)


def find_vocabularies(roots: Roots, needles: Needles) -> Iterator[Path | StoredObject]:
    """Yield the files of models with words that only these texts have, such as the vocabulary of a tokenizer.

    Without them a model would read texts in another way, so nothing takes them out.
    """
    alone = Needles(tuple(needle for needle in needles.needles if needle.alone))
    misses = Misses()  # each of them was read by find_kept
    kept = roots.list_kept(misses) if alone.needles else iter(())
    lists = ((what, path) for what, path in kept if what in WHOLE and path.suffix in (".json", ".txt", ".model"))
    for _, path, content in read_each(lists, misses):
        if alone.may_be_in(content) and blank_content(content, alone) is not content:
            yield path


def clean_file(found: FoundIn, needles: Needles) -> bool:
    """Take out of a file what is looked for, in one step; return whether something was."""
    path = found.path
    if found.what in HELD and isinstance(path, Path) and path.name not in EXAMPLES:
        done = overwrite_file(path, needles)
        if done is not None:
            return done
    try:
        if (before := read(path)) is None or (after := _change(found.what, path, before, needles)) is before:
            return False
    except NotSearched:  # another one since it was found
        return False
    if isinstance(path, StoredObject):
        path.delete() if after is None else path.replace(after)
    elif after is None:
        path.unlink(missing_ok=True)
    else:
        # under a name that the next call takes over: Metaflow takes any other file in a folder of cards for one
        with write_beside(path) as beside:
            beside.write_bytes(after)
            beside.chmod(path.stat().st_mode & 0o777)
    return True


def find_own(paths: Iterable[Path], needles: Needles, misses: Misses) -> Iterator[OwnFile]:
    """Yield those of the user's files that have a text, with the lines; nothing changes them."""
    for path in paths:
        try:
            content = read(path)
            if content is None or blank_content(content, needles) is content:
                continue
        except NotSearched as error:
            misses.add(path, error)
            continue
        lines: tuple[int, ...] = ()
        with suppress(UnicodeDecodeError):
            text = content.decode()
            lines = tuple(dict.fromkeys(text.count("\n", 0, start) + 1 for start, _ in needles.find_spans(text)))
        yield OwnFile(path, lines)


def _change(what: str, path: Path | StoredObject, content: bytes, needles: Needles) -> bytes | None:
    """Return a file's content without what is looked for, ``None`` where nothing is left of it."""
    if what in WHOLE:
        needles = needles.without_words()
    if path.name in EXAMPLES:
        made = leave_out_examples(path.name, content, needles)
        if made is None or made is not content:
            return made
    return blank_content(content, needles)


def _may_be_read(path: Path) -> bool:
    """Return whether a file is no link and no pipe; one that only its reader can tell of may be read."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except FileNotFoundError:
        return False
    except OSError:
        return True


def _walk(root: Path, misses: Misses) -> Iterator[Path]:
    for folder, names, files in os.walk(root, onerror=misses.add_folder):
        names.sort()
        for name in sorted(files):
            path = Path(folder, name)
            if path.suffix not in (*DATABASES, PART) and _may_be_read(path):
                yield path


def _name_mlflow_file(path: PurePath, roots: frozenset[PurePath]) -> str:
    """Return what a file is for its experiment: of those whose folders contain it, the innermost."""
    root = next((parent for parent in path.parents if parent in roots), path.parent)
    return "model" if "models" in path.relative_to(root).parts[:1] else "file in MLflow"


def _find_place(address: str) -> PurePath:
    """Return a place in a bucket as a path."""
    place = urlsplit(address)
    return PurePosixPath("/", place.netloc, place.path.strip("/"))


def _name_metaflow_file(path: PurePath) -> str:
    if "mf.cards" in path.parts[:1]:
        return "card"
    if "mf.checkpoints" in path.parts[:1]:
        return "checkpoint"
    return "artifact" if "data" in path.parts[1:2] else "log"
