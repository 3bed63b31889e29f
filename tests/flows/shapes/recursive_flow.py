"""A flow with a step that comes back to itself until it has had enough."""

from metaflow import FlowSpec, step


class RecursiveFlow(FlowSpec):
    """Count to three."""

    @step
    def start(self):
        self.count = 0
        self.history = []
        self.next(self.again)

    @step
    def again(self):
        self.count += 1
        self.history = [*self.history, self.count]
        self.enough = "yes" if self.count >= 3 else "no"
        self.next({"yes": self.end, "no": self.again}, condition="enough")

    @step
    def end(self):
        self.total = sum(self.history)


if __name__ == "__main__":
    RecursiveFlow()
