"""The settings of flows: sections of a file, options in their place, and what a public data set brings."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from dlpipe.errors import SettingError
from dlpipe.flows.life_cycle import read_option
from dlpipe.flows.settings import (
    CHANGES,
    DataSettings,
    ExplainFlowSettings,
    MonitorFlowSettings,
    Options,
    TrainFlowSettings,
    list_option_names,
    make_parameters,
    read_flow_settings,
)
from dlpipe.tables._form import OPTIONS
from dlpipe.task.texts import TextTraining

CATALOGUE = """
[imdb]
url = "https://example.org/imdb.zip"
train = "train.csv"
data = { text_column = "body", label_column = "stars" }

[wine]
sklearn = "wine"
task = "tabular-classification"
data = { number_columns = ["alcohol"], label_column = "class" }
"""


@dataclass(frozen=True)
class SmallSettings:
    data: DataSettings
    training: TextTraining

    OPTIONS: ClassVar[Options] = TrainFlowSettings.OPTIONS


def test_options_of_sections_that_a_flow_lacks_are_left_out() -> None:
    assert {"data", "epochs"} <= {*list_option_names(SmallSettings)}
    assert not {"trials", "model"} & {*list_option_names(SmallSettings)}


@pytest.mark.parametrize(
    ("changes", "section", "name", "value"),
    [
        ("training.warmup=0.2", "training", "warmup", 0.2),
        ("training.warmup=0.2; gate.metric=macro_f1", "gate", "metric", "macro_f1"),
        ("training.precision=32", "training", "precision", "32"),
        ("data.table = 1984", "data", "table", "1984"),
        ("gate.min_recall={ urgent = 0.8 }", "gate", "min_recall", {"urgent": 0.8}),
        ("data.separator=';'", "data", "separator", ";"),
        ('data.text_column="a=b; c"', "data", "text_column", "a=b; c"),
        ("data.text_column=it's", "data", "text_column", "it's"),
        ('pipeline.languages=["de", "fr"]', "pipeline", "languages", ("de", "fr")),
        ("pipeline.languages=de, fr", "pipeline", "languages", ("de", "fr")),
        ("pipeline.languages=de", "pipeline", "languages", ("de",)),
    ],
)
def test_any_setting_can_be_changed(changes: str, section: str, name: str, value: object) -> None:
    config = {"training": {"warmup": 0.1, "epochs": 3}}
    read = read_flow_settings(TrainFlowSettings, config, {}, changes=changes)
    found = getattr(getattr(read, section), name)
    assert (tuple(found) if isinstance(value, tuple) else found) == value
    assert read.training.epochs == 3


def test_a_range_of_the_search_space_can_be_changed() -> None:
    read = read_flow_settings(
        TrainFlowSettings, {}, {}, changes="search_space.dropout={ low = 0.0, high = 0.3 }; task=text-regression"
    )
    assert read.search_space["dropout"].high == 0.3
    assert read.task.name == "text-regression"


def test_a_source_that_is_set_replaces_all_sources_of_the_file() -> None:
    config = {"data": {"train_data": "a.csv", "test_data": "b.csv"}}
    read = read_flow_settings(TrainFlowSettings, config, {}, changes="data.data=c.csv")
    assert read.data.sources().list_paths() == {"data": ("c.csv",)}


def test_the_catalogue_is_named_as_seen_from_the_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder, named in (
        (tmp_path / "flows", "flows/datasets.toml"),
        (Path("/srv/flows"), "/srv/flows/datasets.toml"),
    ):
        assert read_flow_settings(TrainFlowSettings, {}, {}, folder=folder).data.catalogue == named


def test_settings_of_the_task_can_be_changed(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(CATALOGUE)
    changes = "data.dataset=wine; data.catalogue=mine.toml; training.width=8"
    read = read_flow_settings(TrainFlowSettings, {}, {}, changes=changes, folder=tmp_path)
    assert (read.task.name, read.training.width) == ("tabular-classification", 8)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ("warmup=1", r"--set warmup: a setting is named with its section; write training\.warmup\."),
        ("trainin.epochs=1", "no section 'trainin'; there are: training, "),
        ("training.epoch=1", r"\[training\] has no setting 'epoch'; it has: epochs, "),
        ("search_space.dropot=1", "dropot"),
        ("training.epochs", "is no change of a setting: write section.name=value"),
        ("training.epochs=1; training.epochs=2", "gives training.epochs twice: 1 and 2"),
        ("", "--set '' changes no setting: write section.name=value, or leave it out"),
        (" ; ", "--set ' ; ' changes no setting"),
        ("training.epochs=many", r"\[training\] and --batch-size and --set: epochs = 'many' is refused"),
        ("training.batch_size=4", "--batch-size and --set training.batch_size are one setting: give one"),
    ],
)
def test_a_change_that_cannot_be_is_refused(changes: str, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        read_flow_settings(TrainFlowSettings, {}, {"batch_size": 8}, changes=changes)


def test_an_option_has_the_type_of_its_setting_and_no_default() -> None:
    made = dict(make_parameters(SmallSettings))
    for parameter in made.values():
        parameter.init()
    expected = {"data": str, "fold_labels": bool, "epochs": int, "learning_rate": float, "strategy": str}
    assert {name: made[name].kwargs["type"] for name in expected} == expected
    assert made["learning_rate"].name == "learning-rate"
    assert not any("default" in parameter.kwargs for parameter in made.values())


def test_an_option_takes_the_place_of_its_setting() -> None:
    config = {"training": {"epochs": 3, "batch_size": 8}}
    read = read_flow_settings(SmallSettings, config, {"epochs": 5, "batch_size": None})
    assert (read.training.epochs, read.training.batch_size) == (5, 8)
    with pytest.raises(SettingError, match=r"\[training\] and --epochs: epochs = 0 is refused"):
        read_flow_settings(SmallSettings, config, {"epochs": 0})


def test_a_section_that_the_flow_lacks_is_refused() -> None:
    with pytest.raises(SettingError, match="has no section 'gate'"):
        read_flow_settings(SmallSettings, {"gate": {}}, {})


def test_an_option_for_a_source_replaces_all_sources_of_the_file() -> None:
    config = {"data": {"train_data": "a.csv", "test_data": "b.csv"}}
    assert read_flow_settings(SmallSettings, config, {}).data.sources().list_paths() == {
        "train": ("a.csv",),
        "test": ("b.csv",),
    }
    other = read_flow_settings(SmallSettings, config, {"data": "c.csv"}).data
    assert other.sources().list_paths() == {"data": ("c.csv",)}


@pytest.mark.parametrize("named", ["file", "option"])
def test_a_public_data_set_brings_its_columns_and_an_option_names_others(tmp_path: Path, named: str) -> None:
    (tmp_path / "datasets.toml").write_text(CATALOGUE)
    config = {"data": {"text_column": "review"} | ({"dataset": "imdb"} if named == "file" else {})}
    options = {"dataset": "imdb"} if named == "option" else {}
    read = read_flow_settings(SmallSettings, config, options, folder=tmp_path).data
    assert (read.text_column, read.label_column) == ("body", "stars")
    other = read_flow_settings(SmallSettings, config, {**options, "text_column": "title"}, folder=tmp_path).data
    assert (other.text_column, other.label_column) == ("title", "stars")


def test_a_public_data_set_suggests_the_task_where_the_file_names_none(tmp_path: Path) -> None:
    (tmp_path / "datasets.toml").write_text(CATALOGUE)
    read = read_flow_settings(TrainFlowSettings, {}, {"dataset": "wine"}, folder=tmp_path)
    assert read.task.name == "tabular-classification"
    assert read.data.table_settings().number_columns == ("alcohol",)
    assert read.training == read.task.inputs.training()


def test_a_public_data_set_of_another_task_is_refused(tmp_path: Path) -> None:
    (tmp_path / "datasets.toml").write_text(CATALOGUE)
    config: dict[str, object] = {"task": "text-regression"}
    with pytest.raises(
        SettingError, match="wine' is for the task 'tabular-classification', the settings are"
    ) as at:
        read_flow_settings(TrainFlowSettings, config, {"dataset": "wine"}, folder=tmp_path)
    assert "dlpipe init wine --dataset wine" in str(at.value)
    # and what the message says does it: the columns of the file's own rows do not stay
    config["data"] = {"text_column": "review", "label_column": "sentiment"}
    changes = "task=tabular-classification"
    read = read_flow_settings(TrainFlowSettings, config, {"dataset": "wine"}, changes=changes, folder=tmp_path)
    assert read.data.table_settings().form.sources == ("alcohol", "class")


@pytest.mark.parametrize("cls", [TrainFlowSettings, ExplainFlowSettings, MonitorFlowSettings])
def test_the_example_in_the_help_of_set_is_of_the_flow(cls: type) -> None:
    *_, (_, parameter) = make_parameters(cls)
    parameter.init()
    example = re.search(r"such as ([\w.]+=[^;]+);", parameter.kwargs["help"])
    assert example
    read_flow_settings(cls, {}, {}, changes=example[1])


def test_options_that_messages_name_are_options_of_the_flow() -> None:
    assert {*OPTIONS} <= {*TrainFlowSettings.OPTIONS["data"]}


@pytest.mark.parametrize(
    ("task", "section", "values", "cls"),
    [
        ("text-multilabel", "data", {"label_columns": ["a", "b"]}, "TextLabelsData"),
        ("text-regression", "gate", {"max_mae": 0.5}, "NumberThresholds"),
        ("tabular-classification", "training", {"width": 8}, "TabularTraining"),
    ],
)
def test_sections_are_those_of_the_task(task: str, section: str, values: dict[str, object], cls: str) -> None:
    columns = {"data": {"number_columns": ["age"]}} if task == "tabular-classification" else {}
    read = read_flow_settings(TrainFlowSettings, {"task": task, **columns, section: values}, {})
    found = read.data.table_settings() if section == "data" else getattr(read, section)
    assert type(found).__name__ == cls
    name, value = next(iter(values.items()))
    assert getattr(found, name) == (tuple(value) if isinstance(value, list) else value)
    with pytest.raises(SettingError, match="has no setting"):
        read_flow_settings(TrainFlowSettings, {section: values}, {})


def test_columns_that_nobody_names_are_asked_for() -> None:
    with pytest.raises(SettingError, match="names no column to read"):
        read_flow_settings(TrainFlowSettings, {"task": "tabular-classification"}, {})


class Resumed:
    """A run that began before there was ``--set``: so Metaflow answers for its parameter."""

    epochs = 3

    @property
    def set_settings(self) -> str:
        raise KeyError(CHANGES)


def test_a_run_that_began_before_an_option_existed_has_no_value_for_it() -> None:
    assert (read_option(Resumed(), CHANGES), read_option(Resumed(), "epochs")) == (None, 3)
