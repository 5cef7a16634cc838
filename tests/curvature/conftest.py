"""Small networks in float64, each with its Hessians and Jacobian taken in another way."""

import copy
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache, cached_property

import pytest
import torch
from torch import nn
from torch.func import functional_call, hessian, jacrev

from landscape_cli.config import ConvConfig, MLPConfig, TransformerConfig
from landscape_cli.curvature import Objective, cross_entropy, squared_error
from landscape_cli.curvature.objective import WORKING_SET
from landscape_cli.models import build_model

OBJECTS = 5
OPTIONS = {"num_heads": 2, "bias": True, "class_token": True, "positions": True, "pre_norm": True, "num_layers": 2}
NETWORKS = {
    "mlp": (MLPConfig(hidden_size=5, num_layers=1, bias=True), (1, 3, 3), 4),
    "conv2d": (ConvConfig(num_layers=3, channels=2, position=1), (1, 12, 12), 3),
    "conv1d": (ConvConfig(kind="conv1d", num_layers=2, channels=2, pooling="average", position=1), (1, 9, 3), 4),
    "vit": (TransformerConfig(hidden_size=4, patch_size=2), (1, 4, 6), 4),
    "vit_options": (
        TransformerConfig(hidden_size=4, patch_size=2, ffn_size=4, output_projection=False, **OPTIONS),
        (1, 4, 4),
        3,
    ),
}


class PlainLayerNorm(nn.Module):
    """A layer norm in plain arithmetic: torch.func.hessian of PyTorch's is wrong (2.13)."""

    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = norm.weight, norm.bias, norm.eps

    def forward(self, x):
        centred = x - x.mean(dim=-1, keepdim=True)
        return centred / (centred.square().mean(dim=-1, keepdim=True) + self.eps).sqrt() * self.weight + self.bias


class Bilinear(nn.Module):
    """What a user might bring: a bare parameter, a layer, a buffer, outputs (B, 2, 2)."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Parameter(torch.randn(2, 3))
        self.right = nn.Linear(3, 2)
        self.register_buffer("shift", torch.tensor([0.3, -0.2]))

    def forward(self, x):
        return self.right((self.left @ x).tanh()) + self.shift


@dataclass(frozen=True)
class Case:
    """A network with objects, targets and a loss."""

    net: nn.Module
    x: torch.Tensor
    y: torch.Tensor
    loss: Callable = cross_entropy

    @cached_property
    def objective(self) -> Objective:
        return Objective(self.net, self.x, self.y, self.loss)

    @property
    def point(self) -> torch.Tensor:
        """The parameters as one vector."""
        return nn.utils.parameters_to_vector(self.net.parameters()).detach()

    @property
    def size(self) -> int:
        return len(self.point)

    @cached_property
    def plain(self) -> nn.Module:
        """The same network, every layer norm written out."""
        net = copy.deepcopy(self.net)
        for name, layer in list(net.named_modules()):
            if isinstance(layer, nn.LayerNorm):
                net.set_submodule(name, PlainLayerNorm(layer))
        return net

    def outputs(self, net: nn.Module, point: torch.Tensor) -> torch.Tensor:
        names, tensors = zip(*net.named_parameters(), strict=True)
        pieces = point.split([tensor.numel() for tensor in tensors])
        own = {name: piece.view_as(t) for name, piece, t in zip(names, pieces, tensors, strict=True)}
        return functional_call(net, own, (self.x,))

    @cached_property
    def hessians(self) -> torch.Tensor:
        """Of each object, (N, P, P)."""
        net = self.plain
        return hessian(lambda point: self.loss(self.outputs(net, point), self.y))(self.point)

    @cached_property
    def hessian(self) -> torch.Tensor:
        return self.hessians.mean(dim=0)

    @cached_property
    def gauss_newtons(self) -> torch.Tensor:
        """Jᵀ A J of each object, (N, P, P)."""
        net = self.plain
        jacobian = jacrev(lambda point: self.outputs(net, point).flatten(1))(self.point)
        outputs = self.outputs(self.net, self.point).detach().flatten(1)
        if self.loss is cross_entropy:
            p = outputs.softmax(dim=1)
            curvature = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
        else:
            curvature = 2 * torch.eye(outputs.shape[1]).expand(len(outputs), -1, -1).to(outputs)
        return jacobian.transpose(1, 2) @ curvature @ jacobian

    def expected(self, operator: type) -> torch.Tensor:
        """What an operator's matrices of single objects should be, (N, P, P)."""
        return {
            "Hessian": lambda: self.hessians,
            "GaussNewton": lambda: self.gauss_newtons,
            "Rest": lambda: self.hessians - self.gauss_newtons,
        }[operator.__name__]()


@cache
def build(name: str) -> Case:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if name == "bilinear":
            draw = {"dtype": torch.float64}
            return Case(
                Bilinear().double(),
                torch.randn(OBJECTS, 3, 3, **draw),
                torch.randn(OBJECTS, 2, 2, **draw),
                squared_error,
            )
        settings, shape, classes = NETWORKS[name]
        model = build_model(asdict(settings), shape, classes)
        drawn = model.initialise([torch.Generator().manual_seed(seed) for seed in range(2)])
        net = model.module({name: tensor.double() for name, tensor in drawn.items()}, 1)
        x = torch.randn(OBJECTS, *shape, dtype=torch.float64)
        return Case(net, x.flatten(1) if name == "mlp" else x, torch.randint(classes, (OBJECTS,)))


@pytest.fixture(params=[*NETWORKS, "bilinear"])
def case(request) -> Case:
    """Every network."""
    return build(request.param)


@pytest.fixture(params=list(NETWORKS))
def classifier(request) -> Case:
    """Every network of the project, with cross-entropy."""
    return build(request.param)


@pytest.fixture
def mlp() -> Case:
    return build("mlp")


@pytest.fixture
def conv2d() -> Case:
    return build("conv2d")


@pytest.fixture
def conv1d() -> Case:
    return build("conv1d")


@pytest.fixture
def vit() -> Case:
    return build("vit")


@pytest.fixture
def largest() -> Case:
    """The one with the most parameters."""
    return build("vit_options")


@pytest.fixture
def tiny() -> Case:
    """The one with the fewest."""
    return build("bilinear")


@pytest.fixture(params=[1, 5000, 12000], ids=lambda budget: f"{budget} bytes")
def little_memory(request, monkeypatch) -> int:
    """For one object and one vector at a time, and for a few of either."""
    monkeypatch.setitem(WORKING_SET, "cpu", request.param)
    return request.param
