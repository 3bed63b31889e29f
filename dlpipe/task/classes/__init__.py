"""One class of several as target: what every task of this kind shares.

target       Classes, this half of a task
baseline     logistic regression over plain features
chance       what guessing gives, and how far two scores may lie apart
"""

from dlpipe.task.classes.target import Classes

__all__ = ["Classes"]
