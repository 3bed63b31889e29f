"""Due times of a schedule, with time zones and daylight-saving changes.

A fixed time of day (neither minute nor hour begins with ``*``) fires once on each of its days: one that does not
exist on the day on which the clock goes forward fires at the first moment after the gap, and one that comes twice
on the day on which it goes back fires the first time. All others follow real time: every 15 minutes is every 15
minutes, and hours that a day lacks or has twice are not made up for. These are the rules of Debian's cron.

Where both day-of-month and day-of-week say something in Unix' form, either may fit, unless one begins with ``*``.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError

from dlpipe.errors import ScheduleError
from dlpipe.orchestrator.deployments import Schedule
from dlpipe.orchestrator.fields import CronLine, read_line

HOUR = 3600.0
MINUTE = timedelta(minutes=1)
SOME_LEAP_CYCLE = 946684800.0
"""The year 2000: a line that is never due from here never is."""


@dataclass(frozen=True)
class DueTimes:
    """The due times of a schedule, in seconds since 1970."""

    line: CronLine
    zone: tzinfo

    def after(self, moment: float) -> float:
        """The first due time later than ``moment``; infinity if there is none any more."""
        return next(self._from(moment), math.inf)

    def between(self, start: float, end: float) -> Iterator[float]:
        """Due times later than ``start`` and not later than ``end``, in order."""
        for due in self._from(start):
            if due > end:
                return
            yield due

    def latest(self, start: float, end: float, count: int) -> list[float]:
        """The last ``count`` of :meth:`between`, found from the end: ``start`` may be years back.

        Parameters
        ----------
        start : float
            Seconds since 1970; this moment is not among them.
        end : float
            Seconds since 1970; this moment may be.
        count : int
            At most so many.
        """
        span = HOUR
        while True:
            since = max(start, end - span)
            found = list(self.between(since, end))
            if len(found) >= count or since == start:
                return found[-count:] if count else []
            span *= 4

    def _from(self, moment: float) -> Iterator[float]:
        """Due times later than ``moment``, without end if the line has none."""
        last = moment
        for due in self._fixed(moment) if self.line.is_fixed else self._real(moment):
            if due > last:
                yield due
                last = due

    def _fixed(self, moment: float) -> Iterator[float]:
        """The first moment of each time of day on the clock, or of the next time that the clock shows."""
        for shown in self._clock_times(self._at(moment)):
            while not self._moments(shown):
                shown += MINUTE
            yield self._moments(shown)[0]

    def _real(self, moment: float) -> Iterator[float]:
        """Every moment at which the clock shows a time of the line."""
        start = self._at(moment)
        moments = self._moments(start)
        if len(moments) == 2:  # times before it come again after it
            start -= timedelta(seconds=moments[1] - moments[0])
        twice: list[float] = []
        for shown in self._clock_times(start):
            moments = self._moments(shown)
            if len(moments) == 2:
                twice += moments
                continue
            yield from sorted(twice)
            yield from moments
            twice.clear()
        yield from sorted(twice)

    def _at(self, moment: float) -> datetime:
        """What the clock shows at ``moment``."""
        return datetime.fromtimestamp(math.floor(moment), self.zone).replace(tzinfo=None, fold=0)

    def _moments(self, shown: datetime) -> list[float]:
        """When the clock shows this: once as a rule, never in a gap, twice where it was turned back."""
        moments = sorted({shown.replace(tzinfo=self.zone, fold=fold).timestamp() for fold in (0, 1)})
        return [moment for moment in moments if self._at(moment) == shown]

    def _clock_times(self, start: datetime) -> Iterator[datetime]:
        """Times of the line after ``start`` on a clock that is never turned."""
        years = self.line.years
        try:
            for shown in CronSim(self.line.text, start):
                if not years or shown.year in years:
                    yield shown
                elif shown.year > max(years):
                    return
        except CronSimError:
            return


@lru_cache(maxsize=4096)
def parse(schedule: Schedule) -> DueTimes:
    """The due times of ``schedule``.

    Raises
    ------
    ScheduleError
        When the cron line is wrong (which field, what may stand there) or never due, or there is no such time zone
        (near names are suggested).

    Examples
    --------
    >>> times = parse(Schedule("30 2 * * *", "Europe/Berlin"))
    >>> due = times.after(1774738800.0)  # 2026-03-29 00:00 in Berlin, where 02:30 does not exist on this day
    >>> datetime.fromtimestamp(due, times.zone).isoformat()
    '2026-03-29T03:00:00+02:00'
    """
    times = DueTimes(read_line(schedule.cron), find_zone(schedule.timezone))
    if times.after(SOME_LEAP_CYCLE) == math.inf:
        raise ScheduleError(f"Cron line {schedule.cron!r} is never due: no month of it has such a day.")
    return times


@lru_cache(maxsize=4096)
def next_due(schedule: Schedule, moment: float) -> float:
    """``parse(schedule).after(moment)``, remembered: a scheduler asks for the same many times."""
    return parse(schedule).after(moment)


def find_zone(name: str) -> tzinfo:
    """The time zone ``name``; UTC for an empty one."""
    try:
        return ZoneInfo(name or "UTC")
    except (LookupError, ValueError, OSError):
        near = find_near_zones(name)
        hint = f"did you mean {' or '.join(near)}?" if near else "Names are such as Europe/Berlin or UTC."
        raise ScheduleError(f"There is no time zone {name!r}; {hint}") from None


def find_near_zones(name: str) -> list[str]:
    """Names of time zones like ``name``, the nearest first."""
    by_key = {key: zone for zone in sorted(available_timezones()) for key in (zone.lower(), take_last_part(zone))}
    wanted = [name.strip().lower(), take_last_part(name)]
    keys = [key for word in wanted for key in difflib.get_close_matches(word, by_key, n=3, cutoff=0.7)]
    return list(dict.fromkeys(by_key[key] for key in keys))[:3]


def take_last_part(zone: str) -> str:
    """``berlin`` of ``Europe/Berlin``."""
    return zone.strip().lower().rpartition("/")[2].replace(" ", "_")
