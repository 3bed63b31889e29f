"""Several labels a row as target: what every task of this kind shares.

target       Labels, this half of a task
thresholds   from which probability on a label is given
baseline     a logistic regression, or gradient boosting, for each label over plain features
scores       LabelEvaluation: metrics over labels and by label, in all rows and in many resamples; mistakes
gate         LabelThresholds, and the checks of labels
tables       the scores of each label, as a table
"""

from dlpipe.task.labels.target import Labels

__all__ = ["Labels"]
