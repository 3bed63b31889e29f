"""What every flow of a model's life shares: settings with options, looks before a run begins, short failures."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from metaflow import FlowSpec

from dlpipe.flows.checkpoints import without_cards
from dlpipe.flows.failures import clear_errors, prepare_program
from dlpipe.flows.orchestrators import portable
from dlpipe.terminal import make_visible


@portable
@clear_errors
@without_cards
class LifeCycleFlow(FlowSpec):
    """A flow whose options override a settings file, and which looks at what it needs before a run begins.

    With ``settings = settings_file(__file__, MySettings)`` each setting in the table ``OPTIONS`` of ``MySettings``
    (see ``dlpipe.flows.settings``) is an option of ``run``, and ``read_settings`` returns file and options
    together. A flow without settings leaves that out.

    ``check`` is called before Metaflow makes a run: a mistake leaves no run behind. It has three parts, which a
    flow that needs more replaces: ``check_options`` (of a deployment, too), ``check_inputs``, and
    ``check_services`` (before a run is resumed, too).
    """

    __settings__: Any = None  # Metaflow would keep an attribute without underscores as an artifact

    def __init_subclass__(cls, **more: Any) -> None:
        """Give the flow its options, and its command line what Metaflow would read otherwise."""
        super().__init_subclass__(**more)
        if "settings" in vars(cls):
            from dlpipe.flows.settings import make_parameters

            cls.__settings__ = cls.settings.settings_class
            for name, parameter in make_parameters(cls.__settings__):
                setattr(cls, name, parameter)
        prepare_program(cls)

    def read_settings(self) -> Any:
        """Return the settings with the options in place."""
        from dlpipe.flows.settings import CHANGES, list_option_names, read_flow_settings

        options = {name: read_option(self, name) for name in list_option_names(self.__settings__)}
        return read_flow_settings(
            self.__settings__,
            self.settings.to_dict(),
            options,
            changes=read_option(self, CHANGES),
            folder=find_folder(self),
        )

    def describe_settings(self, **resolved: Any) -> dict[str, Any]:
        """Return the settings that the run works with, by section: file, options and what was found on the way.

        As the artifact ``params`` they are parameters of the run in MLflow.

        Parameters
        ----------
        **resolved : dataclass
            Sections that have changed since, such as ``training`` after a search.
        """
        settings = self.read_settings()
        sections = {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}
        task = sections.pop("task", None)
        described = {
            name: {key: value for key, value in dataclasses.asdict(section).items() if value is not None}
            for name, section in {**sections, **resolved}.items()
            if dataclasses.is_dataclass(section) and not isinstance(section, type)
        }
        return described if task is None else {"task": task.name, **described}

    def check(self) -> None:
        """See that a run can go well; called before it begins."""
        self.check_options()
        self.check_inputs()
        self.check_services()

    def check_options(self) -> None:
        """See that options and settings are good; called before a deployment, too."""
        if not self.__settings__:
            return
        from dlpipe.flows.data import check_sources_named
        from dlpipe.flows.settings import DataSettings

        if isinstance(data := getattr(self.read_settings(), "data", None), DataSettings):
            check_sources_named(data, retrain=getattr(self, "retrain", False))

    def check_inputs(self) -> None:
        """See that what the run works on is there; called before it begins."""

    def check_services(self) -> None:
        """See that MLflow and Ray answer, and that a model may be registered; called before ``resume``, too."""
        from dlpipe.cluster import find
        from dlpipe.tracking import open_store

        store = open_store(create=True)
        if registry := getattr(self.read_settings(), "registry", None) if self.__settings__ else None:
            store.check(self.name, model=registry.model)
        if hasattr(self, "ray_address"):
            find(self.ray_address)


def read_option(flow: Any, name: str) -> Any:
    """Return the value of a flow's option; ``None`` where the run began without it."""
    try:
        return getattr(flow, name)
    except KeyError:  # a resumed run that began before dlpipe had this option: Metaflow has no value for it
        return None


def find_folder(flow: Any) -> Path:
    """Return the folder of a flow's file."""
    # of a step's code: the class does not know its file where a program is run by another
    return Path(flow.start.__code__.co_filename).resolve().parent


def print_summary(**lines: Any) -> str:
    """Print where everything is, a line each with its name before it; return the text.

    A line is a text, a version of a table or a model, or ``None``, which is left out.
    """
    texts = {name: line.line() if hasattr(line, "line") else line for name, line in lines.items()}
    text = "".join(f"\n{name:<12} {line}" for name, line in texts.items() if line)
    print(make_visible(text))
    return text
