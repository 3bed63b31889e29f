"""Five steps that do next to nothing: what a bridge adds to them is all its own."""

from metaflow import FlowSpec, step


class NoopFlow(FlowSpec):
    """Five steps, each with a number and a word to keep."""

    @step
    def start(self):
        self.share, self.word = 0.1, "start"
        self.next(self.second)

    @step
    def second(self):
        self.share, self.word = 0.2, "second"
        self.next(self.third)

    @step
    def third(self):
        self.share, self.word = 0.3, "third"
        self.next(self.fourth)

    @step
    def fourth(self):
        self.share, self.word = 0.4, "fourth"
        self.next(self.end)

    @step
    def end(self):
        self.share, self.word = 0.5, "end"


if __name__ == "__main__":
    NoopFlow()
