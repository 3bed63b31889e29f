"""A foreach of many tasks that do next to nothing."""

from metaflow import FlowSpec, Parameter, step


class WideFlow(FlowSpec):
    """As many tasks as asked for, each with a number and a word to keep."""

    width = Parameter("width", type=int, default=100, help="Tasks of the foreach.")

    @step
    def start(self):
        self.places = list(range(self.width))
        self.next(self.body, foreach="places")

    @step
    def body(self):
        self.share, self.word = self.input / self.width, f"place {self.input}"
        self.next(self.join)

    @step
    def join(self, inputs):
        self.total = sum(one.share for one in inputs)
        self.next(self.end)

    @step
    def end(self):
        self.word = "end"


if __name__ == "__main__":
    WideFlow()
