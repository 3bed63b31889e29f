"""Opens what a task pickled without running any of it.

inert     a pickle as an inert tree: what it names is written down, never imported or called
build     from such a tree to values, by the builders below and for classes that a setting names
plain     dates, numbers, containers, dlpipe's own dataclasses, and what Metaflow itself keeps
arrays    NumPy
tables    Arrow
frames    pandas
"""

from __future__ import annotations

from dlpipe.bridge.opening.build import CLASSES, Fields, IncludedFile, NotOpened, Unopened, fields_of, open_pickle

__all__ = ["CLASSES", "Fields", "IncludedFile", "NotOpened", "Unopened", "fields_of", "open_pickle"]
