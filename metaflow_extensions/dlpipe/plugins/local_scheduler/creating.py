"""``create``: a flow, checked, frozen, becomes a version of a deployment."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metaflow import current
from metaflow.package import MetaflowPackage
from metaflow.tagging_util import validate_tags

from . import authority, reading
from .authority import Name
from .options import make_policies

if TYPE_CHECKING:
    from dlpipe.orchestrator.deployments import Version
    from dlpipe.orchestrator.freezing import CodePackage
    from dlpipe.orchestrator.state import State

SUFFIXES = [".toml"]
"""Files beside the flow that are part of its code, besides Metaflow's own and ``--package-suffixes``."""
KEPT = re.compile(r"(METAFLOW|MLFLOW|DLPIPE)_|RAY_ADDRESS$|HF_HUB_OFFLINE$")
OF_A_RUN = re.compile(
    r"METAFLOW_(RUN|RESUME|LOCAL_SCHEDULER|FLOW|CODE)_|METAFLOW_(USER|OWNER|RUNTIME_NAME|PRODUCTION_TOKEN|"
    r"DEFAULT_DECOSPECS|PARAMETERS|EXTRACTED_ROOT|EXTENSIONS_SEARCH_DIRS)$"
)
SECRET = re.compile(r"SECRET|PASSW|TOKEN|AUTH|CREDENTIAL|HEADERS|_KEY$|_KEY_ID$")
LOAD_SECONDS = 300.0


@dataclass(frozen=True)
class Asked:
    """What the command line of ``create`` asks for."""

    name: Name
    policies: Mapping[str, Any] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    decorators: tuple[str, ...] = ()
    limits: Mapping[str, int] = field(default_factory=dict)
    namespace: str | None = None
    authorize: str | None = None
    given_token: str | None = None
    generate_new_token: bool = False


@dataclass(frozen=True)
class Created:
    """The newest version after ``create``, the one before it, and what is not in the frozen code."""

    version: Version
    before: Version | None
    is_new: bool
    package: CodePackage
    outside: Mapping[str, str] = field(default_factory=dict)


def create(obj: Any, asked: Asked, state: State) -> Created:
    """Deploy the flow, or find that nothing has changed.

    Raises
    ------
    DlpipeError, MetaflowException
        When something is wrong with it; nothing was deployed then.
    """
    name = asked.name.text
    before = find_newest(state, name)
    if before is not None:
        authority.authorize(asked.name, before, asked.authorize, to="deploy")
    token = authority.choose_token(asked.name, before, given=asked.given_token, generate=asked.generate_new_token)
    version = make_version(obj, asked, token, state.folder)
    reading.check_no_cycle(version, state.list_deployments())
    package = make_package(obj)
    version = replace(version, digest=package.digest)
    if before is not None and is_same(before, version) and Path(before.code).is_dir():
        authority.remember(asked.name, token)
        return Created(before, before, False, package)
    made, outside = _deploy(obj, version, package, state)
    authority.remember(asked.name, token)
    return Created(made, before, True, package, outside)


def find_newest(state: State, name: str) -> Version | None:
    """Return the newest version of a deployment; ``None`` when there is no such deployment."""
    return next((deployment.version for deployment in state.list_deployments() if deployment.name == name), None)


def make_version(obj: Any, asked: Asked, token: str, state_folder: Path) -> Version:
    """Return the flow as a version, whose code is not kept yet."""
    from dlpipe.orchestrator.deployments import Version
    from dlpipe.orchestrator.environment import list_packages

    validate_tags(asked.tags)
    schedule, trigger = reading.read_schedule(obj), reading.read_trigger(obj)
    reading.check_needed(obj, asked.parameters, schedule, trigger)
    values = {**reading.compute_fixed_values(obj), **asked.parameters}
    return Version(
        deployment=asked.name.text,
        number=0,
        flow=obj.flow.name,
        code="",
        script=os.path.basename(sys.argv[0]),
        digest="",
        folder=os.getcwd(),
        python=sys.executable,
        packages=list_packages(sys.executable),
        options=reading.build_options(obj, asked.name.text, asked.decorators),
        run_options=_build_run_options(asked),
        parameters=values,
        defaults=reading.read_defaults(obj),
        parameter_names=tuple(reading.read_types(obj)),
        parameter_types=reading.read_types(obj),
        **reading.read_forms(obj),
        required=tuple(name for name in reading.list_needed(obj) if name not in values),
        variables={**choose_variables(os.environ), **_make_fixed_variables(state_folder)},
        schedule=schedule,
        trigger=trigger,
        success_hooks=reading.read_exit_hooks(obj, "success_hooks"),
        error_hooks=reading.read_exit_hooks(obj, "error_hooks"),
        policies=make_policies(asked.policies, triggered=trigger is not None),
        namespace=authority.make_namespace(token),
        token=token,
        project=current.get("project_name") or "",
        branch=current.get("branch_name") or "",
        tags=asked.tags,
        created=time.time(),
        author=authority.find_user(),
    )


class FlowPackage(MetaflowPackage):
    """Metaflow's code package, without the state where that is in the flow's folder: it has all earlier code."""

    def _user_code_tuples(self) -> Iterator[tuple[str, str]]:
        from dlpipe.orchestrator.state import state_folder

        state = os.path.realpath(state_folder())
        for path, name in super()._user_code_tuples():
            if not Path(os.path.realpath(path)).is_relative_to(state):
                yield path, name


def make_package(obj: Any) -> CodePackage:
    """Return Metaflow's code package of the flow, with dlpipe in it."""
    import dlpipe  # noqa: F401  # its package policy is read from what is imported
    from dlpipe.orchestrator.freezing import CodePackage

    suffixes = [*obj.package_suffixes, *SUFFIXES]
    obj.package = FlowPackage(obj.flow, obj.environment, _say_nothing, suffixes=suffixes, flow_datastore=None)
    return CodePackage(bytes(obj.package.blob))


def is_same(one: Version, other: Version) -> bool:
    """Whether two versions run alike."""
    return _describe_identity(one) == _describe_identity(other)


def choose_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what runs get of the environment of ``create``: no secrets, and nothing that belongs to a run."""
    return {
        name: value
        for name, value in sorted(environment.items())
        if KEPT.match(name) and not OF_A_RUN.match(name) and not SECRET.search(name)
    }


def _make_fixed_variables(state_folder: Path) -> dict[str, str]:
    # the default decorators of now are among the options: those of a later configuration are kept out
    return {"DLPIPE_STATE": str(state_folder), "METAFLOW_DEFAULT_DECOSPECS": ""}


def _build_run_options(asked: Asked) -> tuple[str, ...]:
    limits = (word for name, value in asked.limits.items() for word in (f"--{name.replace('_', '-')}", str(value)))
    return (*limits, *(() if asked.namespace is None else (f"--namespace={asked.namespace}",)))


def _describe_identity(version: Version) -> str:
    from dlpipe.orchestrator.rows import to_json

    variables = {name: value for name, value in version.variables.items() if not OF_A_RUN.match(name)}
    return to_json(replace(version, number=0, code="", created=0.0, author="", variables=variables))


def _deploy(obj: Any, version: Version, package: CodePackage, state: State) -> tuple[Version, Mapping[str, str]]:
    from dlpipe.orchestrator import freezing

    folder = freezing.freeze(package, version.deployment, under=state.folder)
    try:
        outside = _load(replace(version, code=str(folder)))
        variables = {**version.variables, **_store_package(obj, version.folder)}
        freezing.seal(folder)
        with state.transaction():
            number = _find_next_number(state, version.deployment)
            folder = freezing.name_as_version(folder, number, version.digest)
            made = state.deploy(replace(version, code=str(folder), variables=variables), now=version.created)
    except BaseException:
        freezing.discard(folder)
        raise
    freezing.prune(state, version.deployment)
    return made, outside


def _find_next_number(state: State, name: str) -> int:
    from dlpipe.errors import DeploymentNotFound

    try:
        return state.list_versions(name)[0].number + 1
    except DeploymentNotFound:
        return 1


def _store_package(obj: Any, folder: str) -> dict[str, str]:
    """Keep the package in the datastore and return the variables by which ``Run.code`` finds it."""
    url, sha = obj.flow_datastore.save_data([obj.package.blob], len_hint=1)[0]
    return {
        "METAFLOW_CODE_SHA": sha,
        "METAFLOW_CODE_URL": url,
        "METAFLOW_CODE_DS": obj.flow_datastore.TYPE,
        "METAFLOW_CODE_METADATA": obj.package.package_metadata,
    }


def _load(version: Version) -> Mapping[str, str]:
    """Import the frozen flow as its runs will; return the modules that are edited elsewhere, with their files.

    Raises
    ------
    DeploymentRefused
        When it cannot be imported there, or imports something that its runs will not have.
    """
    from dlpipe.orchestrator.attempts import build_environment
    from dlpipe.orchestrator.runs import Run, RunAttempt

    run, attempt = Run(0, version.deployment, 0, "", "", 0.0), RunAttempt(0, "", "")
    script = str(Path(version.code, version.script))
    try:
        done = subprocess.run(
            [version.python, script, *version.options, "local-scheduler", "loads"],
            cwd=version.folder,
            env=build_environment(version, run, attempt),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LOAD_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise reading.make_refusal(f"The frozen flow takes more than {LOAD_SECONDS:.0f} s to import.") from None
    if done.returncode != 0:
        raise reading.make_refusal(
            f"The flow does not import outside the working tree: {_explain_failure(done.stderr + done.stdout)}."
        )
    found = json.loads(done.stdout.strip().splitlines()[-1])
    for name in found["missing"]:
        if where := _explain_missing(name):
            raise reading.make_refusal(
                f"The flow imports {name!r} from {where}, which its runs would not have: put it beside the flow's "
                "file, or install it."
            )
    return found["outside"]


def _explain_failure(output: str) -> str:
    lines = [" ".join(line.split()) for line in output.splitlines() if line.strip()]
    return lines[-1].rstrip(".") if lines else "it says nothing"


def _explain_missing(name: str) -> str:
    from importlib.util import find_spec

    with contextlib.suppress(ImportError, ValueError):
        if spec := find_spec(name):
            return spec.origin or ", ".join(spec.submodule_search_locations or ())
    return ""


def _say_nothing(*args: Any, **more: Any) -> None:
    """Say nothing: Metaflow's package has no news for who deploys."""
