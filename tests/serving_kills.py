"""Processes that write the request log and are killed at random moments; then each answered request is looked for.

.venv/bin/python tests/serving_kills.py --rounds 200 --seed 0 --folder /tmp/kills
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

# loaded once: each process is a fork of this one, which uses no table (threads of delta-rs do not survive a fork)
import deltalake
import pyarrow.compute
import pyarrow.dataset
import pyarrow.parquet

import dlpipe.tables
from dlpipe.serving import request_log
from dlpipe.serving.entries import Entry, make_request_id
from dlpipe.serving.feedback import Given, write_feedback
from dlpipe.serving.log_rows import FEEDBACK, REFUSED, REQUESTS, name_table
from dlpipe.serving.settings import LogSettings
from dlpipe.tables import read_table, table_at

LOADED = deltalake, pyarrow.compute, pyarrow.dataset, pyarrow.parquet, dlpipe.tables
MODELS = ("reviews", "tickets")
QUICK = LogSettings(texts=True, flush_seconds=0.05)


def make_entry(model: str, rows: int, *, version: int = 1) -> Entry:
    now = time.time()
    return Entry(
        make_request_id(now),
        *("predict", model, version, "d1", "torch", "champion", "k1", 200 if version else 404, "", now, 1.5),
        costs=[3] * rows,
        texts=["a fine film"] * rows,
        records=[{"predicted": "positive", "probability": 0.9}] * rows,
    )


def write_for_ever(folder: Path, chance: random.Random) -> None:
    """Write requests and labels, and note the id of each when it has been written."""
    log = request_log.RequestLog(QUICK, say=lambda line: None)
    log.start()
    noted = os.open(folder / "written", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    while True:
        entries = [
            make_entry(chance.choice(MODELS), chance.randint(1, 3), version=chance.choice([0, 1, 1, 1]))
            for _ in range(chance.randint(1, 3))
        ]
        log.write(entries)
        os.write(noted, "".join(f"{entry.request_id} {len(entry.texts)}\n" for entry in entries).encode())
        if chance.random() < 0.3:
            write_feedback(log, MODELS[0], [Given(entries[0].request_id, "positive")])
            os.write(noted, f"{entries[0].request_id} label\n".encode())
        time.sleep(chance.random() * 0.004)


def adopt_and_check(folder: Path) -> None:
    """Start where the killed ones ended, and write what of the noted ones is not there exactly once."""
    log = request_log.RequestLog(QUICK, say=lambda line: None)
    log.start()
    log.close()
    left = [path.name for path in log.root.rglob("*.journal")]
    noted = [line.split() for line in (folder / "written").read_text().splitlines()]
    wrong: list[str] = [f"{len(left)} files are left"] if left else []
    rows: Counter[str] = Counter()
    for name in (*(name_table(model, REQUESTS) for model in MODELS), REFUSED):
        table = read_table(table_at(name), columns=["request_id", "row"])
        seen = Counter(zip(*table.to_pydict().values(), strict=True))
        wrong += [
            f"{request} row {row} is there {count} times" for (request, row), count in seen.items() if count > 1
        ]
        rows.update(table["request_id"].to_pylist())
    labels = Counter(read_table(table_at(name_table(MODELS[0], FEEDBACK)))["request_id"].to_pylist())
    for request, what in noted:
        there, wanted = (labels[request], 1) if what == "label" else (rows[request], int(what))
        if there != wanted:
            wrong.append(f"{request} {what}: {there} instead of {wanted}")
    wrong += [f"label of {request} is there {count} times" for request, count in labels.items() if count > 1]
    told = {"written": sum(what != "label" for _, what in noted), "labels": sum(labels.values()), "wrong": wrong}
    (folder / "checked.json").write_text(json.dumps(told))


def fork(work: Callable[[], None]) -> int:
    """Run ``work`` in a fork of this process."""
    if child := os.fork():
        return child
    try:
        work()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def run_rounds(folder: Path, rounds: int, seed: int, *, seconds: float = 1.0) -> dict[str, object]:
    """Kill so many processes, check, and return what was found."""
    os.environ["DLPIPE_TABLES"] = str(folder / "tables")
    (folder / "written").touch()
    chance = random.Random(seed)
    ended = 0
    for number in range(rounds):
        of_round = random.Random(seed * 1_000_003 + number)
        child = fork(lambda of_round=of_round: write_for_ever(folder, of_round))  # type: ignore[misc]
        time.sleep(chance.random() * seconds)
        if os.waitpid(child, os.WNOHANG)[0]:
            ended += 1
            continue
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    checker = fork(lambda: adopt_and_check(folder))
    status = os.waitpid(checker, 0)[1]
    found = json.loads((folder / "checked.json").read_text()) if status == 0 else {"wrong": ["the check failed"]}
    if ended:
        found["wrong"].append(f"{ended} processes ended by themselves")
    return dict(found, rounds=rounds, seed=seed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, required=True)
    given = parser.parse_args()
    found = run_rounds(given.folder, given.rounds, given.seed)
    print(json.dumps(found, indent=1))
    sys.exit(bool(found["wrong"]))


if __name__ == "__main__":
    main()
