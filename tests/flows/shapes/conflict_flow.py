"""A flow whose join fails: its branches disagree, and nobody said who is right."""

from metaflow import FlowSpec, step


class ConflictFlow(FlowSpec):
    """Disagree."""

    @step
    def start(self):
        self.next(self.left, self.right)

    @step
    def left(self):
        self.opinion = "left"
        self.next(self.join)

    @step
    def right(self):
        self.opinion = "right"
        self.next(self.join)

    @step
    def join(self, inputs):
        self.merge_artifacts(inputs)
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    ConflictFlow()
