"""What S3 refuses, said in one line within seconds: of tables, and of MLflow's artifacts."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator

import boto3
import pyarrow as pa
import pytest
from buckets import S3Server, s3_server
from stores import new_store, untouched_environment

from dlpipe.buckets import check_bucket
from dlpipe.errors import StorageUnavailable
from dlpipe.tables import table_at, write_table
from dlpipe.tracking import open_store, tracking_errors

DEAD = "http://127.0.0.1:9"
MISTAKES = {
    "unknown key": ({"AWS_ACCESS_KEY_ID": "AKIAWRONG"}, "does not know the key in AWS_ACCESS_KEY_ID"),
    "wrong secret": ({"AWS_SECRET_ACCESS_KEY": "wrong"}, "AWS_SECRET_ACCESS_KEY does not belong to"),
    "no server": ({"AWS_ENDPOINT_URL": DEAD}, r"nothing answers there; .*AWS_ENDPOINT_URL"),
    "no bucket": ({"bucket": "no-bucket"}, "there is no such bucket; make it"),
}
SECONDS = 10


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with s3_server(asks_for_keys=True) as made:
        yield made


@pytest.fixture
def set_variables(server: S3Server) -> Iterator[Callable[..., str]]:
    """Set the variables with a mistake in them, and return the address of a folder in the bucket."""
    with untouched_environment():

        def break_value(bucket: str = "my-bucket", **other: str) -> str:
            os.environ.update(server.variables(**other))
            check_bucket.cache_clear()
            boto3.DEFAULT_SESSION = None  # MLflow's, which keeps the first keys it saw
            return f"s3://{bucket}/there"

        yield break_value


def ask_bucket(address: str) -> None:
    check_bucket(address, what="a test")


def open_table_there(address: str) -> None:
    table_at(f"{address}/table")


def write_table_there(address: str) -> None:
    write_table(f"{address}/table", pa.table({"text": ["good"]}))


def open_store_there(address: str) -> None:
    os.environ["DLPIPE_ARTIFACTS"] = address
    open_store(create=True)


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize("does", [ask_bucket, open_table_there, write_table_there, open_store_there])
def test_what_s3_refuses_is_said_in_one_line_within_seconds(does, mistake, set_variables):
    given, says = MISTAKES[mistake]
    address = set_variables(**given)
    started = time.monotonic()
    with pytest.raises(StorageUnavailable, match=says) as raised:
        does(address)
    assert time.monotonic() - started < SECONDS
    assert "\n" not in str(raised.value)


def test_without_keys_it_says_which_variables_to_set(set_variables):
    address = set_variables(AWS_SHARED_CREDENTIALS_FILE="/nowhere", AWS_CONFIG_FILE="/nowhere")
    del os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]
    with pytest.raises(StorageUnavailable, match="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"):
        ask_bucket(address)


def test_with_the_right_keys_all_of_it_works(set_variables, tmp_path):
    address = set_variables()
    ask_bucket(address)
    write_table_there(address)
    assert table_at(f"{address}/table").rows == 1
    os.environ["DLPIPE_ARTIFACTS"] = f"{address}/artifacts/"
    store = new_store(tmp_path)
    client = store.client()
    experiment = client.get_experiment(store.experiment("films"))
    assert experiment.artifact_location == f"{address}/artifacts"
    store.check("films", model="films")
    run = client.create_run(experiment.experiment_id).info.run_id
    client.log_text(run, "hello", "hello.txt")
    assert [file.path for file in client.list_artifacts(run)] == ["hello.txt"]
    assert not list(tmp_path.glob("mlartifacts/*"))


def test_artifacts_that_an_experiment_keeps_elsewhere_are_refused_as_clearly(set_variables, tmp_path):
    set_variables()
    store = new_store(tmp_path)
    client = store.client()
    elsewhere = client.create_experiment("films", artifact_location="s3://no-bucket/there")
    run = client.create_run(elsewhere).info.run_id
    with pytest.raises(StorageUnavailable, match="there is no such bucket"), tracking_errors(store):
        client.log_text(run, "hello", "hello.txt")
    with pytest.raises(StorageUnavailable, match="there is no such bucket"):
        store.check("films")
