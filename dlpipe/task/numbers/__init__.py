"""A number a row as target: what every task of this kind shares.

target       Numbers, this half of a task
baseline     ridge regression over plain features
"""

from dlpipe.task.numbers.target import Numbers

__all__ = ["Numbers"]
