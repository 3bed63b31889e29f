"""TextInputs: the half of a task that reads one text from each row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlpipe.task.model import Model
from dlpipe.task.protocol import Coding, DriftSeries, Inputs, Say, Target
from dlpipe.task.texts.backbones import find_backbone
from dlpipe.task.texts.model import TextModel
from dlpipe.task.texts.settings import TextTraining

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import pyarrow as pa
    import torch

    from dlpipe.tables import TableVersion
    from dlpipe.task.batches import EncodedRows
    from dlpipe.task.predictor import Predictor
    from dlpipe.task.row_parts import PartAttributions, RowParts
    from dlpipe.task.settings import TrainingSettings
    from dlpipe.task.texts.predictor import TextPredictor
    from dlpipe.task.texts.words import WordParts

TEXT = "text"


class TextInputs(Inputs):
    """One text a row, in the column ``text``; a missing one is ``None`` in requests and empty in tables."""

    training = TextTraining
    is_single_text = True
    packages = ("onnxruntime", "tokenizers", "transformers")
    rows_noun, features_noun = "texts", "words"

    def find_columns(self, table: TableVersion, card: Mapping[str, Any] | None = None) -> tuple[str, ...]:
        """Return ``("text",)``."""
        from dlpipe.tables import check_text

        check_text(table)
        return (TEXT,)

    def read_rows(self, rows: pa.Table | pa.RecordBatch) -> list[str]:
        """Return the texts; a missing one is an empty one."""
        return [text or "" for text in rows.column(TEXT).to_pylist()]

    def deduplicate_rows(self, rows: pa.Table) -> tuple[list[str], np.ndarray]:
        """Return the different texts and, for each row, the number of its own; a missing one is an empty one.

        Examples
        --------
        >>> import pyarrow as pa
        >>> texts, which = TextInputs().deduplicate_rows(pa.table({"text": ["good", "bad", "good", None]}))
        >>> texts, which.tolist()
        (['good', 'bad', ''], [0, 1, 0, 2])
        """
        import numpy as np

        column = rows.column(TEXT)
        if not len(column):
            return [], np.empty(0, np.int64)
        coded = column.fill_null("").unify_dictionaries().dictionary_encode().combine_chunks()
        return coded.dictionary.to_pylist(), coded.indices.to_numpy()

    def read_request(self, given: Any, card: Mapping[str, Any]) -> list[str | None]:
        """Return the texts, ``None`` for one that is missing."""
        from dlpipe.task.texts.requests import read_texts

        return read_texts(given)

    def format_row(self, row: str) -> str:
        """Return the text."""
        return row

    def name_values(self, row: str) -> dict[str, str]:
        """Return the text under ``text``."""
        return {TEXT: row}

    def make_example(self, rows: Sequence[str]) -> pd.DataFrame:
        """Return a frame with the column ``text``."""
        import pandas as pd

        return pd.DataFrame({TEXT: list(rows)})

    def check_settings(self, settings: TrainingSettings) -> None:
        """Raise ``BackboneNotFound`` where the backbone is not there and may not be downloaded."""
        settings = as_text_settings(settings)
        find_backbone(settings.backbone, allow_download=settings.allow_download)

    def make_encoding_key(self, settings: TrainingSettings) -> tuple[Any, ...]:
        """Return backbone, length, and whether the network reads pooled states of a frozen encoder."""
        settings = as_text_settings(settings)
        return settings.backbone, settings.max_length, settings.strategy == "freeze"

    def encode_splits(
        self, table: TableVersion, splits: Sequence[str], settings: TrainingSettings, *, say: Say
    ) -> dict[str, EncodedRows]:
        """Return the token ids of each split, or the pooled states for a frozen backbone.

        Raises
        ------
        BackboneNotFound
            When the backbone is not available offline.
        """
        from dlpipe.task.texts.encoding import SplitEncoder

        settings = as_text_settings(settings)
        backbone = find_backbone(settings.backbone, allow_download=settings.allow_download)
        # a longer text would have tokens for which the encoder has no position
        length = backbone.bound_length(settings.max_length)
        reader = SplitEncoder(table, backbone, length, settings.threads, say, self.find_columns(table))
        read = reader.embed if settings.strategy == "freeze" else reader.tokenize
        return {split: read(split) for split in splits}

    def build_network(self, encoded: EncodedRows, coding: Coding, settings: TrainingSettings) -> torch.nn.Module:
        """Return the backbone under a new head, or the head alone over pooled states."""
        from dlpipe.task.texts.network import HeadNetwork, load_pretrained_network
        from dlpipe.task.texts.tokens import TextEmbeddings

        settings = as_text_settings(settings)
        if isinstance(encoded, TextEmbeddings):
            return HeadNetwork(encoded.vectors.shape[1], len(coding.outputs), settings.dropout)
        backbone = find_backbone(settings.backbone, allow_download=settings.allow_download)
        lora = (settings.lora_rank, settings.lora_alpha) if settings.strategy == "lora" else None
        return load_pretrained_network(backbone, len(coding.outputs), settings.dropout, lora)

    def assemble_model(
        self,
        network: torch.nn.Module,
        encoded: EncodedRows,
        settings: TrainingSettings,
        card: Mapping[str, Any],
    ) -> TextModel:
        """Return the trained network as files; a head alone is put on its backbone, adapters are merged."""
        from dlpipe.task.texts.network import (
            HeadNetwork,
            load_pretrained_network,
            read_tokenizer_json,
            to_text_model,
        )

        settings = as_text_settings(settings)
        backbone = find_backbone(settings.backbone, allow_download=settings.allow_download)
        if isinstance(network, HeadNetwork):
            whole = load_pretrained_network(backbone, len(card["labels"]))
            whole.head.load_state_dict(network.head.state_dict())
            network = whole
        length = backbone.bound_length(settings.max_length)
        origin = {"backbone": settings.backbone, "backbone_digest": backbone.digest}
        return to_text_model(
            network,  # type: ignore[arg-type]
            tokenizer_json=read_tokenizer_json(backbone.folder),
            card={**card, "max_length": length, **origin},
        )

    def load_model(self, folder: Path) -> TextModel:
        """Return the model whose files are in ``folder``, or raise ``ModelNotFound``."""
        return TextModel.load(folder)

    def open_predictor(
        self,
        model: Model,
        folder: Path | None,
        *,
        threads: int | None = None,
        device: str | None = None,
        engine: str | None = None,
    ) -> TextPredictor:
        """Return a predictor on the engine that is asked for, or on the best that works here."""
        from dlpipe.task.texts.engines.opening import open_network
        from dlpipe.task.texts.predictor import TextPredictor

        assert isinstance(model, TextModel)
        name, network = open_network(model, folder, threads=threads, device=device, engine=engine)
        return TextPredictor(model, network, name)

    def export_engines(self, model: Model, rows: Sequence[str], labels: Sequence[Any]) -> Any:
        """Return the model with ONNX engines, compared with torch on these texts; the fastest good one is used."""
        from dlpipe.task.texts.engines import export_engines

        assert isinstance(model, TextModel)
        return export_engines(model, rows, labels)

    def make_featurizer(self, rows: Sequence[str]) -> Any:
        """Return an unfitted TF-IDF of words, or of characters where no text has a word (emoji only, say)."""
        return make_vectorizer(rows, longest=2)

    def split_parts(self, row: str, predictor: Predictor) -> WordParts:
        """Return the words of the text, as far as the model reads it."""
        from dlpipe.task.texts.words import WordParts, split_seen_words

        return WordParts(row, split_seen_words(predictor, row), TEXT)

    def attribute_parts(
        self,
        predictor: Predictor,
        rows: Sequence[Any],
        parts: Sequence[RowParts],
        target: Target,
        *,
        steps: int,
    ) -> list[PartAttributions]:
        """Return for each word the sum of its tokens' integrated gradients.

        The base values are the outputs with all tokens weighted by 0, which are near those of the empty text.

        Raises
        ------
        ExplanationError
            When ``predictor`` holds no torch network, or one whose attention takes no weights.
        """
        from dlpipe.task.texts.gradients import attribute_words

        return attribute_words(predictor, rows, parts, target, steps=steps)

    def make_domain_featurizer(self, rows: Sequence[str]) -> Any:
        """Return an unfitted TF-IDF of single words, or of characters where no text has a word."""
        return make_vectorizer(rows, longest=1)  # words that tell new texts from old ones are shown to people

    def make_drift_series(self, rows: Sequence[str]) -> list[DriftSeries]:
        """Return the lengths of the texts in words."""
        return [DriftSeries("length", "words in a text", [float(len(text.split())) for text in rows])]


def make_vectorizer(texts: Sequence[str], *, longest: int) -> Any:
    """Return an unfitted TF-IDF of runs of up to ``longest`` words, or of characters where no text has a word."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    made = TfidfVectorizer(ngram_range=(1, longest), sublinear_tf=True)
    find_words = made.build_analyzer()
    if any(find_words(text) for text in texts):  # scikit-learn fails on an empty vocabulary
        return made
    return TfidfVectorizer(analyzer="char", ngram_range=(1, 2), sublinear_tf=True)


def as_text_settings(settings: TrainingSettings) -> TextTraining:
    """Return ``settings``, which are those of a training over texts."""
    if not isinstance(settings, TextTraining):
        raise TypeError(f"a training over texts takes TextTraining, not {type(settings).__name__}")
    return settings
