"""One class of several as target: what every task of this kind shares.

target       Classes, this half of a task
baseline     logistic regression, or gradient boosting, over plain features
chance       what guessing gives, and how far two scores may lie apart
scores       ClassEvaluation: metrics, confusion, reliability, mistakes
evaluation   probabilities judged against true classes
measures     each metric over all rows
resampling   each metric in many resamples
per_class    the recall of each class, and the majority class
gate         ClassThresholds, and the checks of classes
stored       probabilities as a table of predictions keeps them
tables       the scores of each class, and the confusion matrix
figures      the calibration
"""

from dlpipe.task.classes.gate import ClassThresholds
from dlpipe.task.classes.scores import ClassEvaluation, ClassMistake
from dlpipe.task.classes.target import Classes

__all__ = ["ClassEvaluation", "ClassMistake", "ClassThresholds", "Classes"]
