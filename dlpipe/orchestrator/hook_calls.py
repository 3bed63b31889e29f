"""Calls a flow's exit hooks one after the other: ``python -P hook_calls.py SCRIPT FLOW/RUN FUNCTION...``.

It runs with a deployment's interpreter, in its folder and with its frozen code, and needs nothing of dlpipe. Each
function is called in a process of its own by Metaflow's script; one that fails keeps no other from being called.
"""

from __future__ import annotations

import subprocess
import sys

SCRIPT = "metaflow.plugins.exit_hook.exit_hook_script"


def main(script: str, pathspec: str, *functions: str) -> int:
    """Call the functions and return how many failed."""
    failed = 0
    for function in functions:
        print(f"[exit_hook] {function} of {pathspec}", flush=True)
        code = subprocess.call([sys.executable, "-m", SCRIPT, script, function, pathspec])
        if code:
            print(f"[exit_hook] {function} failed with {code}", flush=True)
            failed += 1
    return failed


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
