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
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from dlpipe.errors import DlpipeError, MarkMoved, StorageFull
from dlpipe.serving.entries import Entry
from dlpipe.serving.journal import (
    Appender,
    JournalFile,
    Writer,
    adopt,
    find_journals,
    make_line,
)
from dlpipe.serving.log_rows import FEEDBACK, REFUSED, REQUESTS, choose_table, encode_entry, make_rows
from dlpipe.serving.logged import list_tables
from dlpipe.serving.settings import LogSettings
from dlpipe.tables import Mark, append_by_day, locate, prepare_appends, read_mark, tidy_days

SYNC_SECONDS = 1.0
"""Between two syncs of what is written: what a power cut may cost."""
ADOPT_SECONDS = 30.0
"""Between two looks for journals of dead processes."""
TIDY_SECONDS = 600.0
RETRY_SECONDS = 5.0
COMMIT_BYTES = 32 * 2**20
"""Of journals in one commit at most."""
GENTLE_BYTES, BREAK_SECONDS, GENTLE_SECONDS = 16_384, 0.002, 2.0
"""A break after so many bytes of lines, a third of a millisecond of work; for so long at most in one commit."""


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
        self.settings, self.root, self.say = settings, root or find_journals(), say
        self.lost = 0
        self._write_trouble = self._commit_trouble = ""
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
        """Why the log cannot be written or committed, as a sentence; empty while it can."""
        return self._write_trouble or self._commit_trouble

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
        try:
            adopt_journals(self.root)
        except DlpipeError as error:
            self._settle(str(error))
        self._adopted_at = time.monotonic()
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
            try:
                with self._flushing:
                    self._seal_ready()
                    if time.monotonic() < waits and not self._closing.is_set():
                        continue
                    self._commit_sealed()
                    self._look_after()
                self._settle("")
            except Exception as error:  # a thread that ended would fill the disk with journals
                waits = time.monotonic() + RETRY_SECONDS
                self._settle(
                    f"{type(error).__name__}: {error}" if not isinstance(error, DlpipeError) else str(error)
                )
        try:
            self.flush()
        except Exception as error:
            self._settle(str(error))

    def _settle(self, trouble: str) -> None:
        """Say that commits fail, once, and that they work again."""
        if trouble and not self._commit_trouble:
            self.say(f"Requests stay in {self.root}, and are committed when they can be: {trouble}")
        elif self._commit_trouble and not trouble:
            self.say("Requests are committed to their tables again.")
        self._commit_trouble = trouble

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
        errors: list[DlpipeError] = []
        with self._lock:
            retired, self._retired = self._retired, []
        for appender in retired:  # not under the lock, for which requests would wait
            with contextlib.suppress(OSError):
                appender.close()
            self._sealed.append(appender.file)
        for files in group_by_table(self._sealed):
            try:
                commit_files(files, gently=not self._closing.is_set())
            except DlpipeError as error:  # one table's trouble is not that of others
                errors.append(error)
                continue
            self._sealed = [file for file in self._sealed if file not in files]
        if errors:
            raise errors[0]

    def _look_after(self) -> None:
        """Adopt what other processes left, and tidy the tables, each now and then."""
        now = time.monotonic()
        if now - self._adopted_at > ADOPT_SECONDS:
            self._adopted_at = now
            adopt_journals(self.root)
        if now - self._tidied_at > TIDY_SECONDS:
            self._tidied_at = now
            self._tidy()

    def _tidy(self) -> None:
        """Tidy all tables of the log: days end also where nobody asks any more."""
        errors = []
        for table in (*list_tables(REQUESTS, self.root), *list_tables(REFUSED, self.root), *list_tables(FEEDBACK)):
            try:
                tidy_days(table, keep_days=0 if table.endswith(FEEDBACK) else self.settings.keep_days)
            except DlpipeError as error:
                errors.append(error)
        if errors:
            raise errors[0]


def group_by_table(files: Iterable[JournalFile]) -> list[list[JournalFile]]:
    """Return files in lists of one table each, by number."""
    groups: dict[str, list[JournalFile]] = defaultdict(list)
    for file in files:
        groups[file.table].append(file)
    return [sorted(group, key=lambda file: file.number) for group in groups.values()]


def read_gently(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Yield lines with breaks between some: a thread that keeps Python busy delays each step of the event loop.

    The breaks end after a while, so that a log which grows fast does not pile up.
    """
    read, until = 0, time.monotonic() + GENTLE_SECONDS
    for line in lines:
        yield line
        read += len(line)
        if read >= GENTLE_BYTES and time.monotonic() < until:
            read = 0
            time.sleep(BREAK_SECONDS)


def commit_files(files: Sequence[JournalFile], *, gently: bool = False) -> None:
    """Commit files of one writer for one table, unless they are, and remove them.

    Parameters
    ----------
    files : sequence of JournalFile
        By number. Nobody may write to them any more.
    gently : bool
        Whether others in this process are to go first.
    """
    table, mark = locate(files[0].table), files[0].mark
    there = read_mark(table, mark)
    waiting = list(files)
    while waiting:
        taken: list[JournalFile] = []
        size = 0
        while waiting and (not taken or size < COMMIT_BYTES):
            taken.append(waiting.pop(0))
            size += taken[-1].path.stat().st_size if taken[-1].path.exists() else 0
        lines = [line for file in taken if there is None or file.number > there for line in file.read()]
        if lines:
            try:
                rows = make_rows(files[0].table, read_gently(lines) if gently else lines)
                append_by_day(table, rows, marks=[Mark(mark, there, taken[-1].number)])
                there = taken[-1].number
            except MarkMoved:
                # a process that was taken for dead has committed them after all
                there, waiting = read_mark(table, mark), [*taken, *waiting]
                continue
        for file in taken:
            with contextlib.suppress(FileNotFoundError):
                file.path.unlink()


def adopt_journals(root: Path) -> int:
    """Commit what dead processes left under ``root``, and return of how many processes.

    Parameters
    ----------
    root : Path

    Raises
    ------
    DlpipeError
        When some cannot be committed, after all others have been; they stay.
    """
    count, errors = 0, []
    for folder in sorted(root.iterdir()) if root.is_dir() else []:
        if folder.name.startswith("."):
            continue
        with adopt(folder) as files:
            if files is None:
                continue
            count += bool(files)
            for group in group_by_table(files):
                try:
                    commit_files(group)
                except DlpipeError as error:
                    errors.append(error)
    if errors:
        raise errors[0]
    return count
