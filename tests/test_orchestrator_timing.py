"""Due times: both cron forms, time zones, changes of the clock, and errors that say what is wrong."""

from __future__ import annotations

import itertools
import math
import random
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from cron_oracle import due_times

from dlpipe.errors import ScheduleError
from dlpipe.orchestrator.deployments import Schedule
from dlpipe.orchestrator.timing import next_due, parse

YEAR = (datetime(2026, 1, 1, tzinfo=UTC).timestamp(), datetime(2027, 1, 1, tzinfo=UTC).timestamp())
ZONES = (
    *(
        "Europe/Berlin",
        "America/New_York",
        "America/St_Johns",
        "America/Santiago",
        "America/Havana",
        "Asia/Tehran",
    ),
    *(
        "Australia/Lord_Howe",
        "Pacific/Chatham",
        "Pacific/Apia",
        "Africa/Cairo",
        "Africa/Casablanca",
        "Asia/Beirut",
    ),
    *("Atlantic/Azores", "Antarctica/Troll", "America/Asuncion", "Asia/Kolkata", "UTC"),
)


def locals_of(cron: str, zone: str, start: str, count: int) -> list[str]:
    """The first due times from the clock time ``start`` on, as that clock shows them."""
    where = ZoneInfo(zone)
    begin = datetime.fromisoformat(start).replace(tzinfo=where).timestamp()
    dues = itertools.islice(parse(Schedule(cron, zone)).between(begin, math.inf), count)
    return [datetime.fromtimestamp(due, where).isoformat(timespec="minutes") for due in dues]


def test_what_metaflow_makes_of_hourly_daily_and_weekly_is_due_then() -> None:
    assert locals_of("0 * * * ? *", "UTC", "2026-11-27T09:30", 2) == [
        "2026-11-27T10:00+00:00",
        "2026-11-27T11:00+00:00",
    ]
    assert locals_of("0 0 * * ? *", "UTC", "2026-11-27T09:30", 2) == [
        "2026-11-28T00:00+00:00",
        "2026-11-29T00:00+00:00",
    ]
    assert locals_of("0 0 ? * SUN *", "UTC", "2026-11-27T09:30", 2) == [
        "2026-11-29T00:00+00:00",
        "2026-12-06T00:00+00:00",
    ]


@pytest.mark.parametrize(
    ("bridge", "unix"),
    [
        ("0 9 ? * 2-6 *", "0 9 * * 1-5"),
        ("0 9 ? * MON-FRI *", "0 9 * * 1-5"),
        ("15 10 ? * 6L *", "15 10 * * 5L"),
        ("0 0 ? * 3#1 *", "0 0 * * 2#1"),
        ("0 0 ? * L *", "0 0 * * 6"),
        ("0/15 3 * * ? *", "0,15,30,45 3 * * *"),
        ("0 0 L * ? *", "0 0 L * *"),
        ("0 0 1,15 JAN,7 ? *", "0 0 1,15 1,7 *"),
        ("0 0 ? * 1/2 *", "0 0 * * 0,2,4,6"),
        ("0 0 ? * 7 *", "0 0 * * sat"),
    ],
)
def test_eventbridge_counts_weekdays_from_sunday_as_one(bridge: str, unix: str) -> None:
    one, other = parse(Schedule(bridge)), parse(Schedule(unix))
    assert list(one.between(*YEAR)) == list(other.between(*YEAR)) != []


def test_years_of_eventbridge_confine_due_times() -> None:
    assert locals_of("0 12 1 1 ? 2027-2028", "UTC", "2026-01-01T00:00", 9) == [
        "2027-01-01T12:00+00:00",
        "2028-01-01T12:00+00:00",
    ]
    assert parse(Schedule("0 12 1 1 ? 2020")).after(YEAR[0]) == math.inf


def test_the_last_weekday_of_a_month_is_found() -> None:
    assert locals_of("0 9 LW * ? *", "UTC", "2026-01-01T00:00", 3) == [
        "2026-01-30T09:00+00:00",
        "2026-02-27T09:00+00:00",
        "2026-03-31T09:00+00:00",
    ]


def test_a_time_in_the_gap_fires_at_the_first_moment_after_it() -> None:
    assert locals_of("30 2 * * *", "Europe/Berlin", "2026-03-28T00:00", 3) == [
        "2026-03-28T02:30+01:00",
        "2026-03-29T03:00+02:00",
        "2026-03-30T02:30+02:00",
    ]
    # two times in the gap, and its end, are one moment
    assert locals_of("0,30 2,3 * * *", "Europe/Berlin", "2026-03-29T00:00", 2) == [
        "2026-03-29T03:00+02:00",
        "2026-03-29T03:30+02:00",
    ]


def test_a_time_that_comes_twice_fires_the_first_time_only() -> None:
    assert locals_of("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00", 2) == [
        "2026-10-25T02:30+02:00",
        "2026-10-26T02:30+01:00",
    ]
    first = datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Berlin")).timestamp()
    # asked in the hour that comes again
    assert parse(Schedule("30 2 * * *", "Europe/Berlin")).after(first + 1800) > first + 86400


def test_lines_with_stars_follow_real_time_over_changes_of_the_clock() -> None:
    spring = locals_of("0 * * * *", "Europe/Berlin", "2026-03-29T00:30", 3)
    assert spring == ["2026-03-29T01:00+01:00", "2026-03-29T03:00+02:00", "2026-03-29T04:00+02:00"]
    autumn = locals_of("0 * * * *", "Europe/Berlin", "2026-10-25T01:30", 3)
    assert autumn == ["2026-10-25T02:00+02:00", "2026-10-25T02:00+01:00", "2026-10-25T03:00+01:00"]
    dues = list(parse(Schedule("*/15 * * * *", "America/New_York")).between(*YEAR))
    assert {later - due for due, later in itertools.pairwise(dues)} == {900.0}


def random_line(draw: random.Random) -> str:
    def part(low: int, high: int, steps: tuple[int, ...]) -> str:
        some = sorted(draw.sample(range(low, high + 1), 3))
        return draw.choice(
            ["*", "*", f"*/{draw.choice(steps)}", str(some[0]), ",".join(map(str, some)), f"{some[0]}-{some[1]}"]
        )

    hours = draw.choice([part(0, 23, (2, 3, 6)), "0", "1", "2", "3", "23", "0-3", "2,3"])
    day = draw.choice(["*", "*", "*", part(1, 31, (2,))])
    weekday = draw.choice(["*", "*", "*", "SUN", "MON-FRI", "6#1", "0#5", "0,6", "7"])
    month = draw.choice(["*", "*", "*", part(1, 12, (2,))])
    return f"{part(0, 59, (5, 7, 15, 30, 59))} {hours} {day} {month} {weekday}"


def change_near(draw: random.Random, zone: str) -> float:
    """A change of the zone's clock in some year, or any hour where it is never changed."""
    year = draw.choice([2011, 2023, 2024, 2025, 2026, 2027])
    begin, where = datetime(year, 1, 1, tzinfo=UTC).timestamp(), ZoneInfo(zone)
    hours = [begin + hour * 3600.0 for hour in range(8760)]
    offsets = [datetime.fromtimestamp(hour, where).utcoffset() for hour in hours]
    changes = [hours[i + 1] for i in range(8759) if offsets[i] != offsets[i + 1]]
    return draw.choice(changes or hours)


@pytest.mark.parametrize("zone", ZONES)
def test_due_times_are_those_of_naive_enumeration_around_changes_of_the_clock(zone: str) -> None:
    draw = random.Random(zone)
    compared = 0
    for _ in range(5):
        change = change_near(draw, zone)
        for _ in range(6):
            line = random_line(draw)
            start = change - draw.randrange(30 * 3600)
            end = change + draw.randrange(40 * 3600)
            expected = due_times(line, zone, start, end)
            times = parse(Schedule(line, zone))
            assert list(times.between(start, end)) == expected, (line, start, end)
            assert times.latest(start, end, 5) == expected[-5:]
            compared += len(expected)
    assert compared > 50


def test_after_is_strictly_later_at_fractions_of_seconds() -> None:
    times = parse(Schedule("* * * * *"))
    assert [times.after(moment) for moment in (59.0, 59.999, 60.0, 60.001)] == [60.0, 60.0, 120.0, 120.0]
    assert list(times.between(60.0, 180.0)) == [120.0, 180.0]


def test_the_latest_due_times_of_years_are_found_from_the_end() -> None:
    times = parse(Schedule("* * * * *"))
    assert times.latest(0.0, YEAR[0], 3) == [YEAR[0] - 120, YEAR[0] - 60, YEAR[0]]
    assert times.latest(YEAR[0] - 61, YEAR[0], 3) == [YEAR[0] - 60, YEAR[0]]
    assert times.latest(0.0, YEAR[0], 0) == []


def test_the_next_due_time_is_remembered() -> None:
    schedule = Schedule("0 4 * * *", "Asia/Tokyo")
    assert next_due(schedule, YEAR[0]) == parse(schedule).after(YEAR[0])
    before = next_due.cache_info().hits
    next_due(schedule, YEAR[0])
    assert next_due.cache_info().hits == before + 1


@pytest.mark.parametrize(
    ("cron", "said"),
    [
        ("0 24 * * *", "hour '24' is not in 0-23"),
        ("60 * * * *", "minute '60' is not in 0-59"),
        ("0 0 0 * *", "day-of-month '0' is not in 1-31"),
        ("0 0 * 13 *", "month '13' is not in 1-12"),
        ("0 0 * * 8", "day-of-week '8' is not in 0-7"),
        ("0 0 ? * 0 *", "day-of-week '0' is not in 1-7"),
        ("0 0 * * ? 1969", "year '1969' is not in 1970-2199"),
        ("x * * * *", "minute 'X' is not understood; allowed: 0-59"),
        ("0 0 * FOO *", "month 'FOO' is not understood; allowed: 1-12 or JAN-DEC"),
        ("5-1 * * * *", "minute '5-1' runs backwards"),
        ("*/0 * * * *", "minute '*/0' has a step that is no number from 1"),
        ("1,,2 * * * *", "minute '' is not understood"),
        ("? * * * *", "minute '?' is not understood"),
        ("0 0 15W * ? *", "day-of-month '15W': the weekday nearest to a day is not supported"),
        ("0 0 L-2 * ? *", "day-of-month 'L-2': days before the last are not supported"),
        ("0 0 ? * 2#6 *", "day-of-week '2#6': after # stands 1 to 5"),
        ("0 0 1 * MON *", "one must be ? in the form of six fields"),
        ("0 0 * *", "has 4 of the 5 or 6 fields that it needs: minute hour"),
        ("bogus", "has 1 of the 5 or 6 fields"),
        ("", "has 0 of the 5 or 6 fields"),
        ("0 0 31 2 *", "is never due"),
        ("0 0 30 2 ? *", "is never due"),
    ],
)
def test_a_wrong_cron_line_says_which_field_and_what_is_allowed(cron: str, said: str) -> None:
    with pytest.raises(ScheduleError) as error:
        parse(Schedule(cron))
    assert said in str(error.value)
    assert repr(cron) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("zone", "near"),
    [
        ("Europe/Berln", "Europe/Berlin"),
        ("Berlin", "Europe/Berlin"),
        ("europe/berlin", "Europe/Berlin"),
        ("New York", "America/New_York"),
        ("America/Los_Angelos", "America/Los_Angeles"),
        ("../../etc/passwd", "Names are such as Europe/Berlin"),
        ("No/Where", "No/Where"),
    ],
)
def test_an_unknown_time_zone_is_refused_with_near_names(zone: str, near: str) -> None:
    with pytest.raises(ScheduleError, match="There is no time zone") as error:
        parse(Schedule("0 0 * * *", zone))
    assert near in str(error.value)
