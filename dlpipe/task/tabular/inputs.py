"""TabularInputs: the half of a task that reads columns of numbers and categories, and optionally a text."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlpipe.errors import SchemaMismatch, SettingError
from dlpipe.task.model import CARD, WEIGHTS, Model
from dlpipe.task.protocol import Coding, DriftSeries, Inputs, Say
from dlpipe.task.row_parts import format_value
from dlpipe.task.tabular.encoded import EncodedColumns
from dlpipe.task.tabular.model import TabularModel
from dlpipe.task.tabular.scaling import Scaling, learn_scaling, to_category, to_number
from dlpipe.task.tabular.settings import OF_TEXTS, TabularTraining
from dlpipe.task.texts import find_backbone
from dlpipe.task.texts.model import CONFIG, TOKENIZER

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    import torch

    from dlpipe.tables import TableVersion
    from dlpipe.task.batches import EncodedRows
    from dlpipe.task.predictor import Predictor
    from dlpipe.task.row_parts import RowParts
    from dlpipe.task.settings import TrainingSettings
    from dlpipe.task.tabular.predictor import TabularPredictor

NOT_INPUTS = {"row_id", "label", "split"}
NUMBERS = {"long", "integer", "short", "byte", "double", "float", "boolean"}
"""What Delta calls the types of numbers."""
TEXT = "text"

Values = dict[str, Any]


class TabularInputs(Inputs):
    """Columns of numbers and categories; a column ``text`` is read by a backbone. ``None`` is missing."""

    training = TabularTraining
    has_boosted_baseline = True
    features_noun = "columns"
    packages = ("tokenizers", "transformers")

    def find_columns(self, table: TableVersion, card: Mapping[str, Any] | None = None) -> tuple[str, ...]:
        """Return the columns of the model with this card, or all but ``row_id``, ``label`` and ``split``."""
        if card is not None:
            return self._find_columns_of_model(table, card)
        names = tuple(name for name, _ in table.columns if name not in NOT_INPUTS)
        if not names:
            raise SchemaMismatch(f"{str(table)!r} has no column to read. Ingest columns of numbers or categories.")
        return names

    def _find_columns_of_model(self, table: TableVersion, card: Mapping[str, Any]) -> tuple[str, ...]:
        scaling, there = read_scaling(card), dict(table.columns)
        if missing := [name for name in scaling.names if name not in there]:
            raise SchemaMismatch(
                f"{str(table)!r} lacks {name_columns(missing)}, which the model reads; its columns are: "
                f"{', '.join(there)}."
            )
        if wrong := [column.name for column in scaling.numbers if not is_number_type(there[column.name])]:
            raise SchemaMismatch(
                f"{str(table)!r} has {there[wrong[0]]} in {name_columns(wrong)}, where the model reads numbers. "
                "Name a table with numbers there."
            )
        return scaling.names

    def find_kinds(self, table: TableVersion) -> dict[str, str]:
        """Return what each of those columns holds: ``number``, ``category`` or ``text``."""
        from dlpipe.tables import read_form

        types = dict(table.columns)
        known: dict[str, str] = {}
        with suppress(SchemaMismatch):  # another program's table says nothing of its rows
            known = {column.name: column.kind for column in read_form(table).inputs}
        return {name: known.get(name) or self._guess_kind(name, types[name]) for name in self.find_columns(table)}

    def _guess_kind(self, name: str, kind: str) -> str:
        if name == TEXT:
            return "text"
        return "number" if is_number_type(kind) else "category"

    def read_rows(self, rows: pa.Table | pa.RecordBatch) -> list[Values]:
        """Return the rows, each as a mapping of its columns."""
        names = [name for name in rows.schema.names if name not in NOT_INPUTS]
        values = (rows.column(name).to_pylist() for name in names)
        return [dict(zip(names, row, strict=True)) for row in zip(*values, strict=True)]

    def read_request(self, given: Any, card: Mapping[str, Any]) -> list[Values]:
        """Return the rows of a frame, of a mapping of columns or of records, which may lack columns."""
        rows, scaling = read_records(given), read_scaling(card)
        for at, row in enumerate(rows):
            check_row(at, row, scaling)
        names = scaling.names
        return [{name: to_python(row.get(name)) for name in names} for row in rows]

    def format_row(self, row: Values) -> str:
        """Return columns and values."""
        return ", ".join(f"{name} {format_value(value)}" for name, value in row.items())

    def make_example(self, rows: Sequence[Values]) -> pd.DataFrame:
        """Return the rows as a frame."""
        import pandas as pd

        return pd.DataFrame(list(rows))

    def check_settings(self, settings: TrainingSettings) -> None:
        """Raise ``BackboneNotFound`` where the backbone is not there and may not be downloaded."""
        settings = as_tabular_settings(settings)
        find_backbone(settings.backbone, allow_download=settings.allow_download)

    def make_encoding_key(self, settings: TrainingSettings) -> tuple[Any, ...]:
        """Return backbone, length, and whether the network reads pooled states of a frozen encoder."""
        settings = as_tabular_settings(settings)
        return settings.backbone, settings.max_length, settings.strategy

    def list_settings(self, settings: TrainingSettings, table: TableVersion) -> dict[str, Any]:
        """Return the settings that matter: without a text, those of its backbone do not."""
        listed = super().list_settings(settings, table)
        idle = () if "text" in self.find_kinds(table).values() else OF_TEXTS
        return {name: value for name, value in listed.items() if name not in idle}

    def encode_splits(
        self, table: TableVersion, splits: Sequence[str], settings: TrainingSettings, *, say: Say
    ) -> dict[str, EncodedRows]:
        """Return the arrays of each split, scaled by what the train split says."""
        from dlpipe.tables import read_table

        settings, kinds = as_tabular_settings(settings), self.find_kinds(table)
        # train is always among them: whatever splits are asked for, its rows decide how columns are scaled
        rows = {
            split: self.read_rows(read_table(table, split=split, columns=list(kinds)))
            for split in {"train", *splits}
        }
        scaling = learn_scaling(rows["train"], kinds)
        texts = self._encode_texts(table, splits, settings, say) if scaling.text else {}
        return {
            split: EncodedColumns(
                scaling.scale_numbers(rows[split]),
                scaling.encode_categories(rows[split]),
                texts.get(split),
                scaling,
            )
            for split in splits
        }

    def _encode_texts(
        self, table: TableVersion, splits: Sequence[str], settings: TabularTraining, say: Say
    ) -> dict[str, EncodedRows]:
        from dlpipe.task.texts.encoding import SplitEncoder

        backbone = find_backbone(settings.backbone, allow_download=settings.allow_download)
        length = backbone.bound_length(settings.max_length)
        reader = SplitEncoder(table, backbone, length, settings.threads, say)
        read = reader.embed if settings.strategy == "freeze" else reader.tokenize
        return {split: read(split) for split in splits}

    def build_network(self, encoded: EncodedRows, coding: Coding, settings: TrainingSettings) -> torch.nn.Module:
        """Return a network over the columns; a backbone that is trained stands in it."""
        from dlpipe.task.tabular.network import TabularNetwork
        from dlpipe.task.texts.network import load_pretrained_network
        from dlpipe.task.texts.tokens import TextEmbeddings

        assert isinstance(encoded, EncodedColumns)
        settings, texts = as_tabular_settings(settings), encoded.texts
        text, hidden = None, texts.vectors.shape[1] if isinstance(texts, TextEmbeddings) else 0
        if texts is not None and not isinstance(texts, TextEmbeddings):
            backbone = find_backbone(settings.backbone, allow_download=settings.allow_download)
            # for what is below its head, which nothing reads
            text = load_pretrained_network(backbone, 1)
            hidden = text.head.in_features
        return TabularNetwork(
            encoded.scaling,
            len(coding.outputs),
            width=settings.width,
            layers=settings.layers,
            dropout=settings.dropout,
            hidden=hidden,
            text=text,
        )

    def assemble_model(
        self,
        network: torch.nn.Module,
        encoded: EncodedRows,
        settings: TrainingSettings,
        card: Mapping[str, Any],
    ) -> TabularModel:
        """Return the trained network as files; with a text, its backbone is among them."""
        from safetensors.torch import save

        assert isinstance(encoded, EncodedColumns)
        settings = as_tabular_settings(settings)
        files: dict[str, bytes] = {}
        # under ``decision``, which counts for the digest: the same weights answer otherwise with another scaling
        decision = {**card.get("decision", {}), "columns": encoded.scaling.to_json()}
        card = {**card, "decision": decision, "network": {"width": settings.width, "layers": settings.layers}}
        weights = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
        if encoded.scaling.text:
            more, config, card["max_length"] = self._text_files(network, settings)
            weights |= more
            files |= config
        files |= {WEIGHTS: save(weights), CARD: json.dumps(card, indent=1).encode()}
        return TabularModel(files)

    def _text_files(
        self, network: torch.nn.Module, settings: TabularTraining
    ) -> tuple[dict[str, torch.Tensor], dict[str, bytes], int]:
        from dlpipe.task.texts.network import load_pretrained_network, read_tokenizer_json

        backbone = find_backbone(settings.backbone, allow_download=settings.allow_download)
        more: dict[str, torch.Tensor] = {}
        text = getattr(network, "text", None)
        if text is None:  # a frozen backbone is not part of the network that was trained
            text = load_pretrained_network(backbone, 1)
            more = {f"text.{name}": value.contiguous() for name, value in text.state_dict().items()}
        config = text.encoder.config.to_json_string(use_diff=False).encode()
        files = {CONFIG: config, TOKENIZER: read_tokenizer_json(backbone.folder).encode()}
        return more, files, backbone.bound_length(settings.max_length)

    def load_model(self, folder: Path) -> TabularModel:
        """Return the model whose files are in ``folder``, or raise ``ModelNotFound``."""
        return TabularModel.load(folder)

    def open_predictor(
        self,
        model: Model,
        folder: Path | None,
        *,
        threads: int | None = None,
        device: str | None = None,
        engine: str | None = None,
    ) -> TabularPredictor:
        """Return a predictor on torch, the one engine there is: networks over columns are small."""
        from dlpipe.errors import EngineUnavailable
        from dlpipe.machine import use_machine
        from dlpipe.task.tabular.predictor import TabularPredictor

        if engine not in (None, "torch", "exact"):
            raise EngineUnavailable(f"A model over columns has no engine {engine!r}: it runs on torch.")
        assert isinstance(model, TabularModel)
        use_machine(threads)
        return TabularPredictor(model)

    def split_parts(self, row: Values, predictor: Predictor) -> RowParts:
        """Return the columns, for which usual values stand where they are left out, and the words of the text."""
        from dlpipe.task.row_parts import ColumnParts, JoinedParts
        from dlpipe.task.texts.words import WordParts, split_seen_words

        scaling = read_scaling(predictor.card)
        usual = scaling.make_usual_row()
        columns = ColumnParts({name: row.get(name) for name in usual}, usual)
        if not scaling.text:
            return columns
        text = str(row.get(scaling.text) or "")
        words = WordParts(text, split_seen_words(predictor, text), scaling.text)
        return JoinedParts([columns, words], lambda kept: {**kept[0], scaling.text: kept[1]})

    def make_featurizer(self, rows: Sequence[Values]) -> Any:
        """Return an unfitted transformer: scaled numbers, a flag for each category, components of the text."""
        from dlpipe.task.tabular.features import ColumnFeatures

        return ColumnFeatures(guess_kinds(rows))

    def make_drift_series(self, rows: Sequence[Values]) -> list[DriftSeries]:
        """Return each column: numbers as numbers, categories as strings, a text by its length in words."""
        series = []
        for name, kind in guess_kinds(rows).items():
            values = [row.get(name) for row in rows]
            if kind == "number":
                known = [number for number in map(to_number, values) if number == number]
                series.append(DriftSeries(name, name, known))
            elif kind == "category":
                series.append(DriftSeries(name, name, [to_category(value) for value in values]))
            else:
                words = [float(len(str(value or "").split())) for value in values]
                series.append(DriftSeries(name, f"words in {name}", words))
        return series


def is_number_type(kind: str) -> bool:
    """Return whether Delta's type ``kind`` is one of numbers; truth values are 0 and 1."""
    return kind in NUMBERS or kind.startswith("decimal")


def name_columns(names: Sequence[str]) -> str:
    """Return the names of columns as a sentence has them.

    Examples
    --------
    >>> name_columns(["age"]), name_columns(["age", "town"])
    ("the column 'age'", "the columns 'age', 'town'")
    """
    return f"the column{'s' if len(names) > 1 else ''} {', '.join(map(repr, names))}"


def guess_kinds(rows: Sequence[Values]) -> dict[str, str]:
    """Return what each column of rows holds, by its name and its values."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    strings = {name for row in rows for name, value in row.items() if isinstance(value, str)}
    return {name: "text" if name == TEXT else "category" if name in strings else "number" for name in names}


def read_records(given: Any) -> list[Mapping[str, Any]]:
    """Return the records of a frame, of a mapping of columns or of one value each, or of a list."""
    if hasattr(given, "to_pylist"):  # of pyarrow
        return list(given.to_pylist())
    if hasattr(given, "to_dict") and hasattr(given, "columns"):
        return list(given.to_dict("records"))
    if isinstance(given, Mapping):
        if all(isinstance(value, str) or not hasattr(value, "__len__") for value in given.values()):
            return [given]
        return [dict(zip(given, row, strict=True)) for row in zip(*given.values(), strict=True)]
    rows = [] if isinstance(given, str) else list(given)
    if not rows or not all(isinstance(row, Mapping) for row in rows):
        raise SettingError(
            "Pass a data frame, a mapping of columns, or records: a model over columns reads names."
        )
    return rows


def check_row(at: int, row: Mapping[str, Any], scaling: Scaling) -> None:
    """Raise ``SettingError`` where a row lacks every column of the model, or has no number where one belongs.

    A row that lacks some columns is one whose values are missing; one that lacks all is a mistake of whoever asks.

    Parameters
    ----------
    at : int
        The number of the row in the request, from 0.
    row : mapping
        Column -> value.
    scaling : Scaling
        Of the model.
    """
    if not any(name in row for name in scaling.names):
        raise SettingError(
            f"Row {at} has none of the columns that the model reads ({', '.join(scaling.names)}); it has "
            f"{', '.join(map(str, row)) or 'none'}."
        )
    for column in scaling.numbers:
        value = to_python(row.get(column.name))
        try:
            to_number(value)
        except (TypeError, ValueError):
            raise SettingError(f"Row {at}: {column.name} = {value!r} is no number.") from None


def to_python(value: Any) -> Any:
    """Return a value of Python; None for one that is missing."""
    value = value.item() if hasattr(value, "item") else value
    return None if value is None or value != value else value


def read_scaling(card: Mapping[str, Any]) -> Scaling:
    """Return how the columns of the model with this card become arrays."""
    return Scaling.from_json(card["decision"]["columns"])


def as_tabular_settings(settings: TrainingSettings) -> TabularTraining:
    """Return ``settings``, which are those of a training over columns."""
    if not isinstance(settings, TabularTraining):
        raise TypeError(f"a training over columns takes TabularTraining, not {type(settings).__name__}")
    return settings
