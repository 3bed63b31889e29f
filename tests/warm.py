"""A Python in which heavy packages are imported once, and which is forked for each command.

Most of what a short command costs is the import of packages that are not ours. ``WarmPython`` makes a ``python``
and a ``dlpipe`` that do what the real ones do: each command is a process of its own, with the command's words,
folder, environment, streams, signals and exit code. Only the packages of ``IMPORTED`` are there already, and of
dlpipe what MLflow's entry points name; all else each command imports itself.

Metaflow reads its settings as it is imported: from the second command with the same settings on, a process is
forked that has Metaflow as well, and what each flow of ours imports, and is forked in its turn for each of them.

Files, ``-c`` and modules of dlpipe are run so. All else goes to the real Python, Ray's processes among it.
"""

from __future__ import annotations

import binascii
import contextlib
import inspect
import io
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
WITH_METAFLOW = (
    *("metaflow", "metaflow.package", "metaflow.plugins", "metaflow.runtime", "metaflow.task"),
    *("dlpipe.flows.settings", "dlpipe.flows.cards", "dlpipe.flows.data", "dlpipe.flows.registering"),
)
"""What is the same for each flow; ``metaflow.cli`` reads the flow as it is imported."""
LEFT_IN_MAIN: dict[str, object] = {}
"""What Metaflow puts into the module that is run: its class of a ``foreach``, which is pickled as one of that."""
GIVEN = frozenset(os.environ)
"""Variables that this process was given; the others are set by packages as they are imported."""

ASKING = '''#!{python} -IS
"""Ask the warm Python for a process with this one's words, folder, environment and streams; end as it ends."""
import _signal, _socket, array, binascii, marshal, os, sys  # the modules around _signal and _socket take as long

{list_settings}
{address_of}
words, flags = sys.argv[1:], []
while words and words[0] in ("-u", "-P"):
    flags.append(words.pop(0))
kind, name = words[0] if words else "", words[1] if words[1:] else ""
warm = kind.endswith(".py") or kind == {dlpipe!r} or (kind == "-m" and name.startswith("dlpipe."))
if not (warm and "/ray/" not in kind or kind == "-c" and "multiprocessing" not in name):
    os.execv({python!r}, [{python!r}, *flags, *words])
asked = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
try:
    asked.connect(address_of({address!r}, list_settings(os.environ)))
except OSError:  # there is none with Metaflow
    asked.connect({address!r})
request = marshal.dumps((words, flags, os.getcwd(), dict(os.environ)))
asked.sendmsg([request], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, array.array("i", [0, 1, 2]))])
for number in (_signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP):
    _signal.signal(number, lambda number, frame: asked.send(bytes([number])))
code = int(asked.recv(16) or b"1")
if code < 0:
    if -code != _signal.SIGKILL:
        _signal.signal(-code, _signal.SIG_DFL)
    os.kill(os.getpid(), -code)
os._exit(code)
'''


def list_settings(environment):
    """Return what Metaflow reads as it is imported; none where it would look at the working directory as well."""
    settings = sorted(
        (name, value)
        for name, value in environment.items()
        if name in ("HOME", "USER", "USERNAME", "SUDO_USER")
        or (name.startswith("METAFLOW_") and not name.startswith("METAFLOW_RUN_"))
    )
    return [] if "METAFLOW_DATASTORE_SYSROOT_S3" in environment else settings


def address_of(address, settings):
    """Return where the process listens that has Metaflow with these settings."""
    return f"{address}-{binascii.crc32(repr(settings).encode())}" if settings else address


class WarmPython:
    """The process that is forked, and the folder with the ``python`` and the ``dlpipe`` that ask it."""

    def __init__(self, python: Path, environment: dict[str, str]) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="warm-")  # the address of a socket has to be short
        self.bin = Path(self._folder.name) / "bin"
        self.bin.mkdir()
        address = f"{self._folder.name}/socket"
        dlpipe = self.bin / "dlpipe"
        asking = ASKING.format(
            python=str(python),
            address=address,
            dlpipe=str(dlpipe),
            list_settings=inspect.getsource(list_settings),
            address_of=inspect.getsource(address_of),
        )
        _write_program(self.bin / "python", asking)
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


def _serve(address: str, *, has_metaflow: bool = False) -> tuple[list[str], list[str]]:
    """Fork for each request, and return what is to run in each process that comes of it."""
    import marshal

    once: set[str] = set()
    """Addresses for whose settings there was a command."""
    begun: set[str] = set()
    """Addresses of processes with Metaflow."""
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
            own = address_of(address, settings := list_settings(marshal.loads(request)[3]))
            if own in once - begun and settings and not has_metaflow:
                begun.add(own)
                if not os.fork():
                    signal.set_wakeup_fd(-1)
                    for one in (listening, woken, wake, asked, *asking):
                        one.close()
                    for stream in streams:
                        os.close(stream)
                    _import_metaflow(settings)
                    return _serve(own, has_metaflow=True)
            once.add(own)
            if pid := os.fork():
                asking[asked] = pid
                for stream in streams:
                    os.close(stream)
                continue
            signal.set_wakeup_fd(-1)
            for one in (listening, woken, wake, asked, *asking):
                one.close()
            return _become(*marshal.loads(request), streams)


def _import_metaflow(settings: list[tuple[str, str]]) -> None:
    for name in [name for name in os.environ if name.startswith("METAFLOW_")]:
        del os.environ[name]
    os.environ.update(settings)
    before = set(globals())
    _import(WITH_METAFLOW)
    LEFT_IN_MAIN.update((name, value) for name, value in globals().items() if name not in before)


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
    sys.stdout.reconfigure(write_through=False)
    if "-u" in flags or environment.get("PYTHONUNBUFFERED"):
        sys.stdout, sys.stderr = _unbuffered(sys.stdout), _unbuffered(sys.stderr)
    os.chdir(folder)
    for name in [name for name in os.environ if name in GIVEN]:
        del os.environ[name]
    os.environ.update(environment)
    return words, flags


def _unbuffered(stream: io.TextIOWrapper) -> io.TextIOWrapper:
    raw = io.FileIO(stream.fileno(), "w", closefd=False)
    return io.TextIOWrapper(raw, encoding=stream.encoding, errors=stream.errors, write_through=True)


def _run(words: list[str], flags: list[str]) -> None:
    """Do what ``python`` does with its words."""
    import runpy
    import types

    main = sys.modules["__main__"] = types.ModuleType("__main__")
    main.__builtins__ = __builtins__
    vars(main).update(LEFT_IN_MAIN)
    sys.path[0:1] = []
    if words[0] == "-m":
        sys.argv = words[1:]
        if "-P" not in flags:
            sys.path.insert(0, os.getcwd())
        runpy.run_module(words[1], init_globals=LEFT_IN_MAIN, run_name="__main__", alter_sys=True)
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
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        stream.flush()
    os._exit(code & 0xFF)


def _import(names: tuple[str, ...]) -> None:
    """Import for all commands, and keep what that made from their collectors."""
    import gc
    import importlib
    import weakref

    for name in names:
        importlib.import_module(name)
    for finalizer in weakref.finalize._registry:  # of torch's operators, in each process as it ends: 0.03 s
        finalizer.atexit = False
    gc.collect()
    gc.freeze()


if __name__ == "__main__":
    _, address, sys.executable = sys.argv
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch, as dlpipe.task has it
    _import(IMPORTED)
    _run_to_the_end(*_serve(address))
