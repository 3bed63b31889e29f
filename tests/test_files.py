"""Files as people have them: compressed, with other separators and encodings, or as a folder of Parquet."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from dlpipe.cli import main
from dlpipe.errors import BadRows, BadSource, SettingError
from dlpipe.tables import (
    Column,
    FormSettings,
    Label,
    RowForm,
    Sources,
    append,
    ingest,
    preview,
    read_last_settings,
    read_table,
    write_table,
)
from dlpipe.tables._encodings import propose_encodings
from dlpipe.task.text_classification import TextClassData

ROWS = [(f"caf\xe9 number {number} was fine", ("good", "bad")[number % 2]) for number in range(60)]
LINES = [f"{text},{label}\n" for text, label in ROWS]
AS_CSV = "".join(["review,sentiment\n", *LINES])
AS_JSONL = "".join(json.dumps({"review": text, "sentiment": label}) + "\n" for text, label in ROWS)


@pytest.fixture(scope="module")
def digest(tmp_path_factory) -> str:
    """That of the table which each of the files here has to give."""
    folder = tmp_path_factory.mktemp("plain")
    (folder / "a.csv").write_text(AS_CSV, encoding="utf-8")
    return ingest(Sources(data=folder / "a.csv"), folder / "t", settings=TextClassData()).table.digest


def take(source: Path | str, **settings: Any) -> Any:
    """Return what an ingest of ``source`` into a table beside it did."""
    return ingest(Sources(data=source), Path(source).parent / "t", settings=TextClassData(**settings))


def write_bytes(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def zstd(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return sink.getvalue().to_pybytes()


COMPRESS = {".gz": gzip.compress, ".zst": zstd, ".xz": lzma.compress, ".bz2": bz2.compress}


# --- compression


@pytest.mark.parametrize("ending", COMPRESS)
@pytest.mark.parametrize(("name", "content"), [("a.csv", AS_CSV), ("a.jsonl", AS_JSONL)])
def test_a_compressed_file_is_read_as_what_it_holds(tmp_path, digest, name, content, ending):
    path = write_bytes(tmp_path / f"{name}{ending}", COMPRESS[ending](content.encode()))
    assert take(path).table.digest == digest


def test_what_a_file_begins_with_decides_whether_it_is_compressed(tmp_path, digest):
    assert take(write_bytes(tmp_path / "a.csv", gzip.compress(AS_CSV.encode()))).table.digest == digest
    assert take(write_bytes(tmp_path / "b.csv.gz", AS_CSV.encode())).table.digest == digest


@pytest.mark.parametrize("ending", COMPRESS)
def test_a_compressed_file_that_is_cut_off_is_refused(tmp_path, ending):
    whole = COMPRESS[ending]("".join(f"{text} {at}\n" for at, (text, _) in enumerate(ROWS * 400)).encode())
    with pytest.raises(BadSource) as refused:
        take(write_bytes(tmp_path / f"a.csv{ending}", whole[: len(whole) * 2 // 3]))
    assert "\n" not in str(refused.value)
    assert f"a.csv{ending}'" in str(refused.value)


def test_a_compressed_file_that_holds_nothing_is_empty(tmp_path):
    with pytest.raises(BadSource, match="is empty"):
        take(write_bytes(tmp_path / "a.csv.gz", gzip.compress(b"", mtime=0)))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.gz", gzip.compress(b"x", mtime=0), "has an unknown ending"),
        ("a.parquet.gz", gzip.compress(b"x", mtime=0), "is a compressed Parquet file"),
        ("a.csv", b"PK\x03\x04rest", "is a zip archive or an Excel workbook"),
        ("a.csv", b"PAR1rest", "is a Parquet file. Give it the ending .parquet"),
    ],
)
def test_a_file_of_another_kind_says_what_it_is(tmp_path, name, content, said):
    with pytest.raises(BadSource, match=said):
        take(write_bytes(tmp_path / name, content))


# --- separators


@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_the_separator_is_found_and_named(tmp_path, digest, separator):
    path = write_bytes(tmp_path / "a.csv", AS_CSV.replace(",", separator).encode())
    done = take(path)
    assert done.table.digest == digest
    assert done.notes == (f"'{path}' is read with the separator {separator!r}.",)


def test_a_tsv_with_commas_and_a_file_with_the_line_of_excel_are_read(tmp_path, digest):
    assert take(write_bytes(tmp_path / "a.tsv", AS_CSV.encode())).table.digest == digest
    excel = "sep=^\r\n" + AS_CSV.replace(",", "^")
    assert take(write_bytes(tmp_path / "b.csv", excel.encode())).table.digest == digest
    with pytest.raises(BadSource, match="line 63 has 3 fields, the header has 2"):
        take(write_bytes(tmp_path / "c.csv", (excel + "a^b^c\n").encode()))


def test_what_excel_saves_as_unicode_text_is_read(tmp_path, digest):
    """UTF-16 with tabs, in a .txt."""
    path = write_bytes(tmp_path / "a.txt", AS_CSV.replace(",", "\t").replace("\n", "\r\n").encode("utf-16"))
    done = take(path)
    assert done.table.digest == digest
    assert done.notes == (f"'{path}' is read with the separator '\\t' and as utf-16, which its first bytes name.",)


@pytest.mark.parametrize("given", ["^", "tab", "\\t", "\t"])
def test_a_separator_that_is_given_is_used(tmp_path, digest, given):
    character = "^" if given == "^" else "\t"
    path = write_bytes(tmp_path / "a.csv", AS_CSV.replace(",", character).encode())
    assert take(path, separator=given).table.digest == digest


@pytest.mark.parametrize("given", ["::", '"', "\n"])
def test_a_separator_that_cannot_be_one_is_refused(tmp_path, given):
    with pytest.raises(SettingError, match="--separator"):
        take(write_bytes(tmp_path / "a.csv", AS_CSV.encode()), separator=given)


def test_a_comma_in_a_header_does_not_hide_the_separator(tmp_path):
    body = "id, as given;review;sentiment\n" + "".join(f"1;{text};{label}\n" for text, label in ROWS)
    assert take(write_bytes(tmp_path / "a.csv", body.encode())).table.rows == 60


def test_messages_about_columns_and_fields_name_the_separator(tmp_path):
    with pytest.raises(BadSource, match=r"its columns are: 'text', 'stars'. They are read with the separator ';'"):
        take(write_bytes(tmp_path / "a.csv", b"text;stars\na;b\n"))
    with pytest.raises(BadSource, match=r"line 2 has 3 fields.*the separator is ';' \(--separator\)"):
        take(write_bytes(tmp_path / "a.csv", b"review;sentiment\na;b;c\n"))


# --- encodings


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize(("name", "content"), [("a.csv", AS_CSV), ("a.jsonl", AS_JSONL)])
def test_a_byte_order_mark_names_the_encoding(tmp_path, digest, name, content, encoding):
    assert take(write_bytes(tmp_path / name, content.encode(encoding))).table.digest == digest


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16-be", "mac_roman", "cp850"])
def test_an_encoding_that_is_given_is_used(tmp_path, digest, encoding):
    path = write_bytes(tmp_path / "a.csv", AS_CSV.encode(encoding))
    assert take(path, encoding=encoding).table.digest == digest


def test_a_byte_order_mark_is_stronger_than_the_encoding_that_is_given(tmp_path, digest):
    path = write_bytes(tmp_path / "a.csv", AS_CSV.encode("utf-8-sig"))
    assert take(path, encoding="cp1252").table.digest == digest


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("cp1252", "Ça a été très bien, l'été était là"),
        ("cp1252", "Die Größe war schön, müßig zu sagen"),
        ("cp1252", "la película fue muy buena, ¡qué mañana!"),
        ("cp1252", "“A fine film”"),
        ("cp1250", "Příliš žluťoučký kůň úpěl ďábelské ódy"),
        ("cp1250", "Zażółć gęślą jaźń, świetny film"),
        ("cp1254", "Film çok güzeldi ama sonu kötüydü, şaşırtıcıydı"),
        ("cp1251", "Фильм был очень хороший, но концовка слабая"),
        ("koi8_r", "Фильм был очень хороший, но концовка слабая"),
        ("cp1253", "Η ταινία ήταν πολύ καλή και το τέλος ωραίο"),
        ("shift_jis", "この映画はとても面白かったです。俳優も素晴らしい"),
        ("euc_kr", "이 영화는 정말 재미있었습니다"),
        ("gb18030", "这部电影非常好看，演员表演精彩"),
        ("big5", "這部電影非常好看，演員表演精彩"),
    ],
)
def test_the_likely_encoding_is_proposed(encoding, text):
    lines = "".join(f'"{text} {number}",good\n' for number in range(10))
    (found,) = propose_encodings(lines.encode(encoding))
    assert found[0] == encoding


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("shift_jis", "映画 0 とても良い"),
        ("euc_jp", "映画 0 とても良い"),
        ("cp1255", "סרט טוב מאוד"),
        ("cp1255", "הסרט הזה היה נפלא ואני רוצה לראות אותו שוב"),
        ("cp874", "หนังดีมาก"),
        ("cp437", "très bon film"),
        ("cp437", "Der Film war schön"),
        ("mac_roman", "Der Film war schön"),
        ("cp866", "Фильм хороший"),
        ("cp1251", "хорошо"),
        ("cp1253", "καλό"),
        ("cp1256", "جيد"),
        ("cp1257", "šį vakarą žiūrėsiu"),
        ("gb18030", "很好"),
        ("euc_kr", "좋다"),
    ],
)
def test_of_a_short_text_no_wrong_encoding_is_called_likely(encoding, text):
    """The right one is among those that are proposed, with the text as it reads it."""
    for times in (1, 30):
        found = dict(propose_encodings("\n".join([text] * times).encode(encoding)))
        assert found.get(encoding, "").split(" ")[0].rstrip(".") in text
        assert encoding in found


def test_several_encodings_are_proposed_with_what_each_makes_of_the_text(tmp_path):
    path = write_bytes(tmp_path / "a.csv", AS_CSV.replace("caf\xe9", "tr\xe8s").encode("cp437"))
    with pytest.raises(BadRows, match=r"It may be cp437 \('très.*mac_roman \('träs.*reads right") as told:
        take(path)
    assert "\n" not in str(told.value)


def test_bytes_that_are_no_utf8_bring_the_encoding_that_reads_them(tmp_path, digest):
    path = write_bytes(tmp_path / "a.csv", AS_CSV.encode("cp1252"))
    with pytest.raises(
        BadRows, match=r"60 with undecodable bytes .*: It is likely cp1252: pass --encoding cp1252"
    ):
        take(path)
    assert take(path, encoding="cp1252").table.digest == digest


def test_a_few_such_rows_are_set_aside_with_a_note_on_the_encoding(tmp_path):
    plain = AS_CSV.replace("\xe9", "e").encode()
    done = take(write_bytes(tmp_path / "a.csv", plain + "d\xe9j\xe0 vu,good\n".encode("cp1252")))
    assert done.table.rows == 60
    assert done.notes[0].startswith("Rows set aside with undecodable bytes: 1. It is likely cp1252: pass")


def test_utf16_without_a_mark_is_refused_with_its_name(tmp_path, digest):
    path = write_bytes(tmp_path / "a.csv", AS_CSV.encode("utf-16-le"))
    with pytest.raises(BadSource, match="It is likely utf-16-le: pass --encoding utf-16-le"):
        take(path)
    assert take(path, encoding="utf-16-le").table.digest == digest


@pytest.mark.parametrize("given", ["latin-77", "base64", "utf8 "])
def test_an_encoding_that_there_is_not_is_refused_before_anything_is_read(tmp_path, given):
    if given == "utf8 ":
        assert take(write_bytes(tmp_path / "a.csv", AS_CSV.encode()), encoding=given).table.rows == 60
        return
    with pytest.raises(SettingError, match="There is no encoding"):
        take(tmp_path / "missing.csv", encoding=given)


def test_text_that_a_codec_cannot_take_is_refused(tmp_path):
    with pytest.raises(BadSource, match="--encoding"):
        take(write_bytes(tmp_path / "a.csv", AS_CSV.encode("utf-16-le") + b"a"), encoding="utf-16-le")


def test_an_append_has_its_own_separator_and_encoding(tmp_path):
    """Those of the ingest were those of its files: the next file may be another one."""
    path = write_bytes(tmp_path / "a.csv", AS_CSV.replace(",", "^").encode("cp1252"))
    take(path, encoding="cp1252", separator="^")
    last = read_last_settings(str(tmp_path / "t"))
    assert (last.form, last.separator, last.encoding) == (TextClassData().form.forget_settings(), "", "")
    new = write_bytes(tmp_path / "new.csv", "review,sentiment\nna\xefve,good\n".encode())
    assert read_table(append(new, tmp_path / "t").table)["text"][-1].as_py() == "na\xefve"
    old = write_bytes(tmp_path / "old.csv", "review^sentiment\nd\xe9j\xe0 vu^good\n".encode("cp1252"))
    given = ["append", str(tmp_path / "t"), str(old), "--encoding", "cp1252", "--separator", "^"]
    assert CliRunner().invoke(main, given).exit_code == 0
    assert "d\xe9j\xe0 vu" in read_table(append(new, tmp_path / "t").table)["text"].to_pylist()


# --- folders


def as_table(rows: list[tuple[str, str]]) -> pa.Table:
    return pa.table({"review": [text for text, _ in rows], "sentiment": [label for _, label in rows]})


def write_partitions(folder: Path, rows: list[tuple[str, Any]], by: str = "sentiment") -> Path:
    ds.write_dataset(as_table(rows), folder, format="parquet", partitioning=[by], partitioning_flavor="hive")
    return folder


def test_a_folder_of_partitions_is_read_with_the_labels_of_its_folders(tmp_path):
    odd = [(text, {"good": "very good", "bad": "so/so=50 %"}[label]) for text, label in ROWS]
    done = take(write_partitions(tmp_path / "rows", odd))
    rows = read_table(done.table).to_pylist()
    assert {(row["text"], row["label"]) for row in rows} == set(odd)


def test_one_partition_and_a_glob_of_them_are_read_too(tmp_path):
    folder = write_partitions(tmp_path / "rows", ROWS)
    whole = take(folder)
    assert take(str(folder / "*" / "*.parquet")).table.digest == whole.table.digest
    assert take(str(folder / "sentiment=*")).table.digest == whole.table.digest
    more = append(folder / "sentiment=good", tmp_path / "new", settings=TextClassData())
    assert set(read_table(more.table)["label"].to_pylist()) == {"good"}


def test_a_missing_partition_value_is_a_missing_label(tmp_path):
    done = take(write_partitions(tmp_path / "rows", [*ROWS, ("no label", None)]))
    assert dict(done.bad_rows) == {"missing label": 1}
    assert read_table(done.quarantine)["line"].to_pylist() == [1]


def test_files_without_partitions_and_what_spark_leaves_beside_them_are_read(tmp_path, digest):
    folder = tmp_path / "rows"
    folder.mkdir()
    pq.write_table(as_table(ROWS[:30]), folder / "part-0.snappy.parquet")
    pq.write_table(as_table(ROWS[30:]), folder / "part-1.snappy.parquet")
    pq.write_table(as_table([]), folder / "part-2.snappy.parquet")  # of a task without a row
    (folder / "_SUCCESS").touch()
    (folder / ".part-0.crc").write_bytes(b"crc")
    (folder / "_temporary").mkdir()
    pq.write_table(as_table(ROWS[:30]), folder / "_temporary" / "part-9.parquet")
    assert take(folder).table.digest == digest


def test_values_that_python_does_not_take_are_refused_in_one_line(tmp_path):
    far = pa.array([2**45, 1], pa.timestamp("s"))
    pq.write_table(pa.table({"review": ["a", "b"], "sentiment": far}), tmp_path / "far.parquet")
    for path in (tmp_path / "far.parquet", write_bytes(tmp_path / "deep.jsonl", b"[" * 99_999)):
        with pytest.raises(BadSource, match=r"out of range|is not JSON") as told:
            take(path)
        assert "\n" not in str(told.value)


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_label_that_is_not_that_of_its_folder_is_refused(tmp_path, kind):
    folder = tmp_path / "stars=1"
    folder.mkdir()

    def write(*labels: Any) -> Path:
        rows = [{"review": f"film {label}", "stars": label} for label in labels]
        body = "\n".join(map(json.dumps, rows))
        if kind == "csv":
            body = "\n".join(["review,stars", *(f"film {label},{label}" for label in labels)])
        if kind == "parquet":
            pq.write_table(pa.Table.from_pylist(rows), folder / f"a.{kind}")
            return folder / f"a.{kind}"
        return write_bytes(folder / f"a.{kind}", body.encode())

    done = append(write(1, 1.0), tmp_path / "same", settings=TextClassData(label_column="stars"))
    assert done.labelled_rows == 2
    with pytest.raises(
        BadSource, match=r" [23] has the label .2. in its column .stars., and .* folder stars=1\."
    ) as told:
        append(write(1, 2), tmp_path / "other", settings=TextClassData(label_column="stars"))
    assert "\n" not in str(told.value)
    assert not (tmp_path / "other").exists()


def test_files_of_other_kinds_have_the_columns_of_their_folders_as_well(tmp_path, digest):
    for label in ("good", "bad"):
        (tmp_path / f"sentiment={label}").mkdir()
        body = "".join(f"{text}\n" for text, one in ROWS if one == label)
        (tmp_path / f"sentiment={label}" / "a.csv").write_text("review\n" + body, encoding="utf-8")
    with pytest.raises(BadSource, match=r"or a glob such as '.*/\*\*/\*\.csv'"):
        take(tmp_path)
    assert take(str(tmp_path / "**/*.csv")).table.rows == len(ROWS)
    done = take(str(tmp_path / "sentiment=*" / "*.csv"))
    assert done.table.rows == 60
    assert done.labels == ("bad", "good")


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_inputs_may_stand_in_the_names_of_folders(tmp_path, kind):
    columns = (
        Column("country", "country", "category"),
        Column("age", "age", "number"),
        Column("at", "at", "number"),
    )
    settings = FormSettings(rows=RowForm(columns, Label(("paid",), "class")), max_bad_share=0.5)
    for country, at in (("FR", "1"), ("so%2Fso", "2.5"), ("__HIVE_DEFAULT_PARTITION__", "3")):
        folder = tmp_path / "rows" / f"at={at}" / f"country={country}"
        folder.mkdir(parents=True)
        rows = [{"paid": "no" if age % 2 else "yes", "age": age + 0.5} for age in range(40)]
        if kind == "parquet":
            pq.write_table(pa.Table.from_pylist(rows), folder / "a.parquet")
        else:
            lines = [f"{row['paid']};{str(row['age']).replace('.', ',')}" for row in rows]
            body = ["paid;age", *lines] if kind == "csv" else map(json.dumps, rows)
            (folder / f"a.{kind}").write_text("\n".join(body))
    done = ingest(Sources(data=str(tmp_path / "rows/*/*/a.*")), tmp_path / "t", settings=settings)
    found = {(row["country"], row["at"], row["age"]) for row in read_table(done.table).to_pylist()}
    assert found == {(country, at, age + 0.5) for country, at in (("FR", 1), ("so/so", 2.5)) for age in range(40)}
    assert dict(done.bad_rows) == {"missing value": 40}


def test_inputs_that_stand_in_no_folder_and_no_file_are_named(tmp_path):
    columns = Column("age", "age", "number"), Column("country", "country", "category")
    form = RowForm(columns, Label(("paid",), "class"))
    (tmp_path / "country=FR").mkdir()
    for name, body in (("a.csv", "paid\nyes\n"), ("a.jsonl", '{"paid": "yes"}')):
        (tmp_path / "country=FR" / name).write_text(body)
        with pytest.raises(BadSource, match="has no column 'age'"):
            ingest(Sources(data=tmp_path / "country=FR" / name), tmp_path / "t", settings=FormSettings(rows=form))
    everything = replace(form, inputs=form.inputs[1:])
    for name in ("a.csv", "a.jsonl"):
        file = tmp_path / "country=FR" / name
        assert append(file, tmp_path / name, settings=FormSettings(rows=everything)).new_rows == 1
    pq.write_table(pa.table({"note": ["a", "b"]}), tmp_path / "country=FR" / "a.parquet")
    done = append(tmp_path / "country=FR" / "a.parquet", tmp_path / "t", settings=FormSettings(rows=everything))
    assert (done.new_rows, done.known_rows) == (1, 1)


def test_a_glob_of_files_and_folders_of_parquet_reads_both(tmp_path, digest):
    rows = tmp_path / "rows"
    rows.mkdir()
    pq.write_table(as_table(ROWS[:20]), rows / "a.parquet")
    for at, name in enumerate(("b", "_temporary", "c.parquet"), start=1):
        (rows / name).mkdir()
        pq.write_table(as_table(ROWS[20 * at : 20 * at + 20]), rows / name / "part-0.parquet")
    (rows / "b" / "_SUCCESS").touch()
    pq.write_table(as_table(ROWS[40:]), rows / "c.parquet" / "part-0.parquet")
    assert ingest(Sources(data=str(rows / "*")), tmp_path / "t", settings=TextClassData()).table.digest == digest
    assert preview(str(rows / "*")).rows == len(ROWS)
    (rows / "b" / "more.csv").write_text(AS_CSV, encoding="utf-8")
    with pytest.raises(BadSource, match="holds Parquet files and others, such as"):
        take(str(rows / "*"))


def test_a_recursive_glob_chooses_the_files_of_the_folders_that_it_looks_into(tmp_path, digest):
    (tmp_path / "b").mkdir()
    pq.write_table(as_table(ROWS[:30]), tmp_path / "a.parquet")
    pq.write_table(as_table(ROWS[30:]), tmp_path / "b" / "c.parquet")
    (tmp_path / "b" / "d.csv").write_text("other,columns\n", encoding="utf-8")
    assert take(str(tmp_path / "**" / "*.parquet")).table.digest == digest


def test_the_files_of_a_table_are_not_taken_for_its_rows(tmp_path):
    write_table(tmp_path / "delta", as_table(ROWS[:30]))
    write_table(tmp_path / "delta", as_table(ROWS[30:]), mode="overwrite")
    with pytest.raises(BadSource, match="belongs to a Delta table"):
        take(str(tmp_path / "delta" / "*.parquet"))
    (tmp_path / "ice" / "data").mkdir(parents=True)
    (tmp_path / "ice" / "metadata").mkdir()
    (tmp_path / "ice" / "metadata" / "v1.metadata.json").touch()
    pq.write_table(as_table(ROWS), tmp_path / "ice" / "data" / "a.parquet")
    with pytest.raises(BadSource, match="belongs to an Iceberg table"):
        take(tmp_path / "ice")


def test_a_folder_whose_files_have_no_rows_and_one_with_a_damaged_file_are_refused(tmp_path):
    (tmp_path / "rows").mkdir()
    pq.write_table(as_table([]), tmp_path / "rows" / "part-0.parquet")
    with pytest.raises(BadSource, match=r"part-0\.parquet' has no rows"):
        take(tmp_path / "rows")
    (tmp_path / "rows" / "part-1.parquet").write_bytes(b"PAR1 but not really")
    with pytest.raises(BadSource, match=r"part-1\.parquet' is not a readable Parquet file"):
        take(tmp_path / "rows")


def test_a_folder_of_several_kinds_is_refused(tmp_path):
    folder = write_partitions(tmp_path / "rows", ROWS)
    (folder / "more.csv").write_text(AS_CSV, encoding="utf-8")
    with pytest.raises(BadSource, match="holds Parquet files and others, such as"):
        take(folder)


def test_texts_of_every_type_that_arrow_has_for_them_are_read(tmp_path, digest):
    for number, kind in enumerate((pa.binary(), pa.large_binary(), pa.large_string(), pa.string_view())):
        texts = pa.array([text.encode() for text, _ in ROWS]).cast(kind)
        folder = tmp_path / str(number)
        folder.mkdir()
        pq.write_table(
            pa.table({"review": texts, "sentiment": [label for _, label in ROWS]}), folder / "a.parquet"
        )
        assert take(folder / "a.parquet").table.digest == digest
