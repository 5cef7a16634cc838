"""Training to θ̂: several seeds of one grid point at once, each as it would be alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from landscape_cli.checkpointing import Loop, restore_into, set_training_state, training_state
from landscape_cli.data.pixels import Pixels
from landscape_cli.errors import MeasurementFailed
from landscape_cli.models import Parameters, StackedModel
from landscape_cli.recorded import recorded
from landscape_cli.rng import generator


def fit(
    model: StackedModel,
    x: torch.Tensor,
    y: torch.Tensor,
    *,
    seeds: Sequence[int],
    epochs: int,
    watch: Callable[[int, Parameters], None] | None = None,
    progress: Any = None,
    keep: dict[Any, Any] | None = None,
    **options: Any,
) -> Parameters:
    """Minimise the mean loss with Adam on minibatches, all seeds in one pass.

    Parameters
    ----------
    x, y, seeds, options
        As of :class:`Trainer`.
    watch
        Called with 0 and the parameters before the first step, then with each step's number and the parameters after
        it; it must copy what it keeps. Of a training that goes on it sees the steps that are left.
    progress
        Like tqdm: called with the range of epochs.
    keep
        Where `watch` puts all that it gathers, as of :meth:`Trainer.epochs`. With a `watch` and without this, nothing
        of the training is saved.

    Returns
    -------
    Trained parameters, name -> (S, …).

    Raises
    ------
    MeasurementFailed
        If a parameter is not finite at the end.
    """
    trainer = Trainer(model, x, y, seeds=seeds, epochs=epochs, **options)
    left = trainer.epochs(progress, keep=keep, save=watch is None or keep is not None)
    if watch and not trainer.done:
        watch(0, trainer.parameters)
    for _ in left:
        trainer.epoch(watch)
    return trainer.finish()


class Trainer:
    """Adam on minibatches, epoch after epoch, each seed as it would be alone.

    Every seed has its own initialisation and its own order of minibatches in every epoch, drawn from its own
    generators; the last, smaller minibatch of an epoch is used too.

    Parameters
    ----------
    x
        Objects, shape (N, …), shared by all seeds; or :class:`~landscape_cli.data.pixels.Pixels`.
    y
        Class indices, shape (N,), or real targets of the networks that take them.
    epochs
        In all; the schedule ends with them.
    weight_decay
        Of AdamW; with 0 it is Adam.
    schedule
        ``constant``, or ``cosine``: the rate falls to zero along half a cosine.
    warmup
        Share of all steps in which the rate first rises from zero, evenly.
    augmentation
        ``crop_flip``: each picture is moved by up to an eighth of its size (zeros come in) and mirrored half the time.
    stream
        The grid point's label: it separates the random streams of different points. A list has one a seed.
    start
        Parameters to start from, instead of an initialisation.
    rows
        Which objects each seed trains on, shape (S, n); None: all N.

    Attributes
    ----------
    done
        Epochs that were behind it when :meth:`epochs` was called.
    """

    recorded_on = frozenset({"cuda"})  # devices on which a step is recorded once and replayed

    def __init__(
        self,
        model: StackedModel,
        x: torch.Tensor,
        y: torch.Tensor,
        *,
        seeds: Sequence[int],
        epochs: int,
        batch_size: int,
        learning_rate: float,
        weight_decay: float = 0.0,
        schedule: str = "constant",
        warmup: float = 0.0,
        augmentation: str = "none",
        stream: str | Sequence[str] = "",
        start: Parameters | None = None,
        rows: torch.Tensor | None = None,
    ) -> None:
        self.model, self.x, self.y, self.seeds, self.batch_size = model, x, y, list(seeds), batch_size
        self.learning_rate, self.schedule, self.warmup = learning_rate, schedule, warmup
        self.augmentation, self.rows, self.copies = augmentation, rows, 1
        streams = [stream] * len(self.seeds) if isinstance(stream, str) else stream
        labels = list(zip(self.seeds, streams, strict=True))
        if start is None:
            start = model.initialise([generator(seed, "initialisation", label) for seed, label in labels])
        self.parameters = {name: tensor.detach().clone().to(x.device) for name, tensor in start.items()}
        self.free: dict[str, torch.Tensor] | None = None  # name -> (S, …) bool: what may still change; None: all
        options = {"lr": learning_rate, "weight_decay": weight_decay, "fused": True}
        self._optimiser = torch.optim.AdamW(self.parameters.values(), **options)
        self._orders = [generator(seed, "minibatches", label) for seed, label in labels]
        self._moves = [generator(seed, "augmentation", label) for seed, label in labels]
        self._size = len(x) if rows is None else rows.shape[1]
        self.step, self._steps = 0, epochs * -(-self._size // batch_size)
        self._flat = None if isinstance(x, Pixels) else x.reshape(len(x), -1)
        self._buffers: dict[int, torch.Tensor] = {}
        self._recording: Callable[[torch.Tensor], None] | None = None
        self.done, self._epochs, self._weight_decay, self._stream = 0, epochs, weight_decay, stream
        # Those that the model draws from while it is trained.
        self._generators = [*self._orders, *self._moves, *getattr(model, "generators", ())]

    def epochs(
        self,
        progress: Any = None,
        desc: str = "epochs",
        *,
        keep: dict[Any, Any] | None = None,
        save: bool = True,
    ) -> Iterator[int]:
        """Number the epochs for a loop that calls :meth:`epoch` for each; called once, before the first.

        Inside of :func:`~landscape_cli.checkpointing.checkpoints_in` a training whose process was killed goes on: at
        once it is what it was after the last epoch that was saved, with its copies and with what it holds
        (:attr:`free`), and the loop is given the epochs that are left, none of a finished training.

        Parameters
        ----------
        progress, desc
            Like tqdm, and what it calls the epochs.
        keep
            All that the loop gathers: tensors, numpy arrays, numbers and text, in lists and dicts, which stay the same
            objects when they are given what was saved. What precedes the first epoch is gathered where :attr:`done` is
            0.
        save
            False: nothing is saved, since the loop gathers what cannot be kept.

        Raises
        ------
        OSError
            The state cannot be written.
        """
        kept = {} if keep is None else keep

        def snapshot() -> dict[str, Any]:
            own = training_state(self.parameters, self._optimiser, self._generators)
            return {**own, "step": self.step, "copies": self.copies, "free": self.free, "keep": kept}

        def restore(state: dict[str, Any]) -> None:
            if state["copies"] > self.copies:
                self.branch(state["copies"] // self.copies)
            set_training_state(state, self.parameters, self._optimiser, self._generators)
            self.step, self.free, self._recording = state["step"], state["free"], None
            restore_into(kept, state["keep"])

        rates = (self.learning_rate, self._weight_decay, self.schedule, self.warmup)
        loop = Loop(
            self._epochs,
            snapshot=snapshot,
            restore=restore,
            label=lambda: {
                "kind": "Trainer",
                "model": self.model,
                "start": self.parameters,
                "free": self.free,
                "objects": [list(self.x.shape), self._size, self.batch_size],
                "seeds": self.seeds,
                "rates": rates,
                "augmentation": self.augmentation,
                "stream": self._stream,
                "generators": self._generators,
            },
            data=(self.x, self.y, self.rows),
            device=self.x.device,
            save=save,
        )
        self.done = loop.done
        return loop.rounds(progress, desc)

    @torch.no_grad()
    def epoch(
        self,
        watch: Callable[[int, Parameters], None] | None = None,
        observe: Callable[[Parameters, torch.Tensor, torch.Tensor, Parameters], None] | None = None,
    ) -> None:
        """Go through every seed's objects once.

        Parameters
        ----------
        watch
            Called with each step's number, from 1, and the parameters after it.
        observe
            Called before each step with the parameters, the minibatch (S, B, …), its targets (S, B) and the gradients;
            the next step overwrites the minibatch.
        """
        order = torch.stack([torch.randperm(self._size, generator=g) for g in self._orders]).to(self.x.device)
        if self.copies > 1:
            order = order.repeat_interleave(self.copies, dim=0)
        if self.rows is not None:
            order = self.rows.gather(1, order)
        for index in order.split(self.batch_size, dim=1):
            if observe is None and self._same_every_time(index):
                self._recorded_step(index)
            else:
                self._step(index, observe)
            self.step += 1
            if watch:
                watch(self.step, self.parameters)

    def _step(
        self,
        index: torch.Tensor,
        observe: Callable[[Parameters, torch.Tensor, torch.Tensor, Parameters], None] | None = None,
    ) -> None:
        batch = self._taken(index)
        if self.augmentation == "crop_flip":
            batch = crop_flip(batch, self._moves)
        if self.warmup or self.schedule != "constant":
            rate = scheduled(self.step, self._steps, self.schedule, self.warmup)
            self._optimiser.param_groups[0]["lr"] = self.learning_rate * rate
        targets = self.y.take(index) if self.y.dim() == 1 else self.y[index]
        gradients = self.model.gradients(self.parameters, batch, targets)
        if observe:
            observe(self.parameters, batch, targets, gradients)
        for name, tensor in self.parameters.items():
            tensor.grad = gradients[name].contiguous()  # the fused optimiser takes memory as it lies
            if self.free:  # what is held has no moments either, and starts afresh when it is set free
                tensor.grad = tensor.grad * self.free[name]
        held = {name: tensor.clone() for name, tensor in self.parameters.items()} if self.free else {}
        self._update()
        for name, before in held.items():
            self.parameters[name].copy_(torch.where(self.free[name], self.parameters[name], before))

    def _same_every_time(self, index: torch.Tensor) -> bool:
        """Whether a step can be recorded: on a GPU, and nothing but the indices differs from one to the next."""
        return (
            self.x.device.type in self.recorded_on
            and isinstance(self.x, torch.Tensor)
            and getattr(self.model, "recordable", False)
            and self.schedule == "constant"
            and not self.warmup
            and self.augmentation == "none"
            and not self.free
            and index.shape[1] == self.batch_size
            and all(self._optimiser.state.get(tensor) for tensor in self.parameters.values())  # past the first step
        )

    def _recorded_step(self, index: torch.Tensor) -> None:
        if self._recording is None:
            moments = [value for state in self._optimiser.state.values() for value in state.values()]
            self._recording = recorded(self._step, [*self.parameters.values(), *moments], index)
        else:
            self._recording(index)

    def _update(self) -> None:
        """Take a step of the optimiser; past the first by its operator alone, since what is around it takes as long."""
        tensors = list(self.parameters.values())
        states = [self._optimiser.state.get(tensor) for tensor in tensors]
        if not all(states):
            self._optimiser.step()
            return
        group = self._optimiser.param_groups[0]
        steps = [state["step"] for state in states]
        torch._foreach_add_(steps, 1)
        torch._fused_adamw_(
            tensors,
            [tensor.grad for tensor in tensors],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            steps,
            lr=group["lr"],
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            amsgrad=False,
            maximize=False,
        )

    def _taken(self, index: torch.Tensor) -> torch.Tensor:
        """Return the objects of a minibatch; they are put to the same place every time, which stays in the cache."""
        if isinstance(self.x, Pixels):
            return self.x[index]
        count = index.numel()
        if count not in self._buffers:
            self._buffers[count] = self._flat.new_empty(count, self._flat.shape[1])
        taken = torch.index_select(self._flat, 0, index.reshape(-1), out=self._buffers[count])
        return taken.view(*index.shape, *self.x.shape[1:])

    def branch(self, copies: int) -> None:
        """Go on with so many copies of every seed, side by side: same minibatches, same moments of the optimiser.

        Copy c of seed s is number s·copies + c.
        """
        if self.augmentation != "none":
            raise ValueError("copies of a seed would be given different pictures")
        for name in list(self.parameters):
            old = self.parameters[name]
            new = self.parameters[name] = old.detach().repeat_interleave(copies, dim=0)
            state = self._optimiser.state.pop(old, {})
            group = self._optimiser.param_groups[0]["params"]
            group[next(i for i, tensor in enumerate(group) if tensor is old)] = new
            self._optimiser.state[new] = {
                key: value.repeat_interleave(copies, dim=0) if value.shape == old.shape else value
                for key, value in state.items()
            }
        if self.rows is not None:
            self.rows = self.rows.repeat_interleave(copies, dim=0)
        self.copies *= copies
        self._recording = None

    def finish(self) -> Parameters:
        """The parameters, name -> (S, …).

        Raises
        ------
        MeasurementFailed
            If a parameter is not finite.
        """
        for tensor in self.parameters.values():
            tensor.grad = None
        check_finite(self.parameters, [seed for seed in self.seeds for _ in range(self.copies)])
        return self.parameters


def check_finite(parameters: Parameters, seeds: Sequence[int]) -> None:
    """Refuse parameters, name -> (S, …), of which some are not finite, naming their seeds.

    Raises
    ------
    MeasurementFailed
        If there are any.
    """
    broken = [
        seed
        for s, seed in enumerate(seeds)
        if not all(bool(tensor[s].isfinite().all()) for tensor in parameters.values())
    ]
    if broken:
        raise MeasurementFailed(
            f"training diverged: parameters are not finite for seeds {list(dict.fromkeys(broken))}; try a smaller "
            "training.learning_rate"
        )


def scheduled(step: int, steps: int, schedule: str, warmup: float) -> float:
    """Share of the learning rate at a step, counted from 0."""
    rising = warmup * steps
    if step < rising:
        return (step + 1) / (rising + 1)
    if schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / (steps - rising)))


def crop_flip(batch: torch.Tensor, generators: Sequence[torch.Generator]) -> torch.Tensor:
    """Move each picture by up to an eighth of its size and mirror it half the time; zeros come in at the border.

    Parameters
    ----------
    batch
        Shape (S, B, C, H, W).
    generators
        One a seed, on the CPU.
    """
    count, channels, height, width = batch.shape[1:]
    down, across = height // 8, width // 8
    shape = (count, 3)
    drawn = torch.stack([torch.rand(shape, generator=g) for g in generators]).to(batch.device)
    top = (drawn[..., 0] * (2 * down + 1)).long()
    left = (drawn[..., 1] * (2 * across + 1)).long()
    rows = top[..., None] + torch.arange(height, device=batch.device)
    columns = left[..., None] + torch.arange(width, device=batch.device)
    columns = torch.where(drawn[..., 2, None] < 0.5, columns.flip(-1), columns)
    padded = torch.nn.functional.pad(batch, (across, across, down, down))
    picked = padded.gather(3, rows[:, :, None, :, None].expand(-1, -1, channels, -1, padded.shape[-1]))
    return picked.gather(4, columns[:, :, None, None, :].expand(-1, -1, channels, height, -1))
