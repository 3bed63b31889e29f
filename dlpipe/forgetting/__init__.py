"""Forgetting: what a row has reached, and the row taken out of all of it.

asked      which rows are meant
splitting  the words of a content, spelled alike
words      a text found by its words, however it is written
contents   a text taken out of the content of a file
parquet    the same for Parquet
choosing   which rows of a table are meant
reach      what rows have reached:
learnt     the models that had them
files      files beside tables
held       files that others write to meanwhile
reading    what of them was not searched
databases  databases of MLflow and the scheduler
examples   the rows that registered models are known by
sources    the user's own files
waiting    what servers have in their journals
forgetting doing it
"""

from dlpipe.forgetting.asked import AskedRow, find_asked
from dlpipe.forgetting.forgetting import Forgotten, forget
from dlpipe.forgetting.learnt import LearntModel
from dlpipe.forgetting.reach import Reach, ReachedTable, find_reach

__all__ = ["AskedRow", "Forgotten", "LearntModel", "Reach", "ReachedTable", "find_asked", "find_reach", "forget"]
