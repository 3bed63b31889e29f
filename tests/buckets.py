"""An S3 server on loopback for tests, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

BUCKET = "my-bucket"
# with "keys", the server makes a user, says her keys, and asks for them from then on
PROGRAM = """
import json, sys
import boto3, requests
from moto.server import ThreadedMotoServer

server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
server.start()
address = "http://%s:%s" % server.get_host_and_port()
given = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
boto3.client("s3", endpoint_url=address, **given).create_bucket(Bucket="my-bucket")
key = {"AccessKeyId": "test", "SecretAccessKey": "test"}
if "keys" in sys.argv:
    iam = boto3.client("iam", endpoint_url=address, **given)
    iam.create_user(UserName="ana")
    rule = {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [rule]})
    iam.put_user_policy(UserName="ana", PolicyName="all", PolicyDocument=policy)
    key = iam.create_access_key(UserName="ana")["AccessKey"]
    requests.post(address + "/moto-api/reset-auth", data="0")
print(address, key["AccessKeyId"], key["SecretAccessKey"], flush=True)
sys.stdin.read()
"""


@dataclass(frozen=True)
class S3Server:
    """A server with one bucket, and the keys that it takes."""

    address: str
    key: str
    secret: str

    def variables(self, **other: str) -> dict[str, str]:
        """Return what leads to it, with ``other`` in place."""
        return {
            "AWS_ENDPOINT_URL": self.address,
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ALLOW_HTTP": "true",
            "AWS_EC2_METADATA_DISABLED": "true",
            **other,
        }


@contextmanager
def s3_server(*, asks_for_keys: bool = False) -> Iterator[S3Server]:
    """Yield a server that ends with the test."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *(["keys"] if asks_for_keys else [])],
        env=environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as server:
        try:
            yield S3Server(*next(line.split() for line in server.stdout if line.startswith("http")))
        finally:
            server.kill()
