"""Fails once by something that passes; its exit hooks note what they are called with."""

from pathlib import Path

from metaflow import FlowSpec, exit_hook, step


def well(run=None):
    with open("hooks.txt", "a") as file:
        file.write(f"success {run.successful}\n")


def badly(run=None):
    with open("hooks.txt", "a") as file:
        file.write(f"error {run.successful}\n")


@exit_hook(on_success=[well], on_error=[badly])
class HookedFlow(FlowSpec):
    @step
    def start(self):
        if not Path("hooks.flag").exists():
            Path("hooks.flag").touch()
            raise ConnectionError("connection refused")
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    HookedFlow()
