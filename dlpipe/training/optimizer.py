"""AdamW that limits the norm of the gradients without a pass over the weights of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


class ClippedAdamW(torch.optim.AdamW):
    """Torch's fused AdamW with gradient clipping, which Lightning 1.9 refuses beside bf16.

    Parameters
    ----------
    max_norm : float
        Gradients are scaled down where their total norm is over this.
    """

    def __init__(
        self, parameters: Iterable[Tensor], lr: float, *, weight_decay: float, max_norm: float = 1.0
    ) -> None:
        super().__init__(parameters, lr=lr, weight_decay=weight_decay, fused=True)
        self.max_norm = max_norm

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update all parameters that have a gradient; what ``closure`` returned comes back."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        parameters = [parameter for group in self.param_groups for parameter in group["params"]]
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        scale = torch.nn.utils.get_total_norm(gradients) / self.max_norm
        self.grad_scale = scale if scale > 1 else None  # the fused kernel divides by it
        super().step()
        return loss
