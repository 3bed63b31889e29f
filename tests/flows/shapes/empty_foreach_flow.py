"""A flow with a foreach over nothing: Metaflow decides what becomes of it."""

from metaflow import FlowSpec, step


class EmptyForeachFlow(FlowSpec):
    """Do nothing, no times."""

    @step
    def start(self):
        self.nothing = []
        self.next(self.each, foreach="nothing")

    @step
    def each(self):
        self.next(self.join)

    @step
    def join(self, inputs):
        self.count = len(list(inputs))
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    EmptyForeachFlow()
