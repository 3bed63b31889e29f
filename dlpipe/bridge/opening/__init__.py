"""Opens what a task pickled without running any of it.

inert     a pickle as an inert tree: what it names is written down, never imported or called
results   what stands for an object whose class was not imported
build     from such a tree to values, by builders and for classes that a setting names
plain     dates, numbers, containers, dlpipe's own dataclasses, and what Metaflow itself keeps
arrays    NumPy
tables    Arrow
frames    pandas
pickles   all of this for the bytes of a pickle
"""

from __future__ import annotations

from dlpipe.bridge.opening.pickles import CLASSES, open_pickle
from dlpipe.bridge.opening.results import Fields, IncludedFile, NotOpened, Unopened, read_fields

__all__ = ["CLASSES", "Fields", "IncludedFile", "NotOpened", "Unopened", "open_pickle", "read_fields"]
