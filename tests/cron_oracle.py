"""Due times by naive enumeration: croniter reads the line, each minute of real time is asked whether it fits."""

from __future__ import annotations

import calendar
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from croniter import croniter

MINUTE = 60
DAY = 86400


def due_times(unix_line: str, zone: str, start: float, end: float) -> list[float]:
    """All due times later than ``start`` and not later than ``end``."""
    minute, hour, *_ = unix_line.split()
    star = minute.startswith("*") or hour.startswith("*")
    days = [one for one in local_days(zone, start - 2 * DAY, end + 2 * DAY) if fits_day(unix_line, one)]
    minutes, hours = numbers(unix_line, 0, range(60)), numbers(unix_line, 1, range(24))
    found = real_times if star else fixed_times
    return sorted({due for one in days for due in found(one, minutes, hours, zone) if start < due <= end})


def local_days(zone: str, start: float, end: float) -> Iterator[date]:
    day = datetime.fromtimestamp(start, ZoneInfo(zone)).date()
    last = datetime.fromtimestamp(end, ZoneInfo(zone)).date()
    while day <= last:
        yield day
        day += timedelta(days=1)


def numbers(line: str, place: int, every: range) -> set[int]:
    """The values of a field; croniter expands it."""
    expanded = croniter.expand(line)[0][place]
    return set(every) if "*" in expanded else {int(one) for one in expanded}


def fits_day(line: str, day: date) -> bool:
    """Whether the day's three fields fit, by the rule of cron for the two days."""
    _, _, month_days, _, weekdays = line.split()
    if day.month not in numbers(line, 3, range(1, 13)):
        return False
    expanded, nth = croniter.expand(line)
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


def real_times(day: date, minutes: set[int], hours: set[int], zone: str) -> Iterator[float]:
    """Each minute of real time whose clock shows ``day`` and a wanted hour and minute."""
    begin = int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())
    where = ZoneInfo(zone)
    for moment in range(begin - DAY, begin + 2 * DAY, MINUTE):
        local = datetime.fromtimestamp(moment, where)
        if local.date() == day and local.minute in minutes and local.hour in hours:
            yield float(moment)


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
