"""What flows are made of, besides the rooms that do a step's work.

settings        settings files, overridden by options of the command line
pinning         what a flow works on, pinned and checked before it works
checkpoints     checkpoints of a step that a retry and ``resume`` find
failures        an expected failure is one line, before a run begins where that can be known by then
command_line    where runs are kept and which one is resumed, put right before Metaflow reads the command line
cards           what the steps show
still_cards     a card that does not change is drawn once
compression     artifacts that hardly shrink are not compressed
publishing      events for other flows
orchestrators   what an orchestrator has no means for stays out of what is compiled for it

It stands above every other room and imports Metaflow, as each flow does; no room below imports it.
"""

from dlpipe.flows.checkpoints import TaskCheckpoints, without_cards
from dlpipe.flows.failures import ExpectedFailure, clear_errors
from dlpipe.flows.orchestrators import portable
from dlpipe.flows.publishing import publish

__all__ = ["ExpectedFailure", "TaskCheckpoints", "clear_errors", "portable", "publish", "without_cards"]
