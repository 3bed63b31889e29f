"""A step that does what a file says, so that a later attempt finds other orders; each execution is noted."""

import os
import time
from pathlib import Path

from metaflow import FlowSpec, Parameter, current, step


def note(word):
    with open(f"{current.run_id.split('-')[1]}.notes", "a") as file:
        file.write(f"{current.step_name} {word} {os.environ['_DLPIPE_ATTEMPT']}\n")


class SteadyFlow(FlowSpec):
    orders = Parameter("orders", default="none")
    number = Parameter("number", default=1, type=int)

    @step
    def start(self):
        note("begins")
        self.next(self.work)

    @step
    def work(self):
        note("begins")
        orders = Path(self.orders)
        if orders.exists():
            exec(orders.read_text(), {"time": time, "os": os})
        self.result = self.number * 2
        note("ends")
        self.next(self.end)

    @step
    def end(self):
        note("begins")


if __name__ == "__main__":
    SteadyFlow()
