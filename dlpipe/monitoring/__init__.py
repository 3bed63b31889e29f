"""Drift: are new rows still like those that the model was trained on, and are its predictions still as good?

settings     thresholds
subjects     what is monitored: model, training table, table of new rows, predictions
samples      new rows and rows of the training table, read from tables
statistics   Kolmogorov-Smirnov and chi-square tests, population stability index, Holm's correction
domains      a classifier that tries to tell new rows from old ones
signals      two samples compared: a signal for each way in which they can differ
looks        all signals of a model, stored as a row of ``<table>_drift``; whether an event follows
labels       new labels, without which a training would give the same model
figures      the figure of earlier looks

What is compared of rows is of the inputs of the model's task, what of predictions and labels is of its target.
"""

from dlpipe.monitoring.figures import make_history_figure
from dlpipe.monitoring.labels import check_new_labels, count_new_labels
from dlpipe.monitoring.looks import DriftReport, make_predict, monitor
from dlpipe.monitoring.samples import Current, Sample, make_sample, read_current
from dlpipe.monitoring.settings import DriftSettings
from dlpipe.monitoring.signals import Drift, Signal, compare
from dlpipe.monitoring.subjects import Subject, check_scored, find_subject

__all__ = [
    "Current",
    "Drift",
    "DriftReport",
    "DriftSettings",
    "Sample",
    "Signal",
    "Subject",
    "check_new_labels",
    "check_scored",
    "compare",
    "count_new_labels",
    "find_subject",
    "make_history_figure",
    "make_predict",
    "make_sample",
    "monitor",
    "read_current",
]
