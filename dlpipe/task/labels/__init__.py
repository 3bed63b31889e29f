"""Several labels a row as target: what every task of this kind shares.

target       Labels, this half of a task
thresholds   from which probability on a label is given
baseline     a logistic regression for each label over plain features
"""

from dlpipe.task.labels.target import Labels

__all__ = ["Labels"]
