"""Every Metaflow run, old or new, in MLflow as it happened.

records      what MLflow should hold, and how what it holds differs from that (knows neither Metaflow nor MLflow)
metadata     Metaflow's metadata as its client's provider gives it
datastore    Metaflow's datastore: whether it can be used, and its files, read within limits
opening      pickles as values, without running any code of theirs
artifacts    the artifacts of an attempt
packages     the code package of a run
checkpoints  the checkpoints of a task
held_runs    what MLflow alone says of runs
held_versions versions of tables and models in the artifacts of a run
graphs       the graph of a flow
attempts     the attempts of a task, as its metadata tells them
runs         a run and its tasks
contents     what an attempt left: artifacts, datasets, models, logs, cards
pictures     pictures on the page of a card, as files
charts       a card's charts as pictures
reported     points that a step reports while it runs
sampling     what running tasks take, as such points
reading      runs and contents as records
names        what runs are called
steps        a step with many tasks
description  a run in Markdown
drawing      its graph as a picture
values       what becomes of an artifact: metric, parameter, file or reference
points       numbers inside an artifact, by name
series       records and tables as series of points
repeats      one name for one number
apply        writes the difference to MLflow
following    a run on its way into MLflow: reading and apply put together
outcomes     what came of a run, for whoever compares runs
mirroring    sync, check, status, where and watch
deletion     deletes a run in Metaflow and MLflow
marks        files beside a run: its launcher lives, MLflow is behind
follow       the process beside a live run
binding      a task's own MLflow calls land in that task's run
sources      MLflow's data set source for Delta tables
trials       Ray Tune's trials as runs under their task's
"""

from __future__ import annotations

from dlpipe.bridge.datastore import check_datastore
from dlpipe.bridge.following import SyncResult
from dlpipe.bridge.mirroring import RunBehind, check, status, sync, watch, where
from dlpipe.bridge.records import Difference

__all__ = ["Difference", "RunBehind", "SyncResult", "check", "check_datastore", "status", "sync", "watch", "where"]
