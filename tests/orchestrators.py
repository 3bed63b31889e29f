"""What stands in for a cluster on loopback: AWS by moto, and a Kubernetes API that keeps what it is given."""

from __future__ import annotations

import functools
import http.server
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
from buckets import BUCKET, S3Server, s3_server

SHIPPED = Path(__file__).resolve().parents[1] / "flows"
FLOWS = ("predict", "explain", "monitor", "train")
STEPS = {
    "predict": ["start", "score", "end"],
    "explain": ["start", "explain", "end"],
    "monitor": ["start", "compare", "end"],
    "train": ["start", "tune", "train", "evaluate", "register", "predict", "explain", "end"],
}
NOT_INHERITED = ("METAFLOW_", "MLFLOW_", "DLPIPE_", "RAY_", "PYTEST_", "AWS_", "KUBE")
IMAGE = "registry.example/dlpipe:1"
ROLE = "arn:aws:iam::123456789012:role"
KUBECONFIG = {
    "apiVersion": "v1",
    "kind": "Config",
    "clusters": [{"name": "here", "cluster": {}}],
    "users": [{"name": "me", "user": {"token": "none"}}],
    "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
    "current-context": "here",
}

AT_ONCE = """
import json, os, runpy, sys, tempfile
import boto3, kubernetes, metaflow.package, metaflow.plugins, metaflow.runtime  # its CLI has the options of a flow

ended = []
for flow, *words in json.load(sys.stdin):  # what every command imports is imported once
    said = [tempfile.TemporaryFile("w+") for _ in range(2)]
    child = os.fork()
    if child == 0:
        os.dup2(said[0].fileno(), 1), os.dup2(said[1].fileno(), 2)
        sys.path[0], sys.argv = os.path.abspath("flows"), [f"flows/{flow}_flow.py", *words]
        runpy.run_path(sys.argv[0], run_name="__main__")
        sys.exit()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    ended.append([code, *(file.seek(0) or file.read() for file in said)])
print(json.dumps(ended))
"""


class KubernetesApi(http.server.BaseHTTPRequestHandler):
    """Answers that nothing is there, and keeps what is posted by its kind and name."""

    def __init__(self, kept: dict[tuple[str, str], dict[str, Any]], *words: Any) -> None:
        self._kept = kept
        super().__init__(*words)

    def do_GET(self) -> None:
        self._answer(404, {"message": "not found"})

    def do_POST(self) -> None:
        given = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self._kept[given["kind"], given["metadata"]["name"]] = given
        self._answer(201, given)

    def _answer(self, code: int, body: dict[str, Any]) -> None:
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *_: Any) -> None:
        pass


@dataclass(frozen=True)
class Cluster:
    """A project, AWS and Kubernetes as its flows find them."""

    project: Path
    aws: S3Server
    variables: dict[str, str]
    kept: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    """What Kubernetes was given."""

    def flow(self, flow: str, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command of ``flows/NAME_flow.py`` to the end."""
        command = [sys.executable, f"flows/{flow}_flow.py", "--quiet", "--no-pylint", *words]
        return subprocess.run(
            command, cwd=self.project, env=self.variables, capture_output=True, text=True, timeout=120
        )

    def flows(self, *commands: tuple[str, ...]) -> list[subprocess.CompletedProcess[str]]:
        """Run commands of flows, each in a process of its own, all of which come from one."""
        given = [[flow, "--quiet", "--no-pylint", *words] for flow, *words in commands]
        done = subprocess.run(
            [sys.executable, "-c", AT_ONCE],
            cwd=self.project,
            env=self.variables,
            input=json.dumps(given),
            stdout=subprocess.PIPE,
            text=True,
            timeout=600,
            check=True,
        )
        ended = zip(given, json.loads(done.stdout), strict=True)
        return [subprocess.CompletedProcess(words, *end) for words, end in ended]

    def said(self, flow: str, *words: str) -> str:
        """Return what a command that goes well prints."""
        done = self.flow(flow, *words)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def client(self, service: str) -> Any:
        """Return a client of an AWS service."""
        given = {"aws_access_key_id": self.aws.key, "aws_secret_access_key": self.aws.secret}
        return boto3.client(service, endpoint_url=self.aws.address, region_name="us-east-1", **given)

    def unpacked(self, url: str, folder: Path) -> Path:
        """Unpack a code package from S3 into ``folder``."""
        key = url.removeprefix(f"s3://{BUCKET}/")
        content = self.client("s3").get_object(Bucket=BUCKET, Key=key)["Body"].read()
        with tarfile.open(fileobj=io.BytesIO(content)) as bundle:
            bundle.extractall(folder, filter="data")
        return folder


@contextmanager
def cluster(project: Path) -> Iterator[Cluster]:
    """Yield the cluster that flows are compiled for; they are copied into the folder ``project``."""
    shutil.copytree(SHIPPED, project / "flows", ignore=shutil.ignore_patterns("__pycache__"))
    kept: dict[tuple[str, str], dict[str, Any]] = {}
    environment = {name: value for name, value in os.environ.items() if not name.startswith(NOT_INHERITED)}
    api = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(KubernetesApi, kept))
    threading.Thread(target=api.serve_forever, args=(0.02,), daemon=True).start()
    with api, s3_server() as aws:
        settings = _settings(project, api.server_port)
        made = Cluster(project, aws, {**environment, **aws.variables(), **settings}, kept)
        made_queue(made)
        yield made
        api.shutdown()


def _settings(project: Path, port: int) -> dict[str, str]:
    config = json.loads(json.dumps(KUBECONFIG))
    config["clusters"][0]["cluster"]["server"] = f"http://127.0.0.1:{port}"
    (project / "kubeconfig").write_text(json.dumps(config))
    return {
        "KUBECONFIG": str(project / "kubeconfig"),
        "METAFLOW_HOME": str(project / "metaflow-home"),
        "METAFLOW_USER": "tester",
        "METAFLOW_DEFAULT_DATASTORE": "s3",
        "METAFLOW_DATASTORE_SYSROOT_S3": f"s3://{BUCKET}/metaflow",
        "METAFLOW_DATASTORE_SYSROOT_LOCAL": str(project / ".metaflow"),
        "METAFLOW_KUBERNETES_CONTAINER_IMAGE": IMAGE,
        "METAFLOW_ARGO_EVENTS_EVENT": "metaflow-event",
        "METAFLOW_ARGO_EVENTS_EVENT_SOURCE": "argo-events-webhook",
        "METAFLOW_ARGO_EVENTS_SERVICE_ACCOUNT": "operate-workflow-sa",
        "METAFLOW_BATCH_JOB_QUEUE": "dlpipe",
        "METAFLOW_BATCH_CONTAINER_IMAGE": IMAGE,
        "METAFLOW_ECS_S3_ACCESS_IAM_ROLE": f"{ROLE}/tasks",
        "METAFLOW_SFN_IAM_ROLE": f"{ROLE}/state-machines",
        "METAFLOW_EVENTS_SFN_ACCESS_IAM_ROLE": f"{ROLE}/events",
    }


def made_queue(one: Cluster) -> None:
    """Make the queue of AWS Batch that Step Functions would submit to, and what it stands on."""
    ec2, iam, batch = one.client("ec2"), one.client("iam"), one.client("batch")
    subnet = ec2.describe_subnets()["Subnets"][0]["SubnetId"]
    group = ec2.describe_security_groups()["SecurityGroups"][0]["GroupId"]
    machines = {
        "type": "EC2",
        "minvCpus": 0,
        "maxvCpus": 4,
        "desiredvCpus": 0,
        "instanceTypes": ["optimal"],
        "subnets": [subnet],
        "securityGroupIds": [group],
        "instanceRole": iam.create_instance_profile(InstanceProfileName="nodes")["InstanceProfile"]["Arn"],
    }
    environment = batch.create_compute_environment(
        computeEnvironmentName="here",
        type="MANAGED",
        serviceRole=iam.create_role(RoleName="batch", AssumeRolePolicyDocument="{}")["Role"]["Arn"],
        computeResources=machines,
    )
    order = [{"order": 1, "computeEnvironment": environment["computeEnvironmentArn"]}]
    batch.create_job_queue(jobQueueName="dlpipe", state="ENABLED", priority=1, computeEnvironmentOrder=order)
