"""Metaflow's datastore: whether it can be used, and whether a file is in it."""

from __future__ import annotations

import functools
from typing import Any

from dlpipe.buckets import check_bucket


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
            what="Metaflow's datastore (METAFLOW_DATASTORE_SYSROOT_S3)",
            endpoint=metaflow_config.S3_ENDPOINT_URL,
        )


def holds(kind: str, root: str, path: str) -> bool:
    """Return whether the datastore of this kind at ``root`` has the file ``path``; false when it does not say."""
    try:
        return bool(_datastore(kind, root).is_file([path])[0])
    except Exception:  # an outage, or a kind that is not here
        return False


@functools.cache
def _datastore(kind: str, root: str) -> Any:
    from metaflow.plugins import DATASTORES

    return next(one for one in DATASTORES if kind == one.TYPE)(root)
