"""What is to be told of jobs: what they are, whose, with which code, and how they are described."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from openlineage.client.event_v2 import Job
from openlineage.client.facet_v2 import (
    JobFacet,
    documentation_job,
    job_type_job,
    ownership_job,
    source_code_location_job,
)

from dlpipe.bridge.records import parse_object
from dlpipe.bridge.snapshots import RunSnapshot
from dlpipe.openlineage.naming import Name
from dlpipe.redaction import show_address

METAFLOW, DLPIPE, DELTA = "METAFLOW", "DLPIPE", "DELTA"
"""Who did it: a task of a flow, a command or a server of dlpipe, or another program that writes to a table."""


def make_flow_job(name: Name, snapshot: RunSnapshot) -> Job:
    """Return a flow as a job."""
    facets = {
        "jobType": make_type(METAFLOW, "FLOW"),
        "ownership": make_ownership(snapshot),
        "documentation": make_documentation(str(snapshot.graph.get("doc") or "")),
        "sourceCodeLocation": make_code_location(snapshot.code),
    }
    return _make_job(name, facets)


def make_step_job(name: Name, snapshot: RunSnapshot, step: str, more: Mapping[str, JobFacet]) -> Job:
    """Return a step of a flow as a job, with what an attempt of it came of."""
    described = snapshot.graph.get("steps", {}).get(step, {})
    facets = {
        "jobType": make_type(METAFLOW, "STEP"),
        "ownership": make_ownership(snapshot),
        "documentation": make_documentation(str(described.get("doc") or "")),
        "sourceCodeLocation": make_code_location(snapshot.code),
        **more,
    }
    return _make_job(name, facets)


def make_plain_job(
    name: Name,
    integration: str,
    job_type: str,
    more: Mapping[str, JobFacet] | None = None,
    *,
    endless: bool = False,
) -> Job:
    """Return a job that is no flow; ``endless`` is a service, which does not come to an end."""
    return _make_job(name, {"jobType": make_type(integration, job_type, endless=endless), **(more or {})})


def _make_job(name: Name, facets: Mapping[str, JobFacet | None]) -> Job:
    kept = {key: facet for key, facet in facets.items() if facet is not None}
    return Job(name.namespace, name.name, facets=kept)


def make_type(integration: str, job_type: str, *, endless: bool = False) -> JobFacet:
    """Return the facet that says what kind of job it is."""
    return job_type_job.JobTypeJobFacet(
        processingType="SERVICE" if endless else "BATCH", integration=integration, jobType=job_type
    )


def make_ownership(snapshot: RunSnapshot) -> JobFacet:
    """Return the facet that says who started it."""
    owner = ownership_job.Owner(name=f"user:{snapshot.user}", type="OWNER")
    return ownership_job.OwnershipJobFacet(owners=[owner])


def make_documentation(text: str) -> JobFacet | None:
    """Return the facet with a docstring; ``None`` where there is none."""
    text = text.strip()
    return documentation_job.DocumentationJobFacet(description=text) if text else None


def make_code_location(code: Mapping[str, str]) -> JobFacet | None:
    """Return the facet that says where the code is: a commit in a repository with an address, or a code package.

    Parameters
    ----------
    code : mapping of str to str
        What the tasks of a run say of their code, as ``RunSnapshot.code`` has it.
    """
    git, package = parse_object(code.get("git-info")), parse_object(code.get("code-package"))
    script, commit = code.get("script-name", ""), str(git.get("commit_sha") or "")
    if git.get("repo_url") and commit:
        repository = show_address(str(git["repo_url"]))
        return source_code_location_job.SourceCodeLocationJobFacet(
            type="git",
            url=make_code_url(repository, commit, script),
            repoUrl=repository,
            path=script or None,
            version=commit,
            branch=str(git["branch_name"]) if git.get("branch_name") else None,
        )
    if package.get("location"):
        return source_code_location_job.SourceCodeLocationJobFacet(
            type="metaflow-code-package",
            url=make_url(str(package["location"])),
            path=script or None,
            version=str(package.get("sha") or "") or None,
        )
    return None


def make_code_url(repository: str, commit: str, script: str) -> str:
    """Return the page of a file of a commit; of a repository that is on no server, its address.

    Parameters
    ----------
    repository : str
        As Git has it: the address of a page, ``git@server:path``, or a path.
    commit : str
    script : str
        Path of the file in the repository; may be empty.

    Examples
    --------
    >>> make_code_url("git@example.org:films/flows.git", "ab12", "train.py")
    'https://example.org/films/flows/blob/ab12/train.py'
    >>> make_code_url("/srv/films", "ab12", "train.py")
    'file:///srv/films'
    """
    if by_ssh := re.fullmatch(r"(?:ssh://)?(?:[\w.-]+@)([\w.-]+)(?::\d+/|[:/])(.+)", repository):
        repository = f"https://{by_ssh[1]}/{by_ssh[2]}"
    if not repository.startswith(("http://", "https://")):
        return make_url(repository)
    page = repository.removesuffix(".git")
    return f"{page}/blob/{commit}/{script}" if script else page


def make_url(location: str) -> str:
    """Return an address for a path.

    Examples
    --------
    >>> make_url("/srv/code/ab12"), make_url("s3://bucket/ab12")
    ('file:///srv/code/ab12', 's3://bucket/ab12')
    """
    return show_address(location) if "://" in location else f"file://{location}"


def find_code_facts(code: Mapping[str, str]) -> dict[str, Any]:
    """Return what else is known of the code, by name: commit, whether it was changed, package, Python."""
    git, package = parse_object(code.get("git-info")), parse_object(code.get("code-package"))
    found = {
        "code.commit": git.get("commit_sha"),
        "code.branch": git.get("branch_name"),
        "code.uncommitted": git.get("has_uncommitted_changes"),
        "code.package": package.get("sha"),
        "code.script": code.get("script-name"),
        "python": code.get("python_version"),
    }
    return {name: value for name, value in found.items() if value not in (None, "")}
