"""A flow that chooses its way: one of two steps runs, and the branches meet in a step that is no join."""

from metaflow import FlowSpec, step


class SwitchFlow(FlowSpec):
    """Choose by what was found."""

    @step
    def start(self):
        self.found = "many"
        self.next({"many": self.long_way, "few": self.short_way}, condition="found")

    @step
    def long_way(self):
        self.way = "long"
        self.next(self.also_long)

    @step
    def also_long(self):
        self.length = 2
        self.next(self.meet)

    @step
    def short_way(self):
        self.way = "short"
        self.next(self.meet)

    @step
    def meet(self):
        self.seen = [self.way, self.length]
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    SwitchFlow()
