"""The torch network: a transformer encoder, mean pooling over the tokens, dropout, a linear head."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dlpipe.task.model import CARD, WEIGHTS
from dlpipe.task.texts.backbones import Backbone, find_backbone
from dlpipe.task.texts.bert import Bert, build_bert, load_bert
from dlpipe.task.texts.lora import Adapters
from dlpipe.task.texts.model import CONFIG, TOKENIZER, TextModel

# tokens; measured with bf16 on two cores of Zen 4: 32 short texts forward and backward took 119 ms with plain
# attention, 129 with torch's math kernel and 178 with the fused one
FUSED_ATTENTION_FROM = 192


class TextNetwork(nn.Module):
    """Logits of shape (n, n_labels) from token ids and attention mask, both of shape (n, length)."""

    def __init__(self, encoder: Any, n_labels: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.encoder = encoder
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(encoder.config.hidden_size, n_labels)
        self.adapters: Adapters | None = None
        self._attention = self._own_attention = encoder.config._attn_implementation

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Classify by the pooled states."""
        # pooled in 32 bits; the engine torch-bf16 has its head in bf16
        pooled = self.pool_states(input_ids, attention_mask).to(self.head.weight.dtype)
        logits: Tensor = self.head(self.dropout(pooled))
        return logits

    def pool_states(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the mean of the states of real tokens, as all-MiniLM was trained: float32, (n, hidden)."""
        on_cpu = input_ids.device.type == "cpu"
        self._choose_attention(short=on_cpu and input_ids.shape[1] < FUSED_ATTENTION_FROM)
        # on the CPU alone: on a GPU, all() would make the CPU wait
        needless = self.training and on_cpu and bool(attention_mask.all())
        states = self.encoder(
            input_ids=input_ids, attention_mask=None if needless else attention_mask
        ).last_hidden_state.float()
        mask = attention_mask.unsqueeze(-1).to(states.dtype)
        pooled: Tensor = (states * mask).sum(1) / mask.sum(1)
        return pooled

    def skip_padding(self) -> None:
        """Leave padding out of all but attention from now on, where the encoder can; outputs stay the same.

        A batch of 16 snippets as they come took 6.7 ms a row in torch instead of 11.5, and 1.9 in eight bits
        instead of 2.9; one without padding takes as long as before.
        """
        if isinstance(self.encoder, Bert):
            self.encoder.skips_padding = True

    def _choose_attention(self, *, short: bool) -> None:
        """Train on short texts with plain attention: on a CPU, the backward of the fused one is slower."""
        wanted = "eager" if self.training and short else self._own_attention
        if wanted != self._attention:
            self.encoder.set_attn_implementation(wanted)
            self._attention = wanted


class HeadNetwork(nn.Module):
    """The part of a ``TextNetwork`` above its encoder: logits from pooled states of shape (n, hidden)."""

    def __init__(self, hidden: int, n_labels: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(hidden, n_labels)

    def forward(self, pooled: Tensor) -> Tensor:
        """Classify pooled states."""
        logits: Tensor = self.head(self.dropout(pooled))
        return logits


def load_pretrained_network(
    backbone: Backbone, n_labels: int, dropout: float = 0.1, lora: tuple[int, float] | None = None
) -> TextNetwork:
    """Return the backbone's encoder, without its own dropout, under a head drawn from torch's current seed.

    Parameters
    ----------
    backbone : Backbone
    n_labels : int
        The outputs of the head.
    dropout : float, optional
        Before the head.
    lora : (rank, alpha), optional
        Of adapters beside the encoder's layers, which are frozen then.
    """
    encoder: Any = load_bert(backbone.folder, attention_probs_dropout_prob=0.0)
    if encoder is None:
        encoder = _drop_pooler(_load_foreign_encoder(backbone.folder))
    encoder = _cast_states_once(_disable_dropout(encoder))
    # the head before the adapters: both are drawn from the seed, and digests depend on the order
    network = TextNetwork(encoder, n_labels, dropout)
    if lora:
        network.adapters = Adapters(network, rank=lora[0], alpha=lora[1])
    return network


def restore_network(model: TextModel) -> TextNetwork:
    """Return the trained network in evaluation mode."""
    from safetensors.torch import load

    network = build_empty_network(json.loads(model.files[CONFIG]), len(model.labels))
    network.load_state_dict(load(model.files[WEIGHTS]))
    return network.eval()


def build_empty_network(config: dict[str, Any], n_outputs: int) -> TextNetwork:
    """Return a network for a ``config.json`` whose weights are still to be loaded."""
    return TextNetwork(build_bert(config) or _build_foreign_encoder(config), n_outputs)


def to_text_model(network: TextNetwork, *, tokenizer_json: str, card: Mapping[str, Any]) -> TextModel:
    """Return the network as a ``TextModel`` with this card. Adapters are merged.

    Parameters
    ----------
    network : TextNetwork
    tokenizer_json : str
        The backbone's, see ``tokenizer_json``.
    card : mapping
        ``task``, ``labels``, ``max_length`` and where the backbone came from.
    """
    from safetensors.torch import save

    if network.adapters:
        network.adapters.merge()  # before the weights are read: with adapters, the state lacks what is frozen
    weights = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    return TextModel(
        {
            WEIGHTS: save(weights),
            CONFIG: network.encoder.config.to_json_string(use_diff=False).encode(),
            TOKENIZER: tokenizer_json.encode(),
            CARD: json.dumps(dict(card), indent=1).encode(),
        }
    )


def read_tokenizer_json(folder: Path) -> str:
    """Return the backbone's tokenizer in the one-file format of the ``tokenizers`` library."""
    if folder == find_backbone().folder:  # transformers takes 3 s to import and changes nothing; a test compares
        from tokenizers import Tokenizer

        return str(Tokenizer.from_file(str(folder / "tokenizer.json")).to_str())
    from transformers import AutoTokenizer

    text: str = AutoTokenizer.from_pretrained(folder, local_files_only=True).backend_tokenizer.to_str()
    return text


def _load_foreign_encoder(folder: Path) -> Any:
    """Return the backbone's encoder as transformers reads it."""
    from transformers import AutoModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    return AutoModel.from_pretrained(
        folder, local_files_only=True, dtype=torch.float32, config=_read_foreign_config(folder)
    )


def _build_foreign_encoder(config: dict[str, Any]) -> Any:
    """Return the encoder that transformers makes for a ``config.json``, its weights drawn."""
    from transformers import AutoConfig, AutoModel

    return _drop_pooler(AutoModel.from_config(AutoConfig.for_model(**config), dtype=torch.float32))


def _read_foreign_config(folder: Path) -> Any:
    """Return the backbone's configuration without dropout of attention, which rules out fused attention."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    for name in ("attention_probs_dropout_prob", "attention_dropout"):
        if hasattr(config, name):
            setattr(config, name, 0.0)
    return config


def _disable_dropout(encoder: Any) -> Any:
    """Leave dropout to the head: in each layer it cost 7 % of a step on a CPU and gained nothing measurable."""
    for module in encoder.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return encoder


def _drop_pooler(encoder: Any) -> Any:
    """Drop BERT's pooler: mean pooling does not use it, and unused weights would be trained by nothing."""
    if getattr(encoder, "pooler", None) is not None:
        encoder.pooler = None
    return encoder


def _cast_states_once(encoder: Any) -> Any:
    """Let mixed precision on a CPU hold the states between layers in bf16 too.

    Autocast would cast them again before each product: a step took 203 ms, and 187 without those casts.
    """
    if isinstance(embeddings := getattr(encoder, "embeddings", None), nn.Module):
        embeddings.register_forward_hook(_to_autocast_dtype)
    return encoder


def _to_autocast_dtype(module: nn.Module, arguments: Any, states: Tensor) -> Tensor | None:
    if states.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
        return None
    return states.to(torch.get_autocast_dtype("cpu"))
