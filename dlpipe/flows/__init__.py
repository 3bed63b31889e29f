"""What flows are made of, besides the rooms that do a step's work.

life_cycle      the flow that others extend: options, looks before a run begins, one-line failures
settings        settings files, overridden by options of the command line
changes         settings that have no option, changed by ``--set``
data            from what a settings file names to a version of a table
pinning         what a flow works on, pinned and checked before it works
tuning          the search over settings, with its trials in MLflow
registering     a trained model becomes versions in the registry; the gate decides
scoring         rows scored with a registered model
explaining      the rows that are asked for, explained
cards           what the steps show
checkpoints     checkpoints of a step that a retry and ``resume`` find
publishing      events for other flows
failures        an expected failure is one line, before a run begins where that can be known by then
command_line    where runs are kept and which one is resumed, put right before Metaflow reads the command line
orchestrators   what an orchestrator has no means for stays out of what is compiled for it
compression     artifacts that hardly shrink are not compressed
reporting       numbers of a running step that MLflow has at once
still_cards     a card that does not change is drawn once

It stands above every other room and imports Metaflow, as each flow does; no room below imports it.
"""

from dlpipe.flows.checkpoints import TaskCheckpoints, without_cards
from dlpipe.flows.failures import ExpectedFailure, clear_errors
from dlpipe.flows.life_cycle import LifeCycleFlow, find_folder, print_summary
from dlpipe.flows.orchestrators import portable
from dlpipe.flows.publishing import publish
from dlpipe.flows.reporting import report_point

__all__ = [
    "ExpectedFailure",
    "LifeCycleFlow",
    "TaskCheckpoints",
    "clear_errors",
    "find_folder",
    "portable",
    "print_summary",
    "publish",
    "report_point",
    "without_cards",
]
