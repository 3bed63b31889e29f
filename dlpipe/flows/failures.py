"""Expected failures as one line without a traceback: of a step, and of a command before its run begins."""

import sys
from collections.abc import Iterator
from typing import Any

from metaflow import FlowMutator, user_step_decorator

from dlpipe.collector import collect_seldom
from dlpipe.errors import DlpipeError
from dlpipe.flows.command_line import prepare
from dlpipe.flows.compression import store_quickly
from dlpipe.flows.flow_help import show_flow_first
from dlpipe.flows.still_cards import draw_once
from dlpipe.redaction import redact
from metaflow_extensions.dlpipe.plugins.launch_check import CannotBegin

collect_seldom()  # in the launcher and in each task


class ExpectedFailure(CannotBegin):
    """What Metaflow prints as a headline and a line, with exit code 1."""


@user_step_decorator
def one_line_error(step_name: str, flow: Any, inputs: Any = None, attributes: Any = None) -> Iterator[None]:
    """Turn a ``DlpipeError`` of the step into an ``ExpectedFailure``.

    The first step looks at what the run needs, unless its launcher has. Artifacts and cards are kept quickly.
    """
    from metaflow_extensions.dlpipe.plugins.launch_check import check_flow, was_checked

    store_quickly()
    draw_once(flow, step_name)
    try:
        if step_name == "start" and not was_checked():
            check_flow(flow)
        yield
    except DlpipeError as error:
        raise ExpectedFailure(redact(str(error))) from None


class clear_errors(FlowMutator):
    """Have a flow say in one line what is wrong, before a run begins where that can be known by then."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        if self._flow_cls is not None:
            prepare_program(self._flow_cls)

    def mutate(self, mutable_flow: Any) -> None:
        """Add the decorators below those that the step has."""
        for name, step in mutable_flow.steps:
            step.add_decorator(one_line_error)
            if name == "start":
                step.add_decorator("launch_check")


def prepare_program(flow_cls: Any) -> None:
    """Prepare the command line of a flow that is the program; where that fails, the program ends in one line."""
    if flow_cls.__module__ == "__main__":
        try:
            prepare(flow_cls.__name__, sys.argv)
            if "--help" in sys.argv:
                show_flow_first(flow_cls)
        except DlpipeError as error:
            sys.exit(f"{ExpectedFailure.headline}: {redact(str(error))}")
