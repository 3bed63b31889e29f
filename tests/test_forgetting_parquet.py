"""A text is taken out of Parquet files however they are packed, and the rest of them stays."""

from __future__ import annotations

import gzip
import io
import pickle

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dlpipe.forgetting.contents import blank_content
from dlpipe.forgetting.reading import NotSearched
from dlpipe.forgetting.words import Needles

TEXT = "Ümläut wept at the zither of the film"
BLANK = "_ _ _ _ _ _ _ _"
NEEDLES = Needles.from_texts([TEXT])


def write(rows: pa.Table, **how: object) -> bytes:
    out = io.BytesIO()
    pq.write_table(rows, out, **how)
    return out.getvalue()


def read(content: bytes) -> pa.Table:
    return pq.read_table(io.BytesIO(content))


@pytest.mark.parametrize("packed", ["none", "snappy", "zstd", "gzip", "lz4", "brotli"])
def test_a_text_is_taken_out_of_rows_that_are_packed(packed):
    others = [" ".join([*TEXT.split()[1 + number % 7 :], str(number)]) for number in range(900)]
    rows = pa.table({"n": range(901), "text": [*others, TEXT]})
    content = write(rows, compression=packed, row_group_size=300)
    made = blank_content(content, NEEDLES)
    assert read(made)["text"].to_pylist()[-1] == BLANK
    assert read(made).slice(0, 900) == rows.slice(0, 900)
    after, before = pq.ParquetFile(io.BytesIO(made)).metadata, pq.ParquetFile(io.BytesIO(content)).metadata
    assert after.num_row_groups == before.num_row_groups == 4
    assert after.row_group(3).column(1).compression == before.row_group(3).column(1).compression
    assert blank_content(made, NEEDLES) is made


@pytest.mark.parametrize(
    ("values", "kind", "left"),
    [
        ([TEXT, None, "soup"], pa.large_string(), [BLANK, None, "soup"]),
        ([TEXT, None, "soup"], pa.string_view(), [BLANK, None, "soup"]),
        ([TEXT, "soup", TEXT], pa.dictionary(pa.int32(), pa.string()), [BLANK, "soup", BLANK]),
        ([TEXT.split(), None, ["soup"]], pa.list_(pa.string()), [["_"] * 8, None, ["soup"]]),
        ([[TEXT], []], pa.list_(pa.dictionary(pa.int8(), pa.string())), [[BLANK], []]),
        (
            [{"a": 1, "b": f"Soup\n{TEXT}\n"}, None],
            pa.struct({"a": pa.int8(), "b": pa.string()}),
            [{"a": 1, "b": f"Soup\n{BLANK}\n"}, None],
        ),
        ([[("a", TEXT)], []], pa.map_(pa.string(), pa.string()), [[("a", BLANK)], []]),
        ([TEXT.encode(), b"\x00soup"], pa.binary(), [BLANK.encode(), b"\x00soup"]),
        ([f'"{TEXT}"', "1"], pa.json_(), [f'"{BLANK}"', "1"]),
    ],
)
def test_a_text_is_taken_out_of_columns_of_any_type(values, kind, left):
    rows = pa.table({"value": pa.array(values, kind), "n": pa.array(range(len(values)))})
    made = blank_content(write(rows), NEEDLES)
    assert read(made)["value"].to_pylist() == left
    assert read(made)["n"] == rows["n"]
    assert read(made).schema == read(write(rows)).schema


def test_a_file_without_the_text_is_the_same_object():
    content = write(pa.table({"text": ["soup", TEXT[:-5]], "n": [float("nan"), 1.0]}))
    assert blank_content(content, NEEDLES) is content


def test_what_is_noted_with_a_schema_is_searched_and_a_packed_file_is():
    rows = pa.table({"n": [1]}).replace_schema_metadata({"note": f"they wrote {TEXT}", "other": "soup"})
    made = pickle.loads(gzip.decompress(blank_content(gzip.compress(pickle.dumps(write(rows))), NEEDLES)))
    assert read(made).schema.metadata == {b"note": f"they wrote {BLANK}".encode(), b"other": b"soup"}


@pytest.mark.parametrize("end", [-20, -2000])
def test_a_damaged_file_was_not_searched(end):
    content = write(pa.table({"text": [str(number) for number in range(900)]}))
    with pytest.raises(NotSearched, match="a Parquet file that is damaged"):
        blank_content(content[:end], NEEDLES)


def test_a_text_that_begins_as_parquet_does_is_a_text():
    assert blank_content(f"PAR1,{TEXT}".encode(), NEEDLES).decode() == f"PAR1,{BLANK}"
