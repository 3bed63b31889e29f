"""Work on Ray clusters: real ones, of two nodes on this machine, that are joined, refused and broken."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import threading
import time
import venv
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from clusters import Nodes, cluster_of, wait_for

from dlpipe.cluster import Cluster, join
from dlpipe.cluster.checks import look_at
from dlpipe.errors import BadRows, ClusterMismatch, ClusterUnavailable, SettingError

pytestmark = pytest.mark.slow

PACKAGES = sysconfig.get_path("purelib")


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    with cluster_of(2) as made:
        yield made


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in another folder: Ray's workers could import the package from this one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


# -- addresses -------------------------------------------------------------------------------------------------


def test_without_an_address_the_caller_works_alone_and_without_ray() -> None:
    program = """
        import sys
        from dlpipe.cluster import join
        with join() as cluster:
            assert cluster is None
        with join("local") as cluster:
            assert cluster is None
        assert "ray" not in sys.modules
    """
    subprocess.run([sys.executable, "-c", "if True:" + program], check=True)


@pytest.mark.parametrize("address", ["10.0.0.1", "10.0.0.1:", ":6379", "host:0", "host:65536", "http://host:6379"])
def test_what_is_no_address_is_refused_before_anything_is_tried(address: str) -> None:
    with (
        pytest.raises(SettingError, match=f"'{address}' is no address of a Ray cluster. Write host:port"),
        join(address),
    ):
        pass


def test_an_address_of_rays_client_is_refused_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "ray://head:10001")
    with pytest.raises(SettingError, match=r"'ray://head:10001' is no address .* Ray's client"), join():
        pass


def test_an_address_that_does_not_answer_is_a_line_within_ten_seconds() -> None:
    with ExitStack() as stack:
        servers = {server: stack.enter_context(server()) for server in (closed, dropping, silent, web)}
        with ThreadPoolExecutor() as pool:
            said = dict(zip(servers, pool.map(refusal, servers.values()), strict=True))
    for server, (message, seconds) in said.items():
        assert seconds < 10, server
        assert message.startswith(f"The Ray cluster at {servers[server]} does not answer: "), message
        assert "\n" not in message
    assert "Connection refused" in said[closed][0]
    assert said[closed][1] < 5
    assert "timed out" in said[dropping][0]
    assert "nothing there has spoken as Ray does" in said[silent][0]
    assert "nothing there has spoken as Ray does" in said[web][0]


def refusal(address: str) -> tuple[str, float]:
    """Return what is said about an address, and after how many seconds."""
    started = time.monotonic()
    with pytest.raises(ClusterUnavailable) as refused:
        look_at(address)
    return str(refused.value), time.monotonic() - started


@contextmanager
def closed() -> Iterator[str]:
    """A port where nothing listens."""
    with closing(socket.socket()) as taken:
        taken.bind(("", 0))
        yield address_of(taken)


@contextmanager
def silent() -> Iterator[str]:
    """A port that takes connections and says nothing."""
    with closing(socket.create_server(("", 0))) as server:
        yield address_of(server)


@contextmanager
def dropping() -> Iterator[str]:
    """A port whose machine drops what is sent to it, as a firewall does: its queue of connections is full."""
    with ExitStack() as stack:
        server = stack.enter_context(closing(socket.create_server(("", 0), backlog=0)))
        for _ in range(4):
            waiting = stack.enter_context(closing(socket.socket()))
            waiting.setblocking(False)
            waiting.connect_ex(server.getsockname())
        yield address_of(server)


@contextmanager
def web() -> Iterator[str]:
    """A port with a web server."""
    with http.server.ThreadingHTTPServer(("", 0), QuietPages) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield address_of(server.socket)
        server.shutdown()


class QuietPages(http.server.SimpleHTTPRequestHandler):
    """Pages without a line in the log for each."""

    def log_message(self, *_: Any) -> None:
        pass


def address_of(listening: socket.socket) -> str:
    return f"127.0.0.1:{listening.getsockname()[1]}"


# -- clusters that cannot be worked on ----------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "other"), [("ray_version", "2.59.1"), ("python_version", "3.10.4")])
def test_a_cluster_with_another_ray_or_python_is_refused(name: str, other: str, nodes: Nodes) -> None:
    with versions_said_to_be(nodes.address, {name: other}), pytest.raises(ClusterMismatch) as refused:
        look_at(nodes.address)
    assert other in str(refused.value)
    assert "this process has Ray" in str(refused.value)


@contextmanager
def versions_said_to_be(address: str, other: dict[str, str]) -> Iterator[None]:
    """Have the head node say other versions than those that it has; it is asked there by all who connect."""
    from ray._raylet import GcsClient

    client = GcsClient(address=address)
    there = client.internal_kv_get(b"CLUSTER_METADATA", namespace=b"cluster")
    changed = json.dumps({**json.loads(there), **other}).encode()
    client.internal_kv_put(b"CLUSTER_METADATA", changed, True, b"cluster")
    try:
        yield
    finally:
        client.internal_kv_put(b"CLUSTER_METADATA", there, True, b"cluster")


def test_a_node_without_the_package_is_named(nodes: Nodes, tmp_path: Path) -> None:
    node = nodes.add(python=bare_python(tmp_path), environment={"PYTHONPATH": PACKAGES})
    try:
        with pytest.raises(ClusterMismatch) as refused, join(nodes.address):
            pass
    finally:
        node.kill()
    message = str(refused.value)
    assert "has no dlpipe 0." in message
    assert str(tmp_path) in message  # the Python to install it for
    assert "\n" not in message


def test_another_version_of_the_package_is_refused(nodes: Nodes, tmp_path: Path) -> None:
    import dlpipe

    other = shutil.copytree(Path(dlpipe.__file__).parent, tmp_path / "other/dlpipe")
    (other / "__init__.py").write_text('__version__ = "0.0.9"\n')
    program = f"from dlpipe.cluster import join\nwith join({nodes.address!r}): pass"
    driver = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(other.parent)},
        capture_output=True,
        text=True,
    )
    said = driver.stderr.splitlines()[-1]
    assert f"has dlpipe {dlpipe.__version__}+" in said
    assert ", this process 0.0.9+" in said


def bare_python(folder: Path) -> str:
    """Return a Python without installed packages: what PYTHONPATH names is there, what is linked there is not."""
    venv.create(folder / "bare", symlinks=True)
    return str(folder / "bare/bin/python")


def test_a_cluster_that_wants_a_token_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with cluster_of(1, environment={"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "a" * 64}) as guarded:
        message, seconds = refusal(guarded.address)
    assert "wants its token. Set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN" in message
    assert seconds < 10


def test_a_machine_that_is_no_node_says_how_to_become_one(nodes: Nodes) -> None:
    alone = ["unshare", "--map-root-user", "--pid", "--fork", "--mount-proc"]
    if subprocess.run([*alone, "true"], capture_output=True).returncode:
        pytest.skip("this machine lets nobody make a namespace of processes")
    program = f"from dlpipe.cluster.checks import look_at; look_at({nodes.address!r})"
    said = subprocess.run([*alone, sys.executable, "-c", program], capture_output=True, text=True).stderr
    assert f"This machine is no node of the Ray cluster at {nodes.address}. Make it one with `ray start" in said


# -- work ---------------------------------------------------------------------------------------------------------


def test_ctrl_c_ends_the_work_and_leaves_the_cluster_as_it_was(nodes: Nodes) -> None:
    program = f"""
        import time
        from dlpipe.cluster import join
        def open_slow():
            return lambda number: time.sleep(1)
        with join({nodes.address!r}) as cluster:
            for _ in cluster.map(open_slow, range(100)):
                print("one is done", flush=True)
    """
    command = [sys.executable, "-c", "if True:" + program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as work:
        assert work.stdout is not None
        assert work.stdout.readline() == "one is done\n"
        work.send_signal(signal.SIGINT)
        _, said = work.communicate(timeout=20)
    assert work.returncode == -signal.SIGINT
    assert said.rstrip().endswith("KeyboardInterrupt")
    wait_for(lambda: not nodes.workers("MapWorker"), nodes.nodes[0])


@pytest.fixture(scope="module")
def cluster(nodes: Nodes) -> Iterator[Cluster]:
    """A connection for all tests that come after those that connect by themselves."""
    with join(nodes.address) as joined:
        assert joined is not None
        yield joined


def test_items_are_done_on_all_nodes_with_the_callers_folder_and_a_thread_for_each_core(
    cluster: Cluster, nodes: Nodes, tmp_path: Path
) -> None:
    (tmp_path / "three.txt").write_text("3")

    def open_reader() -> Callable[[int], tuple[int, int, int]]:
        import torch

        limit = time.monotonic() + 20

        def read(number: int) -> tuple[int, int, int]:
            Path(f"{os.getsid(0)}.node").touch()
            while len(list(Path().glob("*.node"))) < 2 and time.monotonic() < limit:
                time.sleep(0.02)  # the other node may be slower to begin
            return number * int(Path("three.txt").read_text()), torch.get_num_threads(), os.getsid(0)

        return read

    assert (cluster.cores, cluster.places(1), cluster.places(2)) == (2, 2, 0)
    results = list(cluster.map(open_reader, range(20)))
    assert list(cluster.map(open_reader, [])) == []
    with pytest.raises(
        ClusterUnavailable, match=r"No node of the Ray cluster at \S+ has 2 cores; the largest has 1"
    ):
        cluster.map(open_reader, range(20), cores=2)
    assert sorted(value for value, _, _ in results) == [3 * number for number in range(20)]
    assert {threads for _, threads, _ in results} == {1}
    assert {session for _, _, session in results} == {node.process.pid for node in nodes.nodes[:2]}


def test_an_error_of_an_item_or_the_opener_stops_the_work_with_that_error(cluster: Cluster) -> None:
    def open_picky() -> Callable[[int], int]:
        def picky(number: int) -> int:
            if number == 3:
                raise BadRows("part 3 has no rows.")
            time.sleep(0.2)
            return number

        return picky

    def open_nothing() -> Callable[[int], int]:
        raise BadRows("there is no such model.")

    done: list[int] = []
    with pytest.raises(BadRows, match=r"^part 3 has no rows.$"):
        done.extend(cluster.map(open_picky, range(50)))
    assert len(done) < 20
    with pytest.raises(BadRows, match=r"^there is no such model.$"):
        list(cluster.map(open_nothing, range(4)))


def test_an_item_that_kills_its_worker_is_given_up(cluster: Cluster) -> None:
    def open_deadly() -> Callable[[int], int]:
        def deadly(number: int) -> int:
            if number == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            return number

        return deadly

    with pytest.raises(ClusterUnavailable, match=r"The worker died 3 times over item 2. Look for lack of memory"):
        list(cluster.map(open_deadly, range(4)))
