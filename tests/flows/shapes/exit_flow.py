"""A flow that leaves in the middle of a step, with an exit code of its own."""

import sys

from metaflow import FlowSpec, Parameter, step


class ExitFlow(FlowSpec):
    """Leave."""

    code = Parameter("code", type=int, default=3, help="Of the exit.")

    @step
    def start(self):
        self.before = "the exit"
        self.next(self.leave)

    @step
    def leave(self):
        self.kept = "set before the exit"
        print("leaving")
        sys.exit(self.code)
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    ExitFlow()
