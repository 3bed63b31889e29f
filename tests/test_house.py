"""The plan of the house holds: layers, light imports, no phoning home."""

from __future__ import annotations

import ast
import importlib
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def lint_imports(root: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)


def test_rooms_keep_to_their_layers() -> None:
    result = lint_imports(ROOT)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    ("room", "line", "contract"),
    [
        ("tables/_read.py", "import dlpipe.task", "Rooms know only the rooms below them"),
        ("evaluation/gate.py", "def f(): import dlpipe.training", "Using a model never knows how it was trained"),
        ("bridge/reading.py", "def f(): import mlflow", "Records are computed without MLflow"),
        ("bridge/apply.py", "import dlpipe.registry", "The bridge knows no room but errors and tracking"),
        (
            "orchestrator/overview.py",
            "def f(): import dlpipe.tables",
            "The orchestrator knows no room but errors and settings",
        ),
        (
            "orchestrator/scheduler.py",
            "def f(): import metaflow",
            "A scheduler imports nothing heavy: Metaflow is asked by a process of its own",
        ),
        ("orchestrator/state.py", "import subprocess", "What an orchestrator decides knows no process"),
        (
            "inference/latest.py",
            "def f(): import dlpipe.task.texts.requests",
            "Only dlpipe.task knows what is in the folder of a task",
        ),
        (
            "tables/_passes.py",
            "def f(): import dlpipe.tables._ingest",
            "No module imports itself by way of another",
        ),
    ],
)
def test_breaking_a_layer_rule_on_purpose_fails(room: str, line: str, contract: str, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "dlpipe", tmp_path / "dlpipe", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with (tmp_path / "dlpipe" / room).open("a") as file:
        file.write(f"\n{line}\n")
    result = lint_imports(tmp_path)
    assert result.returncode == 1
    assert f"{contract} BROKEN" in result.stdout


def test_the_folder_of_every_task_is_closed_to_other_rooms_and_to_flows() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (closed,) = [contract["protected_modules"] for contract in contracts if contract["type"] == "protected"]
    folders = [file.parent.name for file in (ROOT / "dlpipe/task").glob("*/__init__.py")]
    assert sorted(closed) == sorted(f"dlpipe.task.{folder}" for folder in folders)
    flows = "".join(file.read_text() for file in (ROOT / "flows").glob("*.py"))
    assert not [name for name in closed if name in flows]


HEAVY = {
    "flash": "Flash and Lightning are named in training.frame",
    "pytorch_lightning": "Flash and Lightning are named in training.frame",
    "peft": "peft is named in task.texts.lora",
    "torch": "torch and transformers are named in task, the training and machine",
    "transformers": "torch and transformers are named in task, the training and machine",
    "onnx": "ONNX is named in task.texts.engines",
    "onnxruntime": "ONNX is named in task.texts.engines",
    "ray": "Ray and Optuna are named in cluster, tuning and the bridge's callback",
    "optuna": "Ray and Optuna are named in cluster, tuning and the bridge's callback",
    "shap": "SHAP is named in explain.shap_objects",
    "sklearn": "scikit-learn is named in task, monitoring.domains and sklearn_data",
    "mlflow": "MLflow is named where it is used",
    "metaflow": "Metaflow is named in flows, the bridge and the inspection of flows",
    "copier": "copier is named in templates.rendering",
    "cronsim": "cronsim is named in orchestrator.timing",
    "starlette": "Starlette, uvicorn and prometheus_client are named in dlpipe.serving",
    "uvicorn": "Starlette, uvicorn and prometheus_client are named in dlpipe.serving",
    "uvloop": "Starlette, uvicorn and prometheus_client are named in dlpipe.serving",
    "prometheus_client": "Starlette, uvicorn and prometheus_client are named in dlpipe.serving",
}


def test_a_heavy_package_in_a_room_that_did_not_exist_before_fails(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "dlpipe", tmp_path / "dlpipe", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "dlpipe" / "newborn").mkdir()
    (tmp_path / "dlpipe" / "newborn" / "__init__.py").write_text(
        "def f():\n" + "".join(f"    import {package}\n" for package in HEAVY)
    )
    result = lint_imports(tmp_path)
    assert result.returncode == 1
    for package, contract in HEAVY.items():
        assert f"{contract} BROKEN" in result.stdout, package
        assert f"dlpipe.newborn -> {package}" in result.stdout


@pytest.mark.parametrize("folder", ["flows", "metaflow_extensions"])
def test_flows_and_extensions_name_metaflow_and_no_other_heavy_package(folder: str) -> None:
    named = {
        (str(file.relative_to(ROOT)), package)
        for file in (ROOT / folder).rglob("*.py")
        for package in imported_by(file)
        if package in HEAVY and package != "metaflow"
    }
    assert not named


def test_no_extension_of_metaflow_knows_a_command() -> None:
    extensions = (ROOT / "metaflow_extensions").rglob("*.py")
    assert not [file.name for file in extensions if "dlpipe.cli" in file.read_text()]


def test_the_folder_of_flows_has_flows_with_their_settings_and_nothing_else() -> None:
    files = [path for path in (ROOT / "flows").iterdir() if path.name != "__pycache__"]
    assert not [path.name for path in files if path.suffix != ".toml" and not path.name.endswith("_flow.py")]
    for path in (ROOT / "flows").glob("*.py"):
        parts = ast.parse(path.read_text()).body
        assert [part.name for part in parts if isinstance(part, ast.ClassDef)] == [flow_name(path)]
        assert not [part.name for part in parts if isinstance(part, ast.FunctionDef)]


def flow_name(path: Path) -> str:
    return path.stem.title().replace("_", "")


def imported_by(file: Path) -> set[str]:
    """Return the top-level packages that a module names, inside functions too."""
    nodes = list(ast.walk(ast.parse(file.read_text())))
    plain = {name.name for node in nodes if isinstance(node, ast.Import) for name in node.names}
    partial = {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom) and not node.level}
    return {name.partition(".")[0] for name in plain | partial}


def test_importing_dlpipe_is_light() -> None:
    program = "import sys; before = set(sys.modules); import dlpipe; print(len(set(sys.modules) - before))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(result.stdout) <= 3


@pytest.mark.parametrize(
    "room",
    [
        "cluster",
        "tables",
        "task",
        "training",
        "tuning",
        "evaluation",
        "explain",
        "monitoring",
        "comparing",
        "registry",
        "lineage",
        "parts",
        "inference",
        "orchestrator",
        "tracking",
        "templates",
        "cli",
        "flows",
    ],
)
def test_importing_a_room_imports_nothing_heavy(room: str) -> None:
    heavy = ["torch", "flash", "pytorch_lightning", "transformers", "ray", "shap", "mlflow", "pandas", "sklearn"]
    heavy.append("copier")
    program = f"import sys, dlpipe.{room}; print([name for name in {heavy} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


PICKLED = [
    "task.classes.baseline.ClassBaseline",
    "evaluation.gate.Rival",
    "evaluation.gate.Verdict",
    "task.classes.scores.Bin",
    "task.quality.Quality",
    "task.classes.scores.ClassEvaluation",
    "task.classes.scores.ClassMistake",
    "explain.agreement.Agreement",
    "explain.explanations.ExplainSettings",
    "explain.explanations.Explanation",
    "explain.explanations.Explanations",
    "explain.table_explaining.ExplainedTable",
    "parts.by_part.ScoringResult",
    "inference.new_rows.ScoredVersion",
    "monitoring.looks.DriftReport",
    "monitoring.subjects.Subject",
    "monitoring.settings.DriftSettings",
    "monitoring.signals.Drift",
    "monitoring.signals.Signal",
    "registry.promotion.Promotion",
    "registry.versions.ModelVersion",
    "tables._ingest.Ingest",
    "tables._versions.TableVersion",
    "task.texts.engines.stored.EngineCheck",
    "task.texts.engines.stored.Engines",
    "task.texts.model.TextModel",
    "training.EpochScore",
    "task.texts.settings.TextTraining",
    "tuning.Trial",
    "tuning.Tuned",
]


@pytest.mark.parametrize("name", PICKLED)
def test_a_class_in_the_artifacts_of_old_runs_is_where_their_pickles_name_it(name: str) -> None:
    module, _, last = f"dlpipe.{name}".rpartition(".")
    found = getattr(importlib.import_module(module), last)
    assert (found.__module__, found.__qualname__) == (module, last)


def test_a_dependency_is_imported_or_a_comment_says_why_it_is_there() -> None:
    _, _, rest = (ROOT / "pyproject.toml").read_text().partition("\ndependencies = [\n")
    lines = rest.partition("\n]")[0].splitlines()
    bare = {canonical(re.split(r"[\[<=]", line.strip(' ",'))[0]) for line in lines if "#" not in line}
    modules = [file for room in ("dlpipe", "flows", "metaflow_extensions") for file in (ROOT / room).rglob("*.py")]
    imported = set().union(*map(imported_by, modules))
    distributions = packages_distributions()
    assert len(lines) > 30
    assert not bare - {canonical(name) for package in imported for name in distributions.get(package, ())}


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_no_machine_path_or_registry_is_committed() -> None:
    files = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    forbidden = ("/" + "work/", "/" + "root/", "index" + "-url", "find" + "-links")
    for name in files:
        text = (ROOT / name).read_text(encoding="utf-8", errors="ignore")
        assert not [word for word in forbidden if word in text], name
