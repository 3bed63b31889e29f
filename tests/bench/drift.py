"""How often drift is found, and how often it is found where there is none: real snippets, many resamples.

The training table is movies_train; what comes in is drawn from movies_test and movies_valid, from amazon_shifted,
or from both. Predictions are those of the TF-IDF baseline, so that many looks take minutes; the other movie rows
are the test split. Prints the table of docs/monitoring.md: ``python tests/bench/drift.py [RESAMPLES]``.
"""

from __future__ import annotations

import csv
import random
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from dlpipe.monitoring import Drift, DriftSettings, Sample, compare, make_sample
from dlpipe.monitoring.samples import to_predictions
from dlpipe.task import Baseline, find_task
from dlpipe.task.quality import compare_shares

SNIPPETS = Path(__file__).resolve().parents[3] / "shared/data/snippets"
LABELS = ["negative", "positive"]
TASK = find_task("text-classification")
CASES = [
    *((rows, 0.0) for rows in (50, 100, 200, 500)),
    *((rows, 1.0) for rows in (50, 100, 200, 500)),
    *((200, share) for share in (0.1, 0.25, 0.5)),
]
SIGNALS = ("domain", "length", "p_positive", "predicted", "quality")

Rows = list[tuple[str, str]]


@dataclass(frozen=True)
class World:
    """The snippets and a model of them."""

    train: Rows
    held: Rows
    shifted: Rows
    model: Baseline

    @classmethod
    def read(cls) -> World:
        train = snippets("movies_train")
        model = TASK.fit_baseline([text for text, _ in train], [label for _, label in train], seed=0)
        return cls(train, snippets("movies_test") + snippets("movies_valid"), snippets("amazon_shifted"), model)

    def sample_of(self, rows: Rows) -> tuple[Sample, int]:
        """Return rows with what the model predicts of them, and how many predictions are right."""
        shares = self.model.predict_outputs([text for text, _ in rows], outputs=LABELS)
        predicted = [LABELS[place] for place in shares.argmax(axis=1)]
        right = sum(label == true for label, (_, true) in zip(predicted, rows, strict=True))
        predictions = to_predictions(TASK.target, shares, {"labels": LABELS})
        return make_sample(TASK, [text for text, _ in rows], predictions), right

    def look(self, rows: int, share: float, seed: int) -> Drift:
        """Return what is found of ``rows`` rows of which ``share`` is shifted."""
        chance = random.Random(f"{rows} {share} {seed}")
        held = chance.sample(self.held, len(self.held))
        many = round(rows * share)
        current, right = self.sample_of([*chance.sample(self.shifted, many), *held[: rows - many]])
        test, test_right = self.sample_of(held[rows - many :])
        drawn = make_sample(TASK, [text for text, _ in chance.sample(self.train, 2000)])
        reference = replace(drawn, predicted=test.predicted, predictions=test.predictions)
        quality = compare_shares(right, rows, test_right, len(test.rows))
        return compare(reference, current, quality, DriftSettings(seed=seed), inputs=TASK.inputs)


def snippets(name: str) -> Rows:
    """Return texts and labels of a file."""
    with (SNIPPETS / f"{name}.csv").open(encoding="utf-8", newline="") as stream:
        return [(row["review"], row["sentiment"]) for row in csv.DictReader(stream)]


def lines(world: World, resamples: int) -> Iterator[str]:
    """Yield the table, line by line."""
    yield "| new rows | of them shifted | drift found | " + " | ".join(SIGNALS) + " | AUC, mean (highest) |"
    yield "|---|---|---|" + "---|" * (len(SIGNALS) + 1)
    for rows, share in CASES:
        looks = [world.look(rows, share, seed) for seed in range(resamples)]
        raised = Counter(signal.name for look in looks for signal in look.raised)
        aucs = [look.domains.auc for look in looks if look.domains]
        cells = [f"{raised[name]}" for name in SIGNALS]
        found = f"{sum(look.drifted for look in looks)} of {resamples}"
        auc = f"{sum(aucs) / len(aucs):.2f} ({max(aucs):.2f})"
        yield f"| {rows} | {share:.0%} | {found} | {' | '.join(cells)} | {auc} |"


if __name__ == "__main__":
    for line in lines(World.read(), int(sys.argv[1]) if len(sys.argv) > 1 else 40):
        print(line, flush=True)
