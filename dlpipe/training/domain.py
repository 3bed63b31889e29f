"""The domain of a training: within it, the same rows and settings give the same weights, bit for bit.

Sums of floating-point numbers are rounded, and how depends on the order in which a library adds: on its version,
on the number of threads, and on the instructions that it uses.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from dlpipe.machine import read_arithmetic, read_cpu_name, read_device_name
from dlpipe.task import DEFAULT_TASK, find_distribution

PACKAGES = (
    *("torch", "numpy", "transformers", "tokenizers", "safetensors", "peft", "scikit-learn"),
    *("lightning-flash", "pytorch-lightning", "pyarrow", "deltalake", "dlpipe"),
)
"""Those that read rows, build a network or compute."""
TAG = "mlflow.dlpipe.domain"
"""The tag of a version with the domain that it was trained in, as JSON; MLflow's pages do not show it."""


@dataclass(frozen=True)
class Domain:
    """Where a training computed, as far as its weights depend on it.

    Attributes
    ----------
    threads : int
        Of torch, within an operation.
    capability : str
        The instructions that torch's own kernels use, such as ``AVX2`` or ``AVX512``.
    processor, device : str
        The processor's name; ``cpu``, or the name of the GPU.
    precision : str
        Of the network's arithmetic: ``32`` or ``bf16``.
    python : str
        Its version.
    packages : mapping of str to str
        Versions of those in ``PACKAGES`` that are installed, and of the one that brings the task.
    variables : mapping of str to str
        Those of ``dlpipe.machine.ARITHMETIC`` that are set.
    """

    threads: int
    capability: str
    processor: str
    device: str
    precision: str
    python: str
    packages: Mapping[str, str] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)

    def to_tags(self) -> dict[str, str]:
        """Return the tag of a model version that keeps the domain; ``from_tags`` reads it."""
        return {TAG: json.dumps(asdict(self))}

    @classmethod
    def from_tags(cls, tags: Mapping[str, str]) -> Domain | None:
        """Return the domain that the tags of a version keep; ``None`` where they keep none.

        What a newer dlpipe notes besides is passed over.

        Examples
        --------
        >>> made = Domain(2, "AVX2", "a processor", "cpu", "32", "3.11.7", {"torch": "2.13.0"})
        >>> Domain.from_tags(made.to_tags()) == made, Domain.from_tags({TAG: "{}"}), Domain.from_tags({})
        (True, None, None)
        """
        try:
            return cls.from_plain(json.loads(tags.get(TAG, "null")))
        except (ValueError, TypeError, LookupError):  # none, or somebody has changed the tag
            return None

    @classmethod
    def from_plain(cls, noted: Mapping[str, Any]) -> Domain:
        """Return the domain that ``dataclasses.asdict`` wrote, of this dlpipe or of one that notes more."""
        return cls(**{each.name: noted[each.name] for each in fields(cls)})

    def compare(self, other: Domain) -> Iterator[tuple[str, str, str]]:
        """Yield what differs in another domain: its name, here and there; empty where there is no value.

        Examples
        --------
        >>> here = Domain(2, "AVX2", "a processor", "cpu", "32", "3.11.7", {"torch": "2.13.0"})
        >>> there = Domain(3, "AVX2", "a processor", "cpu", "32", "3.11.7", {"torch": "2.13.1"})
        >>> list(here.compare(there))
        [('threads', '2', '3'), ('torch', '2.13.0', '2.13.1')]
        """
        mine, others = self._flatten(), other._flatten()
        for name in dict.fromkeys((*mine, *others)):
            if mine.get(name, "") != others.get(name, ""):
                yield name, mine.get(name, ""), others.get(name, "")

    def _flatten(self) -> dict[str, str]:
        fields: dict[str, Any] = dict(vars(self))
        inner = {**fields.pop("packages"), **fields.pop("variables")}
        return {name: str(value) for name, value in {**fields, **inner}.items()}


def read_domain(precision: str, *, task: str = DEFAULT_TASK) -> Domain:
    """Return the domain that this process trains in; to be asked after its threads were set.

    Parameters
    ----------
    precision : str
        Of the network's arithmetic, as Lightning names it.
    task : str
        The name of the task; the package that brings it counts.
    """
    import torch

    return Domain(
        threads=torch.get_num_threads(),
        capability=torch.backends.cpu.get_cpu_capability(),
        processor=read_cpu_name(),
        device=read_device_name(),
        precision=precision,
        python=platform.python_version(),
        packages=dict(_find_versions(find_distribution(task))),
        variables=read_arithmetic(),
    )


def _find_versions(also: str | None) -> Iterator[tuple[str, str]]:
    for name in (*PACKAGES, *([also] if also else [])):
        try:
            yield name, version(name)
        except PackageNotFoundError:
            continue
