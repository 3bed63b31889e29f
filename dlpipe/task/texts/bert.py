"""BERT's encoder in plain torch: what transformers' ``BertModel`` computes, without the seconds its import takes.

Names of weights, order of modules and all numbers are those of transformers (a test compares them), so models,
their digests and strategies that count modules do not depend on which of the two it was. Whatever is not a plain
BERT stays with transformers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

EAGER, FUSED = "eager", "sdpa"  # the names of transformers
DEFAULTS: dict[str, Any] = {
    "_name_or_path": "",
    "add_cross_attention": False,
    "architectures": None,
    "attention_probs_dropout_prob": 0.1,
    "bos_token_id": None,
    "chunk_size_feed_forward": 0,
    "classifier_dropout": None,
    "dtype": "float32",
    "eos_token_id": None,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": 768,
    "id2label": {"0": "LABEL_0", "1": "LABEL_1"},
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "is_decoder": False,
    "is_encoder_decoder": False,
    "label2id": {"LABEL_0": 0, "LABEL_1": 1},
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 512,
    "model_type": "bert",
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "output_attentions": False,
    "output_hidden_states": False,
    "pad_token_id": 0,
    "problem_type": None,
    "return_dict": True,
    "tie_word_embeddings": True,
    "type_vocab_size": 2,
    "use_cache": True,
    "vocab_size": 30522,
}
"""What ``BertConfig`` of transformers says where ``config.json`` does not."""
# settings that only older versions of transformers write: a backbone that sets them otherwise is not this BERT
OLDER = {"gradient_checkpointing": False, "position_embedding_type": "absolute"}
# settings of which only the default is computed here; with another value, transformers loads the backbone
FIXED = ("add_cross_attention", "chunk_size_feed_forward", "hidden_act", "is_decoder", "is_encoder_decoder",
         "model_type", "output_attentions", "output_hidden_states", "return_dict")  # fmt: skip
UNUSED = ("pooler.", "embeddings.position_ids")  # weights that mean pooling does not read


class Config:
    """The settings of an encoder, with the names and the JSON of transformers."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        # transformers renamed torch_dtype to dtype, and weights are loaded in 32 bits whatever the file has
        known = {name: value for name, value in settings.items() if name != "torch_dtype"}
        self._values = {**DEFAULTS, **known, "dtype": "float32", "transformers_version": version("transformers")}
        self._attn_implementation = FUSED

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["_values"][name]
        except KeyError:
            raise AttributeError(name) from None

    def to_dict(self) -> dict[str, Any]:
        """Return all settings."""
        return dict(self._values)

    def to_json_string(self, use_diff: bool = False) -> str:
        """Return all settings as ``config.json``."""
        return json.dumps(self._values, indent=2, sort_keys=True) + "\n"


class EncoderOutput(NamedTuple):
    """What an encoder returns, as transformers names it: float of shape (n, length, hidden)."""

    last_hidden_state: Tensor


class Packing(NamedTuple):
    """Where the tokens of a padded batch are: what acts on each token alone need not see the padding.

    Attributes
    ----------
    places : int64 of shape (tokens,)
        Of each token among the n * length places of the batch.
    tokens : int64 of shape (n * length,)
        The number of the token at each place; at a place of padding, of any token.
    length : int
        Places of a text.
    """

    places: Tensor
    tokens: Tensor
    length: int

    @classmethod
    def find(cls, attention_mask: Tensor) -> Packing:
        """Return where a mask of shape (n, length) is not 0."""
        seen = attention_mask.reshape(-1)
        return cls(seen.nonzero().squeeze(1), (seen.cumsum(0) - 1).clamp(min=0), attention_mask.shape[1])

    def pack(self, states: Tensor) -> Tensor:
        """Return states of shape (n, length, width) as (1, tokens, width)."""
        return states.reshape(1, -1, states.shape[-1]).index_select(1, self.places)

    def unpack(self, states: Tensor) -> Tensor:
        """Return states of shape (1, tokens, width) as (n, length, width), with anything where padding is."""
        return states.index_select(1, self.tokens).view(-1, self.length, states.shape[-1])


class LoadedLinear(nn.Linear):
    """A linear layer whose weights are loaded: drawing them takes time, and numbers from torch's seed."""

    def reset_parameters(self) -> None:
        """Leave the weights undefined."""


class LoadedEmbedding(nn.Embedding):
    """Embeddings whose weights are loaded."""

    def reset_parameters(self) -> None:
        """Leave the weights undefined."""


class BertEmbeddings(nn.Module):
    """Words, positions and the one type of tokens that there is."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        width = config.hidden_size
        self.word_embeddings = LoadedEmbedding(config.vocab_size, width, padding_idx=config.pad_token_id)
        self.position_embeddings = LoadedEmbedding(config.max_position_embeddings, width)
        self.token_type_embeddings = LoadedEmbedding(config.type_vocab_size, width)
        self.LayerNorm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, input_ids: Tensor) -> Tensor:
        """Return the states that the first layer sees."""
        # summed in the order of transformers: another one rounds otherwise, and digests would change
        words = self.word_embeddings(input_ids) + self.token_type_embeddings(torch.zeros_like(input_ids))
        states: Tensor = self.LayerNorm(words + self.position_embeddings.weight[: input_ids.shape[1]])
        return self.dropout(states)


class SelfAttention(nn.Module):
    """Each token looks at all tokens, through several heads."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        width = config.hidden_size
        self.config = config
        self.head_size = width // config.num_attention_heads
        self.query, self.key, self.value = (LoadedLinear(width, width) for _ in range(3))
        self.dropout = nn.Dropout(config.attention_probs_dropout_prob)

    def forward(self, states: Tensor, mask: Tensor | None, packing: Packing | None = None) -> Tensor:
        """Return the mean of the tokens' values by attention."""
        parts = (part(states) for part in (self.query, self.key, self.value))
        if packing is not None:
            parts = (packing.unpack(part) for part in parts)
        query, key, value = map(self._split_heads, parts)
        attend = self._attend_fused if self.config._attn_implementation == FUSED else self._attend_eager
        seen = attend(query, key, value, mask).transpose(1, 2).contiguous().flatten(2)
        return seen if packing is None else packing.pack(seen)

    def _split_heads(self, states: Tensor) -> Tensor:
        return states.view(*states.shape[:-1], -1, self.head_size).transpose(1, 2)

    def _attend_fused(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        return nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, dropout_p=self.dropout.p if self.training else 0.0
        )

    def _attend_eager(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        scores = torch.matmul(query, key.transpose(2, 3)) * self.head_size**-0.5
        shares = nn.functional.softmax(scores if mask is None else scores + mask, dim=-1)
        return torch.matmul(self.dropout(shares), value)


class ResidualLinear(nn.Module):
    """A linear layer whose result is added to its residual, and the sum normalised."""

    def __init__(self, config: Config, width: int) -> None:
        super().__init__()
        self.dense = LoadedLinear(width, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, states: Tensor, before: Tensor) -> Tensor:
        """Return the normalised sum."""
        added: Tensor = self.LayerNorm(self.dropout(self.dense(states)) + before)
        return added


class Attention(nn.Module):
    """Self-attention and the layer that adds it to the states."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.self = SelfAttention(config)
        self.output = ResidualLinear(config, config.hidden_size)

    def forward(self, states: Tensor, mask: Tensor | None, packing: Packing | None = None) -> Tensor:
        """Return the states with what they saw."""
        seen: Tensor = self.output(self.self(states, mask, packing), states)
        return seen


class Intermediate(nn.Module):
    """The wide layer of the feed-forward block."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.dense = LoadedLinear(config.hidden_size, config.intermediate_size)
        self.intermediate_act_fn = nn.GELU()

    def forward(self, states: Tensor) -> Tensor:
        """Return float of shape (n, length, intermediate_size)."""
        wide: Tensor = self.intermediate_act_fn(self.dense(states))
        return wide


class Layer(nn.Module):
    """One layer of the encoder: attention, then the feed-forward block."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.intermediate = Intermediate(config)
        self.output = ResidualLinear(config, config.intermediate_size)

    def forward(self, states: Tensor, mask: Tensor | None, packing: Packing | None = None) -> Tensor:
        """Return the states for the next layer."""
        seen = self.attention(states, mask, packing)
        after: Tensor = self.output(self.intermediate(seen), seen)
        return after


class LayerStack(nn.Module):
    """The encoder's layers."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.layer = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))

    def forward(self, states: Tensor, mask: Tensor | None, packing: Packing | None = None) -> Tensor:
        """Return the states after the last layer."""
        for layer in self.layer:
            states = layer(states, mask, packing)
        return states


class Bert(nn.Module):
    """States of shape (n, length, hidden) from token ids and a mask, both of shape (n, length).

    The mask may also be a bias of attention, float of shape (n, 1, length, length).

    Attributes
    ----------
    skips_padding : bool
        Whether attention alone sees padding: states are packed and unpacked around it. Not for biases.
    """

    skips_padding = False
    is_gradient_checkpointing = False  # peft asks; without an answer it would make inputs require gradients

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.embeddings = BertEmbeddings(config)
        self.encoder = LayerStack(config)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> EncoderOutput:
        """Encode."""
        states = self.embeddings(input_ids)
        mask = self._make_attention_mask(attention_mask, states)
        if not self.skips_padding or attention_mask is None or attention_mask.ndim == 4:
            return EncoderOutput(self.encoder(states, mask))
        packing = Packing.find(attention_mask)
        return EncoderOutput(packing.unpack(self.encoder(packing.pack(states), mask, packing)))

    def get_input_embeddings(self) -> nn.Embedding:
        """Return the embeddings of words."""
        return self.embeddings.word_embeddings

    def set_attn_implementation(self, name: str) -> None:
        """Compute attention ``"eager"``, step by step, or by ``"sdpa"``, torch's fused function."""
        self.config._attn_implementation = name

    def _make_attention_mask(self, mask: Tensor | None, states: Tensor) -> Tensor | None:
        """Return the mask as attention takes it: of type bool if fused, as a bias if not, none if all is seen."""
        if mask is None or mask.ndim == 4:  # a bias already: the weights of tokens that gradients run over
            return mask
        seen = mask.to(torch.bool)
        # a trace would fix the branch of its example for all texts; without a mask, kernels are faster
        if not torch.jit.is_tracing() and bool(seen.all()):
            return None
        seen = seen[:, None, None, :]
        if self.config._attn_implementation == FUSED:
            return seen
        nothing = torch.zeros((), device=seen.device, dtype=states.dtype)
        return torch.where(seen, nothing, torch.finfo(states.dtype).min)


def build_bert(config: Mapping[str, Any]) -> Bert | None:
    """Return a network for a ``config.json``, weights undefined; ``None`` where it is no plain BERT."""
    usual = {**DEFAULTS, **OLDER}
    known = {*usual, "torch_dtype", "transformers_version"}
    fixed = all(config.get(name, usual[name]) == usual[name] for name in (*FIXED, *OLDER))
    # a setting that is not known could change what is computed, so it is left to transformers
    if config.get("model_type") != "bert" or not fixed or not known.issuperset(config):
        return None
    return Bert(Config(config))


def load_bert(folder: Path, **changed: Any) -> Bert | None:
    """Return the plain BERT of a backbone in evaluation mode; ``None`` where transformers has to read the folder.

    ``changed`` are settings other than those in its ``config.json``.
    """
    from safetensors import safe_open
    from safetensors.torch import load_file

    config = json.loads((folder / "config.json").read_bytes())
    file = folder / "model.safetensors"
    network = build_bert({**config, "_name_or_path": str(folder), **changed})
    if network is None or not file.is_file() or (folder / "adapter_config.json").exists():
        return None
    with safe_open(file, framework="pt") as weights:
        names = {name for name in weights.keys() if not name.startswith(UNUSED)}  # noqa: SIM118
    if names != set(network.state_dict()):
        return None
    network.load_state_dict({name: value for name, value in load_file(file).items() if name in names})
    return network.eval()
