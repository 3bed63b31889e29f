"""Are the rows that come in still like those that the model was trained on, and is it still as good?

settings     thresholds
signals      a comparison of two samples, and what is made of several: Holm's procedure
statistics   the comparisons: Kolmogorov-Smirnov, chi-square, population stability index
domains      a classifier that tries to tell the new rows from the old ones
samples      what is compared, read from tables
on_table     all comparisons of a predictions table, kept in a table of their own
labels       labels that a version of a table has and an earlier one had not
figures      pictures

What is compared of rows is of the inputs of the model's task, what of predictions and labels is of its target.
"""

from dlpipe.monitoring.figures import domains_figure, history_figure, samples_figure
from dlpipe.monitoring.labels import check_new_labels, new_labels
from dlpipe.monitoring.on_table import Monitored, Subject, check_scored, monitor, predicting, subject_of
from dlpipe.monitoring.samples import Sample, make_sample
from dlpipe.monitoring.settings import DriftSettings
from dlpipe.monitoring.signals import Drift, Signal, compare

__all__ = [
    "Drift",
    "DriftSettings",
    "Monitored",
    "Sample",
    "Signal",
    "Subject",
    "check_new_labels",
    "check_scored",
    "compare",
    "domains_figure",
    "history_figure",
    "make_sample",
    "monitor",
    "new_labels",
    "predicting",
    "samples_figure",
    "subject_of",
]
