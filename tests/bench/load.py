"""A client of the benchmarks of servers: many connections in one process, as cheap as Python allows.

It takes its plan as JSON from stdin and prints one line of JSON. It imports nothing of dlpipe, waits in ``epoll``
for all connections and looks at no more of an answer than its status and its length; the processor time that it
took is in what it prints.

    {"port": 8720, "head": "POST ...", "bodies": [["kind", "body"], ...], "clients": 16, "seconds": 5}

Each client has a connection that stays open, and sends the next body when it has its answer. With ``rate``,
requests come at that many a second instead, whether others have been answered or not, on as many connections as
this needs; their time begins when they were due, so that a client that is late makes no server look fast.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time
from collections import defaultdict
from typing import Any

MOST_CONNECTIONS = 4000
READ_BYTES = 262_144
LATEST_SECONDS = 30.0
"""In which the last answers must come."""


class Connection:
    """A connection to the server, and the request that is under way on it."""

    __slots__ = ("began", "got", "kind", "least", "socket")

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.got, self.least, self.kind, self.began = b"", 0, "", 0.0


class Load:
    """What is sent, and what came back: seconds of each answer by kind of body and status."""

    def __init__(self, plan: dict[str, Any]) -> None:
        self.port, self.seconds, self.rate = plan["port"], plan["seconds"], plan.get("rate", 0.0)
        self.requests = [(kind, make_request(plan["head"], body)) for kind, body in plan["bodies"]]
        self.sent = 0
        self.answers: dict[str, list[float]] = defaultdict(list)
        self.poll = select.epoll()
        self.there: dict[int, Connection] = {}
        self.idle = [self.connect() for _ in range(plan["clients"])]

    def connect(self) -> Connection:
        made = Connection(self.port)
        self.there[made.socket.fileno()] = made
        self.poll.register(made.socket, select.EPOLLIN)
        return made

    def send(self, connection: Connection, began: float) -> None:
        connection.kind, request = self.requests[self.sent % len(self.requests)]
        self.sent += 1
        connection.began, connection.got, connection.least = began, b"", 0
        connection.socket.sendall(request)

    def run(self) -> float:
        """Send until the time is over, wait for what is under way, and return the seconds of both."""
        began = time.perf_counter()
        until = began + self.seconds
        due = began
        if not self.rate:
            for connection in self.idle:
                self.send(connection, time.perf_counter())
            self.idle = []
        while True:
            now = time.perf_counter()
            while self.rate and due <= now < until:
                if self.idle or len(self.there) < MOST_CONNECTIONS:
                    self.send(self.idle.pop() if self.idle else self.connect(), due)
                else:
                    self.answers["no connection"].append(0.0)
                due += 1 / self.rate
            if now >= until and len(self.idle) == len(self.there):
                return now - began
            if now >= until + LATEST_SECONDS:
                raise SystemExit(f"{len(self.there) - len(self.idle)} requests got no answer")
            wait = max(0.0, min(due, until) - now) if self.rate and now < until else 1.0
            for number, _ in self.poll.poll(wait):
                self.receive(self.there[number], until)

    def receive(self, connection: Connection, until: float) -> None:
        try:
            part = connection.socket.recv(READ_BYTES)
        except ConnectionResetError:
            part = b""
        if not part and connection in self.idle:  # a server ends one that nobody has used for a while
            self.idle.remove(connection)
            self.poll.unregister(connection.socket)
            del self.there[connection.socket.fileno()]
            connection.socket.close()
            return
        if not part:
            request = self.requests[0][1].partition(b" HTTP/")[0].decode()
            waited = time.perf_counter() - connection.began
            raise SystemExit(
                f"{request}: the server ended a connection after {waited:.2f} s and {connection.got[:200]!r}; "
                f"{self.sent} requests had been sent"
            )
        got = connection.got = connection.got + part
        if not connection.least:
            head = got.find(b"\r\n\r\n")
            if head < 0:
                return
            at = got.lower().find(b"content-length: ", 0, head) + 16
            connection.least = head + 4 + int(got[at : got.find(b"\r", at)])
        if len(got) < connection.least:
            return
        now = time.perf_counter()
        self.answers[f"{connection.kind} {got[9:12].decode()}"].append(now - connection.began)
        if self.rate or now >= until:
            self.idle.append(connection)
        else:
            self.send(connection, now)


def make_request(head: str, body: str) -> bytes:
    """Return the bytes of a request."""
    content = body.encode()
    return f"{head}\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content


def main() -> None:
    load = Load(json.load(sys.stdin))
    took = load.run()
    print(json.dumps({"seconds": took, "answers": load.answers, "cpu": time.process_time()}))


if __name__ == "__main__":
    main()
