"""A registered model with its engines, and the files of the engines beside its weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dlpipe.errors import EngineUnavailable
from dlpipe.task.model import ENGINE, ENGINES
from dlpipe.task.texts.engines.kinds import GRAPH_FILES, TORCH
from dlpipe.task.texts.model import TextModel

ENGINES_FILE = "engines.json"


@dataclass(frozen=True)
class EngineCheck:
    """An engine beside torch, on the same rows in the same run.

    Attributes
    ----------
    rows_per_second, speedup : float or None
        ``speedup`` is the median of the ratios to torch on parts of the rows. ``None``: it could not be run.
    accuracy : float or None
        The share of the rows that are decided right; ``None`` where no labels were given.
    accuracy_lost : float or None
        Torch's accuracy less this one, in points (0.5 is half a per cent of the rows).
    label_agreement : float or None
        The share of rows that are decided as torch does.
    largest_difference : float or None
        Of an output from torch's, as a share of what ``Target.get_output_scale`` returns: 1 for probabilities.
    refused : str
        Why it is not offered; empty where it is.
    """

    engine: str
    rows_per_second: float | None = None
    speedup: float | None = None
    accuracy: float | None = None
    accuracy_lost: float | None = None
    label_agreement: float | None = None
    largest_difference: float | None = None
    refused: str = ""

    def line(self) -> str:
        """Return speed and agreement for a log.

        Examples
        --------
        >>> EngineCheck("onnx", 500.0, 1.7, 0.87, 0.0, 1.0, 1e-6).line()
        'onnx: 1.70 times torch, accuracy lost 0.00 points, 1.0000 of the rows decided alike, outputs within 1e-06'
        """
        if self.speedup is None:
            return f"{self.engine}: {self.refused}"
        lost = "unknown" if self.accuracy_lost is None else f"{self.accuracy_lost:.2f} points"
        refused = f"; refused: {self.refused}" if self.refused else ""
        return (
            f"{self.engine}: {self.speedup:.2f} times torch, accuracy lost {lost}, {self.label_agreement:.4f} of "
            f"the rows decided alike, outputs within {self.largest_difference:.1g}{refused}"
        )


@dataclass(frozen=True)
class Engines:
    """Which engines a model can be run by, how they were measured, and which was chosen.

    Attributes
    ----------
    chosen : str
        The fastest one whose answers are close enough to torch's.
    checks : tuple of EngineCheck
        Torch first.
    rows : int
        The rows that they were compared on.
    threads : int
        The threads that they had.
    weights : str
        SHA-256 of the weights that they were made from.
    graphs : mapping of file name to SHA-256
        What is stored.
    cpu, instructions, versions
        The machine that measured, those of its instructions that matter, and its libraries.
    """

    chosen: str
    checks: tuple[EngineCheck, ...]
    rows: int
    threads: int
    weights: str
    graphs: Mapping[str, str]
    cpu: str
    instructions: tuple[str, ...]
    versions: Mapping[str, str] = field(default_factory=dict)

    def check(self, engine: str) -> EngineCheck:
        """Return how ``engine`` did."""
        found = (check for check in self.checks if check.engine == engine)
        return next(found, EngineCheck(engine, refused="not tried"))

    def __str__(self) -> str:
        """Return a line for each engine that was compared with torch, then the choice."""
        lines = [check.line() for check in self.checks if check.engine != TORCH]
        return "\n".join([*lines, f"engine {self.chosen}, chosen on {self.rows} rows"])

    def tags(self) -> dict[str, str]:
        """Return the choice, and how each engine did beside torch, as tags of a model version."""
        numbers = {
            check.engine: {
                name: float(f"{value:.4g}") if isinstance(value, float) else value
                for name, value in asdict(check).items()
                if name != "engine" and value not in (None, "")
            }
            for check in self.checks[1:]
        }
        return {ENGINE: self.chosen, ENGINES: json.dumps(numbers)}

    def to_json(self) -> str:
        """Return everything as JSON."""
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> Engines:
        """Return what ``to_json`` wrote."""
        read = json.loads(text)
        checks = tuple(EngineCheck(**check) for check in read.pop("checks"))
        return cls(checks=checks, instructions=tuple(read.pop("instructions")), **read)


@dataclass(frozen=True)
class ServedModel:
    """A trained model with its engines: what is registered.

    Attributes
    ----------
    graphs : mapping of file name to bytes
        The ONNX graphs of the engines that are offered.
    """

    model: TextModel
    engines: Engines
    graphs: Mapping[str, bytes] = field(repr=False)

    @property
    def card(self) -> dict[str, Any]:
        """The card of the model."""
        return self.model.card

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the network's outputs, in their order."""
        return self.model.labels

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the weights: the engines are made from them."""
        return self.model.digest

    def save(self, folder: Path) -> Path:
        """Write the files into ``folder`` (made if needed) and return it."""
        self.model.save(folder)
        for name, content in self.graphs.items():
            (folder / name).write_bytes(content)
        (folder / ENGINES_FILE).write_text(self.engines.to_json())  # last: without it no graph is used
        return folder


def read_engines(folder: Path | None) -> Engines | None:
    """Return the engines of the model in ``folder``; ``None`` where it has none.

    Raises
    ------
    EngineUnavailable
        When the file that lists them cannot be read.
    """
    file = None if folder is None else folder / ENGINES_FILE
    if file is None or not file.is_file():
        return None
    try:
        return Engines.from_json(file.read_text())
    except (ValueError, KeyError, TypeError) as error:
        raise EngineUnavailable(f"{str(file)!r} is damaged ({error}). Register the model again.") from None


def read_graph(folder: Path | None, engine: str, *, weights: str) -> bytes:
    """Return the ONNX graph of ``engine`` from the model's folder, checked against its digest.

    Parameters
    ----------
    folder : Path, optional
        The model's; without one it has no engines.
    engine : str
        One with a graph.
    weights : str
        SHA-256 of the model's weights.

    Raises
    ------
    EngineUnavailable
        When it is not there, was refused, is damaged, or was made from other weights than ``weights``.
    """
    engines, name = read_engines(folder), GRAPH_FILES[engine]
    if folder is None or engines is None:
        raise EngineUnavailable(
            f"This model has no engine {engine!r}: it was kept without. Use engine='torch', or register it with "
            "flows/train_flow.py, which exports engines."
        )
    if name not in engines.graphs:
        raise EngineUnavailable(f"This model has no engine {engine!r}: {engines.check(engine).refused}.")
    content = (folder / name).read_bytes() if (folder / name).is_file() else b""
    # a graph of other weights would answer, and as another model does
    if hashlib.sha256(content).hexdigest() != engines.graphs[name] or engines.weights != weights:
        raise EngineUnavailable(
            f"{str(folder / name)!r} is missing, damaged or of other weights. Use engine='torch', or register the "
            "model again."
        )
    return content
