"""A network, the objects it is judged on and a loss of each object: L(θ) = (1/N) Σ_i ℓ(f(x_i; θ), y_i)."""

from __future__ import annotations

import copy
import difflib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from functools import cached_property

import torch
from torch.func import functional_call
from torch.nn import functional

from landscape_cli.errors import BadInput

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Tensors = dict[str, torch.Tensor]
WORKING_SET = {"cpu": 2**27, "other": 2**32}  # bytes of intermediate results that a chunk of work may take
PART = 1024  # objects whose losses are checked at a time
KEPT = 3  # of each intermediate result, while a product is computed: its tangent, its gradient, the gradient's tangent


def cross_entropy(outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of each object: logits (B, K), class indices (B,) -> (B,), nats."""
    return functional.cross_entropy(outputs, y, reduction="none")


def squared_error(outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Squared error of each object, summed over its outputs: (B, …), the same -> (B,)."""
    if outputs.shape != y.shape:
        raise BadInput(f"outputs of the shape {tuple(outputs.shape)} and targets {tuple(y.shape)}; allowed: the same")
    return (outputs - y).square().reshape(len(y), -1).sum(dim=1)


class Objective:
    """The mean loss of a network over objects, as a function of its parameters or of some of them.

    Parameters
    ----------
    module
        In evaluation mode, or with no layer whose mode matters. It is not changed.
    x, y
        Objects (N, …) and targets (N, …), on the module's device.
    loss
        Outputs (B, …) and targets (B, …) -> one loss an object, (B,), each of its own object alone.
    parameters
        Names of parameters, or patterns such as ``"blocks.*.query.*"``; the others stay fixed. None: all.

    Raises
    ------
    BadInput
        The loss is not one an object; an object's loss depends on the others in its batch; a layer draws at random or
        learns statistics when it is evaluated (dropout, batch norm in training mode); a parameter or a loss is not
        finite; no parameter has a name that was asked for.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        x: torch.Tensor,
        y: torch.Tensor,
        loss: Loss = cross_entropy,
        parameters: Sequence[str] | None = None,
    ) -> None:
        _check_layers(module)
        self.module, self.x, self.y, self.loss = module, x, y, loss
        self.fixed = {n: t.detach() for n, t in (*module.named_parameters(), *module.named_buffers())}
        every = [name for name, _ in module.named_parameters()]
        if not every:
            raise BadInput(f"{type(module).__name__} has no parameters, so there is no curvature")
        self.every = tuple(every)
        self.names = tuple(every if parameters is None else _chosen(every, parameters))
        self._check_values()
        self._check_losses()

    def with_siblings(self, names: Sequence[str]) -> list[str]:
        """Add the other parameters of the layers of some.

        PyTorch's convolutions on a CPU cannot be differentiated twice by their bias alone.
        """
        layers = {name.rpartition(".")[0] for name in names}
        return [name for name in self.every if name in names or name.rpartition(".")[0] in layers]

    def part(self, parameters: Sequence[str]) -> Objective:
        """Return the same objective as a function of fewer parameters, named as in the constructor."""
        smaller = copy.copy(self)
        smaller.names = tuple(_chosen(list(self.names), parameters))
        for derived in ("sizes", "slices"):
            smaller.__dict__.pop(derived, None)
        return smaller

    def of_objects(self, index: torch.Tensor | slice) -> Objective:
        """Return the same objective over some of the objects."""
        smaller = copy.copy(self)
        smaller.x, smaller.y = self.x[index], self.y[index]
        return smaller

    @property
    def objects(self) -> int:
        """N."""
        return len(self.x)

    @property
    def parameters(self) -> Tensors:
        """The parameters that vary, by name."""
        return {name: self.fixed[name] for name in self.names}

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Number of entries of each parameter tensor."""
        return tuple(self.fixed[name].numel() for name in self.names)

    @cached_property
    def slices(self) -> dict[str, slice]:
        """Where each parameter tensor lies in a flat vector: parameters in the module's order, each row-major."""
        slices, begin = {}, 0
        for name, size in zip(self.names, self.sizes, strict=True):
            slices[name] = slice(begin, begin + size)
            begin += size
        return slices

    @property
    def size(self) -> int:
        """P, the number of parameters."""
        return sum(self.sizes)

    @property
    def dtype(self) -> torch.dtype:
        """Of the parameters."""
        return self.fixed[self.names[0]].dtype

    @property
    def device(self) -> torch.device:
        """Of the parameters."""
        return self.fixed[self.names[0]].device

    def flatten(self, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Tensors (…, *shape) by name -> (…, P)."""
        pieces = []
        for name in self.names:
            leading = tensors[name].dim() - self.fixed[name].dim()
            pieces.append(tensors[name].reshape(*tensors[name].shape[:leading], -1))
        return torch.cat(pieces, dim=-1)

    def unflatten(self, vectors: torch.Tensor) -> Tensors:
        """(…, P) -> tensors (…, *shape) by name."""
        return {
            name: vectors[..., part].reshape(*vectors.shape[:-1], *self.fixed[name].shape)
            for name, part in self.slices.items()
        }

    def outputs(self, own: Mapping[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        """What the network gives for objects (B, …) when some parameters are replaced."""
        return functional_call(self.module, {**self.fixed, **own}, (x,))

    def chunks(self, vectors: int) -> tuple[int, int]:
        """How many objects and how many of `vectors` vectors to work on at a time."""
        one = KEPT * self._object_bytes
        pairs = max(1, self._budget // one)
        together = max(1, min(vectors, self._budget // (KEPT * self._vector_bytes)))
        objects = min(self.objects, max(1, pairs // min(together, 8)))
        return objects, min(together, max(1, pairs // objects))

    def own_chunk(self, vectors: int = 1) -> int:
        """How many objects to work on at a time when each has `vectors` vectors of its own."""
        return max(1, self._budget // (KEPT * vectors * (self._object_bytes + self._vector_bytes)))

    @property
    def _budget(self) -> int:
        return WORKING_SET.get(self.device.type, WORKING_SET["other"])

    @property
    def _vector_bytes(self) -> int:
        return self.size * self.dtype.itemsize

    @cached_property
    def _object_bytes(self) -> int:
        """Bytes of the intermediate results of one object that its gradient needs, parameters apart."""
        kept: dict[int, int] = {}

        def count(tensor: torch.Tensor) -> torch.Tensor:
            place = tensor.untyped_storage().data_ptr()
            if place not in own:
                kept[place] = max(kept.get(place, 0), tensor.numel() * tensor.element_size())
            return tensor

        leaves = {name: tensor.clone().requires_grad_() for name, tensor in self.parameters.items()}
        own = {tensor.untyped_storage().data_ptr() for tensor in (*self.fixed.values(), *leaves.values())}
        with torch.enable_grad(), plain_kernels(), torch.autograd.graph.saved_tensors_hooks(count, lambda t: t):
            self.loss(self.outputs(leaves, self.x[:1]), self.y[:1]).sum()
        return max(sum(kept.values()), self.dtype.itemsize)

    def _check_values(self) -> None:
        for name, tensor in self.fixed.items():
            if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
                raise BadInput(f"{name!r} has values that are not finite, so there is no curvature to measure")
        kinds = {(self.fixed[name].dtype, self.fixed[name].device) for name in self.names}
        if len(kinds) > 1:
            raise BadInput(f"the parameters differ in type or device: {', '.join(sorted(map(str, kinds)))}")

    def _check_losses(self) -> None:
        if len(self.x) == 0 or len(self.x) != len(self.y):
            raise BadInput(f"{len(self.x)} objects and {len(self.y)} targets; allowed: as many, at least one")
        few = min(4, len(self.x))
        with torch.no_grad(), plain_kernels():
            losses = self.loss(self.outputs({}, self.x[:few]), self.y[:few])
            if losses.shape != (few,):
                raise BadInput(
                    f"the loss of {few} objects has the shape {tuple(losses.shape)}; allowed: ({few},), one loss an "
                    "object (reduction='none'), since Hessians of single objects are asked for"
                )
            if not bool(losses.isfinite().all()):
                raise BadInput("the loss of an object is not finite at these parameters")
            alone = torch.cat([self.loss(self.outputs({}, self.x[i : i + 1]), self.y[i : i + 1]) for i in range(few)])
            again = self.loss(self.outputs({}, self.x[:few]), self.y[:few])
        if not torch.equal(losses, again):
            raise BadInput("the loss differs when it is computed again: something draws at random; call model.eval()")
        gaps = (alone - losses).abs() - 1e-3 * (1 + alone.abs())
        if bool((gaps > 0).any()):
            worst = int(gaps.argmax())
            raise BadInput(
                f"the loss of an object depends on the others in its batch ({float(losses[worst]):g} among {few}, "
                f"{float(alone[worst]):g} alone); allowed: a loss that is the mean of one loss an object"
            )
        with torch.no_grad(), plain_kernels():
            parts = zip(self.x.split(PART), self.y.split(PART), strict=True)
            for number, (x, y) in enumerate(parts):
                finite = self.loss(self.outputs({}, x), y).isfinite()
                if not bool(finite.all()):
                    worst = number * PART + int((~finite).nonzero()[0, 0])
                    raise BadInput(f"the loss of object {worst} is not finite at these parameters")


@contextmanager
def plain_kernels() -> Iterator[None]:
    """Keep attention to operators that can be differentiated twice; fused kernels can be once."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.nn.attention.sdpa_kernel([torch.nn.attention.SDPBackend.MATH]):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _chosen(every: list[str], wanted: Sequence[str]) -> list[str]:
    wanted = [wanted] if isinstance(wanted, str) else wanted
    if not wanted:
        raise BadInput("no parameter is named, so there is nothing to differentiate by")
    for pattern in wanted:
        if not any(fnmatchcase(name, pattern) for name in every):
            close = difflib.get_close_matches(pattern, every, n=3, cutoff=0.3)
            raise BadInput(f"no parameter is named {pattern!r}; for example {', '.join(map(repr, close or every[:3]))}")
    return [name for name in every if any(fnmatchcase(name, pattern) for pattern in wanted)]


def _check_layers(module: torch.nn.Module) -> None:
    """Refuse layers that tie objects together or draw at random."""
    norms = torch.nn.modules.batchnorm._BatchNorm
    attention = torch.nn.MultiheadAttention | torch.nn.RNNBase
    for name, layer in module.named_modules():
        what = f"{name or 'the model'} ({type(layer).__name__})"
        if isinstance(layer, norms) and (layer.training or layer.running_mean is None):
            how = "call model.eval()" if layer.track_running_stats else "let it track running statistics"
            raise BadInput(f"{what} takes the statistics of the batch, so an object has no loss of its own; {how}")
        dropout = isinstance(layer, torch.nn.modules.dropout._DropoutNd) and layer.p > 0
        if layer.training and (dropout or (isinstance(layer, attention) and layer.dropout > 0)):
            raise BadInput(f"{what} draws at random, so the loss is no function of the parameters; call model.eval()")


def in_words(count: int) -> str:
    """Bytes in words: ``"1.2 GB"``."""
    power = min(int(math.log(max(count, 1), 1000)), 5)
    return f"{count / 1000**power:.3g} {('bytes', 'kB', 'MB', 'GB', 'TB', 'PB')[power]}"
