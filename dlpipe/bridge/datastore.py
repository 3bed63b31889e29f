"""Whether Metaflow's datastore can be used, said within seconds where Metaflow itself would try for minutes."""

from __future__ import annotations

from dlpipe.buckets import check_bucket


def check_datastore(kind: str = "", root: str | None = None) -> None:
    """Raise ``StorageUnavailable`` unless the datastore can be used.

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
