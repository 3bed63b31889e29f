"""Looks, before a run begins, at what the run will need: a mistake of the command line leaves no run behind."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

from metaflow._vendor import click
from metaflow.decorators import StepDecorator
from metaflow.exception import MetaflowException
from metaflow.util import get_latest_run_id

ROOM = 2**20
"""Bytes that a run needs at least to begin."""
CHECKED = "_DLPIPE_CHECKED"
"""Environment variable of the first task: what it needs was looked at a moment ago."""


class CannotBegin(MetaflowException):
    """Something that the run needs is missing or wrong; there is no run."""

    headline = "dlpipe cannot go on"


class LaunchCheck(StepDecorator):
    """See that storage, MLflow and the options are good, once, before Metaflow makes the run.

    A flow looks in its method ``check`` at what else it needs. It is called on a flow with the parameters in place
    that the command line gives; ``check_services`` on one that is resumed. Commands other than ``run`` and
    ``resume`` are left alone: a run of an orchestrator has a number before it begins, and tells itself what is
    wrong with it.
    """

    name = "launch_check"

    def step_init(
        self,
        flow: Any,
        graph: Any,
        step_name: str,
        decorators: Any,
        environment: Any,
        flow_datastore: Any,
        logger: Any,
    ) -> None:
        """Look, while there is no run yet."""
        keep_asterisks()
        self._checked = False
        context = click.get_current_context(silent=True)
        self._kind, self._root = flow_datastore.TYPE, flow_datastore.datastore_root
        if context is None or context.info_name not in ("run", "resume"):
            return
        _end_in_one_line(lambda: check_launch(flow, context.info_name, context.params, self._kind, self._root))
        self._checked = context.info_name == "run"

    def runtime_init(self, flow: Any, graph: Any, package: Any, run_id: str) -> None:
        """Look at the datastore where nobody has yet: an orchestrator begins the run."""
        from dlpipe.bridge import check_datastore

        _end_in_one_line(lambda: check_datastore(self._kind, self._root))

    def runtime_step_cli(self, cli_args: Any, *args: Any, **more: Any) -> None:
        """Tell the first task that it need not look again."""
        if self._checked:
            cli_args.env[CHECKED] = "1"


def check_launch(flow: Any, command: str, options: dict[str, Any], kind: str, root: str) -> None:
    """Raise a ``DlpipeError`` when a run of ``flow`` could not go well."""
    from dlpipe.bridge import check_datastore

    check_limits(options)
    check_datastore(kind, root)
    if kind == "local":
        check_room(root)
    if command == "run":
        given = {
            name: options.get(parameter.name.replace("-", "_").lower())
            for name, parameter in list_parameters(flow)
        }
        check_flow(make_flow(flow, given))
    elif origin := options["origin_run_id"] or get_latest_run_id(lambda *_, **__: None, flow.name):
        check_services(make_flow(flow, read_first_values(flow, origin)))


def check_limits(options: Mapping[str, Any]) -> None:
    """Raise ``SettingError`` for a limit of nothing, with which Metaflow would wait for ever."""
    from dlpipe.errors import SettingError

    for name in ("max_workers", "max_num_splits", "max_log_size"):
        if (value := options.get(name)) is not None and value < 1:
            raise SettingError(f"--{name.replace('_', '-')} {value} is too low: give 1 or more.")


def keep_asterisks() -> None:
    """Let Metaflow print ``CannotBegin`` as it is written: an asterisk, as of a glob, it would take for markup."""
    import metaflow.cli as cli

    usual = cli.print_metaflow_exception
    if usual.__module__ == __name__:
        return

    def show(error: MetaflowException) -> None:
        if not isinstance(error, CannotBegin):
            return usual(error)
        cli.echo_always(f"{error.headline}:", indent=True, bold=True)
        cli.echo_always(error.message, indent=True, no_bold=True, padding_bottom=True)

    cli.print_metaflow_exception = show


def check_room(root: str) -> None:
    """Raise ``StorageFull`` where the folder of runs has no room for one: Metaflow would show a traceback."""
    from dlpipe.errors import StorageFull, StorageUnavailable

    try:
        with tempfile.TemporaryFile(dir=root) as file:
            os.posix_fallocate(file.fileno(), 0, ROOM)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull(
                f"No space is left in {root}, where runs are kept. Free some, or run in a folder elsewhere."
            ) from None
        raise StorageUnavailable(f"Runs cannot be kept in {root}: {error.strerror}.") from None


def check_flow(flow: Any) -> None:
    """Let a flow with its parameters in place look at all that it needs, if it knows how."""
    if check := getattr(flow, "check", None):
        check()


def check_services(flow: Any) -> None:
    """Let it look at the services that the steps which are left need: its data were read when it began."""
    if check := getattr(flow, "check_services", None):
        check()


def check_options(flow: Any, options: Mapping[str, Any]) -> None:
    """Let it look at options and settings alone, such as those that a deployment is made with."""
    given = {
        name: options.get(parameter.name.replace("-", "_").lower()) for name, parameter in list_parameters(flow)
    }
    defaults = {name: parameter.kwargs.get("default") for name, parameter in list_parameters(flow)}
    values = {name: defaults[name] if value is None else value for name, value in given.items()}
    if check := getattr(flow, "check_options", None):
        check.__func__(make_flow(flow, values))


def list_parameters(flow: Any) -> list[tuple[str, Any]]:
    """Return the parameters of a flow that are no configs, each with the name of its attribute."""
    return [(name, parameter) for name, parameter in flow._get_parameters() if not parameter.IS_CONFIG_PARAMETER]


def make_flow(flow: Any, values: Mapping[str, Any]) -> Any:
    """Return another flow of the same class that has these parameters, as its tasks will."""
    made = type(flow)(use_cli=False)
    for name, value in values.items():
        setattr(made, name, value)
    return made


def read_first_values(flow: Any, run_id: str) -> dict[str, Any]:
    """Return the parameters that a run began with."""
    from metaflow import Step  # which is not there yet when Metaflow takes this module in

    task = Step(f"{flow.name}/{run_id}/_parameters", _namespace_check=False).task
    # a run that began with an older dlpipe has no value for a newer parameter
    return {name: task[name].data if name in task else None for name, _ in list_parameters(flow)}


def was_checked() -> bool:
    """Whether this task's launcher has looked at what the flow needs."""
    return os.environ.get(CHECKED) == "1"


def _end_in_one_line(look: Callable[[], None]) -> None:
    from dlpipe.errors import DlpipeError
    from dlpipe.redaction import redact

    try:
        look()
    except DlpipeError as error:
        raise CannotBegin(redact(str(error))) from None
