"""What differs between two versions, or between the newest version and the working tree."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dlpipe.orchestrator.deployments import Version
    from dlpipe.orchestrator.freezing import CodeDifference, CodePackage

SHOWN = 8


@dataclass(frozen=True)
class Changes:
    """What is not as it was.

    Attributes
    ----------
    files : Difference
        Of the code.
    parameters, settings, packages : tuple of str
        A line a parameter, a setting and a Python package.
    """

    files: CodeDifference
    parameters: tuple[str, ...]
    settings: tuple[str, ...]
    packages: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.files or self.parameters or self.settings or self.packages)

    def lines(self) -> list[str]:
        """Return it for a person, a line a kind."""
        kinds = {
            "changed": _put_own_first(self.files.changed),
            "added": _put_own_first(self.files.added),
            "removed": _put_own_first(self.files.removed),
            "parameters": self.parameters,
            "settings": self.settings,
            "packages": self.packages,
        }
        return [f"{name:<11} {_join(values)}" for name, values in kinds.items() if values]

    def as_dict(self) -> dict[str, Any]:
        """Return it for a program."""
        return {
            "changed": list(self.files.changed),
            "added": list(self.files.added),
            "removed": list(self.files.removed),
            "parameters": list(self.parameters),
            "settings": list(self.settings),
            "packages": list(self.packages),
        }


def find_changes(before: Version, now: Version, package: CodePackage) -> Changes:
    """Return what ``now``, whose code is ``package``, has that ``before`` has not, and the other way round."""
    from dlpipe.orchestrator.environment import compare_packages
    from dlpipe.orchestrator.freezing import CodeDifference, compare_code

    kept = Path(before.code).is_dir()
    return Changes(
        files=compare_code(before, package) if kept else CodeDifference(),
        parameters=tuple(_find_differing(before.parameters, now.parameters)),
        settings=(
            *_find_differing(_list_settings(before), _list_settings(now)),
            *_find_changed_options(before, now),
        ),
        packages=tuple(compare_packages(before.packages, now.packages)),
    )


def show_file(name: str) -> str:
    """Return a file of the code package as people know it.

    Examples
    --------
    >>> show_file(".mf_code/dlpipe/errors.py"), show_file("flow.py")
    ('dlpipe/errors.py', 'flow.py')
    """
    return name.removeprefix(".mf_code/").replace(".mf_meta/CONFIG", "the configs")


def _put_own_first(files: tuple[str, ...]) -> tuple[str, ...]:
    """Files as people know them, those beside the flow before those of dlpipe, Metaflow and its extensions."""
    order = ("", ".mf_meta/", ".mf_code/dlpipe/", ".mf_code/metaflow_extensions/", ".mf_code/")
    ranked = sorted(files, key=lambda name: max(n for n, start in enumerate(order) if name.startswith(start)))
    return tuple(map(show_file, ranked))


def _join(values: tuple[str, ...]) -> str:
    more = f" and {len(values) - SHOWN} more" if len(values) > SHOWN else ""
    return ", ".join(values[:SHOWN]) + more


def _find_differing(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    names = [*before, *(name for name in now if name not in before)]
    return [
        f"{name} {_show(name, before.get(name))} -> {_show(name, now.get(name))}"
        for name in names
        if _format_value(before.get(name)) != _format_value(now.get(name))
    ]


def _find_changed_options(before: Version, now: Version) -> list[str]:
    """Options that came or went, each with its value."""
    from dlpipe.redaction import redact

    then, since = (_pair_values((*version.options, *version.run_options)) for version in (before, now))
    gone, new = (
        [option for option in some if option not in others] for some, others in ((then, since), (since, then))
    )
    return [*(f"{redact(option)} is gone" for option in gone), *(f"{redact(option)} is new" for option in new)]


def _pair_values(words: tuple[str, ...]) -> list[str]:
    """Words of a command line, each option with what follows it.

    Examples
    --------
    >>> _pair_values(("--production", "--with", "retry", "--config-value", "settings", "kv.settings"))
    ['--production', '--with retry', '--config-value settings kv.settings']
    """
    options: list[str] = []
    for word in words:
        if word.startswith("--") or not options:
            options.append(word)
        else:
            options[-1] += f" {word}"
    return options


def _list_settings(version: Version) -> dict[str, Any]:
    from dlpipe.orchestrator.overview import describe_trigger

    schedule, policies = version.schedule, vars(version.policies)
    variables = {name: value for name, value in version.variables.items() if not name.startswith("METAFLOW_CODE_")}
    return {
        "schedule": f"{schedule.cron} {schedule.zone_name}" if schedule else None,
        "trigger": describe_trigger(version.trigger) or None,
        "events' parameters": [dict(needed.parameters) for needed in version.trigger.needed]
        if version.trigger
        else None,
        **{name.replace("_", "-"): value for name, value in policies.items()},
        "tags": " ".join(version.tags) or None,
        "folder": version.folder,
        "python": version.python,
        "namespace": version.namespace,
        **variables,
    }


def _show(name: str, value: Any) -> str:
    """A value as it may be printed: no password, and of a webhook the host only."""
    from dlpipe.redaction import show_target, show_value

    text = _format_value(value)
    return show_target(text) if name == "alert" else show_value(name, text)


def _format_value(value: Any) -> str:
    return "none" if value is None or value == "" else str(value)
