"""Moments and lengths of time as texts: for people with the time zone, for programs as ISO 8601."""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo


def format_time(at: float, zone: str = "UTC") -> str:
    """Seconds since 1970 as date and time with the time zone.

    Examples
    --------
    >>> format_time(1795757400, "Europe/Berlin"), format_time(0)
    ('2026-11-27 06:30 Europe/Berlin', '1970-01-01 00:00 UTC')
    """
    moment = datetime.fromtimestamp(at, UTC if zone == "UTC" else _find_zone(zone))
    return f"{moment:%Y-%m-%d %H:%M}{f':{moment:%S}' if moment.second else ''} {zone}"


def format_moment(moment: datetime) -> str:
    """A moment with a time zone as people read it in UTC, to the second.

    Examples
    --------
    >>> format_moment(to_moment(1795757412345))
    '2026-11-27 05:30:12 UTC'
    """
    return format_time(moment.timestamp() // 1)


def to_moment(milliseconds: float) -> datetime:
    """Milliseconds since 1970 as a moment in UTC, to the second."""
    return datetime.fromtimestamp(milliseconds // 1000, UTC)


def read_iso(given: str) -> datetime:
    """Return the moment that is written as ISO 8601, in UTC; without a time zone it is one of UTC.

    Raises
    ------
    ValueError
        When it is none, or in UTC not in the years 1 to 9999.

    Examples
    --------
    >>> read_iso("2026-01-31T12:00:00+02:00").isoformat()
    '2026-01-31T10:00:00+00:00'
    """
    moment = datetime.fromisoformat(given)
    try:
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except OverflowError as error:
        raise ValueError(str(error)) from None


def format_span(seconds: float) -> str:
    """A length of time in its two largest units.

    Examples
    --------
    >>> [format_span(seconds) for seconds in (0.21, 4.26, 75, 3 * 3600 + 240, 2 * 86400)]
    ['0.2 s', '4.3 s', '1 min 15 s', '3 h 4 min', '2 d 0 h']
    """
    if seconds < 10:
        return f"{max(seconds, 0.0):.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 24 else f"{hours // 24} d {hours % 24} h"


def format_distance(at: float, now: float) -> str:
    """How far ``at`` is from ``now``.

    Examples
    --------
    >>> format_distance(100, 40), format_distance(40, 100)
    ('in 1 min 0 s', '1 min 0 s ago')
    """
    return f"in {format_span(at - now)}" if at >= now else f"{format_span(now - at)} ago"


def format_iso(at: float, zone: tzinfo = UTC) -> str:
    """Seconds since 1970 as ISO 8601, on the clock of ``zone``."""
    return datetime.fromtimestamp(at, zone).isoformat(timespec="seconds")


def _find_zone(name: str) -> tzinfo:
    from zoneinfo import ZoneInfo

    return ZoneInfo(name)
