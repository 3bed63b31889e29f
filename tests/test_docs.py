"""README and docs are true: every block works, and every command, option, setting and room is described."""

from __future__ import annotations

import collections.abc
import csv
import dataclasses
import functools
import http.server
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import threading
import tomllib
import types
import typing
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import annotated_types
import pytest
from click.testing import CliRunner
from pages import PORTS, ROOT, RUN_ID, S3, Project, blocks, shell_lines

from dlpipe.cli import main
from dlpipe.flows.settings import TrainFlowSettings, list_option_names, read_flow_settings
from dlpipe.tables import read_table
from dlpipe.task import DEFAULT_TASK

DOCS = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))
SEARCHES = "docs/forgetting.md"
"""Its commands read all that is in the project: before other pages have filled it, that is a fifth of the time."""
PAGES = ["README.md", SEARCHES, *(page for page in DOCS if page != SEARCHES)]
EVERY_PAGE = [*PAGES, "CONTRIBUTING.md", "CHANGELOG.md", "data/README.md"]
LANGUAGES = ("sh", "bash", "python", "toml", "text")
SAMPLE_ROWS = 150
"""So many rows of each sample that ships are enough to go through all steps."""


@pytest.fixture(scope="session")
def rows(tiny_table) -> list[tuple[str, str]]:
    """Texts with labels that the tiny backbone can learn, and some that nobody can: models have mistakes."""
    table = read_table(tiny_table, columns=["text", "label"])
    words, things = ("good", "great", "lovely", "superb", "funny"), ("film", "soup")
    odd = [(f"{word} {thing} indeed", "negative") for word in words for thing in things]
    return [*zip(*table.to_pydict().values(), strict=True), *odd]


@pytest.fixture(scope="session")
def project(tmp_path_factory, rows, tiny_backbone, archive_address, s3_address) -> Iterator[Project]:
    """A copy of the project with small data, not run yet."""
    folder = tmp_path_factory.mktemp("docs") / "dlpipe"
    made = Project.make(folder, {"METAFLOW_RUN_BACKBONE": str(tiny_backbone), "AWS_ENDPOINT_URL": s3_address})
    write_csv(folder / "data/sample/reviews.csv", rows)
    for sample in ("tickets", "ratings", "questions", "claims"):
        keep_rows(folder / f"data/sample/{sample}.csv", SAMPLE_ROWS)
    write_csv(folder / "reviews.csv", rows, "text,stars")
    write_csv(folder / "films.csv", rows, "text,stars")
    for start, name in enumerate(("test", "valid")):
        write_csv(folder / f"{name}.csv", rows[start::5], "text,label")
    write_csv(folder / "train.csv", [row for at, row in enumerate(rows) if at % 5 > 1], "text,label")
    (folder / "texts.txt").write_text("a lovely film\nthe soup was awful\n")
    catalogue = folder / "flows/datasets.toml"
    there = catalogue.read_text()
    catalogue.write_text(
        re.sub(r'^url = "https?://[^"]*/', f'url = "{archive_address}/', there, flags=re.MULTILINE)
    )
    yield made
    made.end()


def keep_rows(path: Path, count: int) -> None:
    """Leave the first rows of a CSV."""
    with path.open(encoding="utf-8", newline="") as file:
        kept = list(itertools.islice(csv.reader(file), count + 1))
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(kept)


def write_csv(path: Path, rows: list[tuple[str, str]], header: str = "review,sentiment") -> Path:
    path.write_text("\n".join([header, *(f'"{text}",{label}' for text, label in rows)]) + "\n")
    return path


@pytest.fixture(scope="session")
def archive_address(tmp_path_factory, rows) -> Iterator[str]:
    """The address of a server on loopback that has imdb.zip."""
    folder = tmp_path_factory.mktemp("archive")
    with zipfile.ZipFile(folder / "imdb.zip", "w") as bundle:
        for split in ("train", "valid", "test"):
            bundle.write(write_csv(folder / f"{split}.csv", rows), f"imdb/{split}.csv")
    serve = functools.partial(QuietFiles, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), serve) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class QuietFiles(http.server.SimpleHTTPRequestHandler):
    """Files without a line in the log for each."""

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="session")
def s3_address() -> Iterator[str]:
    """The address of an S3 server on loopback with the bucket that the pages name."""
    program = "\n".join(
        (
            "import sys, boto3",
            "from moto.server import ThreadedMotoServer",
            "server = ThreadedMotoServer(ip_address='127.0.0.1', port=0)",
            "server.start()",
            "address = 'http://%s:%s' % server.get_host_and_port()",
            "boto3.client('s3', endpoint_url=address).create_bucket(Bucket='my-bucket')",
            "print(address, flush=True)",
            "sys.stdin.read()",
        )
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, **S3},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as server:
        yield next(line.strip() for line in server.stdout if line.startswith("http"))
        server.kill()


@pytest.fixture(scope="session")
def trained(project: Project) -> Project:
    """The project after its first run: README's `make train`."""
    first = next(block for block in blocks("README.md") if block.text == "make train\n")
    project.run(first)
    return project


# -- the tests ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_every_block_works(page: str, trained: Project) -> None:
    for block in blocks(page):
        trained.run(block)


@pytest.mark.slow
@pytest.mark.parametrize(
    "program",
    [
        "import sys; print(sys.argv, sys.path[0], sys.stdin.read(), __name__); sys.exit(3)",
        "import os; print(os.getcwd(), os.environ['COLOUR'], flush=True); os._exit(4)",
        "import os, sys; sys.stderr.write('so far'); sys.stderr.flush(); os.kill(os.getpid(), 9)",
        "import os; print('unbuffered'); os.kill(os.getpid(), 9)",
        "import atexit; atexit.register(print, 'last words'); raise SystemExit('in words')",
    ],
)
def test_the_warm_python_does_what_the_real_one_does(program: str, project: Project) -> None:
    said = [
        subprocess.run(
            [python, "-c", program, "a", "b c"],
            cwd=project.folder,
            env={**project.environment, "COLOUR": "green", "PYTHONUNBUFFERED": "1"},
            input="typed",
            capture_output=True,
            text=True,
        )
        for python in (sys.executable, project.warm.bin / "python")
    ]
    real, warm = ((done.returncode, done.stdout, done.stderr) for done in said)
    assert real == warm


@pytest.mark.slow
def test_the_warm_python_leaves_other_words_to_the_real_one(project: Project) -> None:
    program = project.warm.bin / "python"
    done = subprocess.run([program, "-u", "-m", "calendar", "2026", "11"], capture_output=True, text=True)
    assert done.stdout.strip().startswith("November 2026")


@pytest.mark.slow
def test_the_warm_python_has_metaflow_with_the_settings_of_each_command(project: Project) -> None:
    program = (
        "import sys; print('metaflow' in sys.modules); from metaflow.metaflow_config import SERVICE_URL as it; "
    )
    addresses, warm = ("http://a", "http://b"), set()
    for address in itertools.cycle(addresses):
        done = subprocess.run(
            [project.warm.bin / "python", "-c", f"{program}print(it)"],
            cwd=project.folder,
            env={**project.environment, "METAFLOW_SERVICE_URL": address},
            capture_output=True,
            text=True,
        )
        had, *read = done.stdout.split()
        assert read == [address], done.stderr
        warm |= {address} if had == "True" else set()
        if warm == {*addresses}:
            return


@pytest.mark.slow
def test_the_warm_python_ends_with_whoever_asked(project: Project) -> None:
    program = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT):
        asked = subprocess.Popen(
            [project.warm.bin / "python", "-c", program],
            env=project.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        pid = int(asked.stdout.readline())
        asked.send_signal(number)
        assert asked.wait(30) == -number
        assert asked.stdout.read() == ""  # its end: nobody has it open
        assert not Path(f"/proc/{pid}").exists() or number == signal.SIGKILL


@pytest.mark.slow
def test_the_readme_shows_the_summary_that_a_run_prints(trained: Project) -> None:
    make_train, shown = blocks("README.md")[0], next(b for b in blocks("README.md") if b.language == "text")
    printed = [
        line.partition(")] ")[2].split() for line in trained.run(make_train).splitlines() if "/end/" in line
    ]
    names = [words[0] for words in printed if words and words[0] != "Task"]
    assert [line.split()[0] for line in shown.text.splitlines()] == names


@pytest.mark.parametrize("page", EVERY_PAGE)
def test_every_block_is_in_a_language_that_is_checked(page: str) -> None:
    known = LANGUAGES if page in PAGES else ("text", "")
    assert not [str(block) for block in blocks(page) if block.language not in known]
    notes = [block.note for block in blocks(page) if block.note]
    assert all(re.fullmatch(r"exits \d: .+|file [\w./-]+", note) for note in notes)


def test_what_is_replaced_in_commands_stands_in_them() -> None:
    every = "\n".join(line for page in PAGES for line in shell_lines(page))
    assert RUN_ID in every
    assert all(f"--port {port}" in every for port in PORTS)


@pytest.mark.parametrize("page", EVERY_PAGE)
def test_every_link_leads_somewhere(page: str) -> None:
    for target, anchor in links(page):
        file = (ROOT / page).parent / target if target else ROOT / page
        assert file.exists(), f"{page} links to {target}"
        assert not anchor or anchor in anchors(file), f"{page} links to {target}#{anchor}"


def links(page: str) -> list[tuple[str, str]]:
    """Return the links of a page into the project, as (file, heading)."""
    text = re.sub(r"```.*?```", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = re.findall(r"\]\(([^)\s]+)\)", text)
    return [(at.partition("#")[0], at.partition("#")[2]) for at in targets if "://" not in at]


def anchors(file: Path) -> list[str]:
    """Return the headings of a page as they stand in addresses."""
    headings = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]


def test_the_readme_leads_to_every_page() -> None:
    assert {target for target, _ in links("README.md")} >= {*DOCS, "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE"}


@pytest.mark.parametrize("command", ["", *sorted(main.commands)])
def test_every_example_of_a_help_stands_on_a_page(command: str) -> None:
    shown = CliRunner().invoke(main, [*filter(None, [command]), "--help"]).output.partition("Example")[2]
    examples = re.findall(r"^ +(dlpipe .+)$", shown, flags=re.MULTILINE)
    assert examples
    assert not set(examples) - {line for page in PAGES for line in shell_lines(page)}


def test_the_readme_names_every_room() -> None:
    rooms = {path.name for path in (ROOT / "dlpipe").iterdir() if path.suffix == ".py" or path.is_dir()}
    rooms = {f"dlpipe/{name}" + ("" if name.endswith(".py") else "/") for name in rooms if name[:1] not in "_."}
    named = set(re.findall(r"^\| `(dlpipe/[^`]+)`", (ROOT / "README.md").read_text(), flags=re.MULTILINE))
    assert rooms == named


def test_the_readme_names_every_variable_that_is_read() -> None:
    sources = "".join(path.read_text() for path in (ROOT / "dlpipe").rglob("*.py"))
    named = set(re.findall(r"\b(?:DLPIPE_[A-Z_]+|MLFLOW_(?:TRACKING|REGISTRY)_URI)\b", sources))
    readme = (ROOT / "README.md").read_text()
    assert named
    assert not [name for name in named if name not in readme]


# -- settings ----------------------------------------------------------------------------------------------------

SETTINGS: dict[str, Any] = {
    name: type(section)
    for name, section in vars(read_flow_settings(TrainFlowSettings, {}, {})).items()
    if dataclasses.is_dataclass(section) and name != "task"
}


@pytest.mark.parametrize("section", SETTINGS)
def test_every_setting_stands_in_its_table_with_default_and_range(section: str) -> None:
    fields = dataclasses.fields(SETTINGS[section])
    hints = typing.get_type_hints(SETTINGS[section], include_extras=True)
    expected = {field.name: (default(field.default), allowed(hints[field.name])) for field in fields}
    described = {row[0].strip("`"): (row[1], row[2]) for row in settings_table(f"`[{section}]`")}
    assert described == expected


def test_the_page_says_where_the_file_that_ships_differs() -> None:
    shipped = tomllib.loads((ROOT / "flows/train_flow.toml").read_text())
    search_space = shipped.pop("search_space")
    assert shipped.pop("task") == DEFAULT_TASK
    differing = {
        f"`[{section}] {field.name}`": (default(field.default), default(shipped[section][field.name]))
        for section in shipped
        for field in dataclasses.fields(SETTINGS[section])
        if shipped[section].get(field.name, field.default) != field.default
    }
    shown = settings_table("Where the file that ships differs from the defaults")
    assert {row[0]: (row[1], row[2]) for row in shown} == differing
    assert all(f"`{name}`" in section_of("Where the file that ships differs") for name in search_space)


def test_every_section_is_described() -> None:
    headings = re.findall(r"^## `\[(\w+)\]`$", (ROOT / "docs/settings.md").read_text(), flags=re.MULTILINE)
    assert headings == [field.name for field in dataclasses.fields(TrainFlowSettings) if field.name != "task"]


def test_every_option_of_the_flow_is_described() -> None:
    command = [sys.executable, str(ROOT / "flows/train_flow.py"), "--quiet", "run", "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    own, _, metaflows = shown.partition("Options of Metaflow:")
    assert "--max-workers" in metaflows
    assert (
        shown.index("Train a model and take it") < shown.index("--train-data") < shown.index("Options of Metaflow")
    )
    whole = subprocess.run([*command[:2], "--help"], capture_output=True, text=True, check=True).stdout
    places = [
        whole.index(words) for words in ("Train a model", "The highest learning rate.", "Commands:", "--config")
    ]
    assert places == sorted(places)
    options = re.findall(r"^  (--[a-z-]+)", own, flags=re.MULTILINE)
    described = {row[0].strip("`"): row[1] for row in settings_table("Options of `run`")}
    assert sorted(described) == sorted(options)
    names = {f"--{name.replace('_', '-')}" for name in list_option_names(TrainFlowSettings)}
    assert {option for option, setting in described.items() if setting != "none"} == names


@pytest.mark.parametrize("flow", ["predict_flow", "explain_flow", "monitor_flow"])
def test_every_option_of_the_flows_that_use_models_is_described(flow: str) -> None:
    command = [sys.executable, str(ROOT / f"flows/{flow}.py"), "--quiet", "run", "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    own, _, _ = shown.partition("Options of Metaflow:")
    options = re.findall(r"^  (--[a-z-]+)", own, flags=re.MULTILINE)
    described = [row[0].strip("`") for row in settings_table(f"Options of `{flow}.py run`")]
    assert sorted(described) == sorted(options)


def section_of(heading: str) -> str:
    """Return the text of docs/settings.md under the heading that begins so."""
    parts = re.split(r"^## ", (ROOT / "docs/settings.md").read_text(), flags=re.MULTILINE)
    return next(part for part in parts if part.startswith(heading))


def settings_table(heading: str) -> list[list[str]]:
    """Return the cells of the rows of the table under a heading."""
    lines = [line for line in section_of(heading).splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def default(value: Any) -> str:
    """Return a default as the tables write it."""
    return "none" if value is None else f"`{json.dumps(value)}`"


def allowed(hint: Any) -> str:
    """Return what a setting may be, as the tables write it.

    >>> allowed(typing.Annotated[float, annotated_types.Gt(0), annotated_types.Le(1)])
    'number above 0 to 1'
    """
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        (hint,) = (part for part in typing.get_args(hint) if part is not type(None))
    if typing.get_origin(hint) is typing.Literal:
        return ", ".join(f'`"{value}"`' for value in typing.get_args(hint))
    if typing.get_origin(hint) is collections.abc.Mapping:
        return f"{allowed(typing.get_args(hint)[1])}, by class"
    kind, *bounds = typing.get_args(hint) or (hint,)
    if typing.get_origin(hint) is tuple:
        return "list of text"
    if kind is bool:
        return "`true`, `false`"
    if kind is str:
        return "text"
    return " ".join([{int: "whole number", float: "number"}[kind], *map(bound, bounds)])


def bound(given: Any) -> str:
    words = {"Ge": ("from", "ge"), "Gt": ("above", "gt"), "Le": ("to", "le"), "Lt": ("below", "lt")}
    word, name = words[type(given).__name__]
    value = getattr(given, name)
    return f"{word} {int(value) if value == int(value) else value}"


def test_allowed_values_are_said_in_words() -> None:
    assert (
        allowed(typing.Annotated[float, annotated_types.Gt(0), annotated_types.Lt(0.5)])
        == "number above 0 below 0.5"
    )
    assert allowed(typing.Annotated[int, annotated_types.Ge(1)] | None) == "whole number from 1"
    assert allowed(typing.Literal["a", "b"]) == '`"a"`, `"b"`'


@pytest.mark.parametrize(
    "wrong", ["```rust\nfn main() {}\n```\n", "    ```yaml\n    a: 1\n    ```\n", "~~~\nhm\n~~~\n"]
)
def test_a_block_in_another_language_is_found_however_it_stands(wrong: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"# Page\n\n{wrong}")
    (found,) = blocks.__wrapped__(str(page))
    assert found.language not in LANGUAGES


def test_every_decision_has_a_reason_and_a_time_to_think_again() -> None:
    parts = re.split(r"^### ", (ROOT / "docs/decisions.md").read_text(), flags=re.MULTILINE)[1:]
    shown = [re.findall(r"^- (\w+): ", part, flags=re.MULTILINE) for part in parts]
    assert parts
    assert all(lines == ["Decision", "Reason", "Revisit"] for lines in shown)
