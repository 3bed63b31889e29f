"""What lineage knows, as events of OpenLineage for whoever collects them: catalogs, Marquez, a file.

Nothing is stored for it but what a receiver was told: events are made of the same records that ``dlpipe.lineage``
reads, with the same ids each time.

naming       how data sets, jobs and runs are called
events       an event, and its way into JSON
table_facets what is to be told of a version of a table
model_facets what is to be told of a version of a model, with a facet of our own
datasets     data sets of an event with their facets
job_facets   what is to be told of a flow and of a step
outputs      what the attempts of tasks have made, and of what
run_events   events of runs and of the attempts of their tasks
other_events events of what no task did: commits and registrations by hand, moves, deletions, requests
collecting   all events, and those of one run
receivers    a file, or a server
sent         what a receiver was told
exporting    telling a receiver what it was not told yet
follow       the process beside a live run that does so
"""

from dlpipe.errors import ExtraMissing

try:
    import openlineage.client  # noqa: F401
except ModuleNotFoundError:
    raise ExtraMissing(
        "OpenLineage needs openlineage-python. Install the extra: pip install 'dlpipe[openlineage]'."
    ) from None

from dlpipe.openlineage.collecting import make_events
from dlpipe.openlineage.events import Event
from dlpipe.openlineage.exporting import Export, export_events
from dlpipe.openlineage.receivers import Receiver, open_receiver

__all__ = ["Event", "Export", "Receiver", "export_events", "make_events", "open_receiver"]
