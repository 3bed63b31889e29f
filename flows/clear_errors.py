"""Expected failures of a step as one line without a traceback."""

from collections.abc import Iterator
from typing import Any

from metaflow import FlowMutator, user_step_decorator
from metaflow.exception import MetaflowException

from dlpipe.errors import DlpipeError


class ExpectedFailure(MetaflowException):
    """What Metaflow prints as a headline and a line, with exit code 1."""

    headline = "dlpipe cannot go on"


@user_step_decorator
def one_line_error(step_name: str, flow: Any, inputs: Any = None, attributes: Any = None) -> Iterator[None]:
    """Turn a ``DlpipeError`` of the step into an ``ExpectedFailure``."""
    try:
        yield
    except DlpipeError as error:
        raise ExpectedFailure(str(error)) from None


class clear_errors(FlowMutator):
    """Attach ``one_line_error`` to every step of a flow, and have its datastore looked at before it begins."""

    def mutate(self, mutable_flow: Any) -> None:
        """Add the decorators below those that the step has."""
        for name, step in mutable_flow.steps:
            step.add_decorator(one_line_error)
            if name == "start":
                step.add_decorator("storage_check")
