"""What `create` and `trigger` refuse, or say, of the parameters that they are given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dlpipe.orchestrator.state import State

    from .options import WithParameters


def list_hidden_parameters(obj: Any, command: WithParameters) -> list[str]:
    """Return a line on parameters of the flow of whose name ``command``, `create`, has an option of its own."""
    from .reading import list_parameters

    names = [parameter.name for _, parameter in list_parameters(obj) if command.has_option(parameter.name)]
    if not names:
        return []
    which = f"Parameter{'s' if len(names) > 1 else ''} {', '.join(names)}"
    return [f"{which}: `create` has an option of this name, so only `trigger` and events give a value."]


def check_queue(state: State, version: Any) -> None:
    """Refuse a run where as many are queued as may be."""
    from dlpipe.errors import QueueFull

    if (queued := state.count_queued(version.deployment)) >= version.policies.queue_limit:
        raise QueueFull(
            f"{queued} runs of {version.deployment} are queued already, as many as may be: nothing was queued. "
            "`dlpipe runs terminate` takes one away, `create --queue-limit` lets more wait."
        )


def check_given(version: Any, values: Mapping[str, Any]) -> None:
    """Refuse parameters that the version does not know or cannot take, and the lack of one that it needs."""
    from dlpipe.errors import SettingError
    from dlpipe.orchestrator.values import explain_misfit, show_json

    if unknown := [name for name in values if name not in version.parameter_names]:
        raise SettingError(
            f"Version {version.number} of {version.deployment} has no parameter {unknown[0]!r}; it has: "
            f"{', '.join(version.parameter_names) or 'none'}. `create` deploys the working tree."
        )
    for name, value in values.items():  # of the deployed version: the working tree may have other types by now
        if reason := explain_misfit(version, name, value):
            raise SettingError(f"--{name} {show_json(value)} does not fit version {version.number}, {reason}.")
    if missing := [name for name in version.required if name not in values]:
        raise SettingError(f"{version.deployment} needs a value for {', '.join(f'--{name}' for name in missing)}.")
