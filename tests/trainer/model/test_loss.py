"""The chunked loss equals the plain one, in value and in gradients."""

import pytest
import torch
from torch.nn import functional as F

from trainer.model import loss as module
from trainer.model.loss import weighted_cross_entropy


@pytest.mark.parametrize("positions", [1, 7, 60])  # the last: whole chunks, and a part of one
def test_value_and_gradients_equal_the_plain_computation(positions: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK", 16)
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(positions, 12, generator=generator, requires_grad=True)
    head = torch.randn(50, 12, generator=generator, requires_grad=True)
    targets = torch.randint(0, 50, (positions,), generator=generator)
    weights = torch.rand(positions, generator=generator)

    chunked, entropies = weighted_cross_entropy(hidden, head, targets, weights, torch.float32)
    found = torch.autograd.grad(3 * chunked, (hidden, head))
    alone = F.cross_entropy(hidden @ head.T, targets, reduction="none")
    torch.testing.assert_close(entropies, alone.detach())
    plain = (alone * weights).sum()
    wanted = torch.autograd.grad(3 * plain, (hidden, head))
    torch.testing.assert_close(chunked, plain)
    torch.testing.assert_close(found, wanted)


def test_products_in_bfloat16_keep_fp32_logits() -> None:
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(40, 32, generator=generator, requires_grad=True)
    head = torch.randn(100, 32, generator=generator, requires_grad=True)
    targets = torch.randint(0, 100, (40,), generator=generator)
    weights = torch.ones(40)
    exact, _ = weighted_cross_entropy(hidden, head, targets, weights, torch.float32)
    rounded, _ = weighted_cross_entropy(hidden, head, targets, weights, torch.bfloat16)
    assert rounded.dtype == torch.float32
    assert rounded.item() == pytest.approx(exact.item(), rel=2e-2)


def test_no_position_gives_zero_and_no_gradient() -> None:
    hidden = torch.randn(0, 8, requires_grad=True)
    head = torch.randn(20, 8, requires_grad=True)
    empty = torch.zeros(0, dtype=torch.int64)
    loss, _ = weighted_cross_entropy(hidden, head, empty, torch.zeros(0), torch.float32)
    loss.backward()
    assert loss.item() == 0 and head.grad is not None and not head.grad.any()
