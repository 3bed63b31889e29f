"""`dlpipe init`: what a file shows, the project that is made of it, and a newer template for it."""

from __future__ import annotations

import ast
import csv
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from texts import reviews, write_csv

from dlpipe.cli import main
from dlpipe.errors import BadSource, ProjectExists, ProjectUnusable, SettingError
from dlpipe.tables import Preview, preview
from dlpipe.task import find_task, list_tasks
from dlpipe.task.columns import as_list, find_number
from dlpipe.task.tabular_classification.columns import guess_kind
from dlpipe.templates import make_project, update_project
from dlpipe.templates.choosing import choose_columns
from dlpipe.templates.rendering import TEMPLATE

ROOT = Path(__file__).resolve().parents[1]
SUGGEST = find_task("text-classification").suggest


@pytest.fixture
def films(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with ``films.csv``."""
    monkeypatch.chdir(tmp_path)
    write_csv(tmp_path / "films.csv", reviews(), "text,stars")
    return tmp_path


@pytest.fixture
def project(films: Path) -> Path:
    """A project that was just made."""
    return make_project("films", "films.csv").folder.absolute()


def dlpipe(*words: str) -> Result:
    return CliRunner().invoke(main, list(words))


def contents(folder: Path) -> dict[str, bytes]:
    """The files below a folder."""
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file() and ".venv" not in file.parts
    }


# -- what a file shows -------------------------------------------------------------------------------------------


def columns_of(path: Path, text: str, **given: str) -> dict[str, str]:
    path.write_text(text)
    return dict(SUGGEST(preview(str(path)), given).settings)


LONG = "a text that is long enough to be one"


def test_the_longest_column_is_the_text_and_the_one_with_few_values_the_label(tmp_path: Path) -> None:
    rows = "".join(f"{n},title {n},{LONG} {n},{'good' if n % 2 else 'bad'}\n" for n in range(20))
    found = columns_of(tmp_path / "a.csv", f"id,title,body,verdict\n{rows}")
    assert found == {"text_column": "body", "label_column": "verdict"}


def test_a_column_that_is_called_label_is_taken_before_others_with_few_values(tmp_path: Path) -> None:
    rows = "".join(f"{LONG} {n};{n % 2};{n % 3}\n" for n in range(20))
    assert columns_of(tmp_path / "a.csv", f"text;country;Label\n{rows}")["label_column"] == "Label"


@pytest.mark.parametrize(
    ("header", "row", "option", "named"),
    [
        ("text,country,genre", f"{LONG} {{n}},{{two}},{{two}}", "--label-column", "'country' (2 values), 'genre'"),
        ("question,answer,label", f"{LONG} {{n}},{LONG} {{n}},{{two}}", "--text-column", "'question' (3"),
        ("code,label", "{n},{two}", "--text-column", "no column is sure to hold the texts"),
        ("text,id", f"{LONG} {{n}},{{n}}", "--label-column", "no column is sure to hold the labels"),
    ],
)
def test_a_doubt_is_one_line_with_the_columns_and_the_option(
    tmp_path: Path, header: str, row: str, option: str, named: str
) -> None:
    rows = "".join(row.format(n=n, two=n % 2) + "\n" for n in range(20))
    with pytest.raises(SettingError) as refused:
        columns_of(tmp_path / "a.csv", f"{header}\n{rows}")
    line = str(refused.value)
    assert option in line
    assert named in line
    assert line.endswith(f"the columns are: {', '.join(map(repr, header.split(',')))}.")
    assert "\n" not in line


def test_options_decide_where_the_file_leaves_doubt(tmp_path: Path) -> None:
    rows = "".join(f"{LONG} {n},{LONG} {n},{n % 2},{n % 2}\n" for n in range(20))
    given = {"text_column": "b", "label_column": "d"}
    assert columns_of(tmp_path / "x.csv", f"a,b,c,d\n{rows}", **given) == given


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"text_column": "txt"}, "no column 'txt' (--text-column); the columns are: 'text', 'label'."),
        ({"label_column": "text", "text_column": "text"}, "--label-column and --text-column name 'text' twice"),
        ({"label_column": "label"}, "has 1 value in 20 rows: there is nothing to tell apart"),
    ],
)
def test_a_column_that_cannot_be_meant_is_refused(tmp_path: Path, given: dict[str, str], line: str) -> None:
    rows = "".join(f"{LONG} {n},same\n" for n in range(20))
    with pytest.raises(SettingError, match=re.escape(line)):
        columns_of(tmp_path / "a.csv", f"text,label\n{rows}", **given)


@pytest.mark.parametrize("ending", ["jsonl", "parquet", "tsv"])
def test_files_of_every_kind_show_their_columns(tmp_path: Path, ending: str) -> None:
    rows = [{"text": f"{LONG} {n}", "label": n % 2} for n in range(20)]
    path = tmp_path / f"a.{ending}"
    if ending == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif ending == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        path.write_text("text\tlabel\n" + "".join(f"{row['text']}\t{row['label']}\n" for row in rows))
    assert dict(SUGGEST(preview(str(path)), {}).settings) == {"text_column": "text", "label_column": "label"}


def test_each_file_of_a_glob_is_looked_at_since_each_may_hold_one_class(tmp_path: Path) -> None:
    for label in ("good", "bad"):
        rows = "".join(f"{LONG} {n} {label},{label}\n" for n in range(30))
        (tmp_path / f"{label}.csv").write_text(f"text,label\n{rows}")
    found = preview(str(tmp_path / "*.csv"), rows=20)
    assert (found.rows, found.whole, sorted(set(found.columns["label"]))) == (20, False, ["bad", "good"])


def test_a_file_in_another_encoding_is_refused_with_the_one_that_is_likely(tmp_path: Path) -> None:
    rows = "".join(f"{LONG} un café très près {n},{n % 2}\n" for n in range(30))
    (tmp_path / "a.csv").write_bytes(f"text,label\n{rows}".encode("cp1252"))
    with pytest.raises(BadSource, match=r"30 of 30 rows with bytes that are no UTF-8.*--encoding cp1252"):
        preview(str(tmp_path / "a.csv"))


def test_a_file_without_rows_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\n")
    with pytest.raises(BadSource, match="has no rows"):
        preview(str(tmp_path / "a.csv"))


# -- of each task -----------------------------------------------------------------------------------------------

ROWS = 40
WORDS = ("lovely", "dull", "funny", "slow")


def column(make: Callable[[int], Any]) -> list[Any]:
    return [make(number) for number in range(ROWS)]


TEXT = {"review": column(lambda n: f"A {WORDS[n % 4]} film about the number {n}")}
OTHER = {"other": column(lambda n: f"What a {WORDS[n % 4]} film this one is: {n}")}
SHOWN: dict[str, tuple[dict[str, list[Any]], dict[str, Any], str]] = {
    "text-classification": (
        {**TEXT, "verdict": column(lambda n: WORDS[n % 4])},
        {"text_column": "review", "label_column": "verdict"},
        "4 classes in 40 rows: 'lovely' (10)",
    ),
    "text-regression": (
        {"id": column(str), **TEXT, "stars": column(lambda n: n % 9 / 2)},
        {"text_column": "review", "label_column": "stars"},
        "numbers from 0 to 4 in 40 rows",
    ),
    "text-multilabel": (
        {**TEXT, "tags": column(lambda n: "|".join(WORDS[: n % 3 + 1]))},
        {"text_column": "review", "label_column": "tags"},
        "3 labels in 40 rows: 'lovely' (40), 'dull' (26), 'funny' (13)",
    ),
    "text-pair-classification": (
        {**TEXT, **OTHER, "same": column(lambda n: n % 2)},
        {"text_column": "review", "text_pair_column": "other", "label_column": "same"},
        "2 classes in 40 rows: '0' (20), '1' (20)",
    ),
    "tabular-classification": (
        {
            "id": column(str),
            "age": column(lambda n: n if n % 7 else None),
            "town": column(lambda n: ("Bonn", "Rome")[n % 2]),
            "note": TEXT["review"],
            "outcome": column(lambda n: ("paid", "refused")[n % 3 % 2]),
        },
        {
            "number_columns": ["age"],
            "category_columns": ["town"],
            "text_column": "note",
            "label_column": "outcome",
        },
        "left out 'id'",
    ),
}


@pytest.mark.parametrize("task", list_tasks())
def test_each_task_finds_its_columns(task: str) -> None:
    columns, settings, line = SHOWN[task]
    found = Preview("rows.csv", columns, ROWS, True)
    suggested = find_task(task).suggest(found, {})
    assert suggested.settings == settings
    assert line in "\n".join(suggested.lines)
    again = find_task(task).suggest(found, settings)
    assert again.settings == settings


SAMPLES = {
    "reviews": ("text-classification", {"text_column": "review", "label_column": "sentiment"}),
    "tickets": ("text-multilabel", {"text_column": "message", "label_column": "labels"}),
    "ratings": ("text-regression", {"text_column": "review", "label_column": "rating"}),
    "questions": (
        "text-pair-classification",
        {"text_column": "question", "text_pair_column": "other", "label_column": "duplicate"},
    ),
    "claims": (
        "tabular-classification",
        {
            "number_columns": ["age", "amount", "days"],
            "category_columns": ["region", "channel", "cover"],
            "text_column": "note",
            "label_column": "outcome",
        },
    ),
}


@pytest.mark.parametrize(("separator", "kind"), [(";", "number"), ("\t", "number"), (",", "")])
def test_a_decimal_comma_makes_a_number_where_an_ingest_reads_one(
    tmp_path: Path, separator: str, kind: str
) -> None:
    lines = [f'"{n},5"{separator}{("paid", "refused")[n % 2]}' for n in range(40)]
    (tmp_path / "bills.csv").write_text("\n".join([f"price{separator}outcome", *lines]))
    found = preview(str(tmp_path / "bills.csv"))
    assert guess_kind(found, "price") == kind
    if kind:
        assert find_number(found, {"label_column": "price"}, besides=()) == "price"
    else:
        with pytest.raises(SettingError, match=r"'price' .* holds no numbers .* Write them with a point"):
            find_number(found, {"label_column": "price"}, besides=())
        with pytest.raises(SettingError, match=r"holds no numbers \(--number-columns\)"):
            find_task("tabular-classification").suggest(found, {"number_columns": ["price"]})


@pytest.mark.parametrize("name", SAMPLES)
def test_the_columns_of_the_samples_that_ship_are_found(name: str) -> None:
    task, settings = SAMPLES[name]
    assert find_task(task).suggest(preview(str(ROOT / f"data/sample/{name}.csv")), {}).settings == settings


def test_a_text_among_columns_is_trained_with_them_and_columns_alone_take_more_epochs(films: Path) -> None:
    make_project("claims", str(ROOT / "data/sample/claims.csv"), task="tabular-classification")
    make_project("wine", dataset="wine")
    read = [tomllib.loads(Path(name, "flows/train_flow.toml").read_text()) for name in ("claims", "wine")]
    trained = [(written["training"]["strategy"], written["training"]["epochs"]) for written in read]
    assert trained == [("no_freeze", 4), ("freeze", 40)]
    assert [written["tuning"]["epochs"] for written in read] == [2, 20]
    assert not update_project("claims").merges


def test_labels_may_be_columns_of_0_and_1() -> None:
    columns = {**TEXT, "war": column(lambda n: n % 2), "drama": column(lambda n: n % 3 % 2)}
    suggested = find_task("text-multilabel").suggest(Preview("rows.csv", columns, ROWS, True), {})
    assert suggested.settings == {"text_column": "review", "label_columns": ["war", "drama"]}
    assert "2 columns of 0 and 1: 2 labels in 40 rows: 'war' (20), 'drama' (13)" in suggested.lines[1]


@pytest.mark.parametrize(
    ("task", "columns", "line"),
    [
        ("text-regression", {**TEXT, "a": column(str), "b": column(float)}, "'a' (numbers from 0 to 39), 'b'"),
        (
            "text-multilabel",
            {**TEXT, "tag": column(lambda n: WORDS[n % 4])},
            "no column is sure to hold the labels",
        ),
        (
            "text-pair-classification",
            {**TEXT, "label": column(lambda n: n % 2)},
            "may hold the two texts: 'review'",
        ),
        (
            "tabular-classification",
            {"a": column(lambda n: n % 2), "b": column(lambda n: n % 3)},
            "may hold the labels",
        ),
    ],
)
def test_each_task_asks_where_it_is_in_doubt(task: str, columns: dict[str, list[Any]], line: str) -> None:
    with pytest.raises(SettingError, match=re.escape(line)):
        find_task(task).suggest(Preview("rows.csv", columns, ROWS, True), {})


@pytest.mark.parametrize("task", list_tasks())
def test_the_settings_of_each_task_are_read_by_the_flow(films: Path, task: str) -> None:
    from dlpipe.flows.settings import TrainFlowSettings, read_flow_settings

    columns, settings, _ = SHOWN[task]
    pq.write_table(pa.table(columns), "rows.parquet")
    make_project("mine", "rows.parquet", task=task)
    written = tomllib.loads(Path("mine/flows/train_flow.toml").read_text())
    assert written["task"] == task
    chosen = read_flow_settings(TrainFlowSettings, written, {})
    assert {name: written["data"][name] for name in settings} == settings
    suggested = find_task(task).suggest(Preview("rows.csv", columns, ROWS, True), {}).training
    assert chosen.training == find_task(task).inputs.training(**suggested)
    assert chosen.gate == find_task(task).target.gate()
    with Path("mine/tests/sample.csv").open() as file:
        header, *rows = csv.reader(file)
    assert set(header) == {name for names in settings.values() for name in as_list(names)}
    assert len(rows) > 30


# -- a new project -----------------------------------------------------------------------------------------------


def test_the_settings_have_what_the_file_showed(project: Path) -> None:
    written = (project / "flows/train_flow.toml").read_text()
    read = tomllib.loads(written)
    assert read["data"]["data"] == "../films.csv"
    names = ("table", "text_column", "label_column")
    assert [read["data"][name] for name in names] == ["films", "text", "stars"]
    assert read["registry"]["model"] == "films"
    assert "# label   'stars': 2 classes in 250 rows: 'positive' (150), 'negative' (100)" in written


def test_the_flows_are_those_of_the_repository_with_the_project_s_name(project: Path) -> None:
    shipped = {file.name: file.read_text() for file in (ROOT / "flows").iterdir() if file.is_file()}
    there = {file.name: file.read_text() for file in (project / "flows").iterdir()}
    assert there.keys() == shipped.keys()
    for name in shipped.keys() - {"train_flow.toml"}:
        assert there[name] == re.sub(r"\breviews\b", "films", shipped[name])
    assert tomllib.loads(there["train_flow.toml"]).keys() == tomllib.loads(shipped["train_flow.toml"]).keys()


def test_every_package_that_dlpipe_asks_for_is_pinned_as_it_is_installed(project: Path) -> None:
    pins = dict(line.split("==") for line in (project / "constraints.txt").read_text().splitlines()[1:])
    assert {"metaflow", "torch", "copier", "pytest", "MarkupSafe"} <= pins.keys()
    assert pins["mlflow"] == version("mlflow")
    assert not [pin for pin in pins.values() if "+" in pin]
    assert "dlpipe" not in pins


def test_the_sample_has_each_class_and_no_other_columns(films: Path) -> None:
    rows = "".join(f'{n},"{LONG}, {n}",{"bad" if n == 250 else n % 3}\n' for n in range(300))
    (films / "many.csv").write_text(f"id,text,label\n{rows}")
    done = make_project("many", "many.csv")
    lines = (done.folder / "tests/sample.csv").read_text().splitlines()
    assert (lines[0], len(lines) - 1) == ('"text","label"', done.sample)
    assert {line.rpartition(",")[2] for line in lines[1:]} == {'"0"', '"1"', '"2"', '"bad"'}


def test_the_sample_keeps_rows_that_lack_a_number_or_a_category(films: Path) -> None:
    rows = "".join(f"{'' if n % 2 else n},{n % 7 / 2 if n % 2 else ''},{n % 3}\n" for n in range(100))
    (films / "gaps.csv").write_text(f"weight,height,label\n{rows}")
    done = make_project("gaps", "gaps.csv", task="tabular-classification")
    assert done.sample > 50
    lines = (done.folder / "tests/sample.csv").read_text().splitlines()
    assert {line.count('""') for line in lines[1:]} == {1}


def test_what_is_said_names_columns_classes_and_what_comes_next(films: Path) -> None:
    said = dlpipe("init", "films", "--data", "films.csv").output
    for words in ("'text': 19 characters", "'stars': 2 classes", "--task, --text-column or --label-column"):
        assert words in said
    assert said.splitlines()[-1] == "next    cd films && make train && make test"


def test_python_files_and_json_files_are_well_formed(project: Path) -> None:
    for file in [*project.glob("*/*.py"), *project.glob(".vscode/*.json")]:
        (ast.parse if file.suffix == ".py" else json.loads)(file.read_text())
    checks = [["check", "--select", "E,F,I,B,UP"], ["format", "--check"]]
    for words in checks:
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *words, "--line-length=115", "--isolated", "tests"],
            cwd=project,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout


def test_the_editor_s_commands_name_files_and_steps_that_exist(project: Path) -> None:
    launch = json.loads((project / ".vscode/launch.json").read_text())
    tasks = json.loads((project / ".vscode/tasks.json").read_text())
    for entry in launch["configurations"]:
        assert entry["subProcess"] is True
        assert entry["env"] == {"PYDEVD_DISABLE_FILE_VALIDATION": "1"}
    named = re.findall(r"(flows/\w+\.py)", json.dumps([launch, tasks]))
    assert named
    assert not [name for name in named if not (project / name).is_file()]
    flow = ast.parse((project / "flows/train_flow.py").read_text())
    steps = [
        node.name
        for node in ast.walk(flow)
        if isinstance(node, ast.FunctionDef)
        and any(getattr(mark, "id", "") == "step" for mark in node.decorator_list)
    ]
    for file in (launch, tasks):
        (pick,) = [one for one in file["inputs"] if one["id"] == "step"]
        assert pick["options"] == steps
    targets = re.findall(r"^([a-z]+):", (project / "Makefile").read_text(), flags=re.MULTILINE)
    assert {entry["args"][0] for entry in tasks["tasks"] if entry["command"] == "make"} <= set(targets)


def test_what_is_installed_beside_the_command_is_seen_by_the_project(project: Path) -> None:
    program = "import sys, dlpipe, metaflow_extensions.dlpipe; print(sys.prefix, dlpipe.__file__)"
    command = [project / ".venv/bin/python", "-c", program]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(project / ".venv"), str(ROOT / "dlpipe/__init__.py")]
    subprocess.run([project / ".venv/bin/dlpipe", "--version"], check=True)
    planned = subprocess.run(
        ["make", "--no-print-directory", "--dry-run", "train"],
        cwd=project,
        capture_output=True,
        text=True,
        check=True,
    )
    assert [line for line in planned.stdout.splitlines() if "import dlpipe" not in line] == [
        ".venv/bin/python flows/train_flow.py run"
    ]


def test_a_clone_makes_an_environment_with_the_pinned_versions(project: Path) -> None:
    shutil.rmtree(project / ".venv")
    done = subprocess.run(["make", "--dry-run", "train"], cwd=project, capture_output=True, text=True, check=True)
    assert "-m venv .venv" in done.stdout
    assert f"--constraint constraints.txt 'dlpipe=={version('dlpipe')}'" in done.stdout


def test_an_environment_that_is_there_stays(films: Path) -> None:
    Path("films/.venv").mkdir(parents=True)
    assert make_project("films", "films.csv").environment == ""
    assert os.listdir("films/.venv") == []


OFFLINE = """
import resource, socket, sys

def refuse(*_):
    raise AssertionError("the network was asked")

socket.socket.connect = socket.getaddrinfo = refuse
from dlpipe.cli import main
try:
    main(["init", "films", "--data", "films.csv"])
finally:
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    print(sum(of.ru_utime + of.ru_stime for of in spent))
"""


def test_a_project_is_made_in_three_seconds_without_a_network(films: Path) -> None:
    done = subprocess.run([sys.executable, "-c", OFFLINE], capture_output=True, text=True, check=True)
    assert float(done.stdout.split()[-1]) < 3  # of computing: other processes may want the cores too


def test_the_command_of_the_ci_can_be_run(project: Path) -> None:
    assert os.access(project / ".ci/run", os.X_OK)


def test_nothing_is_overwritten(project: Path) -> None:
    (project / "Makefile").write_text("mine\n")
    before = contents(project)
    done = dlpipe("init", "films", "--data", "films.csv")
    assert done.exit_code == 1
    assert done.output.startswith("Error: 'films' has ")
    assert "nothing is overwritten" in done.output
    assert contents(project) == before


def test_a_project_is_made_beside_files_that_are_there(films: Path) -> None:
    make_project(".", "films.csv", name="films")
    assert tomllib.loads((films / "flows/train_flow.toml").read_text())["data"]["data"] == "films.csv"
    assert (films / "films.csv").is_file()


@pytest.mark.parametrize("dataset", ["breast_cancer", "wine"])
def test_a_data_set_of_scikit_learn_becomes_a_file_of_the_project(films: Path, dataset: str) -> None:
    done = dlpipe("init", "mine", "--dataset", dataset)
    assert done.exit_code == 0, done.output
    assert f"data    mine/data/{dataset}.csv\ntask    tabular-classification" in done.output
    data = tomllib.loads(Path("mine/flows/train_flow.toml").read_text())["data"]
    assert (data["data"], data["label_column"]) == (f"data/{dataset}.csv", "class")
    with Path("mine", data["data"]).open() as file:
        header = next(csv.reader(file))
    assert [*data["number_columns"], "class"] == header
    assert not update_project("mine").merges  # the template has nothing to say of data
    assert Path("mine", data["data"]).is_file()


def test_a_project_that_cannot_be_written_leaves_nothing(films: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copied = []

    def copy(source: Path, target: Path) -> None:
        copied.append(target)
        if len(copied) > 9:
            raise OSError(28, "No space left on device")
        shutil.copyfile(source, target)

    monkeypatch.setattr("dlpipe.templates.placing.shutil.copy", copy)
    with pytest.raises(ProjectUnusable, match="No space left on device"):
        make_project("new/films", "films.csv")
    assert sorted(os.listdir(films)) == ["films.csv"]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["", "--data", "films.csv"], "The name of the folder is empty. Name the folder; . for this one."),
        (["films"], "dlpipe init needs --data or --dataset"),
        (["films", "--data", "films.csv", "--dataset", "wine"], "--data and --dataset are two sources"),
        (["films", "--dataset", "whine"], "scikit-learn has no data set 'whine'; did you mean 'wine'?"),
        (["films", "--data", "nothing.csv"], "There is no file 'nothing.csv'"),
        (
            ["films", "--data", "flms.csv"],
            "There is no file 'flms.csv'; did you mean 'films.csv'? Check the path.",
        ),
        (["films", "--data", "films.csv", "--task", "text"], "This environment has no task 'text'"),
        (["my films", "--data", "films.csv"], "'my films' cannot name a project"),
        (["films_predictions", "--data", "films.csv"], "'films_predictions' cannot name a project: its table"),
        (["films", "--update"], "'films' is no project of dlpipe init"),
        (["films", "--update", "--data", "films.csv"], "--update takes no other option: --data."),
        (["films", "--data", "films.csv", "--separator", "xx"], "separator (--separator) = 'xx' is refused"),
    ],
)
def test_an_expected_failure_is_one_line(films: Path, words: list[str], line: str) -> None:
    done = dlpipe("init", *words)
    assert done.exit_code == 1
    assert done.output.startswith(f"Error: {line}")
    assert done.output.count("\n") == 1
    assert os.listdir(films) == ["films.csv"]


REVIEWS = "".join(f"{LONG} {n},{n % 2}\n" for n in range(30))
CODES = "".join(f"code{n},{n}\n" for n in range(30))


@pytest.mark.parametrize(
    ("content", "words", "line"),
    [
        (
            "text,label,text\n" + REVIEWS.replace("\n", ",x\n"),
            ["--text-column", "text"],
            "'odd.csv' has two columns 'text' (--text-column): rename one of them.",
        ),
        (f"text,label\n{REVIEWS}a, b,1\n", [], "'odd.csv' line 32 has 3 fields, the header has 2."),
        (
            "text,label\n" + "".join(REVIEWS.splitlines(keepends=True)[:3]),
            ["--label-column", "label"],
            "make train would refuse this file: 3 good rows leave none for the split 'valid'",
        ),
        (f"code,value\n{CODES}", [], "Or name another task with --task: tabular-classification, text-multilabel"),
        (
            "text,score\n" + "".join(f"{LONG} {n},{n / 7:.2f}\n" for n in range(30)),
            [],
            "Or is it for another task? Pass --task text-regression ('text', 'score').",
        ),
        (
            f"text,label\n{REVIEWS}",
            ["--number-columns", "label"],
            "The task 'text-classification' has no --number-columns; tabular-classification has (--task).",
        ),
        (
            f"text,label\n{REVIEWS}",
            ["--task", "tabular-classification"],
            "Or is it for another task? Pass --task text-classification ('text', 'label').",
        ),
    ],
    ids=["one name twice", "fields", "few rows", "no task", "another task", "foreign option", "too plain a task"],
)
def test_what_a_training_would_refuse_is_refused_and_tasks_that_fit_are_named(
    films: Path, content: str, words: list[str], line: str
) -> None:
    Path("odd.csv").write_text(content)
    done = dlpipe("init", "odd", "--data", "odd.csv", *words)
    assert done.exit_code == 1
    assert line in done.output
    assert done.output.count("\n") == 1
    assert not Path("odd").exists()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--task", "text-classification"], "In 'wine' no column is sure to hold the texts."),
        (["--text-column", "alcohl"], "'wine' has no column 'alcohl' (--text-column)"),
        (["--separator", ";"], "--separator says how a file of --data is read: leave it out with --dataset."),
    ],
)
def test_a_message_on_a_data_set_calls_it_by_its_name(films: Path, words: list[str], line: str) -> None:
    done = dlpipe("init", "mine", "--dataset", "wine", *words)
    assert done.exit_code == 1
    assert done.output.startswith(f"Error: {line}")


def describe_doubts(columns: dict[str, list[Any]], *, separator: str = ",", is_default: bool = True) -> list[str]:
    found = Preview("rows.csv", columns, len(next(iter(columns.values()))), True, separator)
    return list(choose_columns(found, "text-classification", {}, is_default=is_default).doubts)


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("reviews", ""),
        ("tickets", "or      --task text-multilabel: labels 'labels': 7 labels in 1,997 rows: 'delivery' (601)"),
        (
            "claims",
            "or      --task tabular-classification, which reads 'age', 'amount', 'days', 'region', 'channel', ",
        ),
    ],
)
def test_a_file_that_fits_another_task_is_said_to_unless_somebody_named_the_task(name: str, line: str) -> None:
    columns = dict(preview(str(ROOT / f"data/sample/{name}.csv")).columns)
    found = describe_doubts(columns)
    assert len(found) == bool(line)
    assert not line or found[0].startswith(line)
    assert describe_doubts(columns, is_default=False) == []


def test_a_first_line_that_looks_like_a_row_is_told() -> None:
    texts = column(lambda n: f"{LONG} {n}")
    headless = {"a text that is as long as the others": texts, "good": column(lambda n: ("good", "bad")[n % 2])}
    (line,) = describe_doubts(headless)
    assert line.startswith(
        "names   the first line is taken as the names of the columns: 'a text that is as long as"
    )
    assert "'good' looks like a value" in line
    assert describe_doubts(headless, separator="") == []  # of JSON or Parquet


def test_separator_and_encoding_go_into_the_settings(films: Path) -> None:
    rows = "".join(f"{LONG} café {n}^{'gut' if n % 2 else 'schlecht'}\n" for n in range(20))
    (films / "odd.csv").write_bytes(f"text^label\n{rows}".encode("cp1252"))
    make_project("odd", "odd.csv", reading={"separator": "^", "encoding": "cp1252"})
    data = tomllib.loads(Path("odd/flows/train_flow.toml").read_text())["data"]
    assert (data["separator"], data["encoding"]) == ("^", "cp1252")
    assert "café" in Path("odd/tests/sample.csv").read_text()


# -- a newer template --------------------------------------------------------------------------------------------


@pytest.fixture
def newer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A template to be changed by a test."""
    folder = tmp_path_factory.mktemp("newer") / "project"
    shutil.copytree(TEMPLATE, folder)
    if not (folder / "flows").is_dir():
        shutil.copytree(ROOT / "flows", folder / "flows", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def change(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def test_an_update_without_anything_new_changes_nothing(project: Path) -> None:
    before = contents(project)
    assert dlpipe("init", "films", "--update").output == f"films is up to date with dlpipe {version('dlpipe')}.\n"
    assert contents(project) == before


def test_both_changes_stay_where_they_are_in_different_lines(project: Path, newer: Path) -> None:
    change(newer / "flows/train_flow.toml", "epochs = 2\n", "epochs = 4\n")
    change(project / "flows/train_flow.toml", 'model = "films"', 'model = "cinema"')
    done = update_project(project, template=newer)
    assert [(merge.path, merge.what) for merge in done.merges] == [("flows/train_flow.toml", "merged")]
    read = tomllib.loads((project / "flows/train_flow.toml").read_text())
    assert (read["training"]["epochs"], read["registry"]["model"]) == (4, "cinema")


def test_a_line_that_both_changed_is_there_twice_between_marks(project: Path, newer: Path) -> None:
    change(newer / "flows/train_flow.toml", "batch_size = 32\n", "batch_size = 64\n")
    change(project / "flows/train_flow.toml", "batch_size = 32\n", "batch_size = 8\n")
    done = update_project(project, template=newer)
    assert done.conflicts == ("flows/train_flow.toml",)
    marked = (project / "flows/train_flow.toml").read_text()
    assert "<<<<<<< yours\nbatch_size = 8\n=======\nbatch_size = 64\n>>>>>>> new template\n" in marked
    with pytest.raises(ProjectUnusable, match=r"left conflicts in flows/train_flow\.toml"):
        update_project(project)


def test_a_conflict_ends_the_command_with_1_and_names_the_file(
    project: Path, newer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(newer / "Makefile.jinja", "$(BIN)/dlpipe ui", "$(BIN)/dlpipe ui --port 5000")
    change(project / "Makefile", "$(BIN)/dlpipe ui", "$(BIN)/dlpipe ui --port 6000")
    monkeypatch.setattr("dlpipe.templates.rendering.TEMPLATE", newer)
    done = dlpipe("init", "films", "--update")
    assert done.exit_code == 1
    assert "Makefile: in conflict: choose between the lines inside the marks" in done.output


def test_files_come_and_go_with_the_template_and_a_person_s_own_stay(project: Path, newer: Path) -> None:
    (newer / "flows/new_flow.py").write_text("# new\n")
    (newer / "flows/datasets.toml").unlink()
    (newer / "flows/explain_flow.toml").unlink()
    change(newer / "tests/test_flow.py.jinja", "epochs=1", "epochs=2")
    change(newer / "flows/predict_flow.py", "@schedule(hourly=True)", "@schedule(daily=True)")
    (project / "flows/mine.py").write_text("# mine\n")
    (project / "flows/explain_flow.toml").write_text("[explanation]\nrows = 7\n")
    (project / "tests/test_flow.py").unlink()
    done = {merge.path: merge.what for merge in update_project(project, template=newer).merges}
    assert done == {
        "flows/new_flow.py": "added",
        "flows/datasets.toml": "removed",
        "flows/explain_flow.toml": "kept",
        "flows/predict_flow.py": "updated",
        "tests/test_flow.py": "kept",
    }
    assert (project / "flows/mine.py").read_text() == "# mine\n"
    assert (project / "flows/explain_flow.toml").read_text() == "[explanation]\nrows = 7\n"
    assert not (project / "tests/test_flow.py").exists()
    assert "daily" in (project / "flows/predict_flow.py").read_text()
    assert update_project(project, template=newer).merges == ()


def test_an_update_that_was_cut_off_can_be_done_again(project: Path, newer: Path, monkeypatch) -> None:
    from dlpipe.templates import updating

    change(newer / "flows/train_flow.toml", "epochs = 2\n", "epochs = 4\n")
    change(newer / "Makefile.jinja", "BIN := .venv/bin", "BIN := .venv/bin\nMORE := 1")
    change(project / "flows/train_flow.toml", 'model = "films"', 'model = "cinema"')
    apply = updating.apply_merge

    def cut_off(folder: Path, merges: list) -> None:
        apply(folder, merges[:1])
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(updating, "apply_merge", cut_off)
        with pytest.raises(KeyboardInterrupt):
            update_project(project, template=newer)
    update_project(project, template=newer)
    read = tomllib.loads((project / "flows/train_flow.toml").read_text())
    assert (read["training"]["epochs"], read["registry"]["model"]) == (4, "cinema")
    assert "MORE := 1" in (project / "Makefile").read_text()
    assert update_project(project, template=newer).merges == ()


@pytest.mark.parametrize(
    ("written", "line"),
    [
        ("{", "cannot be read (JSONDecodeError"),
        ('{"dlpipe": "0.1.0"}', "cannot be read (KeyError: 'columns')"),
        (
            '{"dlpipe": "99.0", "name": "a", "task": "a", "data": "a", "columns": {}, "shown": [], "example": ""}',
            "is of dlpipe 99.0",
        ),
    ],
)
def test_a_project_that_does_not_say_what_it_was_made_of_is_refused(
    project: Path, written: str, line: str
) -> None:
    (project / ".dlpipe/answers.json").write_text(written)
    with pytest.raises(ProjectUnusable, match=re.escape(line)):
        update_project(project)


def test_a_file_of_a_person_where_the_template_brings_one_is_in_conflict_not_overwritten(
    project: Path, newer: Path
) -> None:
    (newer / "notes.md").write_text("from the template\n")
    (project / "notes.md").write_text("mine\n")
    assert update_project(project, template=newer).conflicts == ("notes.md",)
    assert "mine\n" in (project / "notes.md").read_text()


def test_a_project_can_be_made_where_another_was_refused(films: Path) -> None:
    Path("films").mkdir()
    Path("films/README.md").write_text("mine\n")
    with pytest.raises(ProjectExists, match=r"has README\.md already"):
        make_project("films", "films.csv")
    assert os.listdir("films") == ["README.md"]
