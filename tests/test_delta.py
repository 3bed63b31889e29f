"""Features of Delta's protocol in tables of other programs: read right, or refused by name at once."""

from __future__ import annotations

import datetime
import os
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from delta_tables import column, foreign_table, protocol
from deltalake import DeltaTable
from texts import reviews

from dlpipe.errors import TableDamaged, TableVersionNotFound, UnsupportedFeature
from dlpipe.tables import (
    Sources,
    append,
    find_rows,
    history,
    ingest,
    list_parts,
    read_added,
    read_groups,
    read_part,
    read_table,
    stage_part,
    stream_table,
    table_at,
    write_table,
)
from dlpipe.task.text_classification import TextClassData

CASES = Path(__file__).resolve().parents[2] / "shared/cases/delta"
BY_NAME = {"delta.columnMapping.mode": "name"}
TEXTS = pa.table({"text": ["a", "b"]})
V2, V3 = protocol(reader=2, writer=5), protocol("columnMapping", reader=3)


def write_renamed_reviews(folder: Path, asks: dict = V2) -> Path:
    """Reviews whose two columns Spark renamed."""
    texts, labels = zip(*reviews(), strict=True)
    columns = [column("review", number=1, stored="col-1"), column("sentiment", number=2, stored="col-2")]
    rows = pa.table({"col-1": texts, "col-2": labels})
    return foreign_table(folder, columns, {"p.parquet": (rows, {})}, asks=asks, properties=BY_NAME)


@pytest.mark.parametrize("asks", [V2, V3], ids=["reader-2", "reader-3"])
def test_columns_that_were_renamed_keep_their_values_wherever_a_table_is_read(tmp_path, asks):
    version = table_at(write_renamed_reviews(tmp_path / "t", asks))
    whole = read_table(version)
    assert [tuple(row.values()) for row in whole.to_pylist()] == reviews()
    assert pa.Table.from_batches(stream_table(version, batch_rows=99)).to_pylist() == whole.to_pylist()
    assert read_part(list_parts(version)[0], columns=["sentiment"]).column_names == ["sentiment"]
    assert read_added(version).equals(whole)
    made = ingest(Sources(data=str(tmp_path / "t")), tmp_path / "made", settings=TextClassData())
    assert sum(made.split_rows.values()) == len(reviews())
    added = append(str(tmp_path / "t"), tmp_path / "added", settings=TextClassData())
    assert (added.new_rows, added.labelled_rows) == (len(reviews()), len(reviews()))


def test_mlflow_loads_a_renamed_column_as_it_is(tmp_path):
    from dlpipe.bridge.sources import DeltaSource

    path = write_renamed_reviews(tmp_path / "t")
    assert DeltaSource(str(path), 0).load().equals(read_table(table_at(path)))


def test_columns_are_found_by_their_ids_whatever_the_files_call_them(tmp_path):
    fields = [
        pa.field(name, pa.string(), metadata={"PARQUET:field_id": str(number)})
        for name, number in (("text", 2), ("x", 1))
    ]
    rows = pa.table([["negative"], ["a dull film"]], schema=pa.schema(fields))
    columns = [column(name, number=n, stored=f"s-{n}") for n, name in enumerate(["text", "label", "new"], start=1)]
    by_id = {"delta.columnMapping.mode": "id"}
    path = foreign_table(tmp_path / "t", columns, {"p.parquet": (rows, {})}, asks=V2, properties=by_id)
    assert read_table(table_at(path)).to_pylist() == [{"text": "a dull film", "label": "negative", "new": None}]
    without = foreign_table(tmp_path / "u", columns, {"p.parquet": (TEXTS, {})}, asks=V2, properties=by_id)
    with pytest.raises(UnsupportedFeature, match="which has no ids"):
        read_table(table_at(without))


def test_partitions_and_fields_inside_a_column_are_mapped_too(tmp_path):
    inner = {"type": "struct", "fields": [column("stars", "long", number=4, stored="c4")]}
    many = {"type": "array", "elementType": inner, "containsNull": True}
    columns = [column("text", number=1, stored="c1"), column("split", number=2, stored="c2")]
    columns += [column("votes", many, number=3, stored="c3")]
    rows = pa.table({"c1": ["u", "v"], "c3": [[{"c4": 5}], None]})
    files = {"c2=test/p.parquet": (rows, {"c2": "test"}), "c2=a%20b/p.parquet": (rows, {"c2": None})}
    path = foreign_table(tmp_path / "t", columns, files, asks=V2, properties=BY_NAME, partitions=["split"])
    version = table_at(path)
    assert read_table(version, split="test").to_pylist() == [
        {"text": "u", "split": "test", "votes": [{"stars": 5}]},
        {"text": "v", "split": "test", "votes": None},
    ]
    assert read_table(version)["split"].to_pylist() == [None, None, "test", "test"]


def test_values_that_were_stored_before_their_column_was_widened_are_read(tmp_path):
    widened = {"n": "long", "d": "decimal(12,2)", "when": "timestamp_ntz"}
    rows = pa.table(
        {"n": pa.array([7], pa.int8()), "d": pa.array([3], pa.int32()), "when": [datetime.date(2026, 1, 2)]}
    )
    asks = protocol("typeWidening", "timestampNtz", reader=3)
    path = foreign_table(
        tmp_path / "t", [column(*item) for item in widened.items()], {"p.parquet": (rows, {})}, asks=asks
    )
    assert read_table(table_at(path)).to_pylist() == [
        {"n": 7, "d": Decimal("3.00"), "when": datetime.datetime(2026, 1, 2)}
    ]


@pytest.mark.parametrize("feature", ["vacuumProtocolCheck", "v2Checkpoint"])
def test_features_that_change_no_row_are_no_obstacle(tmp_path, feature):
    path = foreign_table(
        tmp_path / "t", [column("text")], {"p.parquet": (TEXTS, {})}, asks=protocol(feature, reader=3)
    )
    assert read_table(table_at(path)).equals(TEXTS)


@pytest.mark.parametrize(
    "feature", ["deletionVectors", "someNewFeature", "variantType", "catalogManaged", "variantShredding-preview"]
)
def test_a_feature_that_is_not_read_is_named_by_whoever_opens_the_table(tmp_path, feature):
    path = foreign_table(
        tmp_path / "t", [column("text")], {"p.parquet": (TEXTS, {})}, asks=protocol(feature, reader=3)
    )
    for use in (table_at, history, lambda path: write_table(path, TEXTS)):
        with pytest.raises(UnsupportedFeature, match=rf"needs what dlpipe does not read of Delta: {feature}\."):
            use(path)


def test_a_newer_protocol_is_named_by_its_version(tmp_path):
    path = foreign_table(
        tmp_path / "t", [column("text")], {"p.parquet": (TEXTS, {})}, asks=protocol(reader=4, writer=8)
    )
    with pytest.raises(UnsupportedFeature, match="reader version 4"):
        table_at(path)


def test_a_type_that_came_later_is_named(tmp_path):
    columns = [column("text"), column("where", "geometry(4326)")]
    path = foreign_table(tmp_path / "t", columns, {"p.parquet": (TEXTS, {})})
    with pytest.raises(UnsupportedFeature, match=r"type: 'geometry\(4326\)'\. Rewrite it"):
        table_at(path)


def test_a_version_is_found_by_the_time_that_its_commit_has_for_it(tmp_path):
    asks = {**protocol("inCommitTimestamp"), "minReaderVersion": 1}
    path = foreign_table(tmp_path / "t", [column("text")], {"p.parquet": (TEXTS, {})}, asks=asks)
    log = path / f"_delta_log/{0:020}.json"
    log.write_text(
        log.read_text().replace('"timestamp": 17', '"inCommitTimestamp": 1800000000000, "timestamp": 17')
    )
    assert table_at(path).timestamp == 1_800_000_000_000
    with pytest.raises(TableVersionNotFound):
        table_at(path, timestamp="2025-01-01")
    log.write_text(log.read_text().replace("1800000000000", "1800000000000000"))  # in microseconds
    assert [row["time"][:4] for row in history(path)] == ["9999"]


@pytest.mark.parametrize(
    "outside", ["file://{}/p.parquet", "file:{}/p.parquet", "../p.parquet", "a/%2E./../p.parquet"]
)
def test_data_files_outside_of_the_folder_are_refused(tmp_path, outside):
    path = foreign_table(tmp_path / "t", [column("text")], {"p.parquet": (TEXTS, {})})
    (path / "p.parquet").rename(tmp_path / "p.parquet")
    log = path / f"_delta_log/{0:020}.json"
    log.write_text(log.read_text().replace('"p.parquet"', f'"{outside.format(tmp_path)}"'))
    with pytest.raises(UnsupportedFeature, match="outside of its folder"):
        read_table(table_at(path))


def test_a_column_that_a_file_spells_in_another_case_is_read(tmp_path):
    columns = [column("Text"), column("split"), column("Label")]
    files = {
        "a.parquet": (pa.table({"text": ["u"], "SPLIT": ["test"]}), {}),
        "b.parquet": (pa.table({"Text": ["v"], "split": ["train"], "LABEL": ["x"]}), {}),
    }
    version = table_at(foreign_table(tmp_path / "t", columns, files))
    assert read_table(version).to_pylist() == [
        {"Text": "u", "split": "test", "Label": None},
        {"Text": "v", "split": "train", "Label": "x"},
    ]
    assert read_table(version, split="test", columns=["Text"]).to_pylist() == [{"Text": "u"}]
    mapped = [column("review", number=1, stored="Col-1")]
    rows = {"p.parquet": (pa.table({"col-1": ["w"]}), {})}
    path = foreign_table(tmp_path / "m", mapped, rows, asks=V2, properties=BY_NAME)
    assert read_table(table_at(path)).to_pylist() == [{"review": "w"}]


def test_rows_that_another_program_wrote_as_views_are_chosen_and_found(tmp_path):
    rows = pa.table({"row_id": ["a", "b", "c"], "split": ["train", "test", "train"], "bytes": [b"1", b"2", b"3"]})
    write_table(str(tmp_path), rows.append_column("lists", pa.array([["x"], ["y"], ["z"]])))
    DeltaTable(tmp_path).delete("row_id = 'a'")
    (file,) = DeltaTable(tmp_path).file_uris()
    assert pq.read_schema(file).field("row_id").type == pa.string_view()
    version = table_at(tmp_path)
    assert read_table(version, split="train")["row_id"].to_pylist() == ["c"]
    assert read_table(version, split="train", columns=["lists"]).to_pylist() == [{"lists": ["z"]}]
    assert read_part(list_parts(version)[0], split="test")["bytes"].to_pylist() == [b"2"]
    wanted = stream_table(version, columns=["bytes"], where="row_id = 'c' and split = 'train'")
    assert pa.Table.from_batches(wanted).to_pylist() == [{"bytes": b"3"}]
    assert [row.values for row in find_rows(version, "row_id", "b", columns=["split"])] == [{"split": "test"}]
    assert list(read_groups(str(tmp_path), Path(file).name, "row_id")) == [["b", "c"]]


def test_two_spellings_and_those_inside_a_struct_are_refused(tmp_path):
    two = pa.table([["u"], ["v"]], names=["text", "TEXT"])
    inside = pa.table({"Text": [[{"stars": 5}]]})
    many = {"type": "array", "elementType": {"type": "struct", "fields": [column("Stars", "long")]}}
    for name, kind, rows in (("two", "string", two), ("inside", {**many, "containsNull": True}, inside)):
        path = foreign_table(tmp_path / name, [column("Text", kind)], {"p.parquet": (rows, {})})
        with pytest.raises(UnsupportedFeature, match=r"'Text', which the file p\.parquet spells in another way"):
            read_table(table_at(path))


def test_a_file_without_any_column_of_the_table_is_refused(tmp_path):
    path = foreign_table(tmp_path / "t", [column("text")], {"p.parquet": (pa.table({"review": ["a"]}), {})})
    with pytest.raises(TableDamaged, match=r"none of the table's columns; it has 'review'\."):
        read_table(table_at(path))


@pytest.mark.parametrize("damage", ["garbage", "cut", "page", "range"])
def test_a_data_file_that_cannot_be_read_is_named_in_one_line(tmp_path, damage):
    rows = pa.table({"text": [str(n) * 99 for n in range(99)], "n": pa.array([300] * 99, pa.int64())})
    kinds = [column("text"), column("n", "byte" if damage == "range" else "long")]
    path = foreign_table(tmp_path / "t", kinds, {"p.parquet": (rows, {})})
    file = path / "p.parquet"
    whole = file.read_bytes()
    damaged = {"garbage": b"no parquet" * 9, "cut": whole[:-9], "page": whole[:4] + b"\xff" * 60 + whole[64:]}
    file.write_bytes(damaged.get(damage, whole))
    version = table_at(path)
    for read in (
        read_table,
        read_added,
        lambda table: read_part(list_parts(table)[0]),
        lambda table: list(stream_table(table)),
    ):
        with pytest.raises(TableDamaged, match=r"The data file p\.parquet of .*Restore the file") as told:
            read(version)
        assert "\n" not in str(told.value)
    with pytest.raises(TableDamaged):
        append(str(path), tmp_path / "added", settings=TextClassData(text_column="text", label_column="n"))


REFUSED = {
    "columnMapping": (V2, BY_NAME, {"number": 1, "stored": "text"}),
    "checkConstraints (delta.constraints.short)": (
        protocol(writer=3),
        {"delta.constraints.short": "text < 'b'"},
        {},
    ),
    "invariants": (protocol(), {}, {"delta.invariants": '{"expression":{"expression":"text < \'b\'"}}'}),
    "generatedColumns": (protocol(writer=4), {}, {"delta.generationExpression": "upper(x)"}),
    "rowTracking": (protocol("rowTracking", "domainMetadata"), {}, {}),
    "inCommitTimestamp": (protocol("inCommitTimestamp"), {}, {}),
    "writer version 6": (protocol(writer=6), {}, {}),
}


@pytest.mark.parametrize("feature", REFUSED)
def test_a_table_with_rules_that_cannot_be_kept_is_not_written_to(tmp_path, feature):
    asks, properties, rules = REFUSED[feature]
    files = {"p.parquet": (TEXTS, {})}
    path = foreign_table(tmp_path / "t", [column("text", **rules)], files, asks=asks, properties=properties)
    before = sorted(os.walk(path))
    for write in (
        lambda: write_table(path, TEXTS),
        lambda: write_table(path, TEXTS, mode="overwrite"),
        lambda: stage_part(path, TEXTS, key={"a": "b"}, part=0),
    ):
        with pytest.raises(
            UnsupportedFeature, match=r"cannot keep when it writes: .*; nothing was written"
        ) as caught:
            write()
        assert feature in str(caught.value)
    assert sorted(os.walk(path)) == before
    assert read_table(table_at(path)).equals(TEXTS)


def test_rows_are_added_to_an_append_only_table_and_none_taken_away(tmp_path):
    path = foreign_table(
        tmp_path / "t", [column("text")], {"p.parquet": (TEXTS, {})}, properties={"delta.appendOnly": "true"}
    )
    assert write_table(path, TEXTS).rows == 4
    with pytest.raises(UnsupportedFeature, match="appendOnly"):
        write_table(path, TEXTS, mode="overwrite")


def test_a_table_that_cannot_be_read_does_not_hide_the_others(tmp_path, monkeypatch, capsys):
    from dlpipe.cli.tables import describe_tables

    monkeypatch.setenv("DLPIPE_TABLES", str(tmp_path))
    foreign_table(tmp_path / "a", [column("text")], {}, asks=protocol("magic", reader=3))
    write_table(tmp_path / "b", TEXTS)
    assert [row["table"] for row in describe_tables()] == ["b"]
    assert "magic" in capsys.readouterr().err


@pytest.mark.skipif(not CASES.is_dir(), reason="the cases are not there")
@pytest.mark.parametrize("name", ["text_renamed", "v3_text_renamed", "colmap", "future"])
def test_tables_from_reports_are_read_or_refused_by_name(name):
    if name == "future":
        with pytest.raises(UnsupportedFeature, match="someNewFeature"):
            table_at(CASES / name)
        return
    rows = read_table(table_at(CASES / name))
    assert (rows.num_rows, [values.null_count for values in rows.columns]) == (250, [0, 0])
