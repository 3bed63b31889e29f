"""docs/production.md says of every option of Metaflow's commands, and of each policy, where it is."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from dlpipe.orchestrator.deployments import Policies

PAGE = Path(__file__).resolve().parents[1] / "docs" / "production.md"


def table(heading: str) -> list[list[str]]:
    """The cells of the rows of the first table after a line of the page."""
    text = PAGE.read_text().partition(heading)[2]
    lines = re.search(r"(?:^\|.*\n)+", text, flags=re.MULTILINE)[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def options(command: Any) -> list[str]:
    return [one.opts[-1] for one in command.params if one.opts[0].startswith("--")]


def own() -> dict[str, set[str]]:
    from metaflow_extensions.dlpipe.plugins.local_scheduler import cli

    return {"create": set(options(cli.create)), "trigger": set(options(cli.trigger))}


@pytest.mark.parametrize("which", ["run", "create"])
def test_every_option_of_metaflows_command_is_there_or_it_is_said_why_not(which: str) -> None:
    from metaflow.cli_components.run_cmds import run
    from metaflow.plugins.argo.argo_workflows_cli import create

    rows = [row for row in table("## Options of Metaflow's own commands") if row[1] in ("both", f"`{which}`")]
    assert sorted(row[0].strip("`") for row in rows) == sorted(options({"run": run, "create": create}[which]))


def test_what_stands_for_an_option_exists_and_what_does_not_has_a_reason() -> None:
    known = own()
    for option, _, here in table("## Options of Metaflow's own commands"):
        named = re.findall(r"`(create|trigger) (--[a-z-]+)", here)
        assert all(name in known[command] for command, name in named), option
        assert named or re.match(r"(no|always): .{20}", here), option


def test_every_policy_stands_in_the_table_of_create() -> None:
    described = [row[0].strip("`") for row in table("Options of `create`, by deployment")]
    policies = [f"--{field.name.replace('_', '-')}" for field in dataclasses.fields(Policies)]
    assert sorted(described) == sorted(set(policies) - {"--missed-limit"})
    assert set(policies) <= own()["create"]
