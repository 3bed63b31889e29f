"""``wide_flow.py`` with MLflow by hand."""

from by_hand import child, parent
from metaflow import FlowSpec, Parameter, step


class WideByHandFlow(FlowSpec):
    """As many tasks as asked for, each of which logs a number and a word."""

    width = Parameter("width", type=int, default=100, help="Tasks of the foreach.")

    @step
    def start(self):
        self.parent_id = parent()
        child(self.parent_id, 0.0)
        self.places = list(range(self.width))
        self.next(self.body, foreach="places")

    @step
    def body(self):
        child(self.parent_id, self.input / self.width)
        self.next(self.join)

    @step
    def join(self, inputs):
        self.parent_id = inputs[0].parent_id
        child(self.parent_id, 0.5)
        self.next(self.end)

    @step
    def end(self):
        child(self.parent_id, 1.0)


if __name__ == "__main__":
    WideByHandFlow()
