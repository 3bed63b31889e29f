"""A task in a package of its own: classes of texts by their characters, with a network that needs no backbone.

The target is dlpipe's own, one class of several. The inputs are new: three characters in a row are a number from 0
to ``BUCKETS``, each number has a vector, and a text is the mean of its vectors.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass

import numpy as np

from dlpipe.task import DriftSeries, Inputs, Model, Task, TrainingSettings, find_task
from dlpipe.task.classes import Classes
from dlpipe.task.model import CARD, WEIGHTS
from dlpipe.task.requests import is_missing, read_text_values
from dlpipe.task.texts.words import WordParts, split_words
from dlpipe.task.torch_predictor import TorchPredictor

BUCKETS, WIDTH = 1 << 14, 48


@dataclass(frozen=True)
class CharacterTraining(TrainingSettings):
    epochs: int = 12
    patience: int = 4

    @property
    def usual_rate(self):
        return 2e-2


class Trigrams:
    """The numbers of the characters of texts, which is what the network reads: ``EncodedRows`` of the protocol."""

    def __init__(self, texts):
        self._rows = [number_characters(text) for text in texts]
        self.lengths = np.array([len(row) for row in self._rows], np.int64)

    def __len__(self):
        return len(self._rows)

    def make_batch(self, rows):
        """Return the arguments of the network's ``forward``: all numbers in a row, and where each text starts."""
        import torch

        ends = np.cumsum([0, *self.lengths[rows]])[:-1]
        return {
            "numbers": torch.from_numpy(np.concatenate([self._rows[row] for row in rows])),
            "starts": torch.from_numpy(ends),
        }


def number_characters(text):
    """Return a number for each three characters in a row: int64, at least one."""
    padded = f" {text.lower()} ".encode()
    return np.array([zlib.crc32(padded[at : at + 3]) % BUCKETS for at in range(max(1, len(padded) - 2))], np.int64)


def make_network(outputs, dropout=0.0):
    import torch

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.vectors = torch.nn.EmbeddingBag(BUCKETS, WIDTH, mode="mean")
            self.dropout, self.head = torch.nn.Dropout(dropout), torch.nn.Linear(WIDTH, outputs)

        def forward(self, numbers, starts):
            return self.head(self.dropout(self.vectors(numbers, starts)))

    return Network()


class CharacterInputs(Inputs):
    """The column ``text``. ``dlpipe.task.protocol`` says who calls what and when, and which defaults there are."""

    training = CharacterTraining

    def find_columns(self, table, card=None):
        return ("text",)

    def read_rows(self, rows):
        return [text or "" for text in rows["text"].to_pylist()]

    def read_request(self, given, card):
        return [None if is_missing(text) else str(text) for text in read_text_values(given)]

    def format_row(self, row):
        return row

    def make_example(self, rows):
        import pandas as pd

        return pd.DataFrame({"text": rows})

    def encode_splits(self, table, splits, settings, *, say):
        from dlpipe.tables import read_table

        return {name: Trigrams(self.read_rows(read_table(table, split=name, columns=["text"]))) for name in splits}

    def build_network(self, encoded, coding, settings):
        return make_network(len(coding.outputs), settings.dropout)

    def assemble_model(self, network, encoded, settings, card):
        from safetensors.torch import save

        return Model({WEIGHTS: save(network.state_dict()), CARD: json.dumps(card).encode()})

    def load_model(self, folder):
        return Model.load(folder)

    def open_predictor(self, model, folder, **_):
        from safetensors.torch import load

        network = make_network(len(model.labels))
        network.load_state_dict(load(model.files[WEIGHTS]))
        return TorchPredictor(model, network, Trigrams)

    def make_featurizer(self, rows):
        from sklearn.feature_extraction.text import TfidfVectorizer

        return TfidfVectorizer(sublinear_tf=True)

    def make_drift_series(self, rows):
        return [DriftSeries("length", "characters in a text", [float(len(row)) for row in rows])]

    def split_parts(self, row, predictor):
        return WordParts(row, split_words(row), "text")


# a text and a class, from the columns that settings name: as text classification has it
DATA = find_task("text-classification").data
TASK = Task("character-classification", CharacterInputs(), Classes(), DATA)
