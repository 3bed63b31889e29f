"""The ``dlpipe`` command: looks at, and uses, what the flows made.

Tables for a person, ``--json`` for a program, messages on stderr. An expected failure is one line and exit
code 1. Everything heavy is imported by the command that needs it.
"""

from __future__ import annotations

import click

from dlpipe import __version__
from dlpipe.cli.answers import answers
from dlpipe.cli.appending import append
from dlpipe.cli.bridge import bridge
from dlpipe.cli.compare import compare
from dlpipe.cli.deployments import deployments
from dlpipe.cli.events import event, events
from dlpipe.cli.explaining import explain
from dlpipe.cli.feedback import feedback
from dlpipe.cli.forgetting import forget
from dlpipe.cli.init import init
from dlpipe.cli.keys import keys
from dlpipe.cli.lineage import lineage
from dlpipe.cli.logs import logs
from dlpipe.cli.model_details import show as show_model
from dlpipe.cli.models import models
from dlpipe.cli.portal import ui
from dlpipe.cli.printing import OneLineErrors
from dlpipe.cli.reproducing import reproduce
from dlpipe.cli.run_changes import resume, suspend, terminate, unsuspend
from dlpipe.cli.run_deletion import delete as delete_run
from dlpipe.cli.runs import runs
from dlpipe.cli.scheduler import scheduler
from dlpipe.cli.scoring import score
from dlpipe.cli.serving import serve
from dlpipe.cli.table_deletion import delete as delete_table
from dlpipe.cli.table_rows import export, show
from dlpipe.cli.tables import predict, tables
from dlpipe.cli.usage import usage
from dlpipe.collector import collect_seldom


@click.group(cls=OneLineErrors, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="dlpipe")
def main() -> None:
    """Make a project, and use what its flows made: tables, models, predictions, runs.

    Flows are started by Python: python flows/train_flow.py run.

    \b
    Example:
      dlpipe models
    """
    collect_seldom()


COMMANDS = (
    *(
        init,
        tables,
        append,
        models,
        predict,
        explain,
        score,
        answers,
        compare,
        lineage,
        reproduce,
        forget,
        bridge,
        ui,
    ),
    *(serve, keys, usage, feedback, scheduler, deployments, runs, logs, event, events),
)
for command in COMMANDS:
    main.add_command(command)
models.add_command(show_model)
for command in (show, export, delete_table):
    tables.add_command(command)
for command in (resume, terminate, suspend, unsuspend, delete_run):
    runs.add_command(command)
