"""Due times by naive enumeration: croniter reads the line, each minute of real time is asked whether it fits."""

from __future__ import annotations

import calendar
import functools
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
from croniter import croniter

MINUTE = 60
QUARTER = 900
DAY = 86400


def due_times(unix_line: str, zone: str, start: float, end: float) -> list[float]:
    """All due times later than ``start`` and not later than ``end``."""
    minute, hour, *_ = unix_line.split()
    days = {one for one in local_days(zone, start - 2 * DAY, end + 2 * DAY) if fits_day(unix_line, one)}
    minutes, hours = numbers(unix_line, 0, range(60)), numbers(unix_line, 1, range(24))
    if minute.startswith("*") or hour.startswith("*"):
        return real_times(days, minutes, hours, zone, start, end)
    found = (due for one in days for due in fixed_times(one, minutes, hours, zone))
    return sorted({due for due in found if start < due <= end})


def local_days(zone: str, start: float, end: float) -> Iterator[date]:
    day = datetime.fromtimestamp(start, ZoneInfo(zone)).date()
    last = datetime.fromtimestamp(end, ZoneInfo(zone)).date()
    while day <= last:
        yield day
        day += timedelta(days=1)


@functools.cache
def expand(line: str) -> tuple[list[list[int | str]], dict[int, set[int | str]]]:
    """What croniter makes of the five fields, and of weekdays that are the n-th or last of their month."""
    return croniter.expand(line)


def numbers(line: str, place: int, every: range) -> set[int]:
    """The values of a field; croniter expands it."""
    expanded = expand(line)[0][place]
    return set(every) if "*" in expanded else {int(one) for one in expanded}


def fits_day(line: str, day: date) -> bool:
    """Whether the day's three fields fit, by the rule of cron for the two days."""
    _, _, month_days, _, weekdays = line.split()
    if day.month not in numbers(line, 3, range(1, 13)):
        return False
    expanded, nth = expand(line)
    month_day = "*" in expanded[2] or any(
        day.day == (calendar.monthrange(day.year, day.month)[1] if one == "l" else one) for one in expanded[2]
    )
    weekday = day.isoweekday() % 7
    week = "*" in expanded[4] or weekday in {int(one) % 7 for one in expanded[4]}
    if nth:
        week = any(is_nth(day, one) for one in nth.get(weekday, ()))
    if month_days.startswith("*") or weekdays.startswith("*"):
        return month_day and week
    return month_day or week


def is_nth(day: date, nth: int | str) -> bool:
    if nth == "l":
        return day.day + 7 > calendar.monthrange(day.year, day.month)[1]
    return (day.day - 1) // 7 + 1 == int(nth)


def real_times(
    days: set[date], minutes: set[int], hours: set[int], zone: str, start: float, end: float
) -> list[float]:
    """Each minute of real time whose clock shows a wanted day, hour and minute."""
    moments = np.arange(start // MINUTE * MINUTE + MINUTE, end + 1, MINUTE)
    shown = (moments + offsets(zone, moments)) // MINUTE
    ordinals = [one.toordinal() - date(1970, 1, 1).toordinal() for one in days]
    fits = np.isin(shown % 60, sorted(minutes)) & np.isin(shown // 60 % 24, sorted(hours))
    return [float(one) for one in moments[fits & np.isin(shown // 1440, ordinals)] if start < one <= end]


def offsets(zone: str, moments: np.ndarray) -> np.ndarray:
    """How far the clock is ahead of UTC at each moment; it is never changed within a quarter of an hour."""
    where = ZoneInfo(zone)
    quarters, place = np.unique(moments // QUARTER, return_inverse=True)
    found = [datetime.fromtimestamp(one * QUARTER, where).utcoffset() for one in quarters]
    return np.array([one.total_seconds() for one in found if one is not None])[place]


def fixed_times(day: date, minutes: set[int], hours: set[int], zone: str) -> Iterator[float]:
    """The first moment of real time at which the clock shows each wanted time of ``day`` or a later one."""
    where = ZoneInfo(zone)
    for hour in hours:
        for minute in minutes:
            wanted = datetime(day.year, day.month, day.day, hour, minute)
            if shows(wanted, where):
                yield wanted.replace(tzinfo=where).timestamp()
            else:
                yield end_of_gap(wanted, where)


def shows(wanted: datetime, where: ZoneInfo) -> bool:
    there = wanted.replace(tzinfo=where)
    return datetime.fromtimestamp(there.timestamp(), where).replace(tzinfo=None, fold=0) == wanted


def end_of_gap(wanted: datetime, where: ZoneInfo) -> float:
    moment = int(wanted.replace(tzinfo=UTC).timestamp()) - DAY
    while datetime.fromtimestamp(moment, where).replace(tzinfo=None) < wanted:
        moment += MINUTE
    return float(moment)
