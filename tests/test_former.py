"""The champion's learning curve is found in the runs that Metaflow has."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

FLOW = """
from metaflow import FlowSpec, Parameter, step


class LearnFlow(FlowSpec):
    version = Parameter("version", type=int)
    previous = Parameter("previous", type=int, default=0)
    fails = Parameter("fails", type=bool, default=False)

    @step
    def start(self):
        self.next(self.train)

    @step
    def train(self):
        import sys

        from dlpipe.flows.former import find_former
        from dlpipe.training import EpochScore

        found = find_former("reviews")
        print("former:", found and f"{found}, {len(found.epochs)} epochs")
        print("other:", find_former("films"), "mlflow" in sys.modules)
        score = EpochScore(1, 0.5, {"val_loss": 0.4, "val_f1": 0.8}, "val_f1", 1.0, 10.0)
        self.epoch_scores, self.trained_on = (score,) * self.version, f"reviews@v{self.version}"
        self.next(self.register)

    @step
    def register(self):
        from dlpipe.registry import ModelVersion, Promotion

        if self.fails:
            raise ValueError("no registry")
        made = ModelVersion("reviews", self.version, f"models:/reviews/{self.version}", "", "", "")
        self.promotion = Promotion(made, not self.previous, self.previous or None)
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    LearnFlow()
"""


def test_the_champion_of_the_last_run_is_found_without_mlflow_whatever_became_of_the_runs_after_it(
    tmp_path: Path,
) -> None:
    (tmp_path / "learn.py").write_text(FLOW)
    (tmp_path / ".metaflow").mkdir()

    def learn(*options: str, user: str = "anna") -> str:
        """Return what the training found of the one before."""
        environment = {**os.environ, "METAFLOW_USER": user, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
        command = [sys.executable, "learn.py", "--no-pylint", "run", *options]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert re.search(r"other: None False$", done.stdout, re.MULTILINE), done.stdout + done.stderr
        return re.search(r"former: (.*)", done.stdout)[1]

    assert learn("--version", "1", "--fails", "true") == "None"
    assert learn("--version", "1") == "None"
    assert learn("--version", "2", "--previous", "1") == (
        "reviews v1, the champion so far, trained on reviews@v1, 1 epochs"
    )
    # v2 was refused, so v1 is what is to be beaten still
    assert learn("--version", "3", "--previous", "9", user="ben").startswith("reviews v1, the champion so far")
    # the champion, which somebody has made elsewhere, has left no run here
    assert learn("--version", "4", "--fails", "true") == (
        "reviews v3, the version before, trained on reviews@v3, 3 epochs"
    )
