"""Where the files of MLflow's runs go."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dlpipe.buckets import check_bucket, is_s3

ARTIFACTS = "mlartifacts"


def find_artifact_root(environ: Mapping[str, str]) -> str | None:
    """Return where ``DLPIPE_ARTIFACTS`` wants the artifacts of new experiments, after seeing that it works.

    Examples
    --------
    >>> find_artifact_root({"DLPIPE_ARTIFACTS": "/srv/mlartifacts/"}), find_artifact_root({})
    ('/srv/mlartifacts', None)
    """
    asked = environ.get("DLPIPE_ARTIFACTS", "").rstrip("/")
    if not asked:
        return None
    check_reachable(asked, environ, what="MLflow's artifacts (DLPIPE_ARTIFACTS)")
    return asked if "://" in asked else str(Path(asked).absolute())


def check_reachable(location: str, environ: Mapping[str, str], *, what: str) -> None:
    """Raise ``StorageUnavailable`` when ``location`` is on S3 and cannot be used.

    Parameters
    ----------
    location : str
        A folder, or an address such as ``s3://bucket/folder``.
    environ : mapping
        ``MLFLOW_S3_ENDPOINT_URL`` in it names another server than AWS's own variables.
    what : str
        What is stored there, for the error.
    """
    if is_s3(location):  # MLflow itself would try for long
        check_bucket(location, what=what, endpoint=environ.get("MLFLOW_S3_ENDPOINT_URL"))
