"""The whole life of a deep-learning model, room by room.

errors       what can go wrong, each situation with a name
settings     frozen dataclasses read from a settings file, with clear errors
tables       Delta tables: ingest, versions, splits, streaming
datasets     public data sets by name, downloaded only when asked for
task         the learning task (text classification); the only place that names lightning-flash
training     fit a task on a pinned table version; checkpoints and resume
tuning       search over training settings; the only place that names Ray Tune
evaluation   metrics with intervals, the baseline, the comparison with the champion
cluster      work on a Ray cluster; the only place that starts or joins Ray
tracking     where MLflow is, and its safe first touch
registry     model versions, aliases and the promotion gate
inference    load a model by URI and score tables
explain      what each part of a row adds to the outputs, with pictures; the only place that names SHAP
bridge       every Metaflow run in MLflow as it happened
flows        what flows need besides: settings and options, checkpoints, one-line failures, cards, events
cli          the ``dlpipe`` command

Nothing heavy is imported here: each room imports what it needs inside the functions that need it.
"""

__version__ = "0.1.0"

METAFLOW_PACKAGE_POLICY = "include"  # in the code that Metaflow sends to a cluster, or keeps of a deployment
