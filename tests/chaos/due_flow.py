"""A flow with a foreach that notes each execution of each step, and whether two go on at a time."""

import fcntl
import json
import os
import time
from contextlib import contextmanager
from pathlib import Path

from metaflow import FlowSpec, Parameter, current, step


@contextmanager
def noted(flow):
    """Note that a step begins and ends; a lock, which the kernel drops with the process, tells of a twin."""
    number = current.run_id.split("-")[1]
    said = {"run": int(number), "metaflow_run": current.run_id, "step": current.step_name}
    said |= {"index": flow.index, "task": current.task_id}
    folder = Path("noted", number)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / f"{current.step_name}-{flow.index}.lock", "w") as lock:
        note(said, "begins")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            note(said, "overlaps")
        yield
        note(said, "ends")


def note(said, what):
    file = os.open("notes", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(file, (json.dumps({**said, "what": what, "at": time.time()}) + "\n").encode())
    os.close(file)


class DueFlow(FlowSpec):
    label = Parameter("label", default="none")

    @step
    def start(self):
        with noted(self):
            self.parts = [0, 1]
        self.next(self.work, foreach="parts")

    @step
    def work(self):
        with noted(self):
            # long enough for an orphan to be caught beside the resume, which takes some seconds to come here
            is_long = self.input == 1 and int(current.run_id.split("-")[1]) % 3 == 0
            time.sleep(8.0 if is_long else 0.5)
            self.made = self.input + 1
        self.next(self.join)

    @step
    def join(self, inputs):
        with noted(self):
            self.total = sum(one.made for one in inputs)
            self.rows = self.write_total()
        self.next(self.end)

    def write_total(self):
        """Write what this run has made, once, to a table of its flow's own."""
        import pyarrow as pa

        from dlpipe.tables import write_table

        number = current.run_id.split("-")[1]
        return write_table(current.flow_name, pa.table({"total": [self.total]}), key={"run": number})

    @step
    def end(self):
        with noted(self):
            assert self.total == 3


if __name__ == "__main__":
    DueFlow()
