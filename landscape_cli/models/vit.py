"""The thesis's vision transformer, several seeds at once (thesis 2.3, 2.4), with the usual options."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from landscape_cli.geometry import Shape, vit_geometry

Parameters = dict[str, torch.Tensor]
DEVIATION = 0.02  # of the normal distribution that the class token and the positions are drawn from
EPSILON = 1e-5  # that a layer norm adds to the variance, PyTorch's default


class VisionTransformer:
    """Patches, a linear projection, transformer blocks, the mean over tokens, a linear head.

    A block is Y = LN(X + Attn(X)), Z = LN(Y + FFN(Y)) with a ReLU network; with ``pre_norm`` Y = X + Attn(LN(X)),
    Z = Y + FFN(LN(Y)) and one more layer norm at the end. Attention is softmax(Q Kᵀ/√d_K) V, d_K the width of a head,
    followed by a projection unless ``output_projection`` is off, as in the theory (2.3). With ``class_token`` the head
    reads that token instead of the mean.

    Tensors are named as in :meth:`module`'s ``state_dict`` and have a leading seed axis.
    """

    chunk = 256  # objects to handle at a time when nothing is trained

    def __init__(self, settings: Mapping[str, Any], shape: Shape, classes: int) -> None:
        self.geometry = vit_geometry(settings, shape)
        self.settings = dict(settings)
        self.classes = classes
        self.layers, self.heads = settings["num_layers"], settings["num_heads"]
        self.pre_norm, self.class_token = settings["pre_norm"], settings["class_token"]

    def initialise(self, generators: Sequence[torch.Generator]) -> Parameters:
        """Draw linear layers uniformly in ±1/√fan_in, PyTorch's default; layer norms begin as the identity."""
        drawn: dict[str, list[torch.Tensor]] = {}
        shapes = {name: tensor.shape for name, tensor in self._module().state_dict().items()}
        for generator in generators:
            for name, shape in shapes.items():
                if "norm" in name:
                    values = torch.ones(shape) if name.endswith("weight") else torch.zeros(shape)
                elif name in ("class_token", "positions"):
                    values = torch.randn(shape, generator=generator) * DEVIATION
                else:
                    fan_in = shapes[name.removesuffix("bias") + "weight"][1] if name.endswith("bias") else shape[1]
                    values = (torch.rand(shape, generator=generator) * 2 - 1) / math.sqrt(fan_in)
                drawn.setdefault(name, []).append(values)
        return {name: torch.stack(values) for name, values in drawn.items()}

    def forward(self, parameters: Parameters, x: torch.Tensor) -> torch.Tensor:
        """Logits (S, B, K) for pictures (S, B, C, H, W), or (1, B, C, H, W) shared by all seeds."""
        seeds = len(next(iter(parameters.values())))
        tokens = patches(x.flatten(0, 1), self.geometry.patch).unflatten(0, x.shape[:2])
        z = _linear(parameters, "projection", tokens.expand(seeds, *tokens.shape[1:]))
        if self.class_token:
            token = parameters["class_token"][:, None, None].expand(-1, z.shape[1], -1, -1)
            z = torch.cat([token, z], dim=2)
        if "positions" in parameters:
            z = z + parameters["positions"][:, None]
        for layer in range(self.layers):
            z = self._block(parameters, f"blocks.{layer}", z)
        if self.pre_norm:
            z = _norm(parameters, "norm", z)
        return _linear(parameters, "head", z[:, :, :1] if self.class_token else z.mean(dim=2, keepdim=True)).squeeze(2)

    def gradients(self, parameters: Parameters, x: torch.Tensor, y: torch.Tensor) -> Parameters:
        """Gradient of each seed's mean cross-entropy over its minibatch, x (S, B, …), y (S, B)."""
        with torch.enable_grad():
            leaves = {name: tensor.detach().requires_grad_() for name, tensor in parameters.items()}
            logits = self.forward(leaves, x)
            loss = functional.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="sum") / y.shape[1]
            return dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))

    def module(self, parameters: Parameters, seed: int) -> nn.Module:
        """Return one seed's network as an ordinary module on pictures (B, C, H, W)."""
        net = self._module()
        tensors = {name: tensor[seed] for name, tensor in parameters.items()}
        net.to(next(iter(tensors.values()))).load_state_dict(tensors)
        return net

    def _module(self) -> nn.Module:
        return TransformerNet(self.settings, self.geometry.input, self.classes)

    def _block(self, parameters: Parameters, block: str, x: torch.Tensor) -> torch.Tensor:
        first = _norm(parameters, f"{block}.norm1", x) if self.pre_norm else x
        y = x + self._attention(parameters, f"{block}.attention", first)
        y = y if self.pre_norm else _norm(parameters, f"{block}.norm1", y)
        second = _norm(parameters, f"{block}.norm2", y) if self.pre_norm else y
        hidden = _linear(parameters, f"{block}.ffn.linear1", second).relu()
        z = y + _linear(parameters, f"{block}.ffn.linear2", hidden)
        return z if self.pre_norm else _norm(parameters, f"{block}.norm2", z)

    def _attention(self, parameters: Parameters, name: str, x: torch.Tensor) -> torch.Tensor:
        split = [
            _linear(parameters, f"{name}.{part}", x).unflatten(3, (self.heads, -1)).transpose(2, 3).flatten(0, 1)
            for part in ("query", "key", "value")
        ]
        mixed = functional.scaled_dot_product_attention(*split).transpose(1, 2).flatten(2).view_as(x)
        output = f"{name}.output"
        return _linear(parameters, output, mixed) if f"{output}.weight" in parameters else mixed


class TransformerNet(nn.Module):
    """The same network as an ordinary module; its parameters: tokens, blocks, head.

    Parameters
    ----------
    settings
        Fields of :class:`~landscape_cli.config.TransformerConfig`.
    shape
        (C, H, W) of one picture.
    """

    def __init__(self, settings: Mapping[str, Any], shape: Shape, classes: int) -> None:
        super().__init__()
        geometry = vit_geometry(settings, shape)
        width, bias = settings["hidden_size"], settings["bias"]
        self.patch = geometry.patch
        self.projection = nn.Linear(geometry.patch_features, width, bias=bias)
        self.class_token = nn.Parameter(torch.zeros(width)) if settings["class_token"] else None
        self.positions = nn.Parameter(torch.zeros(geometry.tokens, width)) if settings["positions"] else None
        self.blocks = nn.ModuleList(Block(settings, geometry.ffn_size) for _ in range(settings["num_layers"]))
        self.norm = nn.LayerNorm(width, EPSILON, bias=True) if settings["pre_norm"] else None
        self.head = nn.Linear(width, classes, bias=bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Pictures (B, C, H, W) -> logits (B, K)."""
        z = self.projection(patches(x, self.patch))
        if self.class_token is not None:
            z = torch.cat([self.class_token.expand(len(z), 1, -1), z], dim=1)
        if self.positions is not None:
            z = z + self.positions
        for block in self.blocks:
            z = block(z)
        if self.norm is not None:
            z = self.norm(z)
        return self.head(z.mean(dim=1) if self.class_token is None else z[:, 0])


class Block(nn.Module):
    """Self-attention and a ReLU network, each with a residual connection and a layer norm."""

    def __init__(self, settings: Mapping[str, Any], ffn_size: int) -> None:
        super().__init__()
        width, bias = settings["hidden_size"], settings["bias"]
        self.pre_norm = settings["pre_norm"]
        self.attention = SelfAttention(width, settings["num_heads"], bias, settings["output_projection"])
        self.norm1 = nn.LayerNorm(width, EPSILON)
        self.ffn = FeedForward(width, ffn_size, bias)
        self.norm2 = nn.LayerNorm(width, EPSILON)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Tokens (B, T, d) -> (B, T, d)."""
        if self.pre_norm:
            y = x + self.attention(self.norm1(x))
            return y + self.ffn(self.norm2(y))
        y = self.norm1(x + self.attention(x))
        return self.norm2(y + self.ffn(y))


class SelfAttention(nn.Module):
    """softmax(Q Kᵀ/√d_K) V, head by head (2.3)."""

    def __init__(self, width: int, heads: int, bias: bool, output_projection: bool) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width, bias=bias)
        self.key = nn.Linear(width, width, bias=bias)
        self.value = nn.Linear(width, width, bias=bias)
        self.output = nn.Linear(width, width, bias=bias) if output_projection else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Tokens (B, T, d) -> (B, T, d)."""
        q, k, v = (f(x).unflatten(2, (self.heads, -1)).transpose(1, 2) for f in (self.query, self.key, self.value))
        weights = torch.softmax(q @ k.transpose(2, 3) / math.sqrt(q.shape[3]), dim=3)
        mixed = (weights @ v).transpose(1, 2).flatten(2)
        return mixed if self.output is None else self.output(mixed)


class FeedForward(nn.Module):
    """ReLU(Y W_1) W_2."""

    def __init__(self, width: int, ffn_size: int, bias: bool) -> None:
        super().__init__()
        self.linear1 = nn.Linear(width, ffn_size, bias=bias)
        self.linear2 = nn.Linear(ffn_size, width, bias=bias)

    def forward(self, y: torch.Tensor) -> torch.Tensor:
        """Tokens (B, T, d) -> (B, T, d)."""
        return self.linear2(torch.relu(self.linear1(y)))


def patches(x: torch.Tensor, size: int) -> torch.Tensor:
    """Cut pictures (B, C, H, W) into squares in reading order, each channel by channel: (B, T, C·size²)."""
    return x.unfold(2, size, size).unfold(3, size, size).permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)


def _linear(parameters: Parameters, name: str, x: torch.Tensor) -> torch.Tensor:
    """(S, B, T, in) -> (S, B, T, out)."""
    flat = x.flatten(1, 2) @ parameters[f"{name}.weight"].transpose(1, 2)
    if f"{name}.bias" in parameters:
        flat = flat + parameters[f"{name}.bias"][:, None]
    return flat.unflatten(1, x.shape[1:3])


def _norm(parameters: Parameters, name: str, x: torch.Tensor) -> torch.Tensor:
    scale, shift = (parameters[f"{name}.{part}"][:, None, None] for part in ("weight", "bias"))
    return functional.layer_norm(x, x.shape[-1:], eps=EPSILON) * scale + shift
