"""A flow that chooses its way: one of two steps runs, and the branches meet in a step that is no join.

Then a step comes back to itself until it has had enough.
"""

from metaflow import FlowSpec, step


class SwitchFlow(FlowSpec):
    """Choose by what was found, then count to three."""

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
    SwitchFlow()
