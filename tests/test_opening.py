"""Opening what a task pickled: values come as they were, and nothing of a pickle runs, whatever it asks for."""

from __future__ import annotations

import collections
import contextlib
import datetime
import decimal
import fractions
import functools
import gzip
import io
import operator
import os
import pickle
import uuid
import zoneinfo
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dlpipe.bridge.artifacts import open_value
from dlpipe.bridge.datastore import DatastoreRoot, Unreadable, read_blob, read_log
from dlpipe.bridge.opening import Fields, Unopened, open_pickle, read_fields
from dlpipe.tables import TableVersion


class Calls:
    """Pickles as a call of anything with anything."""

    def __init__(self, function: Any, *args: Any, state: Any = None, items: list[Any] | None = None) -> None:
        self._said = (function, args, state, iter(items) if items else None)

    def __reduce__(self) -> tuple[Any, ...]:
        return self._said


@dataclass
class Order:
    """A class of the user's own."""

    lines: list[str]

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        Path(os.environ["TOUCHED"]).touch()


def packed(value: Any) -> bytes:
    return pickle.dumps(value, protocol=4)


# -- values ----------------------------------------------------------------------------------------------------

ZONE = zoneinfo.ZoneInfo("Europe/Vienna")
PLAIN: list[Any] = [
    datetime.date(2026, 11, 28),
    datetime.datetime(2026, 10, 25, 2, 30, 1, 5, tzinfo=ZONE, fold=1),
    datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC),
    datetime.time(1, 2, 3, 4),
    datetime.timedelta(days=-1, seconds=5),
    decimal.Decimal("-0.10"),
    uuid.UUID(int=5),
    1 + 2j,
    bytearray(b"abc"),
    collections.OrderedDict(b=1, a=2),
    collections.Counter("aab"),
    collections.deque([1, 2], 3),
    {("a", datetime.date(2026, 1, 1)): {1, 2}, None: frozenset({"x"})},
    range(3),
]


@pytest.mark.parametrize("value", PLAIN, ids=lambda value: type(value).__name__)
def test_plain_values_dates_and_containers_come_as_they_were(value: Any) -> None:
    found = open_pickle(packed(value))
    assert (type(found), found) == (type(value), value)
    assert getattr(found, "fold", 0) == getattr(value, "fold", 0)


ARRAYS = [
    np.arange(6, dtype=">i4").reshape(2, 3),
    np.asfortranarray(np.ones((2, 3), dtype="f2")),
    np.array(["ab", "c"]),
    np.array([np.datetime64("2026-01-01"), np.datetime64("NaT")]),
    np.zeros(2, dtype=[("a", "i4"), ("b", "f8", (2,))]),
    np.array([{"a": datetime.date(2026, 1, 1)}, None], dtype=object),
    np.zeros((0, 3)),
    np.array(3, dtype="c8"),
]


@pytest.mark.parametrize("value", ARRAYS, ids=lambda value: str(value.dtype))
def test_arrays_come_as_they_were(value: Any) -> None:
    found = open_pickle(packed(value))
    assert (found.dtype, found.shape) == (value.dtype, value.shape)
    assert repr(found.tolist()) == repr(value.tolist())
    assert found.flags.f_contiguous == value.flags.f_contiguous


DAYS = pd.to_datetime(["2026-01-01", None])
FRAMES = {
    "mixed": pd.DataFrame({"i": [1, 2], "s": ["x", None], "f": [0.5, None], "o": [{"a": 1}, [2]], "d": DAYS}),
    "zones": pd.DataFrame({"z": DAYS.tz_localize(ZONE), "d": pd.to_timedelta([1, 2])}),
    "types of pandas": pd.DataFrame(
        {
            "i": pd.array([1, None], dtype="Int64"),
            "b": pd.array([True, None], dtype="boolean"),
            "f": pd.array([0.5, None], dtype="Float64"),
            "t": pd.array(["x", None], dtype=pd.StringDtype("python")),
            "c": pd.Categorical(["u", "v"], ordered=True),
            "p": pd.period_range("2026", periods=2, freq="M"),
            "v": pd.arrays.IntervalArray.from_breaks([0, 1, 2]),
            "a": pd.array([1, 2], dtype="int64[pyarrow]"),
        }
    ),
    "indexes": pd.DataFrame(
        {"a": [1, 2]}, index=pd.MultiIndex.from_tuples([("x", 1), ("y", 2)], names=["p", "q"])
    ),
    "days": pd.DataFrame({"a": [1, 2]}, index=pd.date_range("2026", periods=2, name="day")),
    "twice": pd.DataFrame([[1, 2]], columns=["a", "a"]),
    "no rows": pd.DataFrame({"a": []}),
    "nothing": pd.DataFrame(),
}


@pytest.mark.parametrize("kind", FRAMES)
def test_frames_come_as_they_were(kind: str) -> None:
    frame = FRAMES[kind]
    pd.testing.assert_frame_equal(open_pickle(packed(frame)), frame, check_freq=False)


def test_a_frame_gives_the_same_file_as_the_one_that_was_pickled() -> None:
    for kind in ("zones", "types of pandas", "indexes", "days", "no rows"):
        files = []
        for frame in (FRAMES[kind], open_pickle(packed(FRAMES[kind]))):
            pq.write_table(pa.Table.from_pandas(frame), buffer := io.BytesIO())
            files.append(buffer.getvalue())
        assert files[0] == files[1], kind


def test_series_and_scalars_of_pandas_come_as_they_were() -> None:
    series = pd.Series(["x", "y"], index=[3, 4], name="n")
    pd.testing.assert_series_equal(open_pickle(packed(series)), series)
    for value in (
        pd.Timestamp("2026", tz="UTC"),
        pd.Timedelta(5, "s"),
        pd.Timestamp("2026-01-01 00:00:00.000000001"),
    ):
        assert open_pickle(packed(value)) == value
    assert open_pickle(packed([pd.NaT, pd.NA])) == [pd.NaT, pd.NA]


TABLES = {
    "plain": pa.table({"a": [1, 2], "b": ["x", None], "t": [True, None]}),
    "nested": pa.table({"l": [[1], [2, 3]], "s": [{"q": 1}, {"q": 2}], "n": pa.nulls(2)}),
    "types": pa.table(
        {
            "d": pa.array(["x", "y"]).dictionary_encode(),
            "t": pa.array([1, 2], pa.timestamp("us", "UTC")),
            "n": pa.array([decimal.Decimal("1.2"), None]),
            "f": pa.array([b"ab", b"cd"], pa.binary(2)),
            "m": pa.array([[("a", 1)]] * 2, pa.map_(pa.string(), pa.int64())),
            "v": pa.array(["x" * 30, "y"], pa.string_view()),
        }
    ),
    "slice": pa.table({"a": range(10)}).slice(2, 3),
    "schema": pa.schema([pa.field("a", pa.int32(), nullable=False)], metadata={"k": "v"}),
}


@pytest.mark.parametrize("kind", TABLES)
def test_tables_of_arrow_come_as_they_were(kind: str) -> None:
    assert open_pickle(packed(TABLES[kind])).equals(TABLES[kind])


def test_our_own_dataclasses_come_as_their_fields_without_their_classes() -> None:
    columns, day = (("text", "string"),), datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    version = TableVersion(path="data/reviews", version=3, digest="abc", rows=10, timestamp=day, columns=columns)
    found = open_pickle(packed({"data": version}))["data"]
    assert isinstance(found, Fields)
    assert found.name.endswith(".TableVersion")
    assert (read_fields(found)["columns"], read_fields(found)["timestamp"]) == (columns, day)
    assert (found.fields["path"], found.fields["version"]) == ("data/reviews", 3)


def test_a_list_that_holds_itself_is_opened() -> None:
    value: list[Any] = [datetime.date(2026, 1, 1)]
    value.append(value)
    found = open_pickle(packed(value))
    assert found[1] is found


# -- what does not run -----------------------------------------------------------------------------------------


def short(text: str) -> bytes:
    """Return the opcode that pushes a short text."""
    return b"\x8c" + bytes([len(text)]) + text.encode()


def by_name(shell: str) -> bytes:
    """Return a pickle that gets a function by ``getattr`` and calls it, as that of a zone gets a method."""
    imported = b"cbuiltins\n__import__\n" + short("os") + b"\x85R"
    return b"\x80\x04cbuiltins\ngetattr\n" + imported + short("system") + b"\x86R" + short(shell) + b"\x85R."


def attacks(touched: str) -> dict[str, bytes]:
    """Return pickles that make the file ``touched`` when they are opened by ``pickle``, and some that do worse."""
    shell = f"touch {touched}"
    call = Calls(os.system, shell)
    open_file = Calls(io.open, touched, "w")
    frame = pd.DataFrame({"a": [1]})
    chain = Calls(functools.partial(os.system, shell))
    array = np.empty(1, dtype=object)
    array[0] = call
    raw = f"cos\nsystem\n(S'{shell}'\ntR.".encode()
    return {
        "a call": packed(call),
        "in a list": packed([1, {"a": (call,)}]),
        "as a key": packed({call: 1}),
        "in an array of objects": packed(array),
        "in a frame": packed(pd.DataFrame({"a": pd.Series([call], dtype=object)})),
        "as a column's type": packed(frame).replace(b"i8", b"O8"),
        "as the state of a frame": packed(Calls(pd.DataFrame, state={"_mgr": call})),
        "as the factory of a dictionary": packed(Calls(collections.defaultdict, chain, items=None)),
        "as an argument of a date": packed(Calls(datetime.date, call)),
        "as a zone": packed(Calls(datetime.datetime, b"\x07\xea\x01\x02\x00\x00\x00\x00\x00\x00", call)),
        "as a buffer": packed(Calls(pa.py_buffer, call)),
        "by getattr": by_name(shell),
        "by a method of a class": packed(Calls(operator.methodcaller("touch"), Path(touched))),
        "by pandas": packed(Calls(pd.read_pickle, touched)),
        "by numpy": packed(Calls(np.load, touched, None, True)),
        "by numpy's own evaluation": packed(Calls(np.fromfile, touched)),
        "a file": packed(open_file),
        "a class of the user's": packed(Order(["x"])),
        "our own class with arguments": packed(Calls(TableVersion, call, 1, "x", 1)),
        "an instance of old": f"(S'{shell}'\nios\nsystem\n.".encode(),
        "in the first protocol": raw,
        "a name of two parts": b"\x80\x04\x8c\x02os\x8c\x0bpath.os.popen\x93\x8c"
        + bytes([len(shell)])
        + shell.encode()
        + b"\x85R.",
        "a pickle in a pickle": packed(Calls(pickle.loads, packed(call))),
        "eval": packed(Calls(eval, f"__import__('os').system('{shell}')")),
    }


def test_scalars_of_numpy_come_as_they_were() -> None:
    for value in (np.float32(0.1), np.int8(-3), np.bool_(True), np.datetime64("2026-01-01"), np.str_("x")):
        found = open_pickle(packed(value))
        assert (type(found), found) == (type(value), value)


ATTACKS = tuple(attacks("x"))


@pytest.mark.parametrize("attack", ATTACKS)
def test_nothing_of_a_pickle_runs(attack: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touched = tmp_path / "touched"
    monkeypatch.setenv("TOUCHED", str(touched))
    data = attacks(str(touched))[attack]
    with contextlib.suppress(Unreadable):
        open_value(data)
    assert not touched.exists()


def test_the_class_that_was_not_opened_is_named() -> None:
    with pytest.raises(Unreadable, match=r"^posix\.system is not opened$"):
        open_value(packed(Calls(os.system, "true")))
    assert open_pickle(packed([os.system, 1])) == [Unopened("posix.system"), 1]


def array_of(kind: Any, shape: tuple[int, ...]) -> Calls:
    """Return the pickle of an array of eight bytes."""
    state = (1, shape, kind, False, b"AAAAAAAA")
    return Calls(np._core.multiarray._reconstruct, np.ndarray, (0,), b"b", state=state)


def record_of(kind: Any, offset: int) -> Calls:
    """Return the pickle of a dtype with one field, which says of itself that it holds no objects."""
    return Calls(np.dtype, "V8", False, True, state=(3, "|", None, ("a",), {"a": (kind, offset)}, 8, 1, 0))


def arrow_of(*said: Any) -> Calls:
    """Return the pickle of an array of Arrow: type, length, nulls, offset, buffers, children, dictionary."""
    return Calls(pa.lib._restore_array, said)


def small(*numbers: int, kind: str = "i4") -> Any:
    return pa.py_buffer(np.array(numbers, dtype=kind).tobytes())


def spread() -> Calls:
    """Return the pickle of a series with one value and an index of a million million."""
    block, axes = {"values": np.float64(1), "mgr_locs": slice(0, 1, 1)}, [pd.RangeIndex(10**12)]
    manager = Calls(
        pd.core.internals.managers.SingleBlockManager,
        state=(axes, [], [], {"0.14.1": {"axes": axes, "blocks": [block]}}),
    )
    return Calls(pd.Series, state={"_mgr": manager, "_name": None})


ONE = (pa.int8(), 1, 0, 0, [None, small(1)], [], None)
WORDS = (pa.string(), 2, 0, 0, pa.array(["x", "y"]).buffers(), [], None)
TEXTS = arrow_of(pa.string(), 2, 0, 0, [None, small(0, 1, 10**6), pa.py_buffer(b"xy")], [], None)
SCHEMA = pa.schema([("a", pa.string())])
LIES = {
    "offsets": Calls(
        pa.lib._reconstruct_table, [Calls(pa.lib.chunked_array, [TEXTS])], pa.schema([("a", pa.string())])
    ),
    "length": arrow_of(pa.int64(), 10**6, 0, 0, [None, pa.py_buffer(b"12345678")], [], None),
    "places": arrow_of(pa.dictionary(pa.int8(), pa.string()), 2, 0, 0, [None, small(0, 99, kind="i1")], [], WORDS),
    "objects in bytes": array_of(record_of(np.dtype("O"), 0), (1,)),
    "objects as bytes": array_of(np.dtype("O"), (1,)),
    "outside of the item": array_of(record_of(np.dtype("f8"), 10**6), (1,)),
    "shape": array_of(np.dtype("f8"), (10**9,)),
    "negative": arrow_of(pa.int64(), 1, 0, -5, [None, small(1, kind="i8")], [], None),
    "far": arrow_of(pa.int64(), 1, 0, 10**9, [None, small(1, kind="i8")], [], None),
    "negative places": arrow_of(
        pa.dictionary(pa.int8(), pa.string()), 1, 0, -9, [None, small(0, kind="i1")], [], WORDS
    ),
    "no such length": arrow_of(pa.int64(), -1, 0, 0, [None, small(1, kind="i8")], [], None),
    "bitmap": arrow_of(pa.int64(), 100, 1, 0, [pa.py_buffer(b"x"), small(*range(100), kind="i8")], [], None),
    "children": arrow_of(
        pa.list_(pa.int8()), 1, 0, 0, [None, small(0, 9)], [(pa.int8(), 1, 0, 0, [None, small(1)], [], None)], None
    ),
    "spread": spread(),
    "memory": Calls(bytearray, 10**12),
    "a fraction": Calls(fractions.Fraction, "1e999999999"),
}
"""What pickles say of arrays and tables that would read or write where nothing is theirs."""


@pytest.mark.parametrize("lie", LIES)
def test_lengths_and_types_that_lie_are_refused(lie: str) -> None:
    with pytest.raises(Unreadable):
        open_value(packed(LIES[lie]))


FAR = b"\x80\x04K\x01r\xff\xff\xff\x1f."
"""A value that is to be remembered at the 536,870,911th place."""
HUGE = b"\x80\x04\x8e" + (2**62).to_bytes(8, "little") + b"x."
"""Bytes that are said to be more than any machine has."""


@pytest.mark.parametrize("data", [b"", b"\x80\x04", b"garbage", packed([1, 2])[:-3], b"\x80\x04P1\n.", FAR, HUGE])
def test_a_damaged_pickle_is_named_as_one(data: bytes) -> None:
    with pytest.raises(Unreadable, match="cannot be unpickled here"):
        open_value(data)


def test_a_class_that_the_setting_names_is_opened_by_its_own_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOUCHED", str(tmp_path / "touched"))
    data = packed({"order": Order(["one"]), "call": Calls(os.system, f"touch {tmp_path}/not")})
    found = open_pickle(data, trust=f"{Order.__module__}.Order other.*")
    assert found["order"].lines == ["one"]
    assert found["call"] == Unopened("posix.system")
    assert (tmp_path / "touched").exists()
    assert not (tmp_path / "not").exists()


def test_a_setting_does_not_name_what_its_module_has_from_elsewhere(tmp_path: Path) -> None:
    here = __name__
    shell = short(f"touch {tmp_path}/touched")
    data = b"\x80\x04" + short(here) + short("os.system") + b"\x93" + shell + b"\x85R."
    assert open_pickle(data, trust=f"{here}.*") == Unopened(f"{here}.os.system")
    assert not (tmp_path / "touched").exists()


# -- files that are none -----------------------------------------------------------------------------------------


def test_links_and_pipes_in_a_shared_datastore_are_not_followed(tmp_path: Path) -> None:
    place, task = (
        DatastoreRoot("local", str(tmp_path / "store")),
        tmp_path / "store" / "Flow" / "1" / "start" / "1",
    )
    task.mkdir(parents=True)
    secret = tmp_path / "secret"
    secret.write_text("only this account can read it\n")
    (task / "0.task_stdout.log").symlink_to(secret)
    os.mkfifo(task / "0.task_stderr.log")
    (task.parent / "2").symlink_to(task)
    with pytest.raises(Unreadable, match="a link"):
        read_log(
            DatastoreRoot("local", str(tmp_path)), str((task.parent / "2").relative_to(tmp_path)), 0, "stderr"
        )
    with pytest.raises(Unreadable, match="a link"):
        read_log(place, "Flow/1/start/1", 0, "stdout")
    with pytest.raises(Unreadable, match="no plain file"):
        read_log(place, "Flow/1/start/1", 0, "stderr")
    with pytest.raises(Unreadable, match="its digest is none"):
        read_blob(place, "Flow", "../../secret")


def test_a_long_log_is_read_from_its_end(tmp_path: Path) -> None:
    place, task = DatastoreRoot("local", str(tmp_path)), tmp_path / "Flow" / "1" / "start" / "1"
    task.mkdir(parents=True)
    (task / "0.task_stdout.log").write_bytes((b"one line " * 50 + b"\n") * 20_000 + b"the last\n")
    text = read_log(place, "Flow/1/start/1", 0, "stdout")
    assert text.rstrip().endswith("the last")
    assert len(text) < 5 * 2**20
    assert read_log(place, "Flow/1/start/1", 0, "stderr") == ""


def test_a_blob_that_unpacks_to_more_than_an_artifact_may_have_is_not_read(tmp_path: Path) -> None:
    digest = "a" * 40
    place, folder = DatastoreRoot("local", str(tmp_path)), tmp_path / "Flow" / "data" / "aa"
    folder.mkdir(parents=True)
    for content, says in ((gzip.compress(bytes(2**25)), "larger than"), (b"no gzip", "damaged: BadGzipFile")):
        (folder / digest).write_bytes(content)
        with pytest.raises(Unreadable, match=says):
            read_blob(place, "Flow", digest)
    (folder / digest).unlink()
    with pytest.raises(Unreadable, match="missing"):
        read_blob(place, "Flow", digest)
