"""The settings of flows: a TOML file, overridden by the options of the command line.

A flow's settings are a frozen dataclass with a field for each section of its file. Its table ``OPTIONS`` names the
settings that have an option, with the option's help::

    @dataclass(frozen=True)
    class MySettings:
        task: Task
        data: DataSettings
        training: TrainingSettings

        OPTIONS: ClassVar[Options] = {"training": {"epochs": "Epochs of the training."}}
"""

from __future__ import annotations

import dataclasses
import functools
import tomllib
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeVar

from annotated_types import MinLen
from metaflow import Config, Parameter

from dlpipe.errors import SettingError
from dlpipe.explain import ExplainSettings
from dlpipe.flows.changes import (
    HELP,
    SET,
    Changes,
    check_sections,
    find_example,
    parse_list,
    parse_value,
    read_changes,
)
from dlpipe.flows.failures import ExpectedFailure
from dlpipe.inference import PipelineSettings
from dlpipe.monitoring import DriftSettings
from dlpipe.registry import check_model_name
from dlpipe.settings import check_name, read_settings
from dlpipe.tables import Sources, TableSettings, check_settings, locate
from dlpipe.task import DEFAULT_TASK, Task, Thresholds, TrainingSettings, find_task
from dlpipe.tuning import Choices, Range, TuningSettings, read_space

if TYPE_CHECKING:
    from dlpipe.datasets import Dataset

T = TypeVar("T")
CHANGES = "set_settings"
"""The attribute of a flow that has what ``--set`` was given."""
Options = Mapping[str, Mapping[str, str]]
"""The help of each option, by section and setting."""
SOURCES = ("data", "train_data", "valid_data", "test_data", "dataset")
"""The settings that say where rows come from: an option for any of them replaces all that the file says."""


# -- sections ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DataSettings:
    """Of the section ``[data]``, where rows come from; how they become a table is what ``Task.data`` adds."""

    data: str = ""
    train_data: str = ""
    valid_data: str = ""
    test_data: str = ""
    dataset: str = ""
    catalogue: Annotated[str, MinLen(1)] = "datasets.toml"
    """The file that names public data sets; a relative path starts in the flow's folder."""
    table: Annotated[str, MinLen(1)] = "reviews"

    def check(self) -> None:
        """Raise ``SettingError`` for settings that no source can be read with, or no table can be named."""
        check_settings(self.table_settings())
        locate(self.table)

    def table_settings(self) -> TableSettings:
        """Return how the sources become a table, which is what a version of the table records."""
        cls = next(base for base in type(self).__bases__ if issubclass(base, TableSettings))
        return cls(**{field.name: getattr(self, field.name) for field in fields(cls)})

    def sources(self) -> Sources:
        """Return the files or tables that are named."""
        splits = {"train": self.train_data, "valid": self.valid_data, "test": self.test_data}
        given = {split: paths for split, paths in splits.items() if paths}
        return Sources(data=self.data or () if given else self.data, **given)


@dataclass(frozen=True)
class RegistrySettings:
    """The section ``[registry]``."""

    model: Annotated[str, MinLen(1)] = "reviews"

    def check(self) -> None:
        """Raise ``SettingError`` unless the registry takes the name."""
        check_model_name(self.model)


# -- the settings of the flows -----------------------------------------------------------------------------------


@functools.cache
def make_data_section(task: Task) -> type[DataSettings]:
    """Return the section ``[data]`` of a task: where rows come from, and how they become a table."""
    return dataclasses.make_dataclass("DataSettings", [], bases=(DataSettings, task.data), frozen=True)


OF_TASK: dict[Any, Callable[[Task], type[Any]]] = {
    DataSettings: make_data_section,
    TrainingSettings: lambda task: task.inputs.training,
    Thresholds: lambda task: task.target.gate,
}
"""The sections whose settings are the task's, by what a flow's settings call them."""


@dataclass(frozen=True)
class TrainFlowSettings:
    """The task, which ``task = "..."`` names above all sections, and every section of the train flow's file."""

    task: Task
    data: DataSettings
    training: TrainingSettings
    tuning: TuningSettings
    search_space: dict[str, Range | Choices]
    gate: Thresholds
    explanation: ExplainSettings
    registry: RegistrySettings
    pipeline: PipelineSettings

    OPTIONS: ClassVar[Options] = {
        "data": {
            "data": "Source that is split here: CSV, JSON Lines, Parquet or a Delta table.",
            "train_data": "Source of the train split.",
            "valid_data": "Source of the valid split.",
            "test_data": "Source of the test split.",
            "dataset": "Public data set to download, such as imdb.",
            "text_column": "Column with the text.",
            "label_column": "Column with the label.",
            "separator": "Separator of CSV files; by default it is found.",
            "encoding": "Encoding of text files, such as cp1252.",
            "fold_labels": "Take labels that look alike as one class.",
            "table": "Name of the Delta table.",
        },
        "training": {
            "backbone": "Pretrained encoder: a folder or a Hugging Face id.",
            "strategy": "What is trained when: freeze, lora, no_freeze, freeze_unfreeze, ...",
            "epochs": "Epochs of the training.",
            "batch_size": "Rows of a batch.",
            "learning_rate": "The highest learning rate.",
            "max_length": "Tokens of a text that are read.",
            "seed": "Seed of everything that is drawn.",
        },
        "tuning": {"trials": "Settings to try; 0 skips tuning."},
        "registry": {"model": "Name in the model registry."},
    }


@dataclass(frozen=True)
class ExplainFlowSettings:
    """The explain flow's file."""

    explanation: ExplainSettings

    OPTIONS: ClassVar[Options] = {
        "explanation": {"rows": "Rows of the test split to draw and explain; with --split, on the card."}
    }


@dataclass(frozen=True)
class MonitorFlowSettings:
    """The monitor flow's file."""

    monitoring: DriftSettings


# -- a file and its options --------------------------------------------------------------------------------------


def settings_file(flow_file: str, cls: type[Any]) -> Any:
    """Return the ``Config`` of a flow's settings.

    Parameters
    ----------
    flow_file : str
        The flow's ``__file__``: the settings are in the TOML file beside it, unless ``--config`` names another.
    cls : a frozen dataclass
        The settings, as described above.
    """
    config = Config(
        "settings",
        default=str(Path(flow_file).with_suffix(".toml")),
        parser=parse_toml,
        help="TOML file with the settings that options override.",
    )
    config.settings_class = cls
    return config


def parse_toml(text: str) -> dict[str, Any]:
    """Return the sections of a settings file; a mistake in it is one line that says where."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ExpectedFailure(f"the settings file is not valid TOML: {error}.") from None


def read_flow_settings(
    cls: type[T],
    config: Mapping[str, Any],
    options: Mapping[str, Any],
    *,
    changes: str | None = None,
    folder: Path = Path(),
) -> T:
    """Return the settings of ``config`` with every option that is not ``None``, and all changes, in place.

    Parameters
    ----------
    cls : a frozen dataclass
        With a field for each section, and the table ``OPTIONS``.
    config : mapping
        The sections of a settings file.
    options : mapping
        The values of options, by the name of the setting.
    changes : str, optional
        Of settings that need no option, as ``--set`` takes them: ``training.warmup=0.2; gate.metric=macro_f1``.
    folder : Path, optional
        The flow's: there the catalogue of data sets is.

    Raises
    ------
    SettingError
        When a section or a setting is misspelt, a value is refused, or an option and a change are of one setting.
    """
    names = [field.name for field in fields(cls)]  # type: ignore[arg-type]
    for section in config:
        check_name(section, names, what="section", where="the settings file")
    changed = read_changes(changes)
    task = find_task(name_task(*_with_source(config, options, changed), folder))
    hints = find_section_classes(cls, task)
    check_sections(changed, _list_setting_names(names, hints))
    read: dict[str, Any] = {"task": task} if "task" in names else {}
    for name in hints:
        values = config.get(name, {})
        given = {option: options.get(option) for option in list_options(cls).get(name, {})}
        given = {option: value for option, value in given.items() if value is not None}
        texts = changed.get(name, {})
        if twice := sorted(texts.keys() & given.keys()):
            raise SettingError(
                f"--{twice[0].replace('_', '-')} and --set {name}.{twice[0]} are one setting: give one."
            )
        if name == "search_space":
            values = {**values, **{setting: parse_value(text) for setting, text in texts.items()}}
            read[name] = read_space(values, where="[search_space]", training=read["training"])
            continue
        more = _parse_texts(hints[name], texts)
        if issubclass(hints[name], DataSettings):
            values = _name_data({**values, **_pick(more, "catalogue")}, {**more, **given}, folder)
            more.pop("catalogue", None)  # the flow's folder stands before it now
        read[name] = read_section(hints[name], name, values, given, more)
    return cls(**read)


def _with_source(
    config: Mapping[str, Any], options: Mapping[str, Any], changed: Changes
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return file and options with what ``--set`` says of the task and of a public data set."""
    texts = {
        section: {name: parse_value(text, is_text=True) for name, text in changed.get(section, {}).items()}
        for section in ("", "data")
    }
    data = {**config.get("data", {}), **_pick(texts["data"], "catalogue")}
    return {**config, **_pick(texts[""], "task"), "data": data}, {**options, **_pick(texts["data"], "dataset")}


def _pick(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {name: values[name]} if name in values else {}


def _list_setting_names(names: Iterable[str], hints: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the settings of each section; those of a search space are checked where it is read."""
    above = {"": ["task"]} if "task" in names else {}
    return above | {
        name: [field.name for field in fields(hint)] if dataclasses.is_dataclass(hint) else []
        for name, hint in hints.items()
    }


def _parse_texts(cls: Any, texts: Mapping[str, str]) -> dict[str, Any]:
    """Return the values that ``--set`` has for a section, by the types of its settings."""
    hints = typing.get_type_hints(cls) if texts else {}
    return {name: _parse_text(hints[name], text) for name, text in texts.items()}


def _parse_text(hint: Any, text: str) -> Any:
    plain = find_plain_type(hint)
    if typing.get_origin(plain) in (tuple, list):
        return parse_list(text, are_texts=typing.get_args(plain)[0] is str)
    return parse_value(text, is_text=plain is str)


def name_task(config: Mapping[str, Any], options: Mapping[str, Any], folder: Path) -> str:
    """Return the name of the task: the file's, or what a public data set suggests, or text classification.

    Parameters
    ----------
    config, options : mapping
        As ``read_flow_settings`` takes them.
    folder : Path
        The flow's: the path of the catalogue of data sets starts there.

    Raises
    ------
    SettingError
        When the settings name another task than the data set is for.
    """
    data = config.get("data", {})
    named = config.get("task")
    if not (dataset := options.get("dataset") or data.get("dataset")):
        return str(named or DEFAULT_TASK)
    public = _find_public(str(dataset), data, folder)
    if named and public.task and named != public.task:
        project = f"Make a project for it (dlpipe init {dataset} --dataset {public.sklearn}), or pass"
        raise SettingError(
            f"The data set {dataset!r} is for the task {public.task!r}, the settings are for {named!r}. "
            f"{project if public.sklearn else 'Pass'} --set task={public.task} with its own --table and --model."
        )
    return str(named or public.task or DEFAULT_TASK)


def find_section_classes(cls: Any, task: Task) -> dict[str, Any]:
    """Return the class of each section of a flow's settings; some are the task's own (``OF_TASK``)."""
    hints = typing.get_type_hints(cls, include_extras=True)
    sections = [field.name for field in fields(cls) if field.name != "task"]
    return {name: OF_TASK.get(hints[name], lambda task, name=name: hints[name])(task) for name in sections}


def read_section(
    cls: type[T], name: str, values: Mapping[str, Any], options: Mapping[str, Any], changes: Mapping[str, Any]
) -> T:
    """Return a section of a file with its options in place; it is checked if it has a ``check``.

    Parameters
    ----------
    cls : a frozen dataclass
    name : str
        Of the section, for errors.
    values, options, changes : mapping
        What the file, options of their own and ``--set`` say, by setting.
    """
    given = [*(f"--{option.replace('_', '-')}" for option in options), *([SET] if changes else [])]
    section = read_settings(cls, {**values, **changes, **options}, where=" and ".join([f"[{name}]", *given]))
    check: Callable[[], None] = getattr(section, "check", lambda: None)
    check()
    return section


def _name_data(values: Mapping[str, Any], options: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return what a file says of data where options name other sources, or a public data set other columns."""
    replaced = {*SOURCES} if options.keys() & {*SOURCES} else set()
    kept = {name: value for name, value in values.items() if name not in replaced}
    catalogue, here = folder / str(kept.get("catalogue", DataSettings.catalogue)), Path.cwd()
    # a parameter of the run in MLflow: as seen from here, it is the same on each machine
    kept["catalogue"] = str(catalogue.relative_to(here) if catalogue.is_relative_to(here) else catalogue)
    if name := options.get("dataset", kept.get("dataset")):
        known = _find_public(str(name), values, folder).data
        if known and "dataset" in options:  # the file names the columns of other rows
            kept = {key: value for key, value in kept.items() if not key.endswith(("_column", "_columns"))}
        kept.update(known)
    return kept


def _find_public(name: str, values: Mapping[str, Any], folder: Path) -> Dataset:
    """Return what the catalogue that ``[data]`` names says of a public data set."""
    from dlpipe.datasets import find_dataset

    return find_dataset(name, catalogue=folder / str(values.get("catalogue", DataSettings.catalogue)))


# -- options -----------------------------------------------------------------------------------------------------


def list_options(cls: Any) -> Options:
    """Return the table of options of a flow's settings, those of sections that it lacks left out."""
    names = {field.name for field in fields(cls)}
    return {section: options for section, options in getattr(cls, "OPTIONS", {}).items() if section in names}


def list_option_names(cls: Any) -> list[str]:
    """Return the settings of a flow that have an option."""
    return [name for section in list_options(cls).values() for name in section]


def make_parameters(cls: Any) -> Iterator[tuple[str, Any]]:
    """Yield an attribute's name and Metaflow's parameter for each option of a flow's settings.

    None has a default: what nobody gives is the file's. Last comes ``--set``, for settings without an option.
    """
    hints = find_section_classes(
        cls, find_task()
    )  # options are those of the default task: a file names another later
    for section, options in list_options(cls).items():
        types_of = typing.get_type_hints(hints[section])
        for name, text in options.items():
            kind = find_plain_type(types_of[name])
            yield name, Parameter(name.replace("_", "-"), type=kind, default=None, help=text)
    help_text = HELP.format(find_example(hints, list_option_names(cls)))
    yield CHANGES, Parameter(SET.removeprefix("--"), type=str, default=None, help=help_text)


def find_plain_type(hint: Any) -> type:
    """Return the type that a command line knows for a setting's.

    Examples
    --------
    >>> find_plain_type(float | None), find_plain_type(Literal["auto", "32"])
    (<class 'float'>, <class 'str'>)
    >>> find_plain_type(Annotated[int, MinLen(1)])
    <class 'int'>
    """
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return type(args[0])
    if origin is Annotated:
        return find_plain_type(args[0])
    if origin in (typing.Union, types.UnionType):
        return find_plain_type(next(arg for arg in args if arg is not type(None)))
    return hint  # type: ignore[no-any-return]
