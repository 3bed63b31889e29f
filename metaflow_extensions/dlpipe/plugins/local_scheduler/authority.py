"""A deployment's name, its production token, and who may change it; as Metaflow has them on Argo."""

from __future__ import annotations

import base64
import random
from hashlib import sha1
from typing import TYPE_CHECKING, Any, NamedTuple

from metaflow import current
from metaflow.exception import MetaflowException
from metaflow.plugins.aws.step_functions.production_token import load_token, new_token, store_token
from metaflow.util import get_username

if TYPE_CHECKING:
    from dlpipe.orchestrator.deployments import Version


class IncorrectProductionToken(MetaflowException):
    """Somebody else deployed the flow, and this is not the token."""

    headline = "Incorrect production token"


class Name(NamedTuple):
    """What a deployment is called, and the file that its production token is kept in."""

    text: str
    token_prefix: str
    is_project: bool


def find_name(asked: str | None) -> Name:
    """Return the name of the flow's deployment: ``project.branch.Flow`` in a project."""
    from dlpipe.errors import DeploymentRefused
    from dlpipe.orchestrator.freezing import check_deployment_name

    if not current.get("project_name"):
        text = check_deployment_name(asked or current.flow_name)
        return Name(text, text.lower(), False)
    if asked:
        raise DeploymentRefused("--name is not supported for @projects. Use --branch instead.")
    text = check_deployment_name(current.project_flow_name)
    return Name(text, _make_project_prefix(current.project_name, current.branch_name), True)


def make_name(version: Version) -> Name:
    """Return the name of the deployment that ``version`` is of; no flow is loaded for it."""
    if version.project:
        return Name(version.deployment, _make_project_prefix(version.project, version.branch), True)
    return Name(version.deployment, version.deployment.lower(), False)


def _make_project_prefix(project: str, branch: str) -> str:
    digest = sha1(f"{project}.{branch}".encode()).digest()
    return f"mfprj-{base64.b32encode(digest).decode()[:16]}".lower()


def authorize(name: Name, version: Version, token: str | None, *, to: str) -> None:
    """Let the user who made ``version`` go on, and anybody with its production token.

    Raises
    ------
    IncorrectProductionToken
        For everybody else.
    """
    given = load_token(name.token_prefix) if token is None else token.removeprefix("production:")
    if version.author in ("", get_username()) or given == version.token:
        return
    raise IncorrectProductionToken(
        f"{name.text} was deployed by {version.author}: to {to} it, ask them for the production token and pass it "
        "with --authorize."
    )


def choose_token(name: Name, before: Version | None, *, given: str | None, generate: bool) -> str:
    """Return the production token of the next version: given, new, or that of the version before."""
    from dlpipe.errors import DeploymentRefused

    if given:
        if name.is_project:
            raise DeploymentRefused(
                "--new-token is not supported for @projects. Use --generate-new-token to create a new token."
            )
        return given.removeprefix("production:")
    if before is not None and not generate:
        return before.token
    seeded = random.getstate()
    try:  # Metaflow seeds Python's generator for it
        token = new_token(name.token_prefix, before.token if before else None)
    finally:
        random.setstate(seeded)
    if token is None:
        raise DeploymentRefused(
            "--generate-new-token is not supported after using --new-token. Use --new-token for a new namespace."
        )
    return token


def remember(name: Name, token: str) -> None:
    """Keep the token for the next ``create``, where Metaflow keeps them."""
    if load_token(name.token_prefix) != token:
        store_token(name.token_prefix, token)


def find_user() -> str:
    """Return who is here, as Metaflow has it."""
    return get_username()


def make_namespace(token: Any) -> str:
    """Return the namespace of a token."""
    return f"production:{token}"
