"""A Python in which heavy packages are imported once, and which is forked for each command.

Most of what a short command costs is the import of packages that are not ours. ``WarmPython`` makes a ``python``
and a ``dlpipe`` that do what the real ones do: each command is a process of its own, with the command's words,
folder, environment, streams, signals and exit code. Only the packages of ``IMPORTED`` are there already, and of
dlpipe what MLflow's entry points name; all else each command imports itself.

Files, ``-c`` and modules of dlpipe are run so. All else goes to the real Python, Ray's processes among it.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

IMPORTED = (
    "torch",
    "pandas",
    "deltalake",
    "mlflow",
    "mlflow.pyfunc",
    "mlflow.store.tracking.sqlalchemy_store",
    "matplotlib.pyplot",
    "sklearn.linear_model",
    "sklearn.feature_extraction.text",
    "transformers.models.bert.modeling_bert",
)
GIVEN = frozenset(os.environ)
"""Variables that this process was given; the others are set by packages as they are imported."""

ASKING = '''#!{python} -IS
"""Ask the warm Python for a process with this one's words, folder, environment and streams; end as it ends."""
import marshal, os, signal, socket, sys

words, flags = sys.argv[1:], []
while words and words[0] in ("-u", "-P"):
    flags.append(words.pop(0))
kind, name = words[0] if words else "", words[1] if words[1:] else ""
warm = kind.endswith(".py") or kind == {dlpipe!r} or (kind == "-m" and name.startswith("dlpipe."))
if not (warm and "/ray/" not in kind or kind == "-c" and "multiprocessing" not in name):
    os.execv({python!r}, [{python!r}, *flags, *words])
with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asked:
    asked.connect({address!r})
    request = marshal.dumps((words, flags, os.getcwd(), dict(os.environ)))
    socket.send_fds(asked, [request], [0, 1, 2])
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, frame: asked.send(bytes([number])))
    code = int(asked.recv(16) or b"1")
if code < 0:
    if -code != signal.SIGKILL:
        signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
os._exit(code)
'''


class WarmPython:
    """The process that is forked, and the folder with the ``python`` and the ``dlpipe`` that ask it."""

    def __init__(self, python: Path, environment: dict[str, str]) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="warm-")  # the address of a socket has to be short
        self.bin = Path(self._folder.name) / "bin"
        self.bin.mkdir()
        address = f"{self._folder.name}/socket"
        dlpipe = self.bin / "dlpipe"
        _write_program(self.bin / "python", ASKING.format(python=str(python), address=address, dlpipe=str(dlpipe)))
        _write_program(dlpipe, f"#!{self.bin / 'python'}\nfrom dlpipe.cli import main\nmain()\n")
        command = [str(python), str(Path(__file__)), address, str(self.bin / "python")]
        # it ends when its standard input does, that is with this process
        self._process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, start_new_session=True)
        while not Path(address).exists():
            assert self._process.poll() is None, "the warm Python ended"
            time.sleep(0.05)

    def end(self) -> None:
        self._process.communicate()
        self._folder.cleanup()


def _write_program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


# -- in the process that is forked -----------------------------------------------------------------------------


def _serve(address: str) -> tuple[list[str], list[str]]:
    """Fork for each request, and return what is to run in each process that comes of it."""
    import marshal

    listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listening.bind(address + ".new")
    listening.listen(64)
    os.rename(address + ".new", address)
    woken, wake = socket.socketpair()
    wake.setblocking(False)
    signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    asking: dict[socket.socket, int] = {}
    while True:
        ready, _, _ = select.select([0, listening, woken, *asking], [], [])
        if 0 in ready:
            sys.exit()
        if woken in ready:
            woken.recv(4096)
            _report_ended(asking)
        for asked in [one for one in ready if one in asking]:
            number = asked.recv(16)
            if number:  # Ctrl-C is for all that the command has started
                (os.killpg if number[0] == signal.SIGINT else os.kill)(asking[asked], number[0])
            else:  # whoever asked was killed
                os.kill(asking[asked], signal.SIGKILL)
                asked.close()
                del asking[asked]
        if listening in ready:
            asked, _ = listening.accept()
            request, streams, _, _ = socket.recv_fds(asked, 1 << 20, 3)
            if pid := os.fork():
                asking[asked] = pid
                for stream in streams:
                    os.close(stream)
                continue
            signal.set_wakeup_fd(-1)
            for one in (listening, woken, wake, asked, *asking):
                one.close()
            return _become(*marshal.loads(request), streams)


def _report_ended(asking: dict[socket.socket, int]) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
        for asked in [one for one, child in asking.items() if child == pid]:
            with contextlib.suppress(OSError):  # it was killed just now
                asked.send(b"%d" % os.waitstatus_to_exitcode(status))
            asked.close()
            del asking[asked]


def _become(
    words: list[str],
    flags: list[str],
    folder: str,
    environment: dict[str, str],
    streams: list[int],
) -> tuple[list[str], list[str]]:
    """Make this process as one that the shell has started."""
    os.setpgid(0, 0)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdout.reconfigure(write_through="-u" in flags)
    os.chdir(folder)
    for name in [name for name in os.environ if name in GIVEN]:
        del os.environ[name]
    os.environ.update(environment)
    return words, flags


def _run(words: list[str], flags: list[str]) -> None:
    """Do what ``python`` does with its words."""
    import runpy
    import types

    main = sys.modules["__main__"] = types.ModuleType("__main__")
    main.__builtins__ = __builtins__
    sys.path[0:1] = []
    if words[0] == "-m":
        sys.argv = words[1:]
        if "-P" not in flags:
            sys.path.insert(0, os.getcwd())
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    elif words[0] == "-c":
        sys.argv = ["-c", *words[2:]]
        sys.path.insert(0, "")
        exec(compile(words[1], "<string>", "exec"), main.__dict__)
    else:
        sys.argv = words
        sys.path.insert(0, os.path.dirname(os.path.abspath(words[0])))
        main.__file__ = words[0]
        with open(words[0], "rb") as file:
            exec(compile(file.read(), words[0], "exec"), main.__dict__)


def _run_to_the_end(words: list[str], flags: list[str]) -> None:
    """Run the command and end as Python does, but leave its objects to the system: that saves 0.4 s."""
    import atexit
    import threading

    code: object = 0
    try:
        _run(words, flags)
    except SystemExit as ended:
        code = ended.code or 0
        if not isinstance(code, int):
            print(code, file=sys.stderr)
            code = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code & 0xFF)


if __name__ == "__main__":
    import gc
    import importlib

    _, address, sys.executable = sys.argv
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch, as dlpipe.task has it
    for name in IMPORTED:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    _run_to_the_end(*_serve(address))
