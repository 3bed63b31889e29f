"""Builds pandas' frames, series, indexes and scalars by its public constructors, column by column."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dlpipe.bridge.opening.build import Build, Builder
from dlpipe.bridge.opening.inert import Inert, find_name
from dlpipe.bridge.opening.results import make_refusal

UNITS: dict[int, Any] = {7: "s", 8: "ms", 9: "us", 10: "ns"}
"""How pandas numbers the units of time."""


@dataclass(frozen=True)
class _Block:
    """Columns of one type, and where they stand."""

    values: Any
    places: Any


@dataclass(frozen=True)
class _Backed:
    """Values of pandas' own type in a NumPy array, one row of it for each column."""

    kind: str
    dtype: Any
    values: Any

    def column(self, at: int) -> Any:
        """Return a column as an array of pandas."""
        import numpy as np
        import pandas as pd

        values = self.values[at] if self.values.ndim == 2 else self.values
        if self.kind == "DatetimeArray":
            made = pd.DatetimeIndex(values)
            zone = getattr(self.dtype, "tz", None)
            return (made if zone is None else made.tz_localize("UTC").tz_convert(zone)).array
        if self.kind == "TimedeltaArray":
            return pd.TimedeltaIndex(values).array
        if self.kind == "PeriodArray":
            return pd.PeriodIndex.from_ordinals(values, freq=self.dtype.freq).array
        if self.kind == "Categorical":
            return pd.Categorical.from_codes(values, dtype=self.dtype)
        return pd.array(np.asarray(values, dtype=object), dtype=self.dtype)


def _take_column(values: Any, at: int) -> Any:
    if isinstance(values, _Backed):
        return values.column(at)
    return values[at] if getattr(values, "ndim", 1) == 2 else values


def _check_values(made: Any) -> Any:
    return made.column(0) if isinstance(made, _Backed) else made


# -- arrays ----------------------------------------------------------------------------------------------------


def _build_backed(build: Build, tree: Inert) -> _Backed:
    import numpy as np

    kind = find_name(tree._args[0]).rpartition(".")[2]
    if kind not in ("DatetimeArray", "TimedeltaArray", "PeriodArray", "Categorical", "StringArray"):
        raise make_refusal(tree)
    dtype, values, *_ = map(build.part, tree._state)
    if isinstance(dtype, np.ndarray):
        dtype, values = values, dtype
    return _Backed(kind, dtype, values)


def _build_interval(build: Build, tree: Inert) -> Any:
    import pandas as pd

    state = {name: build.part(inner) for name, inner in tree._state[0].items()}
    left, right = _check_values(state["_left"]), _check_values(state["_right"])
    return pd.arrays.IntervalArray.from_arrays(left, right, closed=state["_dtype"].closed)


def _build_masked(build: Build, tree: Inert) -> Any:
    import pandas as pd

    kind = {"IntegerArray": pd.arrays.IntegerArray, "FloatingArray": pd.arrays.FloatingArray}
    made = kind.get(find_name(tree).rpartition(".")[2], pd.arrays.BooleanArray)
    return made(build.part(tree._state["_data"]), build.part(tree._state["_mask"]))


def _build_arrow(build: Build, tree: Inert) -> Any:
    import pandas as pd

    values = build.part(tree._state["_pa_array" if "_pa_array" in tree._state else "_data"])
    if not find_name(tree).endswith("ArrowStringArray"):
        return pd.arrays.ArrowExtensionArray(values)
    return pd.arrays.ArrowStringArray(values, dtype=build.part(tree._state["_dtype"]))


def _build_dtype(build: Build, tree: Inert) -> Any:
    """Return a dtype of pandas from its arguments or from its state."""
    import pandas as pd

    kind = find_name(tree).rpartition(".")[2]
    state = tree._state if isinstance(tree._state, dict) else {}
    named = {name: _check_values(build.part(state[name])) for name in DTYPES[kind] if name in state}
    if kind == "StringDtype":
        return pd.StringDtype(*map(build.part, tree._args))
    return getattr(pd, kind)(*map(build.part, tree._args), **named)


DTYPES = {
    "CategoricalDtype": ("categories", "ordered"),
    "DatetimeTZDtype": ("unit", "tz"),
    "IntervalDtype": ("subtype", "closed"),
    "PeriodDtype": (),
    "StringDtype": (),
}


# -- indexes ---------------------------------------------------------------------------------------------------


def _build_index(build: Build, tree: Inert) -> Any:
    import pandas as pd

    kind, fields = find_name(tree._args[0]).rpartition(".")[2], tree._args[1]
    if kind == "RangeIndex" and "start" in fields:
        return pd.RangeIndex(fields["start"], fields["stop"], fields["step"], name=build.part(fields.get("name")))
    if kind == "MultiIndex":
        levels, codes = (list(build.part(fields[name])) for name in ("levels", "codes"))
        return pd.MultiIndex(levels=levels, codes=codes, names=list(build.part(fields["names"])))
    data = _check_values(build.part(fields["data"]))
    return pd.Index(data, dtype=data.dtype, name=build.part(fields.get("name")))


# -- frames ----------------------------------------------------------------------------------------------------


def _build_block(build: Build, tree: Inert) -> _Block:
    values, places, _ = map(build.part, tree._args)
    return _Block(values, places)


def _build_manager(build: Build, tree: Inert) -> tuple[list[Any], list[_Block]]:
    """Return axes and blocks of a frame, or of a series."""
    if tree._args:
        blocks, axes = tree._args
        return list(map(build.part, axes)), list(map(build.part, blocks))
    fields = tree._state[3]["0.14.1"]
    blocks = [_Block(build.part(block["values"]), build.part(block["mgr_locs"])) for block in fields["blocks"]]
    return list(map(build.part, fields["axes"])), blocks


def _build_frame(build: Build, tree: Inert) -> Any:
    import pandas as pd

    (columns, index), blocks = build.part(tree._state["_mgr"])
    found = {}
    for block in blocks:
        places = range(*block.places.indices(len(columns))) if isinstance(block.places, slice) else block.places
        found.update({int(place): _take_column(block.values, at) for at, place in enumerate(places)})
    series = {at: _make_series(found[at], index, None) for at in range(len(columns))}
    frame = pd.DataFrame(series, index=index)
    frame.columns = columns
    return frame


def _build_series(build: Build, tree: Inert) -> Any:
    (index,), (block,) = build.part(tree._state["_mgr"])
    values = _take_column(block.values, 0)
    name = build.part(tree._state.get("_name", tree._state.get("name")))
    return _make_series(values, index, name)


def _make_series(values: Any, index: Any, name: Any) -> Any:
    """Return values with their index; a single value is not spread over an index of any length."""
    import pandas as pd

    if len(values) != len(index):
        raise ValueError("an index of another length")
    return pd.Series(values, index=index, dtype=values.dtype, name=name)


# -- scalars ---------------------------------------------------------------------------------------------------


def _build_timestamp(build: Build, tree: Inert) -> Any:
    import numpy as np
    import pandas as pd

    value, _, zone, *unit = tree._args
    made = pd.Timestamp(np.datetime64(value, UNITS[unit[0] if unit else 10]))
    return made if zone is None else made.tz_localize("UTC").tz_convert(build.part(zone))


def _build_timedelta(build: Build, tree: Inert) -> Any:
    import numpy as np
    import pandas as pd

    value, *unit = tree._args
    return pd.Timedelta(np.timedelta64(value, UNITS[unit[0] if unit else 10]))


def _build_not_a_time(build: Build, tree: Inert) -> Any:
    import pandas as pd

    return pd.NaT


BUILDERS: dict[str, Builder] = {
    "pandas:DataFrame": _build_frame,
    "pandas:Series": _build_series,
    "pandas:BlockManager": _build_manager,
    "pandas:SingleBlockManager": _build_manager,
    "pandas:_unpickle_block": _build_block,
    "pandas:_new_Index": _build_index,
    "pandas:_new_DatetimeIndex": _build_index,
    "pandas:_new_PeriodIndex": _build_index,
    "pandas:__pyx_unpickle_NDArrayBacked": _build_backed,
    "pandas:__pyx_unpickle_IntervalMixin": _build_interval,
    **{f"pandas:{name}": _build_masked for name in ("IntegerArray", "FloatingArray", "BooleanArray")},
    **{f"pandas:{name}": _build_arrow for name in ("ArrowStringArray", "ArrowExtensionArray")},
    **{f"pandas:{name}": _build_dtype for name in DTYPES},
    "pandas:_unpickle_timestamp": _build_timestamp,
    "pandas:_timedelta_unpickle": _build_timedelta,
    "pandas:_nat_unpickle": _build_not_a_time,
}
