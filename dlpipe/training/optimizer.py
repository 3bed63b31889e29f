"""AdamW that works on the rows of an embedding that a batch has, and limits the norm of the gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor


class SparseGrad(NamedTuple):
    """A parameter whose gradient has rows for the tokens of the batch alone, and the group it belongs to."""

    parameter: Tensor
    rows: Tensor
    values: Tensor
    group: dict[str, Any]


class RowAdamW(torch.optim.AdamW):
    """Torch's fused AdamW with gradient clipping; of a sparse gradient, only its rows are updated.

    Half of MiniLM's weights are word embeddings, of which a batch has a few hundred rows. Their moments, decay and
    weights change when a batch has them, as in ``torch.optim.SparseAdam``, and stay as they are otherwise.

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
        sparse = self._take_sparse()
        scale = self._compute_norm(sparse) / self.max_norm
        self.grad_scale = scale if scale > 1 else None  # the fused kernel divides by it, without a pass of its own
        super().step()
        for gradient in sparse:
            self._update_rows(gradient, gradient.values / scale if scale > 1 else gradient.values)
        return loss

    def _take_sparse(self) -> list[SparseGrad]:
        """Take the sparse gradients away from their parameters, because fused AdamW refuses them."""
        taken = []
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None and parameter.grad.is_sparse:
                    gradient = parameter.grad.coalesce()
                    taken.append(SparseGrad(parameter, gradient.indices()[0], gradient.values(), group))
                    parameter.grad = None
        return taken

    def _compute_norm(self, sparse: list[SparseGrad]) -> Tensor:
        parameters = [parameter for group in self.param_groups for parameter in group["params"]]
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        return torch.nn.utils.get_total_norm([*gradients, *(gradient.values for gradient in sparse)])

    def _update_rows(self, sparse: SparseGrad, gradient: Tensor) -> None:
        parameter, rows, _, group = sparse
        (beta1, beta2), rate = group["betas"], float(group["lr"])
        state = self._get_state(parameter)
        state["step"] += 1
        steps = float(state["step"])
        mean = state["exp_avg"][rows].lerp_(gradient, 1 - beta1)
        square = state["exp_avg_sq"][rows].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        spread = (square / (1 - beta2**steps)).sqrt_().add_(group["eps"])
        moved = parameter[rows].mul_(1 - rate * group["weight_decay"])
        moved.addcdiv_(mean, spread, value=-rate / (1 - beta1**steps))
        for target, new in ((state["exp_avg"], mean), (state["exp_avg_sq"], square), (parameter, moved)):
            target.index_copy_(0, rows, new)

    def _get_state(self, parameter: Tensor) -> dict[str, Tensor]:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        return state
