"""Translators that are taught: training epoch by epoch, cross-entropy and BLEU on test sentences (thesis 4.4.2)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from landscape_cli.checkpointing import Loop, restore_into, set_training_state, training_state
from landscape_cli.data.subwords import BEGIN, END, PADDING, Subwords, normalised
from landscape_cli.distillation.losses import check_classes, check_weights, distillation_losses, soft_labels
from landscape_cli.errors import MeasurementFailed
from landscape_cli.models.encoder_decoder import EncoderDecoder, Parameters
from landscape_cli.rng import generator
from landscape_cli.training import scheduled

CHUNK = 1024  # sentences of all networks together, at a time, when nothing is trained
POOL = 8  # minibatches whose sentences are sorted by length
TABLE = "target_embedding.weight"
# Of numbers of sentences (G, B), what their translations begin with (G, B, T), and places (G, M) in those, counted
# through from 0 to B·T: probabilities (G, M, V) of the subwords that come next.
Teaching = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Sentences:
    """Sentences and their translations as subwords."""

    source: torch.Tensor  # int64 (N, L), padded with 0
    target: torch.Tensor  # int64 (N, T), from the begin id to the end id, padded with 0

    def __len__(self) -> int:
        return len(self.source)

    def rows(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Sources and targets of numbers (G, B), no longer than the longest of them."""
        return _trimmed(self.source[rows]), _trimmed(self.target[rows])

    def chunks(self, size: int) -> Iterator[torch.Tensor]:
        """Numbers of the sentences (1, B), a chunk at a time, short ones first."""
        yield from _lengths(self.target).argsort(stable=True)[None].split(size, dim=1)

    def minibatches(
        self, batch_size: int, orders: Sequence[torch.Generator], ranks: torch.Generator
    ) -> list[torch.Tensor]:
        """One epoch's minibatches: numbers of the sentences (G, B), a random order for each of G generators.

        Of a random order so many sentences at a time are sorted by length and cut into minibatches: with little padding
        an epoch takes about half the time. The minibatches of an order are ranked by length, and the ranks come in an
        order of their own, which is the same for all: so what is computed side by side has one length, and yet no order
        depends on the others. The smaller minibatch that may be left over comes at one place for all, too.

        Parameters
        ----------
        orders
            One for each random order.
        ranks
            In the same state whatever the orders are.
        """
        source, target = (_lengths(ids).cpu() for ids in (self.source, self.target))
        # The target weighs more in what a sentence costs; one of several is the longest.
        length = target * (1 + int(source.max())) + source
        ranked = []
        for order in orders:
            drawn = torch.randperm(len(self), generator=order)
            cut = [
                part
                for pool in drawn.split(POOL * batch_size)
                for part in pool[length[pool].argsort(stable=True)].split(batch_size)
            ]
            # A rest is the last one's end.
            rest = [cut.pop()] if len(cut[-1]) < batch_size else []
            ranked.append(sorted(cut, key=lambda part: int(length[part[-1]])) + rest)
        stacked = [torch.stack(batches).to(self.source.device) for batches in zip(*ranked, strict=True)]
        return [stacked[k] for k in torch.randperm(len(stacked), generator=ranks).tolist()]


def train_translators(
    model: EncoderDecoder,
    parameters: Parameters,
    sentences: Sentences,
    teachers: Sequence[Teaching | None] = (None,),
    *,
    seeds: Sequence[int],
    stream: str,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    weights: Sequence[float] = (1.0,),
    temperature: float = 1.0,
    weight_decay: float = 0.0,
    schedule: str = "constant",
    warmup: float = 0.0,
    watch: Callable[[int, Parameters], None] | None = None,
    keep: dict[Any, Any] | None = None,
    names: Sequence[str] = (),
) -> Parameters:
    """Train a network a student and seed with Adam, on the mean distillation loss of a minibatch's target subwords.

    All networks are trained at once, and each as it would be alone, but for rounding. The students of one seed see the
    same minibatches and the same dropout masks.

    Parameters
    ----------
    parameters
        To start from: student r of seed number g is network r·G + g, for R students and G seeds. They are not changed.
    teachers
        Each student's; None where its weight is one.
    seeds, stream
        Minibatches and dropout's masks are drawn from generators of a seed and the stream.
    weights
        Each student's λ of :func:`~landscape_cli.distillation.losses.distillation_losses`.
    temperature
        T of the same, and of the teachers' probabilities.
    watch
        Called with 0 and the parameters before the first epoch and with each epoch's number after it; it must copy what
        it keeps. Of a training that goes on it sees the epochs that are left.
    keep
        Where `watch` puts all that it gathers, as of :meth:`~landscape_cli.training.Trainer.epochs`. With a `watch` and
        without this, nothing of the training is saved.
    names
        What tells the students apart where weights and start are the same, such as their teachers' names: of trainings
        that run side by side each finds its own file by it.

    Returns
    -------
    Trained parameters, name -> (R·G, …).

    Raises
    ------
    BadInput
        A weight or the temperature lies outside.
    MeasurementFailed
        A parameter is not finite at the end.
    """
    for weight in weights:
        check_weights(weight, temperature)
    parameters = {name: _laid_out(name, tensor) for name, tensor in parameters.items()}
    optimiser = torch.optim.AdamW(parameters.values(), lr=learning_rate, weight_decay=weight_decay, fused=True)
    orders, dropout = ([generator(seed, purpose, stream) for seed in seeds] for purpose in ("minibatches", "dropout"))
    ranks = generator(0, "order of minibatches", stream)
    pupils = list(zip(weights, teachers, strict=True))
    steps = epochs * -(-len(sentences) // batch_size)  # a pool is a whole number of minibatches
    kept, generators = {} if keep is None else keep, [*orders, *dropout, ranks]

    def restore(state: dict[str, Any]) -> None:
        set_training_state(state, parameters, optimiser, generators)
        restore_into(kept, state["keep"])

    loop = Loop(
        epochs,
        snapshot=lambda: {**training_state(parameters, optimiser, generators), "keep": kept},
        restore=restore,
        label=lambda: {
            "kind": "translators",
            "model": model,
            "start": parameters,
            "sentences": [len(sentences), batch_size],
            "seeds": seeds,
            "stream": stream,
            "rates": (learning_rate, weight_decay, schedule, warmup),
            "students": [weights, temperature, names],
        },
        data=(sentences.source, sentences.target),
        device=sentences.source.device,
        save=watch is None or keep is not None,
    )
    step = steps // epochs * loop.done if epochs else 0
    if watch and not loop.done:
        watch(0, parameters)
    for epoch in loop.rounds():
        for rows in sentences.minibatches(batch_size, orders, ranks):
            optimiser.param_groups[0]["lr"] = learning_rate * scheduled(step, steps, schedule, warmup)
            found = _gradients(model, parameters, sentences, rows, pupils, dropout, temperature)
            for name, tensor in parameters.items():
                # The fused optimiser takes memory as it lies.
                same = found[name].stride() == tensor.stride()
                tensor.grad = found[name] if same else torch.empty_like(tensor).copy_(found[name])
            optimiser.step()
            step += 1
        if watch:
            watch(epoch + 1, parameters)
    broken = {
        seeds[network % len(seeds)]
        for tensor in parameters.values()
        for network in (~tensor.isfinite().flatten(1).all(dim=1)).nonzero().flatten().tolist()
    }
    if broken:
        raise MeasurementFailed(
            f"training of translators diverged: parameters are not finite for seeds {sorted(broken)}; try a smaller "
            "training.learning_rate"
        )
    return {name: tensor.detach().contiguous() for name, tensor in parameters.items()}


def _laid_out(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """Copy, a layer's matrices (S, out, in) by columns: so lie their gradients, which then need no copy in a step."""
    if tensor.dim() == 3 and "embedding" not in name:
        return tensor.detach().transpose(1, 2).clone(memory_format=torch.contiguous_format).transpose(1, 2)
    return tensor.detach().clone(memory_format=torch.contiguous_format)


def _gradients(
    model: EncoderDecoder,
    parameters: Parameters,
    sentences: Sentences,
    rows: torch.Tensor,
    pupils: list[tuple[float, Teaching | None]],
    dropout: Sequence[torch.Generator],
    temperature: float,
) -> Parameters:
    """Gradients of each network's mean loss over its minibatch, numbers of sentences (G, B)."""
    source, target = sentences.rows(rows)
    given, told = target[:, :, :-1], target[:, :, 1:].flatten(1)
    places, real = _places(told)
    counts = real.sum(dim=1)
    right, seeds = told.gather(1, places).flatten(), len(rows)
    with torch.enable_grad():
        leaves = {name: tensor.detach().requires_grad_() for name, tensor in parameters.items()}
        hidden = _at(model.hidden(leaves, source, given, dropout), places)
    down, table = torch.empty_like(hidden), torch.empty_like(parameters[TABLE])
    # One student at a time: its logits stay in the processor's cache, and all students' need not fit into memory.
    for student, (weight, teacher) in enumerate(pupils):
        part = slice(student * seeds, (student + 1) * seeds)
        own = {TABLE: leaves[TABLE].detach()[part].requires_grad_()}
        read = hidden.detach()[part].requires_grad_()
        with torch.enable_grad():
            logits = model.logits(own, read).flatten(0, 1)
            soft = logits.detach() if teacher is None or weight == 1 else teacher(rows, given, places).flatten(0, 1)
            losses = distillation_losses(logits, right, soft, weight=weight, temperature=temperature)
            total = ((losses.view_as(real) * real).sum(dim=1) / counts).sum()
        down[part], table[part] = torch.autograd.grad(total, (read, own[TABLE]))
    found = dict(zip(leaves, torch.autograd.grad(hidden, list(leaves.values()), down), strict=True))
    found[TABLE] += table
    return found


def teaching(
    model: EncoderDecoder, parameters: Parameters, sources: torch.Tensor, vocabulary: int, temperature: float = 1.0
) -> Teaching:
    """A teacher a seed that is given its own sources, row by row the students' sentences through φ.

    Parameters
    ----------
    sources
        What the teachers read in the place of the students' sources, (N, L).
    vocabulary
        Of the students' target.

    Raises
    ------
    BadInput
        The teachers' vocabulary is another one.
    """
    check_classes(model.target_vocabulary, vocabulary)

    @torch.no_grad()
    def answer(rows: torch.Tensor, given: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        hidden = _at(model.hidden(parameters, _trimmed(sources[rows]), given), places)
        return soft_labels(model.logits(parameters, hidden), temperature)

    return answer


def uniform(vocabulary: int) -> Teaching:
    """A teacher that knows nothing: the same probability for every subword."""

    def answer(rows: torch.Tensor, given: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        return torch.full((1, 1, 1), 1 / vocabulary, device=given.device).expand(*places.shape, vocabulary)

    return answer


@torch.no_grad()
def cross_entropy(model: EncoderDecoder, parameters: Parameters, sentences: Sentences) -> torch.Tensor:
    """Each network's mean cross-entropy of the target's subwords, the end included, in nats: (S,), float64."""
    networks = len(parameters[TABLE])
    total, count = torch.zeros(networks, dtype=torch.float64), 0
    for rows in sentences.chunks(max(1, CHUNK // networks)):
        source, target = sentences.rows(rows)
        told = target[:, :, 1:].flatten(1)
        places, _ = _places(told)
        hidden, right = _at(model.hidden(parameters, source, target[:, :, :-1]), places), told.gather(1, places)[0]
        for network in range(networks):  # one network's logits stay in the processor's cache
            logits = model.logits({TABLE: parameters[TABLE][network, None]}, hidden[network, None])[0]
            total[network] += functional.cross_entropy(logits, right, reduction="none").double().sum().cpu()
        count += right.numel()
    return total / count


def translate(
    model: EncoderDecoder, parameters: Parameters, source: torch.Tensor, subwords: Subwords, max_length: int
) -> list[list[str]]:
    """Translate sources (N, L) greedily: what each of the S networks says."""
    networks = len(parameters[TABLE])
    found: list[list[str]] = [[] for _ in range(networks)]
    for part in source.split(max(1, CHUNK // networks)):
        written = model.greedy(parameters, _trimmed(part[None]), BEGIN, END, max_length).cpu()
        for said, ids in zip(found, written, strict=True):
            said += subwords.decode(ids)
    return found


def bleu(translations: list[str], references: list[str]) -> float:
    """BLEU of a corpus (sacrebleu, its standard tokenisation) as a share of one; references are normalised."""
    import sacrebleu  # takes a while to import

    return sacrebleu.corpus_bleu(translations, [[normalised(text) for text in references]]).score / 100


def _places(told: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Where subwords (G, n) are no padding: (G, M), M the most of a row, and which of these places are.

    A row with fewer is filled with other places.
    """
    real = told != PADDING
    most = int(real.sum(dim=1).max())
    places = real.logical_not().to(torch.uint8).argsort(dim=1, stable=True)[:, :most]
    return places, real.gather(1, places)


def _at(hidden: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Choose places (G, M) from (S, B, T, d): (S, M, d)."""
    networks, width = len(hidden), hidden.shape[3]
    flat = hidden.flatten(1, 2)
    first = torch.arange(0, networks * flat.shape[1], flat.shape[1], device=flat.device)[:, None]
    rows = places.repeat(networks // len(places), 1) + first
    # As an embedding, whose gradient is one operation, where indexing's adds number by number.
    return functional.embedding(rows, flat.reshape(-1, width))


def _trimmed(ids: torch.Tensor) -> torch.Tensor:
    """Leave out the columns at the end (…, L) that hold nothing but padding."""
    return ids[..., : int(_lengths(ids).max())]


def _lengths(ids: torch.Tensor) -> torch.Tensor:
    return (ids != PADDING).sum(dim=-1)
