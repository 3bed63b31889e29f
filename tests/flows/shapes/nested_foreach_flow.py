"""A flow with a foreach in a foreach, with a step between the two."""

from metaflow import FlowSpec, current, step


class NestedForeachFlow(FlowSpec):
    """Multiply some numbers by some others."""

    @step
    def start(self):
        self.rows = [1, 2]
        self.next(self.row, foreach="rows")

    @step
    def row(self):
        self.one = self.input
        self.columns = ["a", "b"][: self.one]
        self.next(self.cell, foreach="columns")

    @step
    def cell(self):
        self.word = self.input * self.one
        self.place = self.foreach_stack()
        self.next(self.after)

    @step
    def after(self):
        self.longer = f"{self.word}{self.index}{current.retry_count}"
        self.next(self.joined_row)

    @step
    def joined_row(self, inputs):
        self.words = [one.longer for one in inputs]
        self.merge_artifacts(inputs, include=["one"])
        self.next(self.joined)

    @step
    def joined(self, inputs):
        self.words = {one.one: one.words for one in inputs}
        self.next(self.end)

    @step
    def end(self):
        print(self.words)


if __name__ == "__main__":
    NestedForeachFlow()
