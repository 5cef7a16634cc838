"""Answers that are worked out by hand: softmax, steps of optimisers, a Hessian, a ridge."""

import pytest
import torch
from torch.optim import SGD, Adam

from landscape_cli.curvature import Hessian, Objective, dense


@pytest.mark.parametrize(
    ("logits", "temperature", "answer"),
    [
        ((1, -2, 0), 1, (0.705385, 0.035119, 0.259496)),
        ((1, 2, 5), 10, (0.278010, 0.307248, 0.414742)),
        ((1, 2, 5), 1, (0.017148, 0.046613, 0.936240)),
    ],
)
def test_softmax_with_a_temperature(logits, temperature, answer):
    found = torch.softmax(torch.tensor(logits, dtype=torch.float64) / temperature, dim=0)
    assert found.tolist() == pytest.approx(answer, abs=6e-7)


@pytest.mark.parametrize(
    ("optimiser", "options", "answer"),
    [
        (SGD, {}, (0.8, 1.2)),
        (SGD, {"momentum": 0.9}, (0.8, 1.92)),
        (Adam, {"betas": (0.9, 0.9)}, (0.1, 0.199948)),
    ],
)
def test_two_steps_of_a_regression_with_one_weight(optimiser, options, answer):
    x, y = torch.tensor([1.0, 2.0]).double(), torch.tensor([2.0, 3.0]).double()
    w = torch.zeros((), dtype=torch.float64, requires_grad=True)
    steps, own = [], optimiser([w], lr=0.1, **options)
    for _ in range(2):
        own.zero_grad()
        (w * x - y).square().mean().backward()
        own.step()
        steps.append(w.item())
    assert steps == pytest.approx(answer, abs=6e-7)


class WithWeights(torch.nn.Linear):
    """Predictions and, beside each, the weights, for a loss that has a ridge."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([super().forward(x), self.weight.expand(len(x), -1)], dim=1)


@pytest.mark.parametrize("ridge", [0.0, 0.7])
def test_the_hessian_of_a_sum_of_squares_and_a_ridge(ridge):
    torch.manual_seed(0)
    x, y = torch.randn(7, 3).double(), torch.randn(7, 1).double()

    def loss(outputs, targets):
        return (outputs[:, :1] - targets).square().sum(dim=1) + ridge / 7 * outputs[:, 1:].square().sum(dim=1)

    objective = Objective(WithWeights(3, 1, bias=False).double(), x, y, loss)
    torch.testing.assert_close(7 * dense(Hessian(objective)), 2 * x.T @ x + 2 * ridge * torch.eye(3).double())


def left_out(ridge: torch.Tensor) -> torch.Tensor:
    """Squared errors at the object left out, summed: y_i = β + ε_i, the penalty λβ²."""
    y, errors = torch.tensor([6.0, 6.0, 10.0]).double(), []
    for i in range(3):
        own = torch.cat([y[:i], y[i + 1 :]])
        errors.append((y[i] - own.sum() / (len(own) + ridge)) ** 2)
    return torch.stack(errors).sum()


def test_the_ridge_chosen_by_leaving_one_out_is_four_over_thirty_nine():
    answer = torch.tensor(4 / 39, dtype=torch.float64)
    assert torch.func.grad(left_out)(answer).item() == pytest.approx(0, abs=1e-12)
    others = torch.linspace(0, 5, 501).double()
    assert all(left_out(answer) < left_out(other) for other in others)
