"""Files beside tables in which a text may stand: what Metaflow, MLflow and the scheduler keep, and users' own."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from dlpipe.durable import PART, write_beside
from dlpipe.errors import DlpipeError
from dlpipe.forgetting.contents import blank_content
from dlpipe.forgetting.examples import EXAMPLES, leave_out_examples
from dlpipe.forgetting.words import Needles
from dlpipe.redaction import show_address
from dlpipe.scratch import PREFIX

LARGEST = 2**30
WHOLE = ("model", "checkpoint")
"""What would be another model with a word less."""
DATABASES = (".db", ".db-wal", ".db-shm", ".db-journal", ".sqlite")
NOT_LOOKED_INTO = frozenset({"__pycache__", "node_modules", "site-packages", "lost+found"})


@dataclass(frozen=True)
class FoundIn:
    """A file that tells something of a row.

    Attributes
    ----------
    what : str
        ``artifact``, ``card``, ``log``, ``file in MLflow``, ``model``, ``state``, ``your file``.
    path : Path
    lines : tuple of int
        Of a user's file that is text.
    """

    what: str
    path: Path
    lines: tuple[int, ...] = ()


@dataclass(frozen=True)
class Roots:
    """Where files are, and where they are that nobody looks into.

    Attributes
    ----------
    metaflow, state : Path
    mlflow : tuple of Path
    tables : Path or None
    elsewhere : tuple of str
        Addresses of stores that are not on this machine.
    """

    metaflow: Path
    state: Path
    mlflow: tuple[Path, ...]
    tables: Path | None
    elsewhere: tuple[str, ...]

    def list_kept(self) -> Iterator[tuple[str, Path]]:
        """Yield what each file is that dlpipe, Metaflow or MLflow keep, databases and tables aside."""
        for path in _walk(self.metaflow):
            yield _name_metaflow_file(path.relative_to(self.metaflow)), path
        for root in self.mlflow:
            for path in _walk(root):
                yield ("model" if "models" in path.relative_to(root).parts[:1] else "file in MLflow"), path
        for path in _walk(self.state):
            yield "state", path

    def list_folders(self) -> Iterator[Path]:
        """Yield every folder of this project that dlpipe writes files to."""
        for root in filter(None, (self.metaflow, *self.mlflow, self.state, self.tables)):
            yield from (Path(folder) for folder, _, _ in os.walk(root))
        yield from (folder for folder, _ in self._walk_own())

    def list_own(self) -> Iterator[Path]:
        """Yield the user's own files under the working folder."""
        for folder, files in self._walk_own():
            for name in sorted(files):
                path = folder / name
                if not name.startswith(".") and path.suffix not in DATABASES and not path.is_symlink():
                    yield path

    def _walk_own(self) -> Iterator[tuple[Path, list[str]]]:
        kept = {path.resolve() for path in (self.metaflow, self.state, *self.mlflow, self.tables) if path}
        for folder, names, files in os.walk(Path.cwd()):
            here = Path(folder)
            names[:] = [
                name
                for name in names
                if not name.startswith((".", PREFIX))
                and name not in NOT_LOOKED_INTO
                and (here / name).resolve() not in kept
                and not (here / name / "pyvenv.cfg").exists()
            ]
            yield here, files


def find_roots() -> Roots:
    """Return where files of this project are."""
    from dlpipe.bridge.datastore import find_datastore
    from dlpipe.bridge.marks import find_state_root
    from dlpipe.orchestrator.state import state_folder
    from dlpipe.tables import tables_root
    from dlpipe.tracking import open_store, tracking_errors

    elsewhere = []
    root = tables_root()
    tables = None if "://" in root else Path(root)
    locations: set[str] = set()
    try:
        store = open_store()
        with tracking_errors(store):
            locations = {
                experiment.artifact_location for experiment in store.client().search_experiments(view_type=3)
            }
        uris = dict.fromkeys([store.uri, store.registry_uri])
        elsewhere += [f"MLflow's database ({show_address(uri)})" for uri in uris if not uri.startswith("sqlite:")]
    except DlpipeError as error:
        elsewhere.append(f"MLflow's files and database ({error})")
    mlflow = set()
    for location in sorted(locations):
        local = location.removeprefix("file://")
        if "://" in local or local.startswith("mlflow-artifacts:"):
            elsewhere.append(f"MLflow's files at {show_address(location)}")
        elif Path(local).is_dir():
            mlflow.add(Path(local).resolve())
    outer = [path for path in mlflow if not any(other in path.parents for other in mlflow)]
    if (datastore := find_datastore()).kind != "local":
        elsewhere.append(f"Metaflow's artifacts at {show_address(datastore.root)}")
    return Roots(find_state_root(), state_folder(), tuple(sorted(outer)), tables, tuple(elsewhere))


def find_kept(roots: Roots, needles: Needles) -> Iterator[FoundIn]:
    """Yield the files of dlpipe, Metaflow and MLflow that tell something."""
    for what, path in roots.list_kept():
        before = _read(path)
        if before is not None and _change(what, path, before, needles) is not before:
            yield FoundIn(what, path)


def find_vocabularies(roots: Roots, needles: Needles) -> Iterator[Path]:
    """Yield the files of models with words that only these texts have, such as the vocabulary of a tokenizer.

    Without them a model would read texts in another way, so nothing takes them out.
    """
    alone = Needles(tuple(needle for needle in needles.needles if needle.alone))
    for what, path in roots.list_kept() if alone.needles else ():
        if what in WHOLE and path.suffix in (".json", ".txt", ".model"):
            content = _read(path)
            if content is not None and alone.may_be_in(content) and blank_content(content, alone) is not content:
                yield path


def clean_file(found: FoundIn, needles: Needles) -> bool:
    """Take out of a file what is looked for, in one step; return whether something was."""
    path, before = found.path, _read(found.path)
    if before is None or (after := _change(found.what, path, before, needles)) is before:
        return False
    if after is None:
        path.unlink(missing_ok=True)
    else:
        # under a name that the next call takes over: Metaflow takes any other file in a folder of cards for one
        with write_beside(path) as beside:
            beside.write_bytes(after)
            beside.chmod(path.stat().st_mode & 0o777)
    return True


def find_own(paths: Iterable[Path], needles: Needles) -> Iterator[FoundIn]:
    """Yield those of the user's files that have a text, with the lines; nothing changes them."""
    for path in paths:
        content = _read(path)
        if content is None or blank_content(content, needles) is content:
            continue
        lines: tuple[int, ...] = ()
        with suppress(UnicodeDecodeError):
            text = content.decode()
            lines = tuple(dict.fromkeys(text.count("\n", 0, start) + 1 for start, _ in needles.find_spans(text)))
        yield FoundIn("your file", path, lines)


def _change(what: str, path: Path, content: bytes, needles: Needles) -> bytes | None:
    """Return a file's content without what is looked for, ``None`` where nothing is left of it."""
    if what in WHOLE:
        needles = needles.without_words()
    if path.name in EXAMPLES:
        made = leave_out_examples(path.name, content, needles)
        if made is None or made is not content:
            return made
    return blank_content(content, needles)


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes() if path.stat().st_size <= LARGEST else None
    except OSError:  # gone meanwhile, or not ours to read
        return None


def _walk(root: Path) -> Iterator[Path]:
    for folder, names, files in os.walk(root):
        names.sort()
        for name in sorted(files):
            path = Path(folder, name)
            if path.is_file() and not path.is_symlink() and path.suffix not in (*DATABASES, PART):
                yield path


def _name_metaflow_file(path: Path) -> str:
    if path.parts[0] == "mf.cards":
        return "card"
    if path.parts[0] == "mf.checkpoints":
        return "checkpoint"
    return "artifact" if "data" in path.parts[1:2] else "log"
