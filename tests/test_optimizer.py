"""The optimizer: like torch's, but of an embedding it updates the rows of the batch alone."""

from __future__ import annotations

import pytest
import torch

from dlpipe.training.optimizer import RowAdamW


def test_without_sparse_gradients_it_is_torchs_adamw_with_clipping() -> None:
    ours, theirs = (layers(sparse=False) for _ in range(2))
    row = RowAdamW(ours.parameters(), 0.01, weight_decay=0.1, max_norm=0.5)
    plain = torch.optim.AdamW(theirs.parameters(), 0.01, weight_decay=0.1)
    for batch in batches():
        step(ours, row, batch)
        loss(theirs, batch).backward()
        torch.nn.utils.clip_grad_norm_(theirs.parameters(), 0.5)
        plain.step()
        plain.zero_grad()
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, other)


def test_rows_that_each_batch_has_move_as_with_dense_gradients() -> None:
    sparse, dense = layers(sparse=True), layers(sparse=False)
    row, plain = (RowAdamW(model.parameters(), 0.01, weight_decay=0.1) for model in (sparse, dense))
    for batch in batches():
        full = torch.cat([batch, torch.arange(10)])
        step(sparse, row, full)
        step(dense, plain, full)
    torch.testing.assert_close(sparse[0].weight, dense[0].weight)
    torch.testing.assert_close(sparse[1].weight, dense[1].weight)


def test_rows_that_no_batch_has_stay_as_they_were() -> None:
    network = layers(sparse=True)
    before = network[0].weight.detach().clone()
    optimizer = RowAdamW(network.parameters(), 0.01, weight_decay=0.1)
    for _ in range(3):
        step(network, optimizer, torch.tensor([1, 4, 4]))
    moved = (network[0].weight != before).any(1)
    assert moved.nonzero().flatten().tolist() == [1, 4]


def test_gradients_over_the_norm_are_scaled_down_in_rows_too() -> None:
    moved = []
    for norm in (1e9, 1e-12):  # far below AdamW's epsilon, nothing moves
        network = layers(sparse=True)
        before = network[0].weight.detach().clone()
        step(network, RowAdamW(network.parameters(), 0.01, weight_decay=0, max_norm=norm), torch.tensor([1, 4]))
        moved.append(float((network[0].weight - before).abs().max().detach()))
    assert moved[0] == pytest.approx(0.01, rel=1e-3)
    assert moved[1] < 1e-5


def test_it_goes_on_from_its_state() -> None:
    whole, first = layers(sparse=True), layers(sparse=True)
    optimizer = RowAdamW(whole.parameters(), 0.01, weight_decay=0.1)
    half = RowAdamW(first.parameters(), 0.01, weight_decay=0.1)
    many = list(batches())
    for batch in many:
        step(whole, optimizer, batch)
    for batch in many[:3]:
        step(first, half, batch)
    second = layers(sparse=True)
    second.load_state_dict(first.state_dict())
    rest = RowAdamW(second.parameters(), 0.01, weight_decay=0.1)
    rest.load_state_dict(half.state_dict())
    for batch in many[3:]:
        step(second, rest, batch)
    assert torch.equal(second[0].weight, whole[0].weight)


def layers(*, sparse: bool) -> torch.nn.Sequential:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Embedding(10, 4, sparse=sparse), torch.nn.Linear(4, 2))


def batches() -> list[torch.Tensor]:
    torch.manual_seed(1)
    return [torch.randint(10, (6,)) for _ in range(6)]


def loss(network: torch.nn.Module, batch: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(network(batch), batch % 2)


def step(network: torch.nn.Module, optimizer: torch.optim.Optimizer, batch: torch.Tensor) -> None:
    loss(network, batch).backward()
    optimizer.step()
    optimizer.zero_grad()
