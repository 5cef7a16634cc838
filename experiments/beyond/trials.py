"""What each group of theorems is tried on: small networks, identities, layer norms, quadratic losses, sequences."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from experiments.beyond.search import Family

SHAPES = ((3, 4), (1, 8), (2, 8), (3, 16))  # of the matrices that layer norms take


def families(group: str, options: dict, generator: object) -> list[Family]:
    """Small networks of several sizes."""
    import torch
    from torch import nn

    from experiments.beyond.search import (
        AttentionFamily,
        BlockFamily,
        ChainFamily,
        Training,
        convolutions,
        normal,
    )

    training = Training(options["train_steps"], 16, 5e-3)

    def pool(*shape: int, classes: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
        """Random objects, the class the largest of a random linear map."""
        x = normal((64, *shape), generator)
        return x, (x.flatten(1) @ normal((math.prod(shape), classes), generator)).argmax(dim=1)

    def connected(*widths: int) -> ChainFamily:
        modules: list[nn.Module] = []
        for fan_in, fan_out in itertools.pairwise(widths):
            modules += [nn.Linear(fan_in, fan_out, bias=False), nn.ReLU()]
        data = pool(widths[0], classes=widths[-1])
        return ChainFamily(nn.Sequential(*modules[:-1]), widths[:1], ("8", "9", "11"), data, training)

    if group == "connected":
        return [connected(2, 2), connected(2, 3, 2), connected(3, 3, 4, 3)]
    if group == "convolutional":
        head = [*convolutions((1, 4, 4), 2, 2, 2, 3)[:-1], nn.ReLU(), nn.Flatten(), nn.Linear(4, 3, bias=False)]
        return [
            ChainFamily(convolutions((2, 4), 2, 2, 2, 3), (2, 4), ("12",), pool(2, 4), training),
            ChainFamily(convolutions((1, 4, 4), 2, 2, 2, 3), (1, 4, 4), ("13",), pool(1, 4, 4), training),
            ChainFamily(nn.Sequential(*head), (1, 4, 4), ("16",), pool(1, 4, 4), training),
        ]
    if group == "pooled":
        return [
            ChainFamily(convolutions((1, 6, 6), 2, 2, 2, 3, kind, 1), (1, 6, 6), (number,), pool(1, 6, 6), training)
            for number, kind in (("14", "max"), ("15", "average"))
        ]
    if group == "attention":
        return [AttentionFamily(2, 2, 2, options["train_steps"]), AttentionFamily(3, 3, 2, options["train_steps"])]
    return [BlockFamily(2, 3, 2, 3, options["train_steps"])]


def identity_errors(count: int, generator: object) -> pd.DataFrame:
    """Largest relative error of each identity over random networks: theorem, error."""
    import torch
    from torch import nn
    from torch.func import jacfwd, jacrev

    from experiments.beyond.search import BlockFamily, ChainFamily, Training, convolutions, normal
    from landscape_cli.bounds import blocks
    from landscape_cli.curvature import GaussNewton, Objective, dense
    from landscape_cli.curvature.chain import factorise

    untrained = Training(0, 1, 1.0)  # of unit scale
    errors: dict[str, float] = {}

    def note(theorem: str, found: torch.Tensor, exact: torch.Tensor) -> None:
        scale = float(exact.abs().max()) or 1.0
        errors[theorem] = max(errors.get(theorem, 0.0), float((found - exact).abs().max()) / scale)

    family = BlockFamily(2, 3, 2, 3, 0)
    body = convolutions((1, 4, 4), 2, 2, 2, 3)
    nets = [
        (nn.Sequential(nn.Linear(3, 4, bias=False), nn.ReLU(), nn.Linear(4, 3, bias=False)), (3,)),
        (convolutions((2, 4), 2, 2, 2, 3), (2, 4)),
        (body, (1, 4, 4)),
        (convolutions((1, 6, 6), 2, 2, 2, 3, "max", 1), (1, 6, 6)),
        (convolutions((1, 6, 6), 2, 2, 2, 3, "average", 1), (1, 6, 6)),
        (nn.Sequential(*body[:-1], nn.ReLU(), nn.Flatten(), nn.Linear(4, 3, bias=False)), (1, 4, 4)),
    ]
    chains = [
        (
            net.double(),
            shape,
            ChainFamily(net, shape, (), (normal((4, *shape), generator), torch.arange(4) % 3), untrained),
        )
        for net, shape in nets
    ]
    for _ in range(count):
        state = {name: tensor[0] for name, tensor in family.train(1, generator).items()}  # no steps: of unit scale
        x = state["X"]
        weights = {name: state[name] for name in family.shapes}
        size = x.numel()
        jacobian, curvature = blocks.layer_norm_derivatives(x)
        note("18", jacobian, jacrev(blocks.layer_norm)(x).reshape(size, size))
        note("19", curvature, jacfwd(jacrev(blocks.layer_norm))(x).reshape(-1, size))
        attention = blocks.attention_derivatives(x, weights)
        layer = lambda own: super(BlockFamily, family).output(own, x)  # noqa: B023, E731 - used within the turn
        second = jacfwd(jacrev(layer))(weights)
        for (i, j), found in attention.curvatures.items():
            note("21", found, second[i][j].reshape(found.shape))
        block = blocks.block_derivatives(x, weights)
        whole = lambda own: family.output(own, x)  # noqa: B023, E731
        first, second = jacrev(whole)(weights), jacfwd(jacrev(whole))(weights)
        for i, found in block.jacobians.items():
            note("24", found, first[i].reshape(found.shape))
        for (i, j), found in block.curvatures.items():
            note("25", found, second[i][j].reshape(found.shape))
        values = normal((3, 4), generator)
        slope = jacrev(torch.relu)(values).reshape(12, 12)
        note("20", torch.diag((values > 0).double().flatten()), slope)
        for net, shape, chain in chains:
            drawn = chain.train(1, generator)
            own = [weight[0] for weight in chain.weights(drawn)]
            for part, weight in zip(chain.chain.layers, own, strict=True):
                net.get_submodule(part.name).weight.data = weight
            objective = Objective(net, drawn["x"].view(1, *shape), drawn["y"])
            note("10", factorise(chain.chain, own, drawn["x"][0]).product(), dense(GaussNewton(objective)))
    return pd.DataFrame({"theorem": list(errors), "error": list(errors.values()), "networks": count})


def layer_norms(count: int, generator: object) -> pd.DataFrame:
    """Lemmas 22 and 23 at random matrices of several shapes: rows as of the bounds' experiments."""
    found = [_layer_norms(count // len(SHAPES) + 1, rows, columns, generator) for rows, columns in SHAPES]
    return pd.concat(found, ignore_index=True)


def _layer_norms(count: int, rows: int, columns: int, generator: object) -> pd.DataFrame:
    import torch
    from torch.func import jacfwd, jacrev, vmap

    from experiments.beyond.search import log_uniform, normal
    from landscape_cli.bounds.attention import layer_norm_bounds
    from landscape_cli.bounds.blocks import layer_norm

    x = normal((count, rows, columns), generator) * log_uniform((0.1, 10), count, generator)[:, None, None]
    jacobians = vmap(jacrev(layer_norm))(x).reshape(count, rows * columns, rows * columns)
    curvatures = vmap(jacfwd(jacrev(layer_norm)))(x).reshape(count, -1, rows * columns)
    norm, deviation = torch.linalg.matrix_norm(x, 2), x.std(dim=-1, correction=0).amin(dim=-1)
    printed = layer_norm_bounds(norm, deviation, rows, columns, printed=True)
    corrected = layer_norm_bounds(norm, deviation, rows, columns)
    y, w1, w2 = layer_norm(x), normal((count, columns, 5), generator), normal((count, 5, columns), generator)
    parts = [torch.linalg.matrix_norm(matrix, 2) for matrix in (y, w1, w2)]
    bound = math.sqrt(min(rows, 5)) * parts[0] * parts[1] * parts[2]
    measured = {
        ("23", "layer_norm_jacobian"): (torch.linalg.matrix_norm(jacobians, 2), printed[0], corrected[0]),
        ("23", "layer_norm_hessian"): (torch.linalg.matrix_norm(curvatures, 2), printed[1], corrected[1]),
        ("22", "output_norm"): (torch.linalg.matrix_norm((y @ w1).clamp(min=0) @ w2, 2), bound, bound),
    }
    return pd.concat([_frame(*key, *values) for key, values in measured.items()], ignore_index=True)


def loss_differences(count: int, generator: object) -> pd.DataFrame:
    """Theorems 4 to 7 where the Taylor term is exact: objects with quadratic losses and a common minimum."""
    import torch

    from experiments.beyond.search import log_uniform, normal
    from landscape_cli.bounds.chains import loss_difference

    objects, size = 5, 4
    half = normal((count, objects, size, size), generator)
    hessians = half @ half.mT * log_uniform((0.01, 100), count * objects, generator).view(count, objects, 1, 1)
    least = torch.rand(count, objects, generator=generator, dtype=torch.float64)
    theta = normal((count, size), generator)
    losses = least + 0.5 * torch.einsum("ni,noij,nj->no", theta, hessians, theta)
    k = objects - 1
    measured = (losses.mean(dim=1) - losses[:, :k].mean(dim=1)).abs()
    most = torch.linalg.matrix_norm(hessians, 2).amax(dim=1)
    given = (float(k), least.amax(dim=1), most, theta.norm(dim=1))
    frames = [
        _frame(theorem, "difference", measured, loss_difference(*given, True, theorem), loss_difference(*given))
        for theorem in ("4", "5", "6", "7")
    ]
    return pd.concat(frames, ignore_index=True)


def sequences(seed: int) -> pd.DataFrame:
    """Theorems 27 to 30: the value at the last k and its promised limit."""
    from landscape_cli.bounds.sample_size import Posterior, drifting_means, shrinking_posteriors

    k = np.array([1e6])
    kl, score = shrinking_posteriors(k)
    random, posterior = np.random.default_rng(seed), Posterior(3, 1.0, 1.0)
    for _ in range(20000):
        step = posterior.add(random.uniform(-1, 1, 3), random.uniform(-1, 1))
    rows = [
        ("27", float(drifting_means(k)[0]), 0.0, "M(k)"),
        ("28", float(kl[0]), 0.0, "KL(k)"),
        ("29", float(score[0]), 1.0, "S(k)"),
        ("30", step.mean + step.covariance, 0.0, "‖m_{k+1} - m_k‖ + ‖Σ_{k+1} - Σ_k‖"),
    ]
    return pd.DataFrame(rows, columns=["theorem", "value", "limit", "what"])


def _frame(theorem: str, quantity: str, measured: object, printed: object, corrected: object) -> pd.DataFrame:
    columns = {"kind": "random", "against": "", "theorem": theorem, "quantity": quantity}
    columns |= {"network": np.arange(len(measured)), "measured": measured.numpy()}
    return pd.DataFrame({**columns, "printed": printed.numpy(), "corrected": corrected.numpy(), "tight": np.nan})
