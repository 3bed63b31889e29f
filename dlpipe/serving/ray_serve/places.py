"""Where models, tables and journals are, which has to be the same for every replica of a server."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from dlpipe.cluster import Surroundings
from dlpipe.cluster.checks import find_package_version
from dlpipe.durable import make_folder, write_file
from dlpipe.errors import ClusterMismatch, StorageFull
from dlpipe.serving.journal import find_journals
from dlpipe.serving.service import PLACES
from dlpipe.tables import tables_root

MARK = ".shared"
"""A file with a number by chance in the folder of journals: a node that does not see it has another folder."""


@dataclass(frozen=True)
class Places:
    """What a replica needs to find on its node.

    Attributes
    ----------
    surroundings : Surroundings
        Folder and variables of the command.
    package : str
        Version and digest of dlpipe.
    mark : str
        What the folder of journals has; empty where each node has a folder of its own, beside tables on S3.
    keyed : bool
        Whether there is a file of keys.
    """

    surroundings: Surroundings
    package: str
    mark: str
    keyed: bool

    @classmethod
    def here(cls, *, keyed: bool) -> Places:
        """Return those of this process; the folder of journals gets its mark.

        Raises
        ------
        StorageFull
            When the folder of journals cannot be written.
        """
        surroundings = Surroundings.here()
        told = {name: os.environ[name] for name in PLACES if os.environ.get(name)}
        surroundings = Surroundings(surroundings.folder, {**surroundings.variables, **told})
        return cls(surroundings, find_package_version(), "" if "://" in tables_root() else leave_mark(), keyed)

    def enter(self) -> None:
        """Make them those of this process, or raise ``ClusterMismatch`` where its node has others."""
        if (found := find_package_version()) != self.package:
            raise ClusterMismatch(
                f"The node {name_node()} has dlpipe {found}, the command {self.package}. Install the same, and "
                "start Ray there again."
            )
        self.surroundings.enter()
        folder = self.surroundings.folder
        if not os.path.isdir(folder) and not os.environ.get("MLFLOW_TRACKING_URI"):
            raise ClusterMismatch(
                f"The node {name_node()} has no folder {folder}, in which the models are. Share it, or set "
                "MLFLOW_TRACKING_URI to a registry that all nodes reach."
            )
        if self.mark and read_mark_file() != self.mark:
            raise ClusterMismatch(
                f"The folder of tables {tables_root()} on the node {name_node()} is not that of the command. "
                "Share it, or set DLPIPE_TABLES to one that all nodes have, or to s3://..."
            )


def leave_mark() -> str:
    """Return what the folder of journals has as its mark, which is made where there is none.

    Raises
    ------
    StorageFull
    """
    folder = find_journals()
    try:
        make_folder(folder, mode=0o700)
        if not read_mark_file():
            write_file(folder / MARK, secrets.token_hex(16), mode=0o600)
    except OSError as error:
        raise StorageFull(
            f"Requests cannot be logged in {folder}: {error.strerror or error}. Make room or change its rights, "
            "or set DLPIPE_TABLES to another folder."
        ) from None
    return read_mark_file()


def read_mark_file() -> str:
    """Return what the mark has; nothing where there is none."""
    try:
        return Path(find_journals(), MARK).read_text()
    except OSError:
        return ""


def name_node() -> str:
    """Return the address of the node of Ray on which this process runs."""
    import ray

    return str(ray.util.get_node_ip_address())
