"""The Hessian of a mean loss, its Gauss-Newton part and their difference, as linear operators.

With z_i = f(x_i; θ) and J_i = ∂z_i/∂θ (thesis 2.1.1)

    H   = (1/N) Σ_i ∂²ℓ_i/∂θ²
    H_O = (1/N) Σ_i J_iᵀ (∂²ℓ/∂z²) J_i            Gauss-Newton, the "G component"
    H - H_O = (1/N) Σ_i Σ_k (∂ℓ/∂z_ik) ∂²z_ik/∂θ²       the rest, the "H component"

Products are forward-over-reverse: the derivative of the gradient along a direction. Many directions share one
evaluation of the network; a direction that touches some parameters only is followed from there on.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch.func import grad, jvp, vjp, vmap

from landscape_cli.curvature.objective import Objective, Tensors, plain_kernels
from landscape_cli.errors import MeasurementFailed


class CurvatureOperator(ABC):
    """A symmetric P x P matrix that is known by its products.

    Parameters
    ----------
    objective
        Its parameters are the matrix's rows and columns, in the order of :attr:`Objective.slices`.
    """

    def __init__(self, objective: Objective) -> None:
        self.objective = objective

    @property
    def shape(self) -> tuple[int, int]:
        """(P, P)."""
        return self.objective.size, self.objective.size

    @property
    def dtype(self) -> torch.dtype:
        """Of the parameters, and of every product."""
        return self.objective.dtype

    def part(self, parameters: Sequence[str]) -> CurvatureOperator:
        """Return the diagonal block of some parameters."""
        return type(self)(self.objective.part(parameters))

    def __matmul__(self, vectors: torch.Tensor) -> torch.Tensor:
        """Multiply with one vector (P,) or with many (P, M)."""
        if vectors.dim() not in (1, 2) or len(vectors) != self.shape[1]:
            raise ValueError(f"{self.shape} times {tuple(vectors.shape)}: allowed are ({self.shape[1]},) and that by M")
        return self._mean(vectors.reshape(self.shape[1], -1).T).T.reshape(vectors.shape)

    def each(self, vectors: torch.Tensor) -> torch.Tensor:
        """Multiply each object's own matrix with its own vectors.

        Parameters
        ----------
        vectors
            Shape (N, P), or (N, P, M).

        Returns
        -------
        The same shape: H_i v_i.
        """
        objective = self.objective
        if vectors.shape[:2] != (objective.objects, objective.size) or vectors.dim() > 3:
            allowed = (objective.objects, objective.size)
            raise ValueError(f"{tuple(vectors.shape)}: allowed are {allowed} and that by M")
        several = vectors.reshape(*vectors.shape[:2], -1).transpose(1, 2)  # (N, M, P)
        size, found, siblings = objective.own_chunk(several.shape[1]), [], objective.with_siblings(objective.names)

        def one(x: torch.Tensor, y: torch.Tensor, tangents: Tensors) -> torch.Tensor:
            return objective.flatten(self.products(x[None], y[None], tangents, siblings))

        with plain_kernels():
            for begin in range(0, objective.objects, size):
                part = slice(begin, begin + size)
                tangents = objective.unflatten(several[part].to(objective.dtype))
                found.append(vmap(one)(objective.x[part], objective.y[part], tangents))
        return torch.cat(found).transpose(1, 2).reshape(vectors.shape)

    def columns(self, tangents: Tensors, rows: Sequence[str]) -> torch.Tensor:
        """Multiply with directions that touch some parameters only, and keep some rows only.

        Parameters
        ----------
        tangents
            Directions by parameter, each (M, *shape); a parameter that is not named does not move.
        rows
            Names of the parameters whose rows are wanted.

        Returns
        -------
        Shape (M, rows), float64: sums over chunks of objects are.
        """
        objective = self.objective
        objects, _ = objective.chunks(len(next(iter(tangents.values()))))
        siblings = objective.with_siblings(rows)
        total: torch.Tensor | float = 0.0
        for begin in range(0, objective.objects, objects):
            part = slice(begin, begin + objects)
            with plain_kernels():
                found = self.products(objective.x[part], objective.y[part], tangents, siblings)
            total = total + torch.cat([found[name].flatten(1) for name in rows], dim=1).double()
        return total / objective.objects

    def verify(self) -> float:
        """Compare a product, batched as all are here, with plain reverse-mode differentiation on up to two objects.

        PyTorch's batching rules are wrong for some layers in some combinations (``torch.func.hessian`` of a layer norm
        is, in 2.13), so a network that was never tried before should be.

        Returns
        -------
        The relative difference.

        Raises
        ------
        MeasurementFailed
            It is more than rounding.
        """
        few = self.objective.of_objects(slice(0, 2))
        generator = torch.Generator().manual_seed(0)
        vector = torch.randn(few.size, generator=generator).to(few.device, few.dtype)
        small = type(self)(few)
        together = (small @ vector.expand(3, -1).T)[:, 1]
        own = small.each(vector.expand(few.objects, -1)).mean(dim=0)
        with torch.enable_grad(), plain_kernels():
            expected = few.flatten(small.reference(few.unflatten(vector))) / few.objects
        scale = float(expected.norm()) or 1.0
        worst = float(torch.stack([(found - expected).norm() for found in (together, own)]).max()) / scale
        if not worst <= 1e4 * torch.finfo(few.dtype).eps:
            raise MeasurementFailed(
                f"{type(self).__name__} products of {type(few.module).__name__} differ from plain differentiation by "
                f"{worst:.2g} of their length: a layer cannot be batched; write it out in plain operations"
            )
        return worst

    @abstractmethod
    def reference(self, direction: Tensors) -> Tensors:
        """Sum of the objects' matrices times one direction, by reverse-mode differentiation alone."""

    @abstractmethod
    def products(self, x: torch.Tensor, y: torch.Tensor, tangents: Tensors, rows: Sequence[str]) -> Tensors:
        """Sum of the objects' matrices times M directions: rows by name, each (M, *shape)."""

    def _mean(self, vectors: torch.Tensor) -> torch.Tensor:
        """(M, P) -> (M, P)."""
        objective = self.objective
        _, together = objective.chunks(len(vectors))
        found = [
            self.columns(objective.unflatten(chunk.to(objective.dtype)), objective.names).to(objective.dtype)
            for chunk in vectors.split(together)
        ]
        return torch.cat(found)

    def _directions(self, tangents: Tensors) -> Tensors:
        return {name: self.objective.fixed[name] for name in tangents}

    def _leaves(self) -> Tensors:
        return {name: tensor.clone().requires_grad_() for name, tensor in self.objective.parameters.items()}

    def _rows(self, rows: Sequence[str], moved: Mapping[str, torch.Tensor]) -> tuple[Tensors, Tensors]:
        """Split parameters: those to differentiate by, where they are now; and those that moved beside them."""
        own = {name: moved.get(name, self.objective.fixed[name]) for name in rows}
        return own, {name: tensor for name, tensor in moved.items() if name not in own}


class Hessian(CurvatureOperator):
    """The Hessian H of the mean loss."""

    def reference(self, direction: Tensors) -> Tensors:
        """Differentiate the gradient's product with the direction."""
        objective, leaves = self.objective, self._leaves()
        return _differentiated_twice(
            objective.loss(objective.outputs(leaves, objective.x), objective.y), leaves, direction
        )

    def products(self, x: torch.Tensor, y: torch.Tensor, tangents: Tensors, rows: Sequence[str]) -> Tensors:
        """Derivative of the loss's gradient along each direction."""
        objective = self.objective

        def gradient(moved: Tensors) -> Tensors:
            own, beside = self._rows(rows, moved)
            return grad(lambda own: objective.loss(objective.outputs({**beside, **own}, x), y).sum())(own)

        start = self._directions(tangents)
        return vmap(lambda direction: jvp(gradient, (start,), (direction,))[1])(tangents)


class GaussNewton(CurvatureOperator):
    """The Gauss-Newton part H_O of the Hessian."""

    def reference(self, direction: Tensors) -> Tensors:
        """J v as the derivative of u ↦ (uᵀ J) v, then the loss's curvature, then Jᵀ."""
        objective, leaves = self.objective, self._leaves()
        outputs = objective.outputs(leaves, objective.x)
        dual = torch.zeros_like(outputs, requires_grad=True)
        tensors = list(leaves.values())
        back = torch.autograd.grad(outputs, tensors, dual, create_graph=True, allow_unused=True)
        along = sum((b * direction[n]).sum() for n, b in zip(leaves, back, strict=True) if b is not None)
        change = torch.autograd.grad(along, dual)[0]
        z = outputs.detach().requires_grad_()
        slope = torch.autograd.grad(objective.loss(z, objective.y).sum(), z, create_graph=True)[0]
        curved = torch.autograd.grad(slope, z, change.detach(), allow_unused=True)[0] if slope.requires_grad else None
        curved = torch.zeros_like(z) if curved is None else curved
        return _with_zeros(leaves, torch.autograd.grad(outputs, tensors, curved, allow_unused=True))

    def products(self, x: torch.Tensor, y: torch.Tensor, tangents: Tensors, rows: Sequence[str]) -> Tensors:
        """Jᵀ (∂²ℓ/∂z²) J along each direction."""
        objective = self.objective
        start = self._directions(tangents)
        outputs, pull = vjp(lambda own: objective.outputs(own, x), {name: objective.fixed[name] for name in rows})
        slope = grad(lambda z: objective.loss(z, y).sum())

        def product(direction: Tensors) -> Tensors:
            change = jvp(lambda moved: objective.outputs(moved, x), (start,), (direction,))[1]
            return pull(jvp(slope, (outputs,), (change,))[1])[0]

        return vmap(product)(tangents)


class Rest(CurvatureOperator):
    """What is left of the Hessian without its Gauss-Newton part, H - H_O, not by subtraction."""

    def reference(self, direction: Tensors) -> Tensors:
        """As the Hessian's, of Σ_k (∂ℓ/∂z_k) z_k with fixed weights."""
        objective, leaves = self.objective, self._leaves()
        outputs = objective.outputs(leaves, objective.x)
        z = outputs.detach().requires_grad_()
        weights = torch.autograd.grad(objective.loss(z, objective.y).sum(), z)[0]
        return _differentiated_twice(outputs * weights, leaves, direction)

    def products(self, x: torch.Tensor, y: torch.Tensor, tangents: Tensors, rows: Sequence[str]) -> Tensors:
        """Derivative of the gradient of Σ_k (∂ℓ/∂z_k) z_k, its weights held fixed, along each direction."""
        objective = self.objective
        weights = grad(lambda z: objective.loss(z, y).sum())(objective.outputs({}, x))

        def gradient(moved: Tensors) -> Tensors:
            own, beside = self._rows(rows, moved)
            return grad(lambda own: (objective.outputs({**beside, **own}, x) * weights).sum())(own)

        start = self._directions(tangents)
        return vmap(lambda direction: jvp(gradient, (start,), (direction,))[1])(tangents)


def _differentiated_twice(values: torch.Tensor, leaves: Tensors, direction: Tensors) -> Tensors:
    tensors = list(leaves.values())
    first = torch.autograd.grad(values.sum(), tensors, create_graph=True, allow_unused=True)
    along = sum((g * direction[n]).sum() for n, g in zip(leaves, first, strict=True) if g is not None)
    second = torch.autograd.grad(along, tensors, allow_unused=True) if getattr(along, "requires_grad", False) else []
    return _with_zeros(leaves, second or [None] * len(tensors))


def _with_zeros(leaves: Tensors, found: Sequence[torch.Tensor | None]) -> Tensors:
    """Derivatives by name; zero by a parameter that does not act."""
    return {n: torch.zeros_like(t) if f is None else f for (n, t), f in zip(leaves.items(), found, strict=True)}
