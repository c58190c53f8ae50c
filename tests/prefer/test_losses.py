"""Losses against their closed forms in float64, values and gradients."""

import math

import pytest
import torch

from bench.prefer.losses import dpo, simpo


def test_simpo_by_hand():
    # beta 10, gamma 3: -log sigmoid(10 x 0.5 - 3) = log(1 + e^-2); at a difference of 0.3 the sigmoid is a half.
    loss = simpo(torch.tensor([-1.0, -1.0]), torch.tensor([-1.5, -1.3]), beta=10, gamma_ratio=0.3)
    assert loss.tolist() == pytest.approx([math.log1p(math.exp(-2)), math.log(2)], abs=1e-6)


def test_dpo_by_hand():
    loss = dpo(*(torch.tensor([x]) for x in (-10.0, -14.0, -11.0, -12.0)), beta=0.1)
    # The policy's ratio is 4, the start's 1: -log sigmoid(0.3).
    assert loss.item() == pytest.approx(math.log1p(math.exp(-0.3)), abs=1e-6)


@pytest.mark.parametrize("name", ["simpo", "dpo"])
def test_values_and_gradients_are_the_closed_forms_in_float64(name):
    rng = torch.Generator().manual_seed(0)
    chosen, rejected, first, second = (torch.randn(50, generator=rng) * 5 for _ in range(4))
    chosen.requires_grad_()
    beta, gamma_ratio = (2.0, 0.5) if name == "simpo" else (0.1, 0.0)
    if name == "simpo":
        loss, inner = simpo(chosen, rejected, beta=beta, gamma_ratio=gamma_ratio), chosen.double() - rejected.double()
        inner = beta * (inner - gamma_ratio)
    else:
        loss = dpo(chosen, rejected, first, second, beta=beta)
        inner = beta * ((chosen.double() - rejected.double()) - (first.double() - second.double()))
    exact = torch.log1p(torch.exp(-inner.detach()))
    torch.testing.assert_close(loss.double(), exact, rtol=1e-5, atol=1e-6)
    (gradient,) = torch.autograd.grad(loss.sum(), chosen)
    torch.testing.assert_close(gradient.double(), -beta / (1 + torch.exp(inner.detach())), rtol=1e-4, atol=1e-7)
