"""A registered model made again from its lineage, and compared with what was registered.

origin        how a version was trained: its rows, settings, code and domain
code          the code of a training, unpacked from what its run kept
disk          what is said where its disk is full
retraining    the program that trains again, with that code
process       the process that runs it
differences   what is not as it was: packages, threads, processor, code, settings, rows
apart         how far weights, outputs and scores are from the registered ones
answered      the answers of a table, and what came of computing them again
answers       predictions computed again, and compared
explanations  explanations computed again, and compared
outcome       what came of it: the same, equivalent or different
reproduction  all of it, for a version
"""

from dlpipe.reproducing.answered import AnswersAgain
from dlpipe.reproducing.answers import compare_answers
from dlpipe.reproducing.differences import Difference
from dlpipe.reproducing.origin import Changes, list_models
from dlpipe.reproducing.outcome import Reproduction
from dlpipe.reproducing.reproduction import list_trained, reproduce

__all__ = [
    "AnswersAgain",
    "Changes",
    "Difference",
    "Reproduction",
    "compare_answers",
    "list_models",
    "list_trained",
    "reproduce",
]
