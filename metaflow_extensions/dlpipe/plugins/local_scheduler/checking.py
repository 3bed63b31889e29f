"""What `create` says of the parameters that it is given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .options import WithParameters


def list_hidden_parameters(obj: Any, command: WithParameters) -> list[str]:
    """Return a line on parameters of the flow of whose name ``command``, `create`, has an option of its own."""
    from .reading import list_parameters

    names = [parameter.name for _, parameter in list_parameters(obj) if command.has_option(parameter.name)]
    if not names:
        return []
    which = f"Parameter{'s' if len(names) > 1 else ''} {', '.join(names)}"
    return [f"{which}: `create` has an option of this name, so only `trigger` and events give a value."]
