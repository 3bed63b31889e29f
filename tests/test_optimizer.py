"""The optimizer: torch's AdamW, with the norm of the gradients limited."""

from __future__ import annotations

import pytest
import torch

from dlpipe.training.optimizer import ClippedAdamW


def test_it_is_torchs_adamw_with_clipping() -> None:
    ours, theirs = make_layers(), make_layers()
    clipped = ClippedAdamW(ours.parameters(), 0.01, weight_decay=0.1, max_norm=0.5)
    plain = torch.optim.AdamW(theirs.parameters(), 0.01, weight_decay=0.1)
    for batch in make_batches():
        take_step(ours, clipped, batch)
        compute_loss(theirs, batch).backward()
        torch.nn.utils.clip_grad_norm_(theirs.parameters(), 0.5)
        plain.step()
        plain.zero_grad()
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, other)


def test_gradients_over_the_norm_are_scaled_down() -> None:
    moved = []
    for norm in (1e9, 1e-12):  # far below AdamW's epsilon, nothing moves
        network = make_layers()
        before = network[0].weight.detach().clone()
        optimizer = ClippedAdamW(network.parameters(), 0.01, weight_decay=0, max_norm=norm)
        take_step(network, optimizer, torch.tensor([1, 4]))
        moved.append(float((network[0].weight - before).abs().max().detach()))
    assert moved[0] == pytest.approx(0.01, rel=1e-3)
    assert moved[1] < 1e-5


def make_layers() -> torch.nn.Sequential:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Embedding(10, 4), torch.nn.Linear(4, 2))


def make_batches() -> list[torch.Tensor]:
    torch.manual_seed(1)
    return [torch.randint(10, (6,)) for _ in range(6)]


def compute_loss(network: torch.nn.Module, batch: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(network(batch), batch % 2)


def take_step(network: torch.nn.Module, optimizer: torch.optim.Optimizer, batch: torch.Tensor) -> None:
    compute_loss(network, batch).backward()
    optimizer.step()
    optimizer.zero_grad()
