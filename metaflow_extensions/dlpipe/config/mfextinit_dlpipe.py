"""What dlpipe sets for Metaflow: a user name where the machine gives none; code packages that are kept, and whole.

Metaflow refuses to run without a user, and takes neither an empty ``USER`` (containers, cron) nor ``root``.

Each run keeps its code package (about 2 MB, once for all runs of the same code), from which ``dlpipe reproduce``
makes its model again, unless ``METAFLOW_FEAT_ALWAYS_UPLOAD_CODE_PACKAGE`` is 0. They hold a flow's TOML files as
well, unless ``METAFLOW_DEFAULT_PACKAGE_SUFFIXES`` says otherwise.
"""

import getpass
import os

from metaflow.metaflow_config_funcs import from_conf

FEAT_ALWAYS_UPLOAD_CODE_PACKAGE = from_conf("FEAT_ALWAYS_UPLOAD_CODE_PACKAGE", True)
DEFAULT_PACKAGE_SUFFIXES = from_conf("DEFAULT_PACKAGE_SUFFIXES", ".py,.R,.RDS,.toml")


def _user_name() -> str:
    try:
        return f"{getpass.getuser()}-user"
    except (KeyError, OSError):  # a user id without an entry in the password file
        return "unknown-user"


if all(os.environ.get(key, "root") in ("", "root") for key in ("METAFLOW_USER", "SUDO_USER", "USERNAME", "USER")):
    USER = _user_name()
