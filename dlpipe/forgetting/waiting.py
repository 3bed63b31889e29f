"""What servers were asked and have not brought into a table yet: lines of their journals, waited for."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from dlpipe.errors import ServerRefused
from dlpipe.forgetting.choosing import RowChooser

if TYPE_CHECKING:
    from dlpipe.serving.journal import JournalFile

WAIT_SECONDS = 60.0
"""How long a server is given to bring what it was asked into its table; it does so every five seconds."""


def find_waiting(chooser: RowChooser) -> list[JournalFile]:
    """Return the files of journals whose tables would have rows to forget; their requests are noted as answered.

    What is chosen is what would be chosen in the table, so that a word that others write as well holds up nobody.
    """
    from dlpipe.serving.journal import find_journals, list_all_files
    from dlpipe.serving.log_rows import FEEDBACK

    files = list_all_files(find_journals())
    # labels are chosen by the requests that they are for
    files.sort(key=lambda file: file.table.endswith(FEEDBACK))
    return [file for file in files if _has_rows(file, chooser)]


def _has_rows(file: JournalFile, chooser: RowChooser) -> bool:
    from dlpipe.serving.log_rows import FEEDBACK, make_rows
    from dlpipe.tables import locate

    found = False
    for batch in make_rows(file.table, file.read()).to_batches():
        chosen = batch.filter(chooser.choose(batch, locate(file.table)))
        found |= bool(chosen.num_rows)
        if not file.table.endswith(FEEDBACK):
            rows = chosen.select(["request_id", "row"]).to_pylist()
            chooser.answered |= {(row["request_id"], row["row"]) for row in rows}
    return found


def settle_logs(chooser: RowChooser, *, say: Callable[[str], None]) -> None:
    """Wait until what servers were asked is in their tables; what dead ones left is brought there.

    What they are asked meanwhile is not waited for: a server that is always asked the same would never end.

    Raises
    ------
    ServerRefused
        When it is not within a minute.
    """
    from dlpipe.serving.journal import find_journals
    from dlpipe.serving.log_commits import adopt_journals

    waiting = find_waiting(chooser)
    if waiting:
        say("waiting until the requests of servers are in their tables")
    until = time.monotonic() + WAIT_SECONDS
    while waiting:
        adopt_journals(find_journals())
        # files are removed when they are in the table
        waiting = [file for file in waiting if file.path.exists()]
        if not waiting:
            return
        if time.monotonic() > until:
            raise ServerRefused(
                f"A server keeps requests with these texts in its journal ({find_journals()}), and did not bring "
                "them into its table within a minute. Look at its page for the reason, or end it, and try again."
            )
        time.sleep(0.2)
