"""The systemd unit of a server: what stands in it, and that a server starts from it."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from dlpipe.cli import main
from dlpipe.serving.service import make_unit


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with nothing of this process's own places."""
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "DLPIPE_TABLES", "DLPIPE_ARTIFACTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("DLPIPE_STATE", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def install(*words: str, answer: str = "y\n") -> Result:
    return CliRunner().invoke(main, ["serve", "install", *words], input=answer)


def read_line(text: str, name: str) -> str:
    (line,) = (line for line in text.splitlines() if line.startswith(f"{name}="))
    return line.partition("=")[2]


def test_install_shows_the_unit_and_asks_before_it_writes(folder: Path) -> None:
    unit = folder / "config/systemd/user/dlpipe-serve.service"
    refused = install(answer="n\n")
    assert "dlpipe.cli serve --host 127.0.0.1 --port 8720" in refused.stdout
    assert not unit.exists()
    done = install("--model", "reviews", "--model", "reviews@challenger", "--timeout", "5")
    assert done.exit_code == 0
    text = unit.read_text()
    assert text.strip() == done.stdout.strip()
    assert "systemctl --user enable --now dlpipe-serve" in done.stderr
    assert read_line(text, "WorkingDirectory") == str(folder)
    assert read_line(text, "TimeoutStopSec") == "120"  # for explanations, the log, and to spare
    assert f"Environment=DLPIPE_STATE={folder}/state" in text
    assert "KillMode" not in text
    assert "ExecReload" not in text  # without a file of settings, SIGHUP ends it
    words = shlex.split(read_line(text, "ExecStart"))
    assert words[:4] == [sys.executable, "-P", "-m", "dlpipe.cli"]
    assert words[4:9] == ["serve", "--model", "reviews", "--model", "reviews@challenger"]
    assert words[-2:] == ["--timeout", "5"]
    helped = subprocess.run([*words, "--help"], capture_output=True, text=True, check=True)
    assert "--max-body" in helped.stdout


def test_the_unit_of_a_server_on_a_cluster_names_it(folder: Path) -> None:
    done = install("--ray-address", "10.0.0.1:6379", "--replicas", "3")
    assert done.exit_code == 0, done.output
    words = shlex.split(read_line(done.output, "ExecStart"))
    assert words[-4:] == ["--ray-address", "10.0.0.1:6379", "--replicas", "3"]


def test_where_models_are_stands_in_the_unit_without_passwords(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DLPIPE_TABLES", "s3://bucket/tables")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://ana:secret@mlflow.example")
    done = install("--yes")
    assert "Environment=DLPIPE_TABLES=s3://bucket/tables" in done.stdout
    assert "secret" not in done.output
    assert "MLFLOW_TRACKING_URI holds a password and is not in the unit: put it into serving.env." in done.stderr


def test_bad_settings_are_found_before_the_unit_is_written(folder: Path) -> None:
    (folder / "serving.toml").write_text("[serving]\ntimeout = 'soon'\n")
    done = install("--yes", "--settings", "serving.toml")
    assert done.exit_code == 1
    assert "timeout" in done.stderr
    assert not (folder / "config").exists()
    (folder / "serving.toml").write_text("[serving]\ntimeout = 20.0\nexplain_timeout = 90.0\n")
    text = install("--yes", "--settings", "serving.toml").stdout
    assert f"--settings {folder}/serving.toml" in text  # whatever folder systemd starts it in
    assert read_line(text, "TimeoutStopSec") == "150"


def test_a_project_has_a_unit_of_its_own_and_the_machine_one_that_waits_for_the_network(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DLPIPE_STATE", str(folder / "films/.dlpipe/state"))
    environ = {"DLPIPE_STATE": str(folder / "films/.dlpipe/state"), "PATH": "/usr/bin", "SUDO_USER": "ana"}
    unit = make_unit(["--port", "9"], draining=75, system=True, environ=environ)
    assert unit.path.name.startswith("dlpipe-serve-films-")
    assert unit.path.parent == Path("/etc/systemd/system")
    assert read_line(unit.text, "User") == "ana"
    assert read_line(unit.text, "After") == "network-online.target"
    assert unit.commands[0] == "sudo systemctl daemon-reload"


def test_systemd_takes_the_unit(folder: Path) -> None:
    made = make_unit(["--settings", str(folder / "100% mine.toml")], draining=75, system=True)
    (folder / made.path.name).write_text(made.text)
    if shutil.which("systemd-analyze") is None:
        pytest.skip("there is no systemd here")
    words = ["systemd-analyze", "verify", "--man=no", str(folder / made.path.name)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert made.path.name not in done.stderr, done.stderr
