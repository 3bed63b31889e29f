"""Options of the commands: the flow's parameters, none of which is needed, and times with units."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from metaflow import parameters
from metaflow._vendor import click

if TYPE_CHECKING:
    from dlpipe.orchestrator.deployments import Policies

UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class WithParameters(click.Command):
    """A command with the parameters of the flow at hand as options, without their defaults.

    A parameter with the name of an option of the command is left out.
    """

    _key: tuple[int, ...] | None

    @property
    def params(self) -> list[click.Parameter]:
        """Return the parameters of the flow, and the command's own."""
        flow = getattr(parameters.current_flow, "flow_cls", None)
        found = (
            [parameter for _, parameter in flow._get_parameters() if not parameter.IS_CONFIG_PARAMETER]
            if flow
            else []
        )
        key = tuple(map(id, found))
        if key != self._key:
            self._key, self._of_flow = key, [_make_option(its) for its in found if not self.has_option(its.name)]
        return [*self._of_flow, *self._own]

    @params.setter
    def params(self, own: list[click.Parameter]) -> None:
        self._own, self._key, self._of_flow = own, None, []

    def has_option(self, name: str) -> bool:
        """Return whether the command itself has an option that a parameter of this name would have."""
        taken = {word for own in self._own for word in (*own.opts, f"--{own.name.replace('_', '-')}")}
        return f"--{name.replace('_', '-').lower()}" in taken


def _make_option(parameter: Any) -> click.Option:
    given = {**parameter.option_kwargs(False), "default": None, "required": False, "show_default": False}
    if given["type"] in (list, tuple):  # as Metaflow takes it from a default: it would make letters of a text
        given["type"] = str
    return click.Option((f"--{parameter.name}",), **given)


def check_at_least_one(context: click.Context, option: click.Parameter, value: int | None) -> int | None:
    """Return the value of an option, a number from 1 on; Metaflow's Deployer does not know click's ranges."""
    if value is not None and value < 1:
        raise click.UsageError(f"{option.opts[0]} {value} is too low: give 1 or more.")
    return value


def add_limit_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the limits of Metaflow's ``run``; what is not given keeps Metaflow's default."""
    for option in reversed(_LIMITS):
        command = option(command)
    return command


_LIMITS = [
    click.option(
        "--max-workers",
        default=None,
        type=int,
        callback=check_at_least_one,
        help="Most tasks of a run at the same time. [default: 16]",
    ),
    click.option(
        "--max-num-splits",
        default=None,
        type=int,
        callback=check_at_least_one,
        help="Most tasks that a foreach may become. [default: 100]",
    ),
    click.option(
        "--max-log-size",
        default=None,
        type=int,
        callback=check_at_least_one,
        help="Most megabytes of what a task says that Metaflow keeps. [default: 10]",
    ),
]
LIMITS = ("max_workers", "max_num_splits", "max_log_size")


def add_policy_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add an option for each field of ``Policies``; what is not given keeps the default."""
    for option in reversed(_POLICIES):
        command = option(command)
    return command


_POLICIES = [
    click.option(
        "--overlap",
        default=None,
        type=click.Choice(["skip", "queue", "allow"]),
        help="What is done when a run is due while another one goes on. [default: queue if events start the flow, "
        "else skip]",
    ),
    click.option(
        "--missed",
        default=None,
        type=click.Choice(["once", "all", "none"]),
        help="What is done about due times that passed while no scheduler ran. [default: once]",
    ),
    click.option("--missed-limit", default=None, type=int, help="Of --missed all, at most so many. [default: 10]"),
    click.option(
        "--time-limit",
        default=None,
        type=str,
        help="How long an attempt may take, such as 45s, 30m, 2h or 1d; 0 is no limit. [default: 0]",
    ),
    click.option(
        "--run-time-limit",
        default=None,
        type=str,
        help="How long a run may take from its first attempt on, with all resumes and waits; 0 is no limit. "
        "[default: 0]",
    ),
    click.option(
        "--resumes",
        default=None,
        type=int,
        help="How often a run whose failure may pass is resumed. [default: 3]",
    ),
    click.option(
        "--backoff",
        default=None,
        type=str,
        help="How long until the first resume, such as 30s; doubled for each further one. [default: 30s]",
    ),
    click.option("--queue-limit", default=None, type=int, help="Most runs that are queued. [default: 1000]"),
    click.option(
        "--priority",
        default=None,
        type=int,
        help="Where there is no room for all runs, those of a higher priority go first. [default: 0]",
    ),
    click.option(
        "--changed-environment",
        default=None,
        type=click.Choice(["warn", "refuse"]),
        help="What is done when the Python packages are no longer those of `create`. [default: warn]",
    ),
    click.option(
        "--alert",
        default=None,
        type=str,
        help="A command or a webhook (http:// or https://) that is told of failures and recoveries.",
    ),
    click.option(
        "--alert-on",
        default=None,
        type=click.Choice(["failure", "end"]),
        help="What is told: failures and recoveries, or the end of every run. [default: failure]",
    ),
]


def take_policies(options: dict[str, Any]) -> dict[str, Any]:
    """Take the policies out of ``options``, and return those that are given.

    Raises
    ------
    SettingError
        When a time is none.
    """
    from dataclasses import fields

    from dlpipe.orchestrator.deployments import Policies

    given = {field.name: options.pop(field.name, None) for field in fields(Policies)}
    for name in ("time_limit", "run_time_limit", "backoff"):
        if given[name] is not None:
            given[name] = parse_seconds(str(given[name]), name)
    return {name: value for name, value in given.items() if value is not None}


def make_policies(given: Mapping[str, Any], *, triggered: bool) -> Policies:
    """Return all policies of a flow.

    One that events start queues by default: another due time comes by itself, a skipped event is lost.

    Raises
    ------
    SettingError
        When one is out of its range, or cannot work.
    """
    from dlpipe.errors import SettingError
    from dlpipe.orchestrator.alerts import check_target
    from dlpipe.orchestrator.deployments import Policies
    from dlpipe.settings import read_settings

    default = {"overlap": "queue"} if triggered else {}
    policies = read_settings(Policies, {**default, **given}, where="`create`")
    check_target(policies.alert)
    if policies.alert_on != "failure" and not policies.alert:
        raise SettingError(f"--alert-on {policies.alert_on} tells nobody: say with --alert whom.")
    return policies


def parse_seconds(text: str, option: str) -> float:
    """Return the seconds in ``text``: ``90``, ``45s``, ``30m``, ``1h30m``, ``2d``.

    Raises
    ------
    SettingError
        When it is no such time.

    Examples
    --------
    >>> parse_seconds("1h30m", "time_limit"), parse_seconds("90", "time_limit"), parse_seconds("0.5s", "backoff")
    (5400.0, 90.0, 0.5)
    """
    from dlpipe.errors import SettingError

    number = r"\d+(?:\.\d+)?"
    if re.fullmatch(number, text):
        return float(text)
    if not re.fullmatch(rf"(?:{number}[smhd])+", text):
        raise SettingError(
            f"--{option.replace('_', '-')} {text!r} is no time: give numbers with s, m, h or d, such as 45s, "
            "30m, 1h30m or 2d."
        )
    return sum(float(value) * UNITS[unit] for value, unit in re.findall(rf"({number})([smhd])", text))
