"""How data sets, jobs and runs are called, by the rules of OpenLineage.

A data set has the name of the place where it is: path and bucket. Its versions have one name, and a facet with the
number. A registered model is a data set of its registry.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import urlsplit

from openlineage.client.uuid import generate_static_uuid

from dlpipe.lineage import Node
from dlpipe.lineage.models import find_registry_address
from dlpipe.redaction import redact, show_address

NAMESPACE = "OPENLINEAGE_NAMESPACE"
"""Names the variable with the namespace of jobs, as other integrations read it."""
DEFAULT_NAMESPACE = "dlpipe"
LOCAL = "file"
REGISTRY = "mlflow"


@dataclass(frozen=True, order=True)
class Name:
    """What a data set or a job is called: unique in its namespace."""

    namespace: str
    name: str


def find_namespace() -> str:
    """Return the namespace of jobs.

    Examples
    --------
    >>> find_namespace()
    'dlpipe'
    """
    return redact(os.environ.get(NAMESPACE) or DEFAULT_NAMESPACE)


def name_job(flow: str, step: str = "") -> Name:
    """Return what a flow, or a step of it, is called.

    Examples
    --------
    >>> name_job("TrainFlow", "train")
    Name(namespace='dlpipe', name='TrainFlow.train')
    """
    return Name(find_namespace(), f"{flow}.{step}" if step else flow)


def name_location(location: str) -> Name:
    """Return what the file or table at a path or an address is called; a relative path is of this folder.

    Examples
    --------
    >>> name_location("/srv/tables/reviews"), name_location("s3://bucket/tables/reviews/")
    (Name(namespace='file', name='/srv/tables/reviews'), Name(namespace='s3://bucket', name='tables/reviews'))
    """
    scheme, found, _ = location.partition("://")
    if not found or scheme == LOCAL:
        path = location.removeprefix("file://") if found else location
        return Name(LOCAL, redact(os.path.abspath(os.path.expanduser(path))))
    parts = urlsplit(show_address(location))
    return Name(f"{parts.scheme}://{parts.netloc}", parts.path.strip("/"))


def name_model(model: str) -> Name:
    """Return what a registered model is called: by its registry, which is a server or a database.

    Examples
    --------
    >>> os.environ["MLFLOW_TRACKING_URI"] = "http://ana:secret@models.example.org:5000"
    >>> name_model("reviews")
    Name(namespace='mlflow://models.example.org:5000', name='reviews')
    >>> os.environ["MLFLOW_TRACKING_URI"] = "sqlite:////srv/mlflow.db"
    >>> name_model("reviews")
    Name(namespace='mlflow:///srv/mlflow.db', name='reviews')
    >>> del os.environ["MLFLOW_TRACKING_URI"]
    """
    scheme, found, rest = find_registry_address().partition("://")
    if not found or scheme.startswith(("sqlite", LOCAL)):
        path = rest.removeprefix("/") if scheme.startswith("sqlite") else rest or scheme
        return Name(f"{REGISTRY}://{os.path.abspath(path.partition('?')[0])}", model)
    host, slash, path = rest.partition("?")[0].rstrip("/").partition("/")
    return Name(f"{REGISTRY}://{host.rpartition('@')[2]}{slash}{path}", model)


def name_node(node: Node) -> Name | None:
    """Return what a node is called as a data set; ``None`` for one that is none.

    Examples
    --------
    >>> name_node(Node("table", "/srv/tables/reviews", 3)), name_node(Node("run", "TrainFlow", key="17"))
    (Name(namespace='file', name='/srv/tables/reviews'), None)
    """
    if node.kind == "model":
        return name_model(node.name)
    if node.kind in ("file", "table", "predictions", "explanations", "look", "requests"):
        return name_location(node.name)
    return None


def find_version(node: Node) -> str:
    """Return the version of a data set that a node is: its number, or the SHA-256 of a file.

    Examples
    --------
    >>> find_version(Node("table", "/srv/tables/reviews", 3)), find_version(Node("file", "a.csv", key="ab12"))
    ('3', 'ab12')
    """
    if node.kind == "file":
        return node.key
    return "" if node.number is None else str(node.number)


def make_run_id(at: int, key: str) -> str:
    """Return the id of a run: the same whenever it is asked for.

    Parameters
    ----------
    at : int
        When it began, in milliseconds since 1970.
    key : str
        What tells it from others that began then, such as its pathspec.

    Examples
    --------
    >>> make_run_id(1795906424268, "TrainFlow/17")
    '01a2245d-4dcc-70fb-9b0b-306384f462bf'
    """
    return str(generate_static_uuid(to_datetime(at), key.encode()))


def to_datetime(at: int) -> datetime:
    """Return a moment that is given in milliseconds since 1970."""
    return datetime.fromtimestamp(at / 1000, UTC)


def format_time(at: int) -> str:
    """Return a moment as OpenLineage writes it.

    Examples
    --------
    >>> format_time(1795906424268)
    '2026-11-28T22:53:44.268Z'
    """
    return to_datetime(at).isoformat(timespec="milliseconds").replace("+00:00", "Z")
