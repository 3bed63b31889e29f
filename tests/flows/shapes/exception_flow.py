"""A flow that fails with an exception that cannot be pickled."""

import threading

from metaflow import FlowSpec, step


class ExceptionFlow(FlowSpec):
    """Fail in an awkward way."""

    @step
    def start(self):
        self.before = "start"
        self.next(self.fail)

    @step
    def fail(self):
        class Local(Exception):
            pass

        self.kept = "set before the failure"
        error = Local("of a class that nobody else knows")
        error.lock = threading.Lock()
        raise error
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    ExceptionFlow()
