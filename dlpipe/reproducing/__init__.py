"""A registered model made again from its lineage, and compared with what was registered.

origin        how a version was trained: its rows, settings, code and domain
code          the code of a training, unpacked from what its run kept
retraining    the program that trains again, with that code
differences   what is not as it was: packages, threads, processor, code, settings, rows
reproduction  training again, and what came of it
"""

from dlpipe.reproducing.differences import Difference
from dlpipe.reproducing.origin import Changes, list_models
from dlpipe.reproducing.reproduction import Reproduction, list_trained, reproduce

__all__ = ["Changes", "Difference", "Reproduction", "list_models", "list_trained", "reproduce"]
