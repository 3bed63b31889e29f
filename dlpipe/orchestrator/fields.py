"""Cron lines read field by field, with errors that say which field is wrong and what may stand there.

The line comes back in the form that ``cronsim`` reads. Two forms come in: Unix' five fields, with weekdays from 0
or 7, Sunday, to 6, and EventBridge's six with weekdays from 1, Sunday, to 7 and a year. In both, ``?`` stands for
a day that does not matter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from dlpipe.errors import ScheduleError

DAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
FORMS = "minute hour day-of-month month day-of-week, and in EventBridge's form a year after them"


@dataclass(frozen=True)
class CronField:
    """What may stand in a field: numbers from ``low`` to ``high``, names for them, ``?`` and special terms."""

    name: str
    low: int
    high: int
    names: Mapping[str, int] = field(default_factory=dict)
    any_day: bool = False
    specials: str = ""

    @property
    def allowed(self) -> str:
        """What may stand in it, in words."""
        names = f" or {next(iter(self.names))}-{list(self.names)[-1]}" if self.names else ""
        special = f", {self.specials}" if self.specials else ""
        mark = "?, " if self.any_day else ""
        terms = "lists (a,b), ranges (a-b) and steps (*/n, a/n, a-b/n)"
        return f"{self.low}-{self.high}{names}, {mark}*, {terms}{special}"


@dataclass(frozen=True)
class CronLine:
    """A cron line as ``cronsim`` reads it, and the years to which it is confined; empty for all."""

    text: str
    years: frozenset[int] = frozenset()

    @property
    def is_fixed(self) -> bool:
        """Whether it names times of day, which changes of the clock must neither lose nor double."""
        minute, hour, *_ = self.text.split()
        return not minute.startswith("*") and not hour.startswith("*")


MONTH_DAY = CronField("day-of-month", 1, 31, any_day=True, specials="L (the last day), LW (the last weekday)")
NTH_DAY = "dL (the last such day of the month), d#n (the n-th)"
BEFORE_DAYS = (CronField("minute", 0, 59), CronField("hour", 0, 23), MONTH_DAY)
MONTH = CronField("month", 1, 12, {name: number for number, name in enumerate(MONTHS, 1)})
UNIX_DAY = CronField("day-of-week", 0, 7, {name: number for number, name in enumerate(DAYS)}, True, NTH_DAY)
BRIDGE_DAY = CronField("day-of-week", 1, 7, {name: number for number, name in enumerate(DAYS, 1)}, True, NTH_DAY)
YEAR = CronField("year", 1970, 2199)
UNIX = (*BEFORE_DAYS, MONTH, UNIX_DAY)
BRIDGE = (*BEFORE_DAYS, MONTH, BRIDGE_DAY, YEAR)


def read_line(cron: str) -> CronLine:
    """The cron line ``cron`` in the form of ``cronsim``.

    Raises
    ------
    ScheduleError
        When it is wrong: which field, what stands there, what may.

    Examples
    --------
    >>> read_line("0 8-18/2 ? * MON-FRI *").text
    '0 8,10,12,14,16,18 * * 1,2,3,4,5'
    >>> read_line("0 24 * * *")
    Traceback (most recent call last):
    ...
    dlpipe.errors.ScheduleError: Cron line '0 24 * * *': hour '24' is not in 0-23.
    """
    parts = cron.upper().split()
    if len(parts) not in (5, 6):
        raise ScheduleError(f"Cron line {cron!r} has {len(parts)} of the 5 or 6 fields that it needs: {FORMS}.")
    fields = UNIX if len(parts) == 5 else BRIDGE
    try:
        texts = [read_field(part, field) for part, field in zip(parts, fields, strict=True)]
        years = read_years(parts[5]) if len(parts) == 6 else frozenset()
        if len(parts) == 6 and all(not part.startswith(("*", "?")) for part in (parts[2], parts[4])):
            raise ValueError("of day-of-month and day-of-week, one must be ? in the form of six fields")
    except ValueError as error:
        raise ScheduleError(f"Cron line {cron!r}: {error}.") from None
    return CronLine(" ".join(texts[:5]), years)


def read_years(part: str) -> frozenset[int]:
    """The years of a field; empty for all."""
    text = read_field(part, YEAR)
    return frozenset() if text == "*" else frozenset(int(year) for year in text.split(","))


def read_field(part: str, field: CronField) -> str:
    """``part`` for ``cronsim``: numbers with commas between them, with a star in front where one was."""
    if part == "?" and field.any_day:
        return "*"
    terms = [read_term(term, field) for term in part.split(",")]
    if ["*"] in terms:
        return "*"
    texts = list(dict.fromkeys(text for term in terms for text in term))
    # cronsim tells by a leading star whether a line follows real time, and whether both days must fit
    if part.startswith("*/") and field is not YEAR:
        texts.insert(0, part.split(",")[0])
    return ",".join(texts)


def read_term(term: str, field: CronField) -> list[str]:
    """What stands between commas, as numbers and special terms."""
    special = read_special(term, field)
    if special:
        return [special]
    body, slash, step_text = term.partition("/")
    first, dash, last = body.partition("-")
    if body == "*":
        start, end = field.low, field.high
    else:
        start = read_number(first, field, term)
        end = read_number(last, field, term) if dash else field.high if slash else start
    if end < start:
        raise ValueError(f"{field.name} {term!r} runs backwards; allowed: {field.allowed}")
    if slash and not (step_text.isdecimal() and int(step_text) > 0):
        raise ValueError(f"{field.name} {term!r} has a step that is no number from 1; allowed: {field.allowed}")
    if body == "*" and not slash:
        return ["*"]
    numbers = range(start, end + 1, int(step_text) if slash else 1)
    return list(
        dict.fromkeys(
            str(normalize_number(number, field)) for number in numbers if not (slash and is_eighth(number, field))
        )
    )


def read_special(term: str, field: CronField) -> str:
    """``term`` if it is one of the special terms of a day; empty if it is none."""
    if field is MONTH_DAY:
        if term.endswith("W") and term != "LW":
            raise ValueError(
                f"{field.name} {term!r}: the weekday nearest to a day is not supported, only L and LW are"
            )
        if term.startswith("L-"):
            raise ValueError(f"{field.name} {term!r}: days before the last are not supported, only L and LW are")
        return term if term in ("L", "LW") else ""
    if field not in (UNIX_DAY, BRIDGE_DAY):
        return ""
    if term == "L" and field is BRIDGE_DAY:
        return "6"  # the last day of the week
    if term.endswith("L"):
        return f"{normalize_number(read_number(term[:-1], field, term), field)}L"
    day, mark, nth = term.partition("#")
    if not mark:
        return ""
    if nth not in ("1", "2", "3", "4", "5"):
        raise ValueError(f"{field.name} {term!r}: after # stands 1 to 5")
    return f"{normalize_number(read_number(day, field, term), field)}#{nth}"


def read_number(text: str, field: CronField, term: str) -> int:
    """The number that ``text`` is or names."""
    if text in field.names:
        return field.names[text]
    if not (text.isascii() and text.isdecimal()):
        raise ValueError(f"{field.name} {term!r} is not understood; allowed: {field.allowed}")
    if not field.low <= int(text) <= field.high:
        raise ValueError(f"{field.name} {term!r} is not in {field.low}-{field.high}")
    return int(text)


def normalize_number(number: int, field: CronField) -> int:
    """``number`` with weekdays from 0, Sunday, to 6."""
    return number % 7 if field is UNIX_DAY else number - 1 if field is BRIDGE_DAY else number


def is_eighth(number: int, field: CronField) -> bool:
    """Whether steps have come round to the Sunday with which they could have begun."""
    return field is UNIX_DAY and number == 7
