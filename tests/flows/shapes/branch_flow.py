"""A flow that branches, branches again, and joins what the branches disagree on."""

from metaflow import FlowSpec, step


class BranchFlow(FlowSpec):
    """Three opinions on two artifacts."""

    @step
    def start(self):
        self.common = "the same in all branches"
        self.opinion = "none yet"
        self.scratch = 0
        self.next(self.left, self.right)

    @step
    def left(self):
        self.opinion, self.scratch, self.only_left = "left", 1, [1, 2]
        self.next(self.join)

    @step
    def right(self):
        self.only_right = {"a": 1}
        self.next(self.upper, self.lower)

    @step
    def upper(self):
        self.opinion = "upper"
        self.next(self.inner)

    @step
    def lower(self):
        self.opinion = "lower"
        self.next(self.inner)

    @step
    def inner(self, inputs):
        self.opinion = inputs.upper.opinion
        self.merge_artifacts(inputs, include=["common", "opinion", "only_right"])
        self.next(self.join)

    @step
    def join(self, inputs):
        self.opinion = sorted(one.opinion for one in inputs)
        self.merge_artifacts(inputs, exclude=["scratch"])
        self.next(self.end)

    @step
    def end(self):
        self.has_scratch = hasattr(self, "scratch")


if __name__ == "__main__":
    BranchFlow()
