"""The flow that the chaos suite kills: ten short tasks, the same final artifacts however often it dies."""

import os
import time

from metaflow import FlowSpec, retry, step

from dlpipe.flows import report_point

REST = 0.2  # seconds; so that there is something to kill
ONCE = {"what": "squares"}
"""The key of a commit that whoever comes first makes, killed or not; the others find it."""


class ChaosFlow(FlowSpec):
    """Square numbers in a foreach, report what comes of them, and count words beside it."""

    @retry(times=2, minutes_between_retries=0)
    @step
    def start(self):
        self.words = "some words to count"
        self.numbers = [1, 2, 3, 4]
        time.sleep(REST)
        self.next(self.fan, self.count)

    @retry(times=2, minutes_between_retries=0)
    @step
    def fan(self):
        time.sleep(REST)
        self.next(self.square, foreach="numbers")

    @retry(times=2, minutes_between_retries=0)
    @step
    def square(self):
        print("square of", self.input)
        self.squared = self.input**2
        time.sleep(REST + 0.1 * self.input)
        self.next(self.gather)

    @retry(times=2, minutes_between_retries=0)
    @step
    def gather(self, inputs):
        self.table = {str(one.input): one.squared for one in inputs}
        self.total = sum(self.table.values())
        self.rows, self.rows_again = self.write_squares()
        self.epochs = []
        for epoch in range(1, 5):
            self.epochs.append({"epoch": epoch, "loss": self.total / epoch})
            report_point("epochs", self.epochs[-1])
            time.sleep(REST / 2)
        self.next(self.meet)

    @retry(times=2, minutes_between_retries=0)
    @step
    def count(self):
        self.counted = len(self.words.split())
        if os.environ.get("CHAOS_MLFLOW") == "1":
            import mlflow

            for number in range(3):
                mlflow.log_metric("own", 1 / (1 + number), step=number)
                time.sleep(REST)
        time.sleep(REST)
        self.next(self.meet)

    def write_squares(self):
        """Write the squares to a table that is written once, and to one that each attempt writes."""
        import pyarrow as pa

        from dlpipe.tables import write_table

        rows = pa.table({"number": list(self.table), "square": list(self.table.values())})
        return write_table("squares", rows, key=ONCE), write_table("squares_again", rows)

    @retry(times=2, minutes_between_retries=0)
    @step
    def meet(self, inputs):
        self.table, self.total = inputs.gather.table, inputs.gather.total
        self.mean = self.total / inputs.count.counted
        self.words = inputs.count.words.upper()
        time.sleep(REST)
        self.next(self.end)

    @retry(times=2, minutes_between_retries=0)
    @step
    def end(self):
        print("total", self.total)
        time.sleep(REST)


if __name__ == "__main__":
    ChaosFlow()
