"""The help of a flow: what it does and its own options come before those of Metaflow."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import Any

OTHERS = "Other options"
OF_METAFLOW = "Options of Metaflow"
TITLES = {"data": "Data", "registry": "Registry", "training": "Training", "tuning": "Tuning"}


def show_flow_first(flow: Any) -> None:
    """Have ``--help`` of this program, and of its command ``run``, begin with what the flow does.

    The help of Metaflow's own click is changed, and not that of its commands: these do not exist yet, and to
    import them before Metaflow does would take the flow's options from them.
    """
    from metaflow._vendor.click.core import Command

    format_help = Command.format_help

    def format_flow_help(command: Any, context: Any, to: Any) -> None:
        depth = sum(1 for _ in list_parents(context))
        if depth > 1 or (depth == 1 and command.name != "run"):
            format_help(command, context, to)
            return
        command.format_usage(context, to)
        write_description(flow, to)
        (write_run_options if depth else write_options)(flow, command, context, to)

    Command.format_help = format_flow_help


def list_parents(context: Any) -> Iterator[Any]:
    """Yield the contexts above a command's."""
    while context.parent is not None:
        context = context.parent
        yield context


def write_description(flow: Any, to: Any) -> None:
    """Write the docstring of a flow."""
    to.write_paragraph()
    with to.indentation():
        to.write_text(describe_flow(flow))


def describe_flow(flow: Any) -> str:
    """Return the docstring of a flow for click, which would run the lines of a list together.

    Examples
    --------
    >>> class Flow:
    ...     '''Train a model.
    ...
    ...     1. start  ingest rows
    ...     2. train  train the network
    ...     '''
    >>> describe_flow(Flow)
    'Train a model.\\n\\n\\x08\\n1. start  ingest rows\\n2. train  train the network'
    """
    paragraphs = inspect.cleandoc(flow.__doc__ or "").split("\n\n")
    return "\n\n".join(f"\b\n{text}" if text[:1].isdigit() else text for text in paragraphs)


def write_options(flow: Any, start: Any, context: Any, to: Any) -> None:
    """Write the flow's own options, the commands, and then Metaflow's options.

    Parameters
    ----------
    flow : FlowSpec class
    start : click.Group
        The program.
    context : click.Context
    to : click.HelpFormatter
    """
    for _, parameter in flow._get_parameters():
        parameter.init(True)  # Metaflow does it for a command; the program's own help comes before one is known
    run = start.get_command(context, "run")
    for title, options in group_options(flow, run):
        write_section(
            f"{title} (options of run)" if title in TITLES.values() else f"{title} of run", options, context, to
        )
    start.format_commands(context, to)
    write_section(f"{OF_METAFLOW}, written before the command", start.get_params(context), context, to)


def write_run_options(flow: Any, run: Any, context: Any, to: Any) -> None:
    """Write the options of ``run``: the flow's own by section, then Metaflow's.

    Parameters
    ----------
    flow : FlowSpec class
    run : click.Command
    context : click.Context
    to : click.HelpFormatter
    """
    own = group_options(flow, run)
    for title, options in own:
        write_section(title, options, context, to)
    named = {option.name for _, options in own for option in options}
    rest = [option for option in run.get_params(context) if option.name not in named]
    write_section(OF_METAFLOW, rest, context, to)


def write_section(title: str, options: Sequence[Any], context: Any, to: Any) -> None:
    """Write some options under a title.

    Parameters
    ----------
    title : str
    options : sequence of click.Parameter
    context : click.Context
    to : click.HelpFormatter
    """
    records = [record for option in options if (record := option.get_help_record(context)) is not None]
    if records:
        with to.section(title):
            to.write_dl(records)


def group_options(flow: Any, run: Any) -> list[tuple[str, list[Any]]]:
    """Return the flow's own options of ``run`` under titles: by section of the settings, then the others."""
    there = {option.name: option for option in run.params}
    names = [name for name in list_parameters(flow) if name in there]
    grouped: dict[str, list[str]] = {}
    for section, options in list_sections(flow).items():
        grouped.setdefault(TITLES.get(section, OTHERS), []).extend(name for name in options if name in names)
    seen = {name for options in grouped.values() for name in options}
    others = grouped.pop(OTHERS, []) + [name for name in names if name not in seen]
    grouped[OTHERS if any(grouped.values()) else "Options"] = others
    return [(title, [there[name] for name in options]) for title, options in grouped.items() if options]


def list_sections(flow: Any) -> dict[str, Any]:
    """Return the flow's settings that have an option, by section."""
    return dict(getattr(getattr(flow, "__settings__", None), "OPTIONS", {}))


def list_parameters(flow: Any) -> Iterator[str]:
    """Yield the flow's parameters as click names their options."""
    for _, parameter in flow._get_parameters():
        if not parameter.IS_CONFIG_PARAMETER:
            yield parameter.name.replace("-", "_").lower()
