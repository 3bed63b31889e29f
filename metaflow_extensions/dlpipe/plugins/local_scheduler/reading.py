"""What a flow says of itself: schedule, triggers, parameters and the options that it runs with."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from metaflow import JSONType, current
from metaflow._vendor import click
from metaflow.exception import MetaflowException, ParameterFieldFailed
from metaflow.metaflow_config import DEFAULT_DECOSPECS
from metaflow.parameters import DelayedEvaluationParameter, DeployTimeField, deploy_time_eval
from metaflow.user_configs.config_options import ConfigInput
from metaflow.util import dict_to_cli_options

if TYPE_CHECKING:
    from dlpipe.orchestrator.deployments import Deployment, NeededEvent, Schedule, Trigger, Version


def make_refusal(message: str) -> Exception:
    """Return the error of a flow that cannot be deployed."""
    from dlpipe.errors import DeploymentRefused

    return DeploymentRefused(f"{message} Nothing was deployed.")


# parameters -----------------------------------------------------------------------------------------------------


def list_parameters(obj: Any) -> list[tuple[str, Any]]:
    """Return the flow's parameters that are no configs, each with the name of its attribute."""
    found = [
        (name, parameter) for name, parameter in obj.flow._get_parameters() if not parameter.IS_CONFIG_PARAMETER
    ]
    names = [parameter.name.lower() for _, parameter in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise make_refusal(f"Parameter {twice[0]!r} is specified twice: their names are case-insensitive.")
    return found


def read_given_values(obj: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters that a command line gives, as text that a command line takes again.

    Of a parameter that takes several values it is a list.

    Raises
    ------
    SettingError
        When one cannot be passed on.
    """
    given = {}
    for _, parameter in list_parameters(obj):
        value = options.get(parameter.name.replace("-", "_").lower())
        if value is not None and value != ():
            given[parameter.name] = format_value(parameter, value)
            check_passable(parameter.name, given[parameter.name])
    return given


def check_passable(name: str, text: str | list[str]) -> None:
    """Raise ``SettingError`` when no run can be given a value."""
    from dlpipe.errors import SettingError
    from dlpipe.orchestrator.values import explain_unpassable

    if reason := next(filter(None, map(explain_unpassable, [text] if isinstance(text, str) else text)), ""):
        raise SettingError(f"The parameter {name} has a value {reason}.")


def compute_fixed_values(obj: Any) -> dict[str, Any]:
    """Return the defaults that are worked out now, as text; files that they name are kept in the datastore.

    All others are in the frozen code.
    """
    found = {
        parameter: _evaluate(deploy_time_eval, parameter.kwargs["default"], of=f"parameter {parameter.name!r}")
        for _, parameter in list_parameters(obj)
        if not _is_static(parameter)
    }
    texts = {option.name: format_value(option, value) for option, value in found.items() if value is not None}
    for name, text in texts.items():
        check_passable(name, text)
    return texts


def read_defaults(obj: Any) -> dict[str, Any]:
    """Return the defaults that stand in the flow's code, as text: what a run has that is given nothing else."""
    return {
        parameter.name: format_value(parameter, parameter.kwargs["default"])
        for _, parameter in list_parameters(obj)
        if _is_static(parameter) and parameter.kwargs.get("default") is not None
    }


def list_static(obj: Any) -> list[str]:
    """Return the parameters that have no default, or one that stands in the flow's code."""
    return [parameter.name for _, parameter in list_parameters(obj) if _is_static(parameter)]


def _is_static(parameter: Any) -> bool:
    return not isinstance(parameter.kwargs.get("default"), DeployTimeField | DelayedEvaluationParameter)


def format_value(parameter: Any, value: Any) -> str | list[str]:
    """Return a parameter's value as a word of a command line; several words of one that takes several."""
    if isinstance(value, DelayedEvaluationParameter):
        value = value(return_str=True)
    if parameter.kwargs.get("multiple") and isinstance(value, list | tuple):
        return [_format_word(parameter, each) for each in value]
    return _format_word(parameter, value)


def _format_word(parameter: Any, value: Any) -> str:
    is_json = parameter.kwargs.get("type") == JSONType and not isinstance(value, str)
    return json.dumps(value) if is_json else str(value)


def list_needed(obj: Any) -> list[str]:
    """Return the parameters that a run must be given."""
    return [
        parameter.name
        for _, parameter in list_parameters(obj)
        if parameter.kwargs.get("required") and "default" not in parameter.kwargs
    ]


def check_needed(obj: Any, given: Mapping[str, Any], schedule: Schedule | None, trigger: Trigger | None) -> None:
    """Refuse a flow of which a run would lack a parameter."""
    from_events = {name for needed in trigger.needed for name in needed.parameters} if trigger else set()
    for name in list_needed(obj):
        if name in given:
            continue
        if schedule is not None:
            raise make_refusal(
                f"Parameter {name!r} has no default and is required, so the schedule could not run the flow: give "
                f"it a default, or a value with `create --{name}`."
            )
        if trigger is not None and name not in from_events:
            raise make_refusal(
                f"Parameter {name!r} has no default and is required, and no event gives it: map it to a field of "
                f"an event's payload, or give it a value with `create --{name}`."
            )


def read_types(obj: Any) -> dict[str, str]:
    """Return each parameter's type, as Metaflow's Deployer names it."""
    return {parameter.name: _name_type(parameter.kwargs.get("type")) for _, parameter in list_parameters(obj)}


def _name_type(kind: Any) -> str:
    if kind == JSONType:
        return "JSON"
    if isinstance(kind, click.types.IntParamType | click.types.FloatParamType):  # their ranges too
        return "int" if isinstance(kind, click.types.IntParamType) else "float"
    return str(getattr(kind, "__name__", None) or getattr(kind, "name", "str"))


def read_forms(obj: Any) -> dict[str, Any]:
    """Return how each parameter takes its values, as a version has it: ``multiple``, ``separators``, ``choices``.

    Raises
    ------
    DeploymentRefused
        When one takes them in a way that a scheduler cannot give them.
    """
    every = [parameter for _, parameter in list_parameters(obj)]
    for option in every:
        if option.kwargs.get("is_flag") or option.kwargs.get("count") or option.kwargs.get("nargs", 1) != 1:
            raise make_refusal(
                f"Parameter {option.name!r} is a flag, a count, or takes a fixed number of values (`is_flag`, "
                "`count`, `nargs`): a deployed flow takes one value an option. Use `type=bool`, `type=int` or "
                "`multiple=True`."
            )
    kinds = {option.name: option.kwargs.get("type") for option in every}
    return {
        "multiple": tuple(option.name for option in every if option.kwargs.get("multiple")),
        "separators": {option.name: option.separator for option in every if getattr(option, "separator", None)},
        "choices": {
            name: tuple(map(str, kind.choices))
            for name, kind in kinds.items()
            if isinstance(kind, click.Choice) and kind.case_sensitive
        },
    }


# schedule and triggers ------------------------------------------------------------------------------------------


def read_schedule(obj: Any) -> Schedule | None:
    """Return the flow's schedule, which is a right one."""
    from dlpipe.orchestrator.deployments import Schedule
    from dlpipe.orchestrator.timing import parse

    found = obj.flow._flow_decorators.get("schedule")
    if not found or found[0].schedule is None:  # as @schedule(daily=False)
        return None
    schedule = Schedule(found[0].schedule, found[0].timezone or "")
    parse(schedule)
    return schedule


def read_trigger(obj: Any) -> Trigger | None:
    """Return what starts the flow beside a schedule, checked as Argo's compiler does and in more."""
    from dlpipe.orchestrator.deployments import Trigger

    on_event, on_finish = (obj.flow._flow_decorators.get(name) for name in ("trigger", "trigger_on_finish"))
    if on_event and on_finish:
        raise make_refusal(
            "@trigger and @trigger_on_finish at one flow are not supported, as on Argo. Use one of them."
        )
    if not on_event and not on_finish:
        return None
    found = (on_event or on_finish)[0]
    _evaluate(found.format_deploytime_value, of=f"@{found.name}")
    needed = _read_needed_events(obj, found) if on_event else tuple(map(_read_needed_end, found.triggers))
    names = [event.name for event in needed]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise make_refusal(f"The flow waits for {twice[0]!r} twice.")
    return Trigger(needed, *_read_reset(found.options or {}))


def read_exit_hooks(obj: Any, kind: str) -> tuple[str, ...]:
    """Return the functions of the flow's ``@exit_hook`` of a kind, by name or import path."""
    decorators = obj.flow._flow_decorators.get("exit_hook") or []
    return tuple(name for decorator in decorators for name in getattr(decorator, kind))


def _evaluate(function: Callable[..., Any], *args: Any, of: str) -> Any:
    """Return what ``function`` returns, which calls a function of the flow."""
    try:
        return function(*args)
    except ParameterFieldFailed as error:  # its message is a traceback
        problem = error.message.strip().splitlines()[-1].strip().rstrip(".")
    except MetaflowException:
        raise
    except Exception as error:
        problem = f"{type(error).__name__}: {error}"
    raise make_refusal(f"The function of {of} failed with {problem}.")


def _read_needed_events(obj: Any, decorator: Any) -> tuple[NeededEvent, ...]:
    from dlpipe.orchestrator.deployments import NeededEvent

    known = {parameter.name.lower(): parameter.name for _, parameter in list_parameters(obj)}
    mapped: set[str] = set()
    needed = []
    for event in decorator.triggers:
        if not re.fullmatch(r"[A-Za-z0-9_.-]+", event["name"]):
            raise make_refusal(f"Event name {event['name']!r} in @trigger: letters, digits and _.- are allowed.")
        parameters = dict(_map_parameters(event, known, mapped))
        if len(decorator.triggers) == 1 and not parameters:
            parameters = {name: key for key, name in known.items()}  # Argo's automatic mapping
        needed.append(NeededEvent(event["name"], parameters))
    return tuple(needed)


def _map_parameters(
    event: Mapping[str, Any], known: Mapping[str, str], mapped: set[str]
) -> Iterator[tuple[str, str]]:
    for parameter, field in (event.get("parameters") or {}).items():
        key = parameter.lower()
        if not re.fullmatch(r"[A-Za-z0-9_]+", field):
            raise make_refusal(
                f"Field {field!r} of the event {event['name']!r} in @trigger: letters, digits and _ are allowed."
            )
        if key not in known:
            raise make_refusal(
                f"@trigger maps the event {event['name']!r} to the parameter {parameter!r}, which the flow "
                f"has not. It has: {', '.join(known.values()) or 'none'}."
            )
        if key in mapped:
            raise make_refusal(f"@trigger maps the parameter {parameter!r} twice.")
        mapped.add(key)
        yield known[key], field


def _read_needed_end(event: Mapping[str, Any]) -> NeededEvent:
    from dlpipe.orchestrator.deployments import NeededEvent

    project = event.get("project") or current.get("project_name")
    branch = event.get("branch") or current.get("branch_name")
    if bool(project) != bool(branch):
        raise make_refusal(
            f"@trigger_on_finish of {event['flow']!r} has only one of 'project' and 'project_branch'. Give "
            "both, or use @project."
        )
    names = ["metaflow", project, branch, event["flow"], "end"]
    return NeededEvent(".".join(name for name in names if name), kind="run", flow=event["flow"])


def _read_reset(options: Mapping[str, Any]) -> tuple[str, str]:
    """The option ``reset_at``: cron line and time zone at which events that wait for others are forgotten."""
    from dlpipe.orchestrator.deployments import Schedule
    from dlpipe.orchestrator.timing import parse

    reset = options.get("reset_at") or {}
    if not reset.get("cron"):
        return "", ""
    parse(Schedule(reset["cron"], reset.get("timezone") or ""))
    return reset["cron"], reset.get("timezone") or ""


def check_no_cycle(version: Version, others: Sequence[Deployment]) -> None:
    """Refuse a flow whose end would start it again, over other deployments or at once."""
    from dlpipe.orchestrator.decisions import find_cycle

    cycle = find_cycle([*(other.version for other in others if other.name != version.deployment), version])
    if cycle:
        *first, last = cycle
        raise make_refusal(f"The end of {' starts '.join(first)} starts {last}: a cycle.")


# options --------------------------------------------------------------------------------------------------------


def build_options(obj: Any, deployment: str, decorators: Sequence[str] = ()) -> tuple[str, ...]:
    """Return what stands before the command of a run, so that it runs as this command would."""
    kinds = {
        "metadata": obj.metadata.TYPE,
        "environment": obj.environment.TYPE,
        "datastore": obj.flow_datastore.TYPE,
        "datastore-root": obj.flow_datastore.datastore_root,
        "event-logger": obj.event_logger.TYPE,
        "monitor": obj.monitor.TYPE,
    }
    attached = [*decorators, *obj.tl_decospecs, *DEFAULT_DECOSPECS.split()]
    return (
        "--no-pylint",
        *(f"--{name}={value}" for name, value in kinds.items()),
        *_build_flow_options(obj),
        *(word for spec in attached for word in ("--with", spec)),
        *("--with", f"local_scheduler_internal:deployment={deployment}"),
        *_build_config_options(obj),
    )


def _build_flow_options(obj: Any) -> list[str]:
    """What the flow's decorators have as options, such as ``--production``."""
    found = {
        name: value
        for decorators in obj.flow._flow_decorators.values()
        for decorator in decorators
        for name, value in decorator.get_top_level_options()
        if name != "trigger"  # of a run by hand
    }
    return list(dict_to_cli_options(found))


def _build_config_options(obj: Any) -> Iterator[str]:
    for _, parameter in obj.flow._get_parameters():
        if parameter.IS_CONFIG_PARAMETER:
            yield from ("--config-value", parameter.name, ConfigInput.make_key_name(parameter.name))
