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
from datetime import datetime, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError

from dlpipe.errors import ScheduleError
from dlpipe.orchestrator.deployments import Schedule
from dlpipe.orchestrator.fields import Line, read_line

HOUR = 3600.0
SOME_LEAP_CYCLE = 946684800.0
"""The year 2000: a line that is never due from here never is."""


@dataclass(frozen=True)
class Times:
    """The due times of a schedule, in seconds since 1970."""

    line: Line
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
        """The last ``count`` of :meth:`between`, found from the end: ``start`` may be years back."""
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
        for local in self._locals(moment):
            due = local.timestamp()
            # cronsim comes back to the first of two equal hours, gives the end of a gap for all that was in it,
            # and may give a time in a gap to a line that follows real time
            if due > last and (self.line.is_fixed or is_real(local)):
                yield due
                last = due

    def _locals(self, moment: float) -> Iterator[datetime]:
        start = datetime.fromtimestamp(math.floor(moment), self.zone)
        years = self.line.years
        try:
            for local in CronSim(self.line.text, start):
                if not years or local.year in years:
                    yield local
                elif local.year > max(years):
                    return
        except CronSimError:
            return


@lru_cache(maxsize=4096)
def parse(schedule: Schedule) -> Times:
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
    times = Times(read_line(schedule.cron), find_zone(schedule.timezone))
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
        near = near_zones(name)
        hint = f"did you mean {' or '.join(near)}?" if near else "Names are such as Europe/Berlin or UTC."
        raise ScheduleError(f"There is no time zone {name!r}; {hint}") from None


def near_zones(name: str) -> list[str]:
    """Names of time zones like ``name``, the nearest first."""
    by_key = {key: zone for zone in sorted(available_timezones()) for key in (zone.lower(), last_part(zone))}
    wanted = [name.strip().lower(), last_part(name)]
    keys = [key for one in wanted for key in difflib.get_close_matches(one, by_key, n=3, cutoff=0.7)]
    return list(dict.fromkeys(by_key[key] for key in keys))[:3]


def last_part(zone: str) -> str:
    """``berlin`` of ``Europe/Berlin``."""
    return zone.strip().lower().rpartition("/")[2].replace(" ", "_")


def is_real(local: datetime) -> bool:
    """Whether clocks show this time on its day."""
    back = datetime.fromtimestamp(local.timestamp(), local.tzinfo)
    return back.replace(tzinfo=None, fold=0) == local.replace(tzinfo=None, fold=0)
