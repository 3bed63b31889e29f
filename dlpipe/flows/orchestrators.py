"""What an orchestrator has no means for stays out of what is compiled for it."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any

from metaflow import FlowMutator

NAMES = {"step-functions": "AWS Step Functions", "airflow": "Airflow"}
"""The orchestrators that know no events, by their command."""


class portable(FlowMutator):
    """Let a flow be compiled for AWS Step Functions and Airflow, which refuse what they have no means for.

    Neither knows events, so ``@trigger`` and ``@trigger_on_finish`` are left out there. Airflow has no parameters
    without a value, so those without a default are left out as well, and are ``None`` in its runs. Everywhere else
    nothing changes.
    """

    def pre_mutate(self, mutable_flow: Any) -> None:
        """Leave out what the orchestrator would refuse, and say so on stderr."""
        orchestrator = find_orchestrator(sys.argv)
        if orchestrator and (left_out := list(_leave_out(mutable_flow, orchestrator))):
            who = f"{NAMES[orchestrator]} has no means for it"
            print(f"Left out, as {who}: {', '.join(left_out)}", file=sys.stderr)


def _leave_out(mutable_flow: Any, orchestrator: str) -> Iterator[str]:
    for name in ("trigger", "trigger_on_finish"):
        if mutable_flow.remove_decorator(name):
            yield f"@{name}"
    for name in list_without_default(mutable_flow) if orchestrator == "airflow" else ():
        mutable_flow.remove_parameter(name)
        yield f"--{name}"


def find_orchestrator(words: Sequence[str]) -> str | None:
    """Return which of ``NAMES`` the command line creates something for; ``None`` for any other command.

    Examples
    --------
    >>> find_orchestrator(["flows/train_flow.py", "--quiet", "airflow", "--name", "train", "create", "dag.py"])
    'airflow'
    >>> find_orchestrator(["flows/train_flow.py", "argo-workflows", "create"]) is None
    True
    """
    command = next((word for word in words if word in NAMES), None)
    return command if command and "create" in words[words.index(command) :] else None


def list_without_default(mutable_flow: Any) -> list[str]:
    """Return the names of the parameters that may be left out and have no default."""
    parameters = [parameter for _, parameter in mutable_flow.parameters]
    for parameter in parameters:
        parameter.init(ignore_errors=True)  # what it was given is not in ``kwargs`` before
    given = {parameter.name: parameter.kwargs for parameter in parameters}
    return [name for name, words in given.items() if "default" not in words and not words["required"]]
