"""What is seen before anything is started on a cluster, and what a replica sees on its node; without Ray."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner
from stores import copy_database

from dlpipe.cli import main
from dlpipe.cluster import Cluster
from dlpipe.errors import ClusterMismatch, ClusterUnavailable, ExtraMissing, SettingError, StorageFull
from dlpipe.serving.key_file import create_key
from dlpipe.serving.keys import KeyRing
from dlpipe.serving.metrics import merge_families, write_families
from dlpipe.serving.ray_serve import checks, places, shared
from dlpipe.serving.ray_serve.checks import check_installed, check_room, check_settings
from dlpipe.serving.ray_serve.deploying import count_running, find_longest, read_reason
from dlpipe.serving.ray_serve.places import Places
from dlpipe.serving.ray_serve.shared import Sharing
from dlpipe.serving.settings import LimitSettings, RaySettings, read_serving_settings


@pytest.fixture(autouse=True)
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DLPIPE_TABLES", str(tmp_path / "tables"))
    monkeypatch.setenv("DLPIPE_STATE", str(tmp_path / "state"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(places, "name_node", lambda: "10.0.0.2")


class Remote:
    """The place that replicas share, which answers or does not."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.away: set[str] = set()

    def __getattr__(self, method: str) -> Any:
        async def remote(*given: Any) -> Any:
            self.asked.append(method)
            if method in self.away:
                raise ConnectionError("It is away.")
            return []

        return SimpleNamespace(remote=remote)


def share(work: Callable[[Remote, Sharing], Awaitable[None]], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return what a replica says that shares, began without keys and does ``work`` beside that."""
    said: list[str] = []
    monkeypatch.setattr(shared, "SETTLE_SECONDS", 0.02)
    monkeypatch.setattr(shared, "PUBLISH_SECONDS", 0.02)

    async def main() -> None:
        remote = Remote()
        sharing = Sharing(remote, "one", None, SimpleNamespace(list_families=list), say=said.append)
        sharing.start()
        await work(remote, sharing)
        sharing.stop()

    asyncio.run(main())
    return said


def test_keys_that_come_after_the_start_are_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    create_key(tmp_path / "keys.json", "shop", quota=5)

    async def work(remote: Remote, sharing: Sharing) -> None:
        await asyncio.sleep(0.1)
        assert "settle" not in remote.asked
        sharing.keys = KeyRing(tmp_path / "keys.json")
        await asyncio.sleep(0.2)
        assert "settle" in remote.asked

    assert share(work, monkeypatch) == []


def test_that_nothing_can_be_shared_is_said_once(monkeypatch: pytest.MonkeyPatch):
    async def work(remote: Remote, sharing: Sharing) -> None:
        remote.away = {"publish"}
        await asyncio.sleep(0.3)
        remote.away = set()
        await asyncio.sleep(0.2)

    said = share(work, monkeypatch)
    assert [line.split(" ")[0] for line in said] == ["This", "Replicas"]


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch):
    check_installed()
    monkeypatch.setattr(checks, "PACKAGES", ("grpc", "no_such_package"))
    with pytest.raises(
        ExtraMissing, match=r"needs no_such_package. .* pip install 'dlpipe\[ray-serve\]'"
    ) as caught:
        check_installed()
    assert isinstance(caught.value, ImportError)


@pytest.mark.parametrize(("replicas", "cores"), [(2, 1), (1, 2)])
def test_replicas_that_have_room_are_taken(replicas: int, cores: int):
    check_room(Cluster("10.0.0.1:6379", (1, 2)), RaySettings(replicas=replicas, cores=cores))


def test_replicas_without_room_are_refused_with_what_there_is():
    cluster = Cluster("10.0.0.1:6379", (1, 2, 3))
    with pytest.raises(
        ClusterUnavailable, match=r"room for 2 of 3 replicas, with 2 cores for each\. Pass --replicas 2"
    ):
        check_room(cluster, RaySettings(replicas=3, cores=2))
    with pytest.raises(ClusterUnavailable, match="has 4 cores; the largest has 3"):
        check_room(cluster, RaySettings(cores=4))


@pytest.mark.parametrize(
    ("host", "port", "reason"), [("127.0.0.1", 0, "takes no free port"), ("here", 80, "here is no address")]
)
def test_an_address_that_proxies_cannot_have_is_refused(host: str, port: int, reason: str):
    check_settings("::1", 8720)
    check_settings("localhost", 8720)
    with pytest.raises(SettingError, match=reason):
        check_settings(host, port)


def test_replicas_without_a_cluster_are_refused():
    done = CliRunner().invoke(main, ["serve", "--replicas", "2"])
    assert done.exit_code == 1
    assert "--replicas needs --ray-address" in done.output


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--ray-address", "nowhere"], "'nowhere' is no address of a Ray cluster"),
        (["--ray-address", "127.0.0.1:1"], "The Ray cluster at 127.0.0.1:1 does not answer"),
        (["--ray-address", "local"], "--ray-address local is no cluster"),
        (["--ray-address", "127.0.0.1:1", "--host", "0.0.0.0"], "would let other machines ask"),
        (["--ray-address", "127.0.0.1:1", "--model", "reviews"], "'reviews'"),
    ],
)
def test_what_cannot_be_is_a_line_before_anything_is_started(
    words: list[str], reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    copy_database(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    done = CliRunner().invoke(main, ["serve", "--port", "8720", *words])
    assert done.exit_code == 1
    (line,) = done.output.splitlines()
    assert reason in line


def test_settings_are_read_from_their_section():
    read = read_serving_settings({"ray": {"replicas": 3, "proxies": "every"}}, where="a.toml")
    assert read.ray == RaySettings(replicas=3, proxies="every")
    with pytest.raises(SettingError, match=r"\[serving.ray\] of a.toml"):
        read_serving_settings({"ray": {"replica": 3}}, where="a.toml")


def test_a_node_with_the_same_places_is_entered(monkeypatch: pytest.MonkeyPatch):
    here, again = Places.here(keyed=False), Places.here(keyed=False)
    assert here.mark
    assert again.mark == here.mark
    here.enter()


def test_addresses_of_models_go_with_the_command(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://registry.example")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    told = Places.here(keyed=False).surroundings.variables
    assert told["MLFLOW_TRACKING_URI"] == "http://registry.example"
    assert "AWS_SECRET_ACCESS_KEY" not in told


def test_a_node_with_other_code_is_refused(monkeypatch: pytest.MonkeyPatch):
    here = Places.here(keyed=False)
    monkeypatch.setattr(places, "find_package_version", lambda: "0.0.1+other")
    with pytest.raises(ClusterMismatch, match=r"node 10.0.0.2 has dlpipe 0.0.1\+other"):
        here.enter()


def test_a_node_with_a_folder_of_tables_of_its_own_is_refused(tmp_path: Path):
    here = Places.here(keyed=False)
    (tmp_path / "tables").rename(tmp_path / "elsewhere")
    with pytest.raises(ClusterMismatch, match=r"on the node 10.0.0.2 is not that of the command. Share it"):
        here.enter()


def test_tables_on_s3_need_no_shared_folder(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DLPIPE_TABLES", "s3://bucket/tables")
    here = Places.here(keyed=False)
    assert not here.mark
    here.enter()


def test_a_node_without_the_folder_of_the_models_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    here = Places.here(keyed=False)
    monkeypatch.chdir(tmp_path)
    folder.rmdir()
    with pytest.raises(ClusterMismatch, match=r"has no folder .*work, in which the models are"):
        here.enter()


def test_a_folder_of_journals_that_cannot_be_is_said(tmp_path: Path):
    (tmp_path / "tables").write_text("")
    with pytest.raises(StorageFull, match="Requests cannot be logged in"):
        Places.here(keyed=False)


def test_why_a_replica_could_not_start_is_the_line_that_it_raised():
    trace = "Traceback (most recent call last):\n  File x\ndlpipe.errors.ModelNotFound: There is no model.\n"
    found = SimpleNamespace(message="The deployment failed to start 2 times", deployments={"r": made(trace)})
    assert read_reason(found) == "There is no model."
    found.deployments = {"r": made("no cores")}
    assert read_reason(found) == "The deployment failed to start 2 times no cores"


def made(message: str, **states: int) -> SimpleNamespace:
    return SimpleNamespace(message=message, replica_states=states)


def test_replicas_that_answer_are_counted():
    assert count_running(SimpleNamespace(deployments={"Replica": made("", RUNNING=2, STARTING=1)})) == 2
    assert count_running(SimpleNamespace(deployments={})) == 0


def test_a_proxy_waits_longer_than_a_replica_does():
    limits = LimitSettings(timeout=10, explain_timeout=100)
    assert find_longest(limits) > limits.explain_timeout + limits.timeout


def test_numbers_of_replicas_stand_beside_each_other():
    from prometheus_client.core import CounterMetricFamily

    def count(number: float) -> list[CounterMetricFamily]:
        family = CounterMetricFamily("dlpipe_requests", "Requests", labels=["model"])
        family.add_metric(["reviews"], number)
        return [family]

    told = write_families(merge_families({"a": count(3), "b": count(4)})).decode()
    assert told.count("# TYPE dlpipe_requests_total counter") == 1
    assert 'dlpipe_requests_total{model="reviews",replica="a"} 3.0' in told
    assert 'dlpipe_requests_total{model="reviews",replica="b"} 4.0' in told
