"""A number a row as target: what every task of this kind shares.

target       Numbers, this half of a task
intervals    how far an interval reaches, by conformal residuals
baseline     ridge regression, or gradient boosting, over plain features
scores       NumberEvaluation: errors, rank correlation and coverage, in all rows and in many resamples; mistakes
gate         NumberThresholds, and the check against the mean
figures      predicted against true numbers, and how large the errors are
"""

from dlpipe.task.numbers.target import Numbers

__all__ = ["Numbers"]
