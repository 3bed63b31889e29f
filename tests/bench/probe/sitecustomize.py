"""Notes where the seconds of a Python process go, into a file of its own in the folder ``_DLPIPE_PROBE``.

Python imports this by itself where its folder is on ``PYTHONPATH``. Seconds of imports are those of the outermost
``import`` of the main thread; spans are those of the calls in ``CALLS``, without the imports inside them.
"""

import atexit
import builtins
import json
import os
import sys
import threading
import time

FOLDER = os.environ.get("_DLPIPE_PROBE")
CALLS = {
    "dlpipe.task.texts.predictor": ("Predictor.predict_encoded", "forward"),
    "pytorch_lightning.trainer.trainer": ("Trainer._fit_impl", "training"),
    "metaflow.datastore.task_datastore": ("TaskDataStore.save_artifacts", "artifacts"),
    "metaflow.plugins.cards.card_creator": ("CardCreator.create", "cards"),
    "ray._private.worker": ("shutdown", "ray"),
    "ray.tune.tuner": ("Tuner.fit", "trials"),
    "dlpipe.evaluation.on_table": ("evaluate_baseline", "baseline"),
    "dlpipe.task.texts.encoding": ("compute_embeddings", "features"),
    "dlpipe.task.texts.engines": ("export_engines", "export"),
}


class Probe:
    """The seconds of this process."""

    def __init__(self) -> None:
        self.started = time.time()
        self.imports = 0.0
        self.spans: dict[str, float] = {}
        self._depth = self._inside = 0
        self._wrapped: set[str] = set()
        self._import = builtins.__import__
        builtins.__import__ = self.timed_import
        atexit.register(self.write)

    def timed_import(self, name, *args, **kwargs):
        if threading.current_thread() is not threading.main_thread():
            return self._import(name, *args, **kwargs)
        self._depth += 1
        began = time.perf_counter()
        try:
            return self._import(name, *args, **kwargs)
        finally:
            self._depth -= 1
            if not self._depth:
                self.imports += time.perf_counter() - began
                self.wrap_new()

    def wrap_new(self) -> None:
        for module in CALLS.keys() - self._wrapped:
            if module in sys.modules:
                self._wrapped.add(module)
                self.wrap(sys.modules[module], *CALLS[module])

    def wrap(self, owner, path: str, label: str) -> None:
        *parents, name = path.split(".")
        for parent in parents:
            owner = getattr(owner, parent, None)
        call = getattr(owner, name, None)
        if call is None:
            return

        def timed(*args, **kwargs):
            if self._inside:
                return call(*args, **kwargs)
            self._inside += 1
            began, imports = time.perf_counter(), self.imports
            try:
                return call(*args, **kwargs)
            finally:
                self._inside -= 1
                spent = time.perf_counter() - began - (self.imports - imports)
                self.spans[label] = self.spans.get(label, 0.0) + spent

        setattr(owner, name, timed)

    def write(self) -> None:
        said = {
            "command": sys.argv,
            "pid": os.getpid(),
            "parent": os.getppid(),
            "started": self.started,
            "ended": time.time(),
            "imports": self.imports,
            "spans": self.spans,
        }
        with open(os.path.join(FOLDER, f"{os.getpid()}.json"), "w") as file:
            json.dump(said, file)


if FOLDER:
    Probe()
