"""Orders of removal on matrices and models whose answers are known."""

import numpy as np
import pytest
import torch

from landscape_cli.curvature.stacked import hessian_diagonal
from landscape_cli.descent import mean_losses
from landscape_cli.models.mlp import FeedForward
from landscape_cli.pruning.orders import belsley, belsley_order, belsley_scores, optimal_brain_damage, signal_to_noise

SIZE = 5


def definite(seed, size=SIZE):
    a = np.random.default_rng(seed).normal(size=(size, size))
    return torch.from_numpy(a @ a.T + 0.1 * np.eye(size))


def test_optimal_brain_damage_is_the_change_of_a_quadratic_loss():
    """Orthogonal features and a linear model at its minimum: the change of the loss is h_jj w_j² / 2, exactly."""
    draw = torch.Generator().manual_seed(0)
    x = torch.linalg.qr(torch.randn(20, SIZE, generator=draw, dtype=torch.float64))[0][None]
    y = torch.randn(1, 20, generator=draw, dtype=torch.float64)
    weights = (x.mT @ y[..., None])[..., 0]
    model, parameters = FeedForward(SIZE, 1, []), {"0.weight": weights[:, None]}
    predicted = optimal_brain_damage(hessian_diagonal(model, parameters, x, y), weights)

    def loss(w):
        return (y - (x @ w[..., None])[..., 0]).square().mean(dim=1)

    for j in range(SIZE):
        without = weights.clone()
        without[0, j] = 0
        torch.testing.assert_close(loss(without) - loss(weights), predicted[:, j], rtol=1e-12, atol=1e-15)


def test_optimal_brain_damage_of_a_network_is_second_order():
    """Beside the gradient's part, what it leaves out shrinks with the cube of the weight that is removed."""
    draw = torch.Generator().manual_seed(1)
    model = FeedForward(4, 3, [5], "tanh")
    drawn = model.initialise([draw])
    x = torch.randn(1, 30, 4, generator=draw, dtype=torch.float64)
    y = torch.randint(3, (1, 30), generator=draw)
    errors, sizes = [], (0.2, 0.1, 0.05)
    for size in sizes:
        weights = {name: tensor.double().clone() for name, tensor in drawn.items()}
        weights["0.weight"][0, 2, 1] = size
        removed = {name: tensor.clone() for name, tensor in weights.items()}
        removed["0.weight"][0, 2, 1] = 0
        change = mean_losses(model, removed, x, y) - mean_losses(model, weights, x, y)
        slope = model.gradients(weights, x, y)["0.weight"][0, 2, 1]
        place = 2 * 4 + 1
        flat = torch.cat([tensor.flatten(1) for tensor in weights.values()], dim=1)
        predicted = optimal_brain_damage(hessian_diagonal(model, weights, x, y), flat)[:, place]
        errors.append(abs((change + slope * size - predicted).item()))
    assert errors[1] < errors[0] / 6
    assert errors[2] < errors[1] / 6


def test_signal_to_noise():
    found = signal_to_noise(torch.tensor([[-3.0, 1.0]]), torch.tensor([[2.0, 4.0]]))
    torch.testing.assert_close(found, torch.tensor([[1.5, 0.25]]))


def test_belsley_is_numpys_decomposition():
    matrices = torch.stack([definite(seed) for seed in range(3)])
    found = belsley(matrices)
    for number, matrix in enumerate(matrices.numpy()):
        u, singular, _ = np.linalg.svd(matrix)
        np.testing.assert_allclose(found.eigenvalues[number], singular, rtol=1e-10)
        np.testing.assert_allclose(found.condition_indices[number], singular[0] / singular, rtol=1e-10)
        parts = u**2 / singular
        np.testing.assert_allclose(found.shares[number], parts / parts.sum(axis=1, keepdims=True), rtol=1e-8)
        np.testing.assert_allclose(parts.sum(axis=1), np.linalg.inv(matrix).diagonal(), rtol=1e-8)
    assert found.rank.tolist() == [SIZE] * 3
    assert (found.null_space == 0).all()
    # The largest index is the last component's, and the parameter with the largest share in it goes first.
    expected = found.shares[:, :, -1].argmax(dim=1)
    assert torch.equal(belsley_scores(matrices).argmin(dim=1), expected)


def test_of_two_collinear_parameters_one_goes_first():
    x = torch.randn(50, SIZE, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    x[:, 3] = -2 * x[:, 1]
    gram = x.mT @ x
    for matrix in (gram, torch.from_numpy(np.corrcoef(x.numpy().T)), gram + 1e-6 * torch.eye(SIZE)):
        scores = belsley_scores(matrix[None])[0]
        assert scores.argmin().item() in (1, 3)
        assert scores[[0, 2, 4]].max() > -0.1 or (scores[[0, 2, 4]] > scores[[1, 3]].min()).all()
    # Also as a covariance matrix of the parameters, two of which are one random variable.
    covariance = torch.eye(SIZE, dtype=torch.float64)
    covariance[1, 3] = covariance[3, 1] = 1
    assert belsley_scores(covariance[None]).argmin().item() in (1, 3)


def test_scores_do_not_depend_on_the_basis_of_equal_eigenvalues():
    """Independent parameters beside a group with one covariance: shares in the group's component are equal."""
    matrix = torch.full((8, 8), 0.95, dtype=torch.float64)
    matrix[0], matrix[:, 0] = 1e-3, 1e-3
    matrix.fill_diagonal_(1)
    scores = belsley_scores(matrix[None])[0]
    assert scores[0] == 0
    assert (scores[1:] == -1).all()
    order = torch.randperm(8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(belsley_scores(matrix[order][:, order][None])[0], scores[order])


def test_null_space_shares_are_lengths():
    rank_one = torch.ones(1, 3, 3, dtype=torch.float64)
    rank_one[0, 2] = rank_one[0, :, 2] = 0
    rank_one[0, 2, 2] = 2
    found = belsley(rank_one)
    assert found.rank.tolist() == [2]
    torch.testing.assert_close(found.null_space, torch.tensor([[0.5, 0.5, 0.0]], dtype=torch.float64))
    assert belsley_scores(rank_one).argmin().item() == 0


@pytest.mark.parametrize("size", [1, 2])
def test_few_parameters_are_left(size):
    assert belsley_scores(definite(7, size)[None]).shape == (1, size)


@pytest.mark.parametrize("kind", ["far from singular", "nearly", "singular", "in groups"])
def test_belsley_order_is_one_decomposition_after_another(kind):
    """Two eigenpairs and an updated inverse beside a whole decomposition of what is left at every step."""
    size = 90
    a = np.random.default_rng(1).normal(size=(size, 2 * size if kind != "singular" else size // 2))
    matrix = torch.from_numpy(a @ a.T / size + {"far from singular": 0.1, "nearly": 1e-7}.get(kind, 0) * np.eye(size))
    if kind == "in groups":
        matrix = torch.full((size, size), 0.9, dtype=torch.float64)
        matrix[:5], matrix[:, :5] = 0, 0
        matrix.fill_diagonal_(1)
    found = belsley_order(torch.stack([matrix, matrix.flip(0).flip(1)]))
    assert torch.equal(found.sort(dim=1).values, torch.arange(size).expand(2, -1))
    left = torch.arange(size)
    for step in range(size):
        gone = int(belsley_scores(matrix[left][:, left][None])[0].argmin())
        assert found[0, left[gone]] == step
        left = torch.cat([left[:gone], left[gone + 1 :]])
