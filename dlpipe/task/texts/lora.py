"""LoRA: small matrices beside frozen linear layers, merged into them at the end. The only file that names peft."""

from __future__ import annotations

from typing import Any

from torch import nn


class Adapters:
    """Adapters beside all linear layers of ``network.encoder``, whose own weights are frozen.

    As long as they are there, the network's ``state_dict`` holds what is trained alone, so checkpoints are small.

    Parameters
    ----------
    rank : int
        The inner size of the two matrices of an adapter.
    alpha : float
        The product of the two is scaled by ``alpha / rank``.
    """

    def __init__(self, network: nn.Module, *, rank: int, alpha: float) -> None:
        from peft import LoraConfig, get_peft_model

        config = LoraConfig(r=rank, lora_alpha=alpha, target_modules="all-linear", bias="none")  # type: ignore[arg-type]
        self._model = get_peft_model(network.encoder, config)  # type: ignore[arg-type]
        self._hooks = [
            network.register_state_dict_post_hook(_drop_frozen),
            network.register_load_state_dict_pre_hook(_add_frozen),
        ]

    def merge(self) -> None:
        """Add the adapters to the weights of their layers and remove them."""
        self._model.merge_and_unload()
        for hook in self._hooks:
            hook.remove()


def _drop_frozen(network: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    for name in _get_frozen(network):
        del state[prefix + name]


def _add_frozen(network: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    # loading is strict and asks for every name; what is frozen stays as the network has it
    state.update({prefix + name: value.detach() for name, value in _get_frozen(network).items()})


def _get_frozen(network: nn.Module) -> dict[str, nn.Parameter]:
    return {name: value for name, value in network.named_parameters() if not value.requires_grad}
