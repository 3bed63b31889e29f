"""Which rows of a table are wanted, as a person writes it: ``label = 'positive' and length > 3``.

What is written is cut into words and made an expression of Arrow here: it can name columns and values, and do
nothing else. As in SQL, a comparison with a missing value is neither true nor false, and such a row is left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from dlpipe.errors import SettingError

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow.dataset import Expression

LONGEST, DEEPEST = 10_000, 50
"""Characters of a condition, and parentheses in each other: Arrow goes through them by recursion."""
WORDS = re.compile(
    r"""\s*(?:
    (?P<text>'(?:[^']|'')*')
    |(?P<quoted>"(?:[^"]|"")*"|`[^`]+`)
    |(?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?(?![\w.]))
    |(?P<name>[^\W\d][\w.-]*)
    |(?P<sign><=|>=|<>|!=|==|=|<|>|\(|\)|,)
    |(?P<end>$)
    )""",
    re.VERBOSE,
)
SIGNS: Mapping[str, Callable[[Any, Any], Any]] = {
    "=": lambda column, value: column == value,
    "==": lambda column, value: column == value,
    "!=": lambda column, value: column != value,
    "<>": lambda column, value: column != value,
    "<": lambda column, value: column < value,
    "<=": lambda column, value: column <= value,
    ">": lambda column, value: column > value,
    ">=": lambda column, value: column >= value,
}
EXAMPLE = "label = 'positive' and split in ('train', 'test')"


class Word(NamedTuple):
    """A word of a condition: its kind, what stands there, and from which character on."""

    kind: str
    text: str
    at: int


@dataclass(frozen=True)
class Condition:
    """Which rows are wanted.

    Attributes
    ----------
    expression : pyarrow.dataset.Expression
        True for those rows.
    columns : tuple of str
        The columns that it reads.
    prunes : bool
        Whether the statistics of a file may say that none of its rows is wanted. They say nothing of NaN, of which
        the opposite of a comparison is true.
    """

    expression: Expression
    columns: tuple[str, ...]
    prunes: bool


def parse_condition(written: str, schema: pa.Schema, *, stored: Mapping[str, str] | None = None) -> Condition:
    """Return the condition that is written, over the columns of ``schema``.

    Parameters
    ----------
    written : str
    schema : pyarrow.Schema
    stored : mapping of str to str, optional
        What the expression calls each column; by default its own name.

    Comparisons are ``=``, ``!=``, ``<``, ``<=``, ``>``, ``>=``, ``is null``, ``is not null``, ``in (...)``,
    ``between ... and ...`` and ``like`` (with ``%`` and ``_``); they are joined by ``and``, ``or``, ``not`` and
    parentheses. Texts stand in single quotes, names of columns that are no plain words in double ones. A column of
    lists is compared with ``has``: ``label has 'refund'``.

    Raises
    ------
    SettingError
        When it is none; the message names the place, and what can stand there.

    Examples
    --------
    >>> import pyarrow as pa
    >>> rows = pa.table({"label": ["good", "bad", None], "stars": [5, 1, 3]})
    >>> found = parse_condition("stars > 2 and not label = 'bad'", rows.schema)
    >>> rows.filter(found.expression).to_pylist(), found.columns
    ([{'label': 'good', 'stars': 5}], ('stars', 'label'))
    """
    if len(written) > LONGEST:
        raise SettingError(f"--where has {len(written):,} characters; {LONGEST:,} are read. Write a shorter one.")
    return _Parser(written, schema, stored or {}).parse()


class _Parser:
    """Reads a condition from left to right, a method for each of its forms."""

    def __init__(self, written: str, schema: pa.Schema, stored: Mapping[str, str]) -> None:
        self.written, self.schema, self.stored = written, schema, stored
        self.words, self.place, self.depth = _cut_words(written), 0, 0
        self.columns: dict[str, None] = {}
        self.negates = False

    def parse(self) -> Condition:
        import pyarrow as pa

        found = self._read_either()
        if self._peek().kind != "end":
            raise self._refuse(self._peek(), "and, or, or the end")
        floating = any(pa.types.is_floating(self.schema.field(name).type) for name in self.columns)
        return Condition(found, tuple(self.columns), prunes=not (floating and self.negates))

    def _read_either(self) -> Expression:
        found = self._read_both()
        while self._take("or"):
            found = found | self._read_both()
        return found

    def _read_both(self) -> Expression:
        found = self._read_one()
        while self._take("and"):
            found = found & self._read_one()
        return found

    def _read_one(self) -> Expression:
        self.depth += 1
        if self.depth > DEEPEST:
            raise SettingError(f"--where is more than {DEEPEST} parentheses deep. Write it with fewer.")
        try:
            if self._take("not"):
                self.negates = True
                return ~self._read_one()
            if self._take("("):
                found = self._read_either()
                self._expect(")")
                return found
            return self._read_comparison()
        finally:
            self.depth -= 1

    def _read_comparison(self) -> Expression:
        name, column = self._read_column()
        kind = self.schema.field(name).type
        if self._take("is"):
            negated = self._take("not")
            self._expect("null")
            return ~column.is_null() if negated else column.is_null()
        if self._take("has"):
            return self._read_membership(name, column, kind)
        if (negated := self._take("not")) and self._peek().text.lower() not in ("in", "between", "like"):
            raise self._refuse(self._peek(), "in, between or like")
        self._check_comparable(name, kind)
        found = self._read_range(name, column, kind)
        self.negates |= negated
        return ~found if negated else found

    def _read_range(self, name: str, column: Expression, kind: pa.DataType) -> Expression:
        import pyarrow as pa
        import pyarrow.compute as pc

        if self._take("in"):
            read = [value.as_py() for value in self._read_values(name, kind)]
            values = pa.array(_leave_out_impossible(read, kind), kind)
            # Arrow says false of a missing value, and its opposite would be true
            return pc.if_else(column.is_valid(), column.isin(values), pa.scalar(None, pa.bool_()))
        if self._take("between"):
            low = self._read_value(name, kind)
            self._expect("and")
            return (column >= low) & (column <= self._read_value(name, kind))
        if self._take("like"):
            word = self._next()
            if word.kind != "text" or not _is_text(kind):
                raise self._refuse(word, "a pattern in single quotes, for a column of texts")
            return pc.match_like(column, _unquote(word.text))
        sign = self._next()
        if sign.kind != "sign" or sign.text not in SIGNS:
            raise self._refuse(sign, f"{', '.join(SIGNS)}, is, in, between or like")
        self.negates |= sign.text in ("!=", "<>")
        return SIGNS[sign.text](column, self._read_value(name, kind))

    def _read_membership(self, name: str, column: Expression, kind: pa.DataType) -> Expression:
        """Return whether a list of texts has one: Arrow has no such function, but lists can be joined."""
        import pyarrow as pa
        import pyarrow.compute as pc
        from pyarrow.dataset import scalar

        if not pa.types.is_list(kind) or not _is_text(kind.value_type):
            raise SettingError(f"--where: the column {name!r} holds {kind}, no lists of texts. Compare it with =.")
        value, edge = self._read_value(name, kind.value_type).as_py(), scalar("\x1f")  # in no text that one types
        around = pc.binary_join_element_wise(edge, pc.binary_join(column, edge), edge, scalar(""))
        return pc.match_substring(around, f"\x1f{value}\x1f")

    def _read_values(self, name: str, kind: pa.DataType) -> list[pa.Scalar]:
        self._expect("(")
        values = [self._read_value(name, kind)]
        while self._take(","):
            values.append(self._read_value(name, kind))
        self._expect(")")
        return values

    def _read_column(self) -> tuple[str, Expression]:
        from pyarrow.dataset import field

        word = self._next()
        if word.kind not in ("name", "quoted"):
            raise self._refuse(word, "the name of a column")
        name = word.text if word.kind == "name" else word.text[1:-1].replace('""', '"')
        if self.schema.names.count(name) != 1:
            raise SettingError(
                f"--where names a column {name!r}; the table has: {', '.join(self.schema.names)}. Name one, "
                'in double quotes if it is no plain word: "mean radius" > 3.'
            )
        self.columns[name] = None
        return name, field(self.stored.get(name, name))

    def _read_value(self, name: str, kind: pa.DataType) -> pa.Scalar:
        """Return a value as one of the column's type."""
        import pyarrow as pa

        word = self._next()
        spelt = word.text.lower()
        if word.kind == "name" and spelt == "null":
            raise SettingError(f"--where: nothing equals null. Write {name} is null, or {name} is not null.")
        wanted = f"a value of the column {name!r}, which holds {kind} (such as {_show_example(kind)}),"
        if word.kind == "name" and spelt not in ("true", "false"):
            raise self._refuse(word, f"{wanted[:-1]}, in single quotes if it is a text,")
        how = "true" if pa.types.is_boolean(kind) else "number" if _is_numeric(kind) else "text"
        if word.kind != how and not (how == "true" and word.kind == "name"):
            raise self._refuse(word, wanted)
        try:
            return _convert(_unquote(word.text) if how == "text" else spelt, kind)
        except (pa.ArrowException, ValueError, OverflowError):
            raise self._refuse(word, wanted) from None

    def _check_comparable(self, name: str, kind: pa.DataType) -> None:
        import pyarrow as pa

        if pa.types.is_nested(kind) or pa.types.is_null(kind):
            hint = f"{name} has 'VALUE', or " if pa.types.is_list(kind) else ""
            raise SettingError(f"--where: the column {name!r} holds {kind}. Write {hint}{name} is null.")

    # words --------------------------------------------------------------------------------------------------

    def _peek(self) -> Word:
        return self.words[self.place]

    def _next(self) -> Word:
        word = self.words[self.place]
        self.place = min(self.place + 1, len(self.words) - 1)
        return word

    def _take(self, text: str) -> bool:
        """Return whether ``text``, a keyword or a sign, comes next, and pass it then."""
        word = self._peek()
        if word.kind in ("name", "sign") and word.text.lower() == text:
            self._next()
            return True
        return False

    def _expect(self, text: str) -> None:
        if not self._take(text):
            raise self._refuse(self._peek(), text)

    def _refuse(self, word: Word, wanted: str) -> SettingError:
        found = repr(word.text) if word.text else "the end"
        return SettingError(
            f"--where cannot be read at character {word.at + 1}: {found} stands where {wanted} should. "
            f"An example: {EXAMPLE}."
        )


def _cut_words(written: str) -> list[Word]:
    words: list[Word] = []
    place = 0
    while not words or words[-1].kind != "end":
        found = WORDS.match(written, place)
        if found is None:
            rest = written[place:].lstrip()
            at = len(written) - len(rest) + 1
            hint = " Close the quote." if rest[0] in "'\"`" else ""
            raise SettingError(
                f"--where cannot be read at character {at}: {rest[:20]!r}.{hint} An example: {EXAMPLE}."
            )
        kind = str(found.lastgroup)
        words.append(Word(kind, found[kind], found.start(kind)))
        place = found.end()
    return words


def _unquote(text: str) -> str:
    return text[1:-1].replace("''", "'")


def _convert(given: str, kind: pa.DataType) -> pa.Scalar:
    """Return what is written as a value of a column's type."""
    import pyarrow as pa

    if pa.types.is_boolean(kind):
        return pa.scalar(given == "true")
    if pa.types.is_integer(kind):  # it can be compared with 2.5, and not be made it
        return pa.scalar(int(given), pa.int64()) if re.fullmatch(r"[-+]?\d+", given) else pa.scalar(float(given))
    if pa.types.is_floating(kind):
        return pa.scalar(float(given), pa.float64()).cast(kind)
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return pa.scalar(given.encode(), kind)
    if pa.types.is_timestamp(kind):
        from datetime import UTC, datetime

        time = datetime.fromisoformat(given)
        return pa.scalar(time if time.tzinfo else time.replace(tzinfo=UTC), pa.timestamp("us", "UTC")).cast(kind)
    return pa.scalar(given).cast(kind)


def _leave_out_impossible(values: Sequence[Any], kind: pa.DataType) -> Sequence[Any]:
    """Return the values without those that no column of this type has: Arrow would make 2 of 2.5."""
    import pyarrow as pa

    if not pa.types.is_integer(kind):
        return values
    bits = kind.bit_width
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1)) if pa.types.is_signed_integer(kind) else (0, 2**bits)
    return [int(value) for value in values if low <= value < high and value == int(value)]


def _is_text(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_numeric(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _show_example(kind: pa.DataType) -> str:
    import pyarrow as pa

    if pa.types.is_boolean(kind):
        return "true"
    if pa.types.is_temporal(kind):
        return "'2026-01-31'"
    return "3" if _is_numeric(kind) else "'positive'"
