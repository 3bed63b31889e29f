"""``noop_flow.py`` with MLflow by hand."""

from by_hand import child, parent
from metaflow import FlowSpec, step


class NoopByHandFlow(FlowSpec):
    """Five steps, each of which logs a number and a word."""

    @step
    def start(self):
        self.parent_id = parent()
        child(self.parent_id, 0.1)
        self.next(self.second)

    @step
    def second(self):
        child(self.parent_id, 0.2)
        self.next(self.third)

    @step
    def third(self):
        child(self.parent_id, 0.3)
        self.next(self.fourth)

    @step
    def fourth(self):
        child(self.parent_id, 0.4)
        self.next(self.end)

    @step
    def end(self):
        child(self.parent_id, 0.5)


if __name__ == "__main__":
    NoopByHandFlow()
