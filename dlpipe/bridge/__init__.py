"""Every Metaflow run, old or new, in MLflow as it happened.

records      what MLflow should hold, and how what it holds differs from that (knows neither Metaflow nor MLflow)
metadata     Metaflow's metadata as its client's provider gives it
datastore    whether Metaflow's datastore can be used
runs         what it says of a run and its attempts
contents     what an attempt left: artifacts, datasets, models, logs, cards
reading      runs and contents as records
description  a run in Markdown
drawing      its graph as a picture
values       what becomes of an artifact: metric, parameter, file or reference
apply        writes the difference to MLflow
mirroring    sync, check and status: reading and apply put together
marks        files beside a run: its launcher lives, MLflow is behind
follow       the process beside a live run
binding      a task's own MLflow calls land in that task's run
sources      MLflow's data set source for Delta tables
trials       Ray Tune's trials as runs under their task's
"""

from __future__ import annotations

from dlpipe.bridge.datastore import check_datastore
from dlpipe.bridge.mirroring import Behind, Synced, check, status, sync, watch
from dlpipe.bridge.records import Difference

__all__ = ["Behind", "Difference", "Synced", "check", "check_datastore", "status", "sync", "watch"]
