"""The command that resumes a run which stopped before its end, as people type it."""

from __future__ import annotations

import os
import shlex
from collections.abc import Collection

SCHEDULED = "runtime:local-scheduler"
"""The system tag of a run that the scheduler launched: its code is a copy, from which it alone resumes."""
LONGEST = 500


def build_resume(run_id: str, script: str, system_tags: Collection[str] = (), *, python: str = "python") -> str:
    """Return the command that resumes a run, from the folder that it was started in.

    Parameters
    ----------
    run_id : str
        Of Metaflow.
    script : str
        The flow's file, as ``spell_script`` has it, or its name alone.
    system_tags : collection of str, optional
        Of the run.
    python : str, optional
        What runs the script.

    Examples
    --------
    >>> build_resume("17", "flows/train_flow.py")
    'python flows/train_flow.py resume --origin-run-id 17'
    >>> build_resume("ls-3-c0ffee", "train_flow.py", ["runtime:local-scheduler"])
    'dlpipe runs resume ls-3-c0ffee'
    """
    if SCHEDULED in system_tags:
        return f"dlpipe runs resume {run_id}"
    return f"{python} {shlex.quote(script)} resume --origin-run-id {run_id}"


def spell_script(typed: str) -> str:
    """Return the file of a program as seen from the working directory, where it is below that.

    Examples
    --------
    >>> spell_script(os.path.join(os.getcwd(), "flows", "train_flow.py")), spell_script("../train_flow.py")
    ('flows/train_flow.py', '../train_flow.py')
    """
    if os.path.isabs(typed) and not (below := os.path.relpath(typed)).startswith(os.pardir):
        return below
    return typed


def is_plain(script: str) -> bool:
    """Return whether what a file says of a script can be shown: short, on one line, no markup.

    Examples
    --------
    >>> is_plain("flows/train_flow.py"), is_plain("`x`"), is_plain("a\\nb"), is_plain("")
    (True, False, False, False)
    """
    return 0 < len(script) <= LONGEST and script.isprintable() and "`" not in script
