"""The whole of production, played as `make demo` plays it: minutes, so only in `make chaos`."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(2400)]

ROOT = Path(__file__).resolve().parents[2]
SNIPPETS = ROOT.parent / "shared/data/snippets"
FLOWS = ("PredictFlow", "ExplainFlow", "MonitorFlow", "TrainFlow")


def played(folder: Path, *words: str) -> str:
    """Play it and return what was said."""
    command = [sys.executable, str(ROOT / "examples/production.py"), str(folder), "--port", "0", *words]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=2400)
    assert done.returncode == 0, done.stdout
    return done.stdout


def check(said: str) -> None:
    """See in what was said that everything happened that is to happen."""
    assert all(f"bridge check {flow}: 0 differences" in said for flow in FLOWS)
    assert len(re.findall(r"of PredictFlow succeeded, started by schedule ", said)) == 1
    assert len(re.findall(r"of (?:Explain|Monitor)Flow succeeded, started by end of PredictFlow", said)) == 2
    assert len(re.findall(r"of MonitorServed succeeded, started by schedule ", said)) == 2
    assert re.search(r"drift of what was asked: AUC of telling new texts from old ones", said)
    assert re.search(r"the same rows, now: [\d.]+% answered right", said)
    assert re.search(r"[\d,]+ requests are counted, of [\d,]+ rows; 0 got an error", said)
    assert re.search(r"of TrainFlow succeeded, started by event model-drifted", said)
    assert len(re.findall(r"gate +(?:passed|not promoted)", said)) == 2
    rows, scored = re.search(r"([\d,]+) rows, ([\d,]+) of them scored, 0 twice by one model", said).groups()
    assert rows == scored


def test_the_demo_plays_on_the_sample(tmp_path: Path) -> None:
    check(played(tmp_path / "demo"))


@pytest.mark.skipif(not SNIPPETS.exists(), reason="no ../shared/data")
def test_the_demo_plays_on_movie_snippets(tmp_path: Path) -> None:
    movies, products = SNIPPETS / "movies_train.csv", SNIPPETS / "amazon_shifted.csv"
    check(played(tmp_path / "demo", "--data", str(movies), "--new", str(products)))
