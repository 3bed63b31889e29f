"""A small client of the Debug Adapter Protocol: it does what an editor does with a `launch.json`."""

from __future__ import annotations

import ast
import itertools
import json
import os
import queue
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

PATIENCE = 300.0


def configuration(file: Path, name: str, **inputs: str) -> dict[str, Any]:
    """Return a configuration of a project's `launch.json` with its variables in place, as an editor has it."""
    known = json.loads(file.read_text())
    (found,) = [entry for entry in known["configurations"] if entry["name"] == name]
    values = {"workspaceFolder": str(file.parents[1]), **{f"input:{key}": value for key, value in inputs.items()}}
    return json.loads(re.sub(r"\$\{([^}]+)\}", lambda found: values[found[1]], json.dumps(found)))


def last_line(file: Path, function: str) -> int:
    """Return the line of the last statement of a function."""
    nodes = ast.walk(ast.parse(file.read_text()))
    (found,) = [node for node in nodes if isinstance(node, ast.FunctionDef) and node.name == function]
    return found.body[-1].lineno


class Connection:
    """Messages to a debug adapter and from it: of one process that is debugged."""

    def __init__(self, read: IO[bytes], write: IO[bytes], inbox: queue.Queue[tuple[Connection, dict]]) -> None:
        self._read, self._write, self._inbox = read, write, inbox
        self._numbers = itertools.count(1)
        threading.Thread(target=self._listen, daemon=True).start()

    def ask(self, command: str, **arguments: Any) -> int:
        """Send a request, and return its number."""
        return self._send({"type": "request", "command": command, "arguments": arguments})

    def answer(self, request: Mapping[str, Any], **body: Any) -> None:
        """Answer what the adapter asked for."""
        answered = {"request_seq": request["seq"], "command": request["command"], "success": True, "body": body}
        self._send({"type": "response", **answered})

    def _send(self, message: dict[str, Any]) -> int:
        number = next(self._numbers)
        data = json.dumps({"seq": number, **message}).encode()
        self._write.write(b"Content-Length: %d\r\n\r\n%s" % (len(data), data))
        self._write.flush()
        return number

    def _listen(self) -> None:
        try:
            while head := self._read.readline():
                length = int(head.partition(b":")[2])
                self._read.readline()
                self._inbox.put((self, json.loads(self._read.read(length))))
        except (OSError, ValueError):  # closed on the other side
            pass
        self._inbox.put((self, {"type": "closed"}))


class Debugger:
    """Runs a configuration to its end, with a breakpoint that every process of it has.

    Parameters
    ----------
    breakpoint : (Path, int)
        File and line.
    expression : str
        What is read in the frame that stopped there.
    """

    def __init__(self, breakpoint: tuple[Path, int], expression: str) -> None:
        self.breakpoint, self.expression = breakpoint, expression
        self.inbox: queue.Queue[tuple[Connection, dict[str, Any]]] = queue.Queue()
        self.stops: list[tuple[str, int, str]] = []
        """Of each stop: the function, the line and what was read."""
        self.processes = 0
        """Those that the debugger followed, besides the first."""
        self.exit_code: int | None = None
        self._waiting: dict[tuple[int, int], Callable[[dict[str, Any]], None]] = {}

    def run(self, launch: dict[str, Any], output: Path, *, python: str = "") -> None:
        """Run a configuration with ``python``, by default this one; what it prints goes to the file ``output``."""
        adapter = subprocess.Popen(
            [sys.executable, "-m", "debugpy.adapter"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._started: list[subprocess.Popen[bytes]] = []
        try:
            with output.open("wb") as self._output:
                first = Connection(adapter.stdout, adapter.stdin, self.inbox)  # type: ignore[arg-type]
                self._begin(first, "launch", {**launch, "python": [python or sys.executable]})
                self._follow(first)
        finally:
            for process in [*self._started, adapter]:
                process.kill()
                process.wait()

    def _begin(self, connection: Connection, how: str, arguments: dict[str, Any]) -> None:
        connection.ask("initialize", adapterID="debugpy", pathFormat="path", supportsRunInTerminalRequest=True)
        connection.ask(how, **arguments)

    def _follow(self, first: Connection) -> None:
        deadline = time.monotonic() + PATIENCE
        while True:
            sender, message = self.inbox.get(timeout=max(deadline - time.monotonic(), 0.1))
            if message["type"] == "request":
                self._run_in_terminal(sender, message)
            elif message["type"] == "response":
                assert message["success"], message
                self._waiting.pop((id(sender), message["request_seq"]), lambda _: None)(message.get("body") or {})
            elif message["type"] == "event":
                self._react(sender, message["event"], message.get("body") or {})
            if sender is first and message.get("event", message["type"]) in ("terminated", "closed"):
                self.exit_code = self._started[0].wait(PATIENCE)
                return

    def _run_in_terminal(self, sender: Connection, request: dict[str, Any]) -> None:
        assert request["command"] == "runInTerminal", request
        asked = request["arguments"]
        more = {name: value for name, value in asked.get("env", {}).items() if value is not None}
        process = subprocess.Popen(
            asked["args"],
            cwd=asked["cwd"],
            env={**os.environ, **more},
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
        )
        self._started.append(process)
        sender.answer(request, processId=process.pid)

    def _react(self, sender: Connection, event: str, body: dict[str, Any]) -> None:
        if event == "initialized":
            file, line = self.breakpoint
            sender.ask("setBreakpoints", source={"path": str(file)}, breakpoints=[{"line": line}])
            sender.ask("configurationDone")
        elif event == "debugpyAttach":
            self.processes += 1
            stream = socket.create_connection((body["connect"]["host"], body["connect"]["port"])).makefile("rwb")
            self._begin(Connection(stream, stream, self.inbox), "attach", body)  # type: ignore[arg-type]
        elif event == "stopped":
            self._look(sender, body["threadId"])

    def _look(self, sender: Connection, thread: int) -> None:
        """Read the expression where a thread stands, and let it go on."""

        def found(frames: dict[str, Any]) -> None:
            top = frames["stackFrames"][0]

            def read(value: dict[str, Any]) -> None:
                self.stops.append((top["name"], top["line"], value["result"]))
                sender.ask("continue", threadId=thread)

            self._ask(sender, read, "evaluate", expression=self.expression, frameId=top["id"], context="watch")

        self._ask(sender, found, "stackTrace", threadId=thread, levels=1)

    def _ask(self, sender: Connection, then: Callable[[dict[str, Any]], None], command: str, **words: Any) -> None:
        self._waiting[id(sender), sender.ask(command, **words)] = then
