"""What was asked and answered: in a journal before the answer is sent, in a Delta table seconds later, once each.

A request that was answered is in its table whatever is killed: its line is in the hands of the operating system
before the answer is sent, and a file of lines is committed with a mark that no second commit of it can pass. A
power cut costs what was written since the last sync, about a second of it.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlpipe.errors import DlpipeError, StorageFull
from dlpipe.serving.entries import Entry
from dlpipe.serving.journal import (
    Appender,
    JournalFile,
    Writer,
    find_journals,
    make_line,
)
from dlpipe.serving.log_commits import adopt_journals, commit_files, group_by_table
from dlpipe.serving.log_rows import FEEDBACK, REFUSED, REQUESTS, choose_table, encode_entry
from dlpipe.serving.logged import list_tables
from dlpipe.serving.settings import LogSettings
from dlpipe.tables import prepare_appends, tidy_days
from dlpipe.terminal import lose_unwritable

SYNC_SECONDS = 1.0
"""Between two syncs of what is written: what a power cut may cost."""
ADOPT_SECONDS = 30.0
"""Between two looks for journals of dead processes."""
TIDY_SECONDS = 600.0
RETRY_SECONDS = 5.0


@dataclass
class Trouble:
    """What the flusher cannot do, said once, and once more when it can again.

    Attributes
    ----------
    said, over : str
        The line that is said of it, before the reason; and the one when it is over.
    reason : str
        Empty while there is none.
    """

    said: str
    over: str
    reason: str = ""

    def settle(self, reason: str, say: Callable[[str], None]) -> None:
        """Note that there is trouble, or with an empty ``reason`` that there is none."""
        if reason and not self.reason:
            say(f"{self.said}: {reason}")
        elif self.reason and not reason:
            say(self.over)
        self.reason = reason


class RequestLog:
    """The log of a server.

    Parameters
    ----------
    settings : LogSettings
    root : Path, optional
        The folder of journals; by default it is with the tables.
    say : callable
        Gets a line when the log cannot be written, and one when it can again.

    Attributes
    ----------
    lost : int
        Requests that were answered and are not in the log, which ``when_full = "answer"`` allows.
    """

    def __init__(
        self, settings: LogSettings, *, root: Path | None = None, say: Callable[[str], None] = print
    ) -> None:
        self.settings, self.root, self.say = settings, root or find_journals(), lose_unwritable(say)
        self.lost = 0
        self._write_trouble = ""
        later = f"stay in {self.root}, and are committed when they can be"
        self._committing = Trouble(f"Requests {later}", "Requests are committed to their tables again.")
        self._adopting = Trouble(
            f"Requests of processes that have ended {later}",
            "Requests of processes that have ended are committed.",
        )
        self._tidying = Trouble("Days of the log that are over stay", "Days of the log that are over go again.")
        self._open: dict[str, Appender] = {}
        self._retired: list[Appender] = []
        self._sealed: list[JournalFile] = []
        self._lock, self._flushing = threading.Lock(), threading.Lock()
        self._wake, self._closing = threading.Event(), threading.Event()
        self._writer: Writer | None = None
        self._threads: list[threading.Thread] = []
        self._adopted_at = self._tidied_at = float("-inf")

    @property
    def trouble(self) -> str:
        """Why the log cannot be written, committed or tidied, as a sentence; empty while it can."""
        return self._write_trouble or self._committing.reason or self._adopting.reason or self._tidying.reason

    def start(self) -> None:
        """Commit what killed processes left, and begin to flush.

        Raises
        ------
        StorageFull
            When journals cannot be kept. Where those of others cannot be committed, it is said, and tried again.
        """
        try:
            self._writer = Writer(self.root)
        except OSError as error:
            raise StorageFull(
                f"Requests cannot be logged in {self.root}: {error.strerror or error}. Make room or change its "
                "rights, or set DLPIPE_TABLES to another folder."
            ) from None
        prepare_appends()
        self._adopt()
        for work, name in ((self._run, "log"), (self._run_syncs, "log-sync")):
            self._threads.append(threading.Thread(target=work, name=f"dlpipe-{name}", daemon=True))
            self._threads[-1].start()

    def record(self, entry: Entry) -> None:
        """Write one request; see ``write``."""
        self._append(choose_table(entry), make_line(encode_entry(entry, texts=self.settings.texts)))

    def write(self, entries: Sequence[Entry]) -> None:
        """Return when ``entries`` survive a kill of this process.

        Raises
        ------
        StorageFull
            When they cannot be written, and the setting ``when_full`` is ``refuse``.
        """
        lines: dict[str, list[bytes]] = defaultdict(list)
        for entry in entries:
            lines[choose_table(entry)].append(make_line(encode_entry(entry, texts=self.settings.texts)))
        for table, written in lines.items():
            self._append(table, b"".join(written), len(written))

    def write_lines(self, table: str, contents: Sequence[bytes]) -> None:
        """Write lines for the table of this name, all or none, and raise where they cannot be written.

        Raises
        ------
        StorageFull
        """
        if contents:
            self._append(table, b"".join(map(make_line, contents)), must=True)

    def close(self) -> None:
        """Commit everything, and end; what cannot be committed is left for the next process."""
        self._closing.set()
        self._wake.set()
        for thread in self._threads:
            thread.join()
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def flush(self) -> None:
        """Commit what has been written so far, in this thread.

        Raises
        ------
        DlpipeError
            When it cannot be; it stays in the journals.
        """
        with self._flushing:
            with self._lock:
                for table in list(self._open):
                    self._seal(table)
            self._commit_sealed()

    # in the thread of whoever writes ------------------------------------------------------------------------

    def _append(self, table: str, lines: bytes, count: int = 1, *, must: bool = False) -> None:
        try:
            with self._lock:
                appender = self._open.get(table)
                if appender is None:
                    assert self._writer is not None, "the log has not been started"
                    appender = self._open[table] = self._writer.begin(table)
                appender.append(lines)
                full = appender.size > self.settings.flush_megabytes * 2**20
        except OSError as error:
            self._fail(error, count, must=must)
            return
        if self._write_trouble:
            self._recover()
        if full:
            self._wake.set()

    def _fail(self, error: OSError, count: int, *, must: bool) -> None:
        reason = f"The log of requests cannot be written in {self.root}: {error.strerror or error}"
        refuse = must or self.settings.when_full == "refuse"
        if not self._write_trouble:  # said once, however many requests come
            told = (
                "requests are refused" if refuse else "requests are answered all the same, and are not in the log"
            )
            self.say(f"{reason}; until it can be, {told}.")
            self._write_trouble = f"{reason}."
        if refuse:
            raise StorageFull(f"{reason}. Try again later.")
        self.lost += count

    def _recover(self) -> None:
        self._write_trouble = ""
        lost = f"; {self.lost:,} requests so far are not in it" if self.lost else ""
        self.say(f"The log of requests is written again{lost}.")

    # in the flusher ------------------------------------------------------------------------------------------

    def _run(self) -> None:
        waits = 0.0
        while not self._closing.is_set():
            self._wake.wait(SYNC_SECONDS)
            self._wake.clear()
            with self._flushing:
                self._seal_ready()
                if time.monotonic() < waits and not self._closing.is_set():
                    continue
                if not self._try(self._commit_sealed, self._committing):
                    waits = time.monotonic() + RETRY_SECONDS
                self._look_after()
        self._try(self.flush, self._committing)

    def _try(self, work: Callable[[], Any], trouble: Trouble) -> bool:
        """Return whether some work could be done; a thread that ended would fill the disk with journals."""
        reason = ""
        try:
            work()
        except Exception as error:
            reason = str(error) if isinstance(error, DlpipeError) else f"{type(error).__name__}: {error}"
        trouble.settle(reason, self.say)
        return not reason

    def _run_syncs(self) -> None:
        # in a thread of its own: a commit and a tidying take longer than a power cut may cost
        trouble = ""
        while not self._closing.wait(SYNC_SECONDS):
            try:
                self._sync()
                trouble = ""
            except OSError as error:
                if not trouble:
                    self.say(f"Requests in {self.root} cannot be synced to the disk: {error.strerror or error}")
                trouble = str(error)

    def _sync(self) -> None:
        with self._lock:
            appenders = [*self._open.values(), *self._retired]
        for appender in appenders:
            appender.sync()

    def _seal_ready(self) -> None:
        now, settings = time.monotonic(), self.settings
        with self._lock:
            for table, appender in list(self._open.items()):
                old = now - appender.began >= settings.flush_seconds
                if appender.size and (old or appender.size > settings.flush_megabytes * 2**20):
                    self._seal(table)

    def _seal(self, table: str) -> None:
        """Begin a new file at the next line; whoever calls it has the lock."""
        self._retired.append(self._open.pop(table))

    def _commit_sealed(self) -> None:
        errors: list[Exception] = []
        with self._lock:
            retired, self._retired = self._retired, []
        for appender in retired:  # not under the lock, for which requests would wait
            with contextlib.suppress(OSError):
                appender.close()
            self._sealed.append(appender.file)
        for files in group_by_table(self._sealed):
            try:
                commit_files(files, gently=not self._closing.is_set())
            except Exception as error:  # one table's trouble is not that of others
                errors.append(error)
                continue
            self._sealed = [file for file in self._sealed if file not in files]
        if errors:
            raise errors[0]

    def _look_after(self) -> None:
        """Adopt what other processes left, and tidy the tables, each now and then."""
        now = time.monotonic()
        if now - self._adopted_at > ADOPT_SECONDS:
            self._adopt()
        if now - self._tidied_at > (ADOPT_SECONDS if self._tidying.reason else TIDY_SECONDS):
            self._tidied_at = now
            self._try(self._tidy, self._tidying)

    def _adopt(self) -> None:
        self._try(lambda: adopt_journals(self.root), self._adopting)
        self._adopted_at = time.monotonic()

    def _tidy(self) -> None:
        """Tidy all tables of the log: days end also where nobody asks any more."""
        errors: list[Exception] = []
        for table in (*list_tables(REQUESTS, self.root), *list_tables(REFUSED, self.root), *list_tables(FEEDBACK)):
            try:
                tidy_days(table, keep_days=0 if table.endswith(FEEDBACK) else self.settings.keep_days)
            except Exception as error:
                errors.append(error)
        if errors:
            raise errors[0]
