"""The settings of the train flow: a TOML file, overridden by the options of the command line."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import MinLen

from dlpipe.errors import SettingError
from dlpipe.explain import ExplainSettings
from dlpipe.flows.failures import ExpectedFailure
from dlpipe.inference import PipelineSettings
from dlpipe.monitoring import DriftSettings
from dlpipe.registry import check_model_name
from dlpipe.settings import check_name, read_settings
from dlpipe.tables import Sources, TableSettings, check_settings
from dlpipe.task import Thresholds, find_task
from dlpipe.task.texts import TextTraining
from dlpipe.tuning import Space, TuningSettings, read_space

SECTIONS = ["data", "training", "tuning", "search_space", "gate", "explanation", "registry", "pipeline"]
OPTIONS = {
    "data": ["table", "text_column", "label_column", "fold_labels", "separator", "encoding"],
    "training": ["backbone", "strategy", "epochs", "batch_size", "learning_rate", "max_length", "seed"],
    "tuning": ["trials"],
    "registry": ["model"],
}
"""The settings that the command line can override, by section."""


@dataclass(frozen=True)
class DataSettings(TableSettings):
    """The section ``[data]``: where rows come from, besides how they become a table."""

    data: str = ""
    table: Annotated[str, MinLen(1)] = "reviews"


@dataclass(frozen=True)
class RegistrySettings:
    """The section ``[registry]``."""

    model: Annotated[str, MinLen(1)] = "reviews"


@dataclass(frozen=True)
class TrainFlowSettings:
    """Every section, checked."""

    data: DataSettings
    training: TextTraining
    tuning: TuningSettings
    space: Space
    gate: Thresholds
    explanation: ExplainSettings
    registry: RegistrySettings
    pipeline: PipelineSettings

    def sources(self, *, data: str | None, train: str | None, valid: str | None, test: str | None) -> Sources:
        """Return the sources of the options; the settings' ``data`` where no option names one."""
        if not any((data, train, valid, test)):
            return Sources(data=self.data.data)
        return Sources(data=data or (), train=train or (), valid=valid or (), test=test or ())


def parse_toml(text: str) -> dict[str, Any]:
    """Return the sections of a settings file; a mistake in it is one line that says where."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ExpectedFailure(f"the settings file is not valid TOML: {error}.") from None


def read_flow_settings(config: Mapping[str, Any], options: Mapping[str, Any]) -> TrainFlowSettings:
    """Return the settings of ``config`` with every option that is not ``None`` in place.

    Raises
    ------
    SettingError
        When a section or a setting is misspelt, or a value is refused.
    """
    for section in config:
        check_name(section, SECTIONS, what="section", where="the settings file")

    def read(cls: Any, name: str) -> Any:
        return read_section(cls, name, config, {option: options.get(option) for option in OPTIONS.get(name, [])})

    training, registry = read(TextTraining, "training"), read(RegistrySettings, "registry")
    check_model_name(registry.model)
    data = read(DataSettings, "data")
    check_settings(data)
    return TrainFlowSettings(
        data=data,
        training=training,
        tuning=read(TuningSettings, "tuning"),
        space=read_space(config.get("search_space", {}), where="[search_space]", training=training),
        gate=read(find_task().target.gate, "gate"),
        explanation=read(ExplainSettings, "explanation"),
        registry=registry,
        pipeline=read(PipelineSettings, "pipeline"),
    )


def read_explain_settings(config: Mapping[str, Any], options: Mapping[str, Any]) -> ExplainSettings:
    """Return the settings of the explain flow: the section ``[explanation]``, and options.

    Raises
    ------
    SettingError
        When a section or a setting is misspelt, or a value is refused.
    """
    return read_only_section(ExplainSettings, "explanation", config, options)


def check_asked(explanation: ExplainSettings, split: str | None) -> None:
    """Raise ``SettingError`` where no row is asked for: the explain flow would explain nothing."""
    if not explanation.rows and split is None:
        raise SettingError(
            "[explanation] and --rows: rows = 0 explains nothing. Pass 1 or more, or --split for all rows of one."
        )


def read_monitor_settings(config: Mapping[str, Any]) -> DriftSettings:
    """Return the settings of the monitor flow: the section ``[monitoring]``.

    Raises
    ------
    SettingError
        When a section or a setting is misspelt, or a value is refused.
    """
    return read_only_section(DriftSettings, "monitoring", config, {})


def read_only_section(cls: Any, name: str, config: Mapping[str, Any], options: Mapping[str, Any]) -> Any:
    """Return the section ``name`` of a settings file that may have no other."""
    for section in config:
        check_name(section, [name], what="section", where="the settings file")
    return read_section(cls, name, config, options)


def read_section(cls: Any, name: str, config: Mapping[str, Any], options: Mapping[str, Any]) -> Any:
    """Return the section ``name`` of ``config`` with every option that is not ``None`` in place."""
    given = {option: value for option, value in options.items() if value is not None}
    where = " and ".join([f"[{name}]", *(f"--{option.replace('_', '-')}" for option in given)])
    return read_settings(cls, {**config.get(name, {}), **given}, where=where)
