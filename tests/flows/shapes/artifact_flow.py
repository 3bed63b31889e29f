"""A flow that fails because an artifact cannot be pickled, after one that only its own program can read."""

import threading

from metaflow import FlowSpec, step


class ArtifactFlow(FlowSpec):
    """Keep what cannot be kept."""

    @step
    def start(self):
        self.fine = {"kept": True}
        self.own = Odd(3)
        self.next(self.hold)

    @step
    def hold(self):
        self.also_fine = 1
        self.lock = threading.Lock()
        self.next(self.end)

    @step
    def end(self):
        pass


class Odd:
    """Pickled by the name of a class that no other program knows, and rude to those who look at it."""

    def __init__(self, number):
        self.number = number

    def __repr__(self):
        raise RuntimeError("do not look at me")

    __str__ = __repr__

    def __eq__(self, other):
        raise RuntimeError("do not compare me")


if __name__ == "__main__":
    ArtifactFlow()
