"""The program that trains again. It is run with the code of back then, and uses only what that has, too.

``python retraining.py REQUEST``, a JSON file with ``task``, ``table``, ``version``, ``settings`` and ``folder``,
where the model goes. What came of it is ``result.json`` there. It ends when its standard input does.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any


def train_again(request: dict[str, Any]) -> None:
    """Train as asked, and leave the model and what came of it in a folder."""
    from dlpipe.settings import read_settings
    from dlpipe.tables import table_at
    from dlpipe.task import find_task
    from dlpipe.training import fit

    task = find_task(request["task"])
    settings = read_settings(task.inputs.training, request["settings"], where="the settings of the training")
    rows = table_at(request["table"], version=request["version"])
    began = time.monotonic()
    fitted = fit(rows, task=task, settings=settings, say=lambda line: print(line, flush=True))
    folder = Path(request["folder"])
    fitted.model.save(folder / "model")
    domain = getattr(fitted, "domain", None)  # code from before domains were noted has none
    result = {
        "weights": fitted.model.digest,
        "best_epoch": fitted.best_epoch,
        "seconds": time.monotonic() - began,
        "domain": dataclasses.asdict(domain) if domain else None,
    }
    (folder / "result.json").write_text(json.dumps(result))


def end_with_input() -> None:
    """End this process as soon as nobody holds the other end of its standard input, however that process ended."""
    os.read(sys.stdin.fileno(), 1)
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=end_with_input, daemon=True).start()
    try:
        train_again(json.loads(Path(sys.argv[1]).read_text()))
    except Exception as error:
        raise SystemExit(f"{type(error).__name__}: {error}") from error
