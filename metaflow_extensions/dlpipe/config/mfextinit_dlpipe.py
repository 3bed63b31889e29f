"""What dlpipe sets for Metaflow: a user name where the machine gives none.

Metaflow refuses to run without one, and takes neither an empty ``USER`` (containers, cron) nor ``root``.
"""

import getpass
import os


def _user_name() -> str:
    try:
        return f"{getpass.getuser()}-user"
    except (KeyError, OSError):  # a user id without an entry in the password file
        return "unknown-user"


if all(os.environ.get(key, "root") in ("", "root") for key in ("METAFLOW_USER", "SUDO_USER", "USERNAME", "USER")):
    USER = _user_name()
