"""Outputs for rows with columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dlpipe.machine import keep_freed_memory
from dlpipe.task.batches import BATCH_TOKENS, sorted_batches
from dlpipe.task.model import WEIGHTS
from dlpipe.task.tabular.encoded import EncodedColumns
from dlpipe.task.tabular.model import TabularModel
from dlpipe.task.texts.model import CONFIG, TOKENIZER

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.floating[Any]]

ROWS = 4096


class TabularPredictor:
    """A trained model that reads columns, loaded and ready.

    Attributes
    ----------
    card, labels, digest, engine
        As ``dlpipe.task.Predictor`` says.
    max_length : int
        Tokens of a text beyond this are not seen; 0 without a text.
    """

    engine = "torch"

    def __init__(self, model: TabularModel, activate: Callable[[Floats, Mapping[str, Any]], Floats]) -> None:
        import torch

        self.card, self.labels, self.digest, self.scaling = model.card, model.labels, model.digest, model.scaling
        self._activate = activate
        self._network = restored_network(model).to("cuda" if torch.cuda.is_available() else "cpu")
        self._text = text_encoder(model) if self.scaling.text else None
        self.max_length = int(model.card.get("max_length", 0))

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Arrive in another process, such as one on a cluster, and make that ready."""
        self.__dict__.update(state)
        keep_freed_memory()

    def predict_outputs(self, rows: Sequence[Mapping[str, Any]]) -> np.ndarray:
        """Return outputs for rows: float32, shape (len(rows), n_outputs)."""
        return self.predict_encoded(self.encode(rows))

    def encode(self, rows: Sequence[Mapping[str, Any]]) -> EncodedColumns:
        """Return the arrays of rows; another thread may do this while ``predict_encoded`` works."""
        texts = None if self._text is None else self._text([str(row.get(self.scaling.text) or "") for row in rows])
        return EncodedColumns(
            self.scaling.scale_numbers(rows), self.scaling.number_categories(rows), texts, self.scaling
        )

    def seen_characters(self, text: str) -> int:
        """Return how many characters of a text the model reads."""
        return 0 if self._text is None else self._text.seen_characters(text)

    def predict_encoded(
        self, encoded: EncodedColumns, *, done: Callable[[np.ndarray], None] | None = None
    ) -> np.ndarray:
        """Return what ``predict_outputs`` does, for rows that are encoded already.

        Parameters
        ----------
        done : callable, optional
            Called with the numbers of the rows of each batch when they are predicted.
        """
        import torch

        device = self._network.head.weight.device
        result = np.empty((len(encoded), len(self.labels)), np.float32)
        most = ROWS if encoded.texts is None else 256
        for rows in sorted_batches(encoded.lengths, tokens=BATCH_TOKENS, rows=most):
            batch = {name: part.to(device) for name, part in encoded.batch(rows).items()}
            with torch.inference_mode():
                result[rows] = self._activate(self._network(**batch).float().cpu().numpy(), self.card)
            if done is not None:
                done(rows)
        return result


def text_encoder(model: TabularModel) -> Any:
    """Return what makes token ids of texts for ``model``."""
    import json

    from dlpipe.task.texts.tokens import TextEncoder

    pad_id = int(json.loads(model.files[CONFIG]).get("pad_token_id") or 0)
    return TextEncoder(model.files[TOKENIZER].decode(), max_length=model.card["max_length"], pad_id=pad_id)


def restored_network(model: TabularModel) -> Any:
    """Return the trained network in evaluation mode."""
    import json

    from safetensors.torch import load

    from dlpipe.task.tabular.network import TabularNetwork
    from dlpipe.task.texts.network import empty_network

    text = empty_network(json.loads(model.files[CONFIG]), 1) if model.scaling.text else None
    network = TabularNetwork(
        model.scaling,
        len(model.labels),
        **model.card["network"],
        dropout=0.0,
        hidden=0 if text is None else text.head.in_features,
        text=text,
    )
    network.load_state_dict(load(model.files[WEIGHTS]))
    return network.eval()
