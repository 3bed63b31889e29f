"""`dlpipe forget` in a process that is gone at one of its changes of files, as with kill -9."""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

CHANGES = ("open", "os.remove", "os.rename", "os.link", "os.mkdir", "os.rmdir", "os.truncate", "shutil.rmtree")


def forget_until(words: list[str], kill_at: int, count: Path, folder: str, environ: dict[str, str]) -> None:
    """In a process of its own: forget, and be gone as with kill -9 at the change of files with this number.

    Its temporary folders are its own: it removes what killed commands left there, which counts as changes.
    """
    scratch = count.with_name("scratch")
    scratch.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environ, TMPDIR=str(scratch))
    tempfile.tempdir = str(scratch)
    seen = 0

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        if event not in CHANGES or (event == "open" and not writes(arguments)):
            return
        seen += 1
        if seen == kill_at:
            os._exit(9)

    sys.addaudithook(watch)
    from dlpipe.cli import main

    with open(os.devnull, "w") as nowhere:
        sys.stdout = sys.stderr = nowhere
        main(["forget", *words], prog_name="dlpipe", standalone_mode=False)
    count.write_text(str(seen))
    os._exit(0)


def writes(arguments: tuple[Any, ...]) -> bool:
    """Return whether what is opened is to be changed, and is neither Python's own cache nor a device."""
    path, mode, flags = (*arguments, None, None, None)[:3]
    changing = any(sign in str(mode) for sign in "wax+") or bool(int(flags or 0) & (os.O_WRONLY | os.O_RDWR))
    return changing and isinstance(path, str) and not path.startswith(("/dev", "/proc")) and "pycache" not in path


def start(target: Any, *arguments: Any) -> int:
    """Run a function in a process of its own, which has what is imported already, and return its exit code."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["dlpipe.cli", "dlpipe.forgetting", "mlflow", "deltalake", "pyarrow.dataset"])
    process = context.Process(target=target, args=(*arguments, os.getcwd(), dict(os.environ)))
    process.start()
    process.join(300)
    if process.exitcode is None:
        process.kill()
        raise TimeoutError(f"{target.__name__}{arguments} did not end")
    return process.exitcode
