"""The transformer of "Attention Is All You Need" (Vaswani et al., 2017), which translates a sentence of subwords."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch.nn import functional

from landscape_cli.errors import ImpossibleModel

Parameters = dict[str, torch.Tensor]  # name -> (S, …)
PADDING = 0  # the id that fills a sentence up to the longest one's length
EPSILON = 1e-5  # that a layer norm adds to the variance, PyTorch's default
LANES = 16  # scores of a query that a CPU takes at once: PyTorch's softmax of fewer takes seven times as long


class EncoderDecoder:
    """Encoder and decoder of pre-norm blocks, sinusoidal positions, output weights tied to the target embedding.

    A block's part is X + f(LN(X)), f self-attention, attention to the source or a ReLU network, and encoder and decoder
    end with a layer norm. Pre-norm, not the paper's LN(X + f(X)): with Adam at 1e-3 on a few thousand sentences two
    layers learn alike either way, and more need no warm-up of the step (Xiong et al., 2020). Embeddings are scaled by
    √d. Dropout is where the paper has it: on the sums of embeddings and positions and on each f's output. No position
    attends to padding, and no target position to a later one.

    Several networks are computed at once: parameters are a mapping from names, as of a ``state_dict``, to tensors with
    a leading axis S of networks. Whatever is given to them, sentences or dropout, has a leading axis G that divides S,
    and network s is given number s mod G: with G = 1 all the same, with G = S each its own.

    Parameters
    ----------
    source_vocabulary, target_vocabulary
        Numbers of subwords; id 0 is padding.
    hidden_size
        d, even, and a multiple of ``num_heads``.
    ffn_size
        Width of the ReLU networks.
    num_layers
        Blocks of the encoder, and of the decoder.
    dropout
        Probability that a value is dropped, in training only.
    max_length
        Longest sentence, source or target, in subwords.

    Raises
    ------
    ImpossibleModel
        The sizes do not fit together.
    """

    def __init__(
        self,
        source_vocabulary: int,
        target_vocabulary: int,
        *,
        hidden_size: int = 128,
        ffn_size: int = 256,
        num_layers: int = 2,
        num_heads: int = 4,
        dropout: float = 0.1,
        max_length: int = 64,
    ) -> None:
        if hidden_size % 2 or hidden_size % num_heads:
            raise ImpossibleModel(f"hidden_size={hidden_size}: must be even, and a multiple of num_heads={num_heads}")
        if not 0 <= dropout < 1:
            raise ImpossibleModel(f"dropout={dropout}: must be at least 0 and less than 1")
        self.target_vocabulary = target_vocabulary
        self.hidden_size, self.num_layers, self.num_heads = hidden_size, num_layers, num_heads
        self.dropout, self.max_length = dropout, max_length
        self.shapes = _shapes(source_vocabulary, target_vocabulary, hidden_size, ffn_size, num_layers)
        self._positions = sinusoids(max_length, hidden_size)

    def initialise(self, generators: Sequence[torch.Generator]) -> Parameters:
        """Draw parameters on the CPU, so that they are the same on every device, one network a generator.

        Matrices, embeddings included, are uniform in ±√(6/(rows + columns)) (Xavier), with the three projections of an
        attention as one matrix, as in PyTorch's ``Transformer``; biases are 0, layer norms the identity.
        """
        drawn: dict[str, list[torch.Tensor]] = {name: [] for name in self.shapes}
        for generator in generators:
            for name, shape in self.shapes.items():
                if len(shape) == 2:
                    values = (torch.rand(shape, generator=generator) * 2 - 1) * math.sqrt(6 / sum(shape))
                else:
                    values = torch.full(shape, float("norm" in name and name.endswith("weight")))
                drawn[name].append(values)
        return {name: torch.stack(values) for name, values in drawn.items()}

    def forward(
        self,
        parameters: Parameters,
        source: torch.Tensor,
        target_in: torch.Tensor,
        generators: Sequence[torch.Generator] | None = None,
    ) -> torch.Tensor:
        """Logits of each target position's next subword.

        Parameters
        ----------
        source
            Ids (G, B, L), padded with 0.
        target_in
            Ids (G', B, T) that begin with the begin id, padded with 0.
        generators
            Draw the dropout masks of G networks, on their own device; the masks are then moved. None: no dropout, as in
            evaluation. A mask depends on the length of the network's own sentences alone, not on the padding that
            others' make.

        Returns
        -------
        torch.Tensor
            Logits (S, B, T, V); those of padded positions mean nothing.

        Raises
        ------
        ImpossibleModel
            A sentence is longer than ``max_length``.
        """
        return self.logits(parameters, self.hidden(parameters, source, target_in, generators))

    def hidden(
        self,
        parameters: Parameters,
        source: torch.Tensor,
        target_in: torch.Tensor,
        generators: Sequence[torch.Generator] | None = None,
    ) -> torch.Tensor:
        """What the logits are projected from, (S, B, T, d): to project chosen positions alone; as :meth:`forward`."""
        memory, source_mask = self.encode(parameters, source, generators)
        z, kept = self._embed(parameters["target_embedding.weight"], target_in, 3, generators)
        length = target_in.shape[2]
        later = torch.ones(length, length, dtype=torch.bool, device=target_in.device).triu(1)
        mask = self._mask(later | (target_in == PADDING)[:, :, None, None], z)
        for layer in range(self.num_layers):
            crossed = self._keys_values(parameters, layer, memory)
            z = self._decoder_block(parameters, layer, z, mask, crossed, source_mask, kept[3 * layer :][:3])
        return _norm(parameters, "decoder_norm", z)

    def logits(self, parameters: Parameters, hidden: torch.Tensor) -> torch.Tensor:
        """Project (S, …, d) to the logits (S, …, V)."""
        table = parameters["target_embedding.weight"].transpose(1, 2)
        return torch.bmm(hidden.flatten(1, -2), table).unflatten(1, hidden.shape[1:-1])

    def encode(
        self, parameters: Parameters, source: torch.Tensor, generators: Sequence[torch.Generator] | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Encode sources (G, B, L).

        Returns the memory (S, B, L, d), and the mask (S·B·heads, 1, L') to add to scores, 0 or very negative.
        Generators and errors are as in :meth:`forward`.
        """
        z, kept = self._embed(parameters["source_embedding.weight"], source, 2, generators)
        mask = self._mask((source == PADDING)[:, :, None, None], z)
        for layer in range(self.num_layers):
            block, masks = f"encoder.{layer}", kept[2 * layer :][:2]
            own = _linear(parameters, f"{block}.attention.project", _norm(parameters, f"{block}.norm1", z))
            query, key, value = self._split(own)
            read = self._mix(parameters, f"{block}.attention", z.shape, query, _widened(key), _widened(value), mask)
            z = _add(z, read, masks[:1])
            z = _add(z, _ffn(parameters, block, _norm(parameters, f"{block}.norm2", z)), masks[1:])
        return _norm(parameters, "encoder_norm", z), mask

    @torch.no_grad()
    def greedy(
        self, parameters: Parameters, source: torch.Tensor, begin: int, end: int, max_length: int
    ) -> torch.Tensor:
        """Translate with the likeliest next subword, padding excepted, until all sentences have ended.

        Without dropout. A step handles the newest subword alone: earlier ones' keys and values are kept, the source's
        are computed once.

        Parameters
        ----------
        source
            Ids (G, B, L), padded with 0.
        begin, end
            Ids that a target begins and ends with, not 0.
        max_length
            Most subwords of a translation, the end included; at most the network's own.

        Returns
        -------
        torch.Tensor
            Ids (S, B, L'), int64, L' ≤ ``max_length``, without ``begin``, with ``end`` unless it was not reached, then
            0.

        Raises
        ------
        ImpossibleModel
            ``max_length`` or a source is longer than the network's ``max_length``.
        ValueError
            ``begin`` or ``end`` is the padding.
        """
        self._check_length(max_length)
        if PADDING in (begin, end):
            raise ValueError(f"begin={begin}, end={end}: {PADDING} is the padding")
        table = parameters["target_embedding.weight"]
        memory, source_mask = self.encode(parameters, source)
        crossed = [self._keys_values(parameters, layer, memory) for layer in range(self.num_layers)]
        caches = [Cache(keys, max_length) for keys, _ in crossed]
        shape = memory.shape[:2]
        written = source.new_full((*shape, max_length), PADDING)
        newest, ended = source.new_full(shape, begin), source.new_zeros(shape, dtype=torch.bool)
        for step in range(max_length):
            z = self._looked_up(table, newest[..., None], step)
            for layer in range(self.num_layers):
                z = self._decoder_block(parameters, layer, z, None, crossed[layer], source_mask, cache=caches[layer])
            logits = self.logits(parameters, _norm(parameters, "decoder_norm", z)[:, :, 0])
            logits[..., PADDING] = -math.inf
            newest = logits.argmax(dim=2).masked_fill(ended, PADDING)
            written[..., step] = newest
            ended |= newest == end
            if ended.all():
                return written[..., : step + 1]
        return written

    def _decoder_block(
        self,
        parameters: Parameters,
        layer: int,
        z: torch.Tensor,
        mask: torch.Tensor | None,
        source: tuple[torch.Tensor, torch.Tensor],
        source_mask: torch.Tensor,
        kept: tuple[torch.Tensor, ...] = (),
        cache: Cache | None = None,
    ) -> torch.Tensor:
        """Self-attention, attention to the source, and a ReLU network: (S, B, T, d) -> (S, B, T, d).

        Parameters
        ----------
        mask, source_mask
            To add to the scores of the target's own and the source's positions, (S·B·heads, T, T')
            and (S·B·heads, 1, L').
        source
            Keys and values (S·B·heads, L', d_K) of the memory.
        kept
            Dropout masks (G, B, T, d), one for each part, or none.
        cache
            Of the earlier positions, to which these are appended.
        """
        block = f"decoder.{layer}"
        own = _linear(parameters, f"{block}.attention.project", _norm(parameters, f"{block}.norm1", z))
        query, key, value = self._split(own)
        key, value = (_widened(key), _widened(value)) if cache is None else cache.append(key, value)
        z = _add(z, self._mix(parameters, f"{block}.attention", z.shape, query, key, value, mask), kept[:1])
        rows = slice(None, self.hidden_size)
        asked = _linear(parameters, f"{block}.cross.project", _norm(parameters, f"{block}.norm2", z), rows)
        (query,) = self._split(asked)
        z = _add(z, self._mix(parameters, f"{block}.cross", z.shape, query, *source, source_mask), kept[1:2])
        return _add(z, _ffn(parameters, block, _norm(parameters, f"{block}.norm3", z)), kept[2:])

    def _keys_values(self, parameters: Parameters, layer: int, memory: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Keys and values (S·B·heads, L', d_K) that a block reads from the memory (S, B, L, d)."""
        rows = slice(self.hidden_size, None)
        both = self._split(_linear(parameters, f"decoder.{layer}.cross.project", memory, rows))
        return tuple(_widened(part) for part in both)

    def _split(self, projected: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """(S, B, T, n·d) -> n times (S·B·heads, T, d_K)."""
        heads = projected.flatten(0, 1).unflatten(2, (-1, self.num_heads, self.hidden_size // self.num_heads))
        # One copy here instead of one in each product.
        return heads.permute(2, 0, 3, 1, 4).contiguous().flatten(1, 2).unbind()

    def _mix(
        self,
        parameters: Parameters,
        name: str,
        shape: torch.Size,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: torch.Tensor | None,
    ) -> torch.Tensor:
        """softmax(Q Kᵀ/√d_K + mask) V of all heads, projected, in the shape (S, B, T, d)."""
        # On thousands of short sentences these take half of what PyTorch's scaled_dot_product_attention does.
        scale = 1 / math.sqrt(query.shape[2])
        keys = key.transpose(1, 2)
        scores = torch.bmm(query * scale, keys) if mask is None else torch.baddbmm(mask, query, keys, alpha=scale)
        mixed = torch.bmm(scores.softmax(dim=2), value).unflatten(0, (-1, self.num_heads))
        return _linear(parameters, f"{name}.output", mixed.transpose(1, 2).reshape(shape))

    def _embed(
        self, table: torch.Tensor, ids: torch.Tensor, parts: int, generators: Sequence[torch.Generator] | None
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        """Embed ids (G, B, T): (S, B, T, d), and what follows's dropout masks, ``parts`` a block; none without."""
        self._check_length(ids.shape[2])
        z = self._looked_up(table, ids, 0)
        if generators is None or self.dropout == 0:
            return z, ()
        first, *kept = self._masks(ids, 1 + parts * self.num_layers, generators, z)
        return (z.unflatten(0, (-1, len(first))) * first).flatten(0, 1), tuple(kept)

    def _looked_up(self, table: torch.Tensor, ids: torch.Tensor, position: int) -> torch.Tensor:
        """Embeddings √d·E (S, B, T, d) of ids (G, B, T) from a table (S, V, d), and their positions."""
        networks, count = table.shape[:2]
        # One table of all the networks' rows: looking up and its gradient are one operation each.
        first = torch.arange(0, networks * count, count, device=ids.device).view(-1, 1, 1)
        found = functional.embedding(_repeated(ids, networks) + first, table.flatten(0, 1))
        positions = self._positions[position : position + ids.shape[2]].to(found)
        return torch.add(positions, found, alpha=math.sqrt(self.hidden_size))

    def _masks(
        self, ids: torch.Tensor, count: int, generators: Sequence[torch.Generator], like: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        """``count`` dropout masks (G, B, T, d) for ids (G or 1, B, T): 0, or 1/(1 - p); 1 where all are padding."""
        sentences, longest = ids.shape[1:]
        last = torch.arange(1, longest + 1, device=ids.device)
        lengths = torch.where(ids != PADDING, last, 0).amax(dim=(1, 2)).tolist() if ids.numel() else [0] * len(ids)
        drawn = torch.ones(count, len(generators), sentences, longest, self.hidden_size)
        for group, generator in enumerate(generators):
            shape = (count, sentences, lengths[group % len(lengths)], self.hidden_size)
            # All in one draw, of float32 in any case: the same masks whatever the parameters' type.
            drawn[:, group, :, : shape[2]] = torch.rand(shape, generator=generator, device=generator.device)
        return drawn.ge_(self.dropout).mul_(1 / (1 - self.dropout)).to(like).unbind()

    def _mask(self, hidden: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """0 where a key is seen; (G, B, 1, ·, L) -> (S·B·heads, ·, L'), L' ≥ L as the keys are widened.

        Elsewhere not -∞: a sentence of nothing but padding would become NaN.
        """
        hidden = functional.pad(hidden, (0, max(0, LANES - hidden.shape[4])), value=True)
        lowest = torch.finfo(like.dtype).min
        mask = torch.zeros(hidden.shape, dtype=like.dtype, device=like.device).masked_fill_(hidden, lowest)
        return _repeated(mask.expand(-1, -1, self.num_heads, -1, -1), len(like)).flatten(0, 2)

    def _check_length(self, length: int) -> None:
        if length > self.max_length:
            raise ImpossibleModel(f"a sentence of {length} subwords; max_length is {self.max_length}")


class Cache:
    """Keys and values of the positions decoded so far, room for ``length``; shaped as ``like`` (n, ·, d_K)."""

    def __init__(self, like: torch.Tensor, length: int) -> None:
        self.keys = like.new_empty(len(like), length, like.shape[2])
        self.values = torch.empty_like(self.keys)
        self.used = 0

    def append(self, key: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Keep those of the newest positions and return all, (n, used, d_K)."""
        new = slice(self.used, self.used + key.shape[1])
        self.keys[:, new], self.values[:, new] = key, value
        self.used = new.stop
        return self.keys[:, : self.used], self.values[:, : self.used]


def sinusoids(length: int, width: int) -> torch.Tensor:
    """Positions (length, width) of the paper's section 3.5: sin(t/10000^(2i/d)) at 2i and its cosine at 2i + 1."""
    rates = torch.exp(torch.arange(0, width, 2, dtype=torch.float64) * (-math.log(10000) / width))
    angles = torch.arange(length, dtype=torch.float64)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1).float()


def _shapes(sources: int, targets: int, width: int, ffn_size: int, layers: int) -> dict[str, tuple[int, ...]]:
    """Shapes of one network's tensors; an attention's ``project`` holds Q's, K's and V's rows."""
    norm = {"weight": (width,), "bias": (width,)}
    attention = {
        "project.weight": (3 * width, width),
        "project.bias": (3 * width,),
        "output.weight": (width, width),
        "output.bias": (width,),
    }
    ffn = {
        "linear1.weight": (ffn_size, width),
        "linear1.bias": (ffn_size,),
        "linear2.weight": (width, ffn_size),
        "linear2.bias": (width,),
    }
    encoder = {"norm1": norm, "attention": attention, "norm2": norm, "ffn": ffn}
    decoder = {"norm1": norm, "attention": attention, "norm2": norm, "cross": attention, "norm3": norm, "ffn": ffn}
    parts = {
        "source_embedding": {"weight": (sources, width)},
        "target_embedding": {"weight": (targets, width)},
        **{f"encoder.{layer}.{name}": part for layer in range(layers) for name, part in encoder.items()},
        "encoder_norm": norm,
        **{f"decoder.{layer}.{name}": part for layer in range(layers) for name, part in decoder.items()},
        "decoder_norm": norm,
    }
    return {f"{part}.{name}": shape for part, tensors in parts.items() for name, shape in tensors.items()}


def _linear(parameters: Parameters, name: str, x: torch.Tensor, rows: slice = slice(None)) -> torch.Tensor:
    """(S, B, T, in) -> (S, B, T, out), of some of the layer's outputs."""
    weight, bias = parameters[f"{name}.weight"][:, rows], parameters[f"{name}.bias"][:, rows]
    return torch.baddbmm(bias[:, None], x.flatten(1, 2), weight.transpose(1, 2)).unflatten(1, x.shape[1:3])


def _ffn(parameters: Parameters, block: str, y: torch.Tensor) -> torch.Tensor:
    """ReLU(Y W_1 + b_1) W_2 + b_2."""
    return _linear(parameters, f"{block}.ffn.linear2", _linear(parameters, f"{block}.ffn.linear1", y).relu())


def _norm(parameters: Parameters, name: str, x: torch.Tensor) -> torch.Tensor:
    scale, shift = (parameters[f"{name}.{part}"][:, None, None] for part in ("weight", "bias"))
    return torch.addcmul(shift, functional.layer_norm(x, x.shape[-1:], eps=EPSILON), scale)


def _widened(keys: torch.Tensor) -> torch.Tensor:
    """Add keys or values that the mask hides, for the softmax's sake: (n, L, d_K) -> (n, max(L, LANES), d_K)."""
    return functional.pad(keys, (0, 0, 0, LANES - keys.shape[1])) if keys.shape[1] < LANES else keys


def _repeated(given: torch.Tensor, networks: int) -> torch.Tensor:
    """What is given to G networks in turn, for all: (G, …) -> (S, …)."""
    return given if len(given) == networks else given.repeat(networks // len(given), *[1] * (given.dim() - 1))


def _add(z: torch.Tensor, change: torch.Tensor, kept: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """Add what dropout leaves of a change: z and change (S, B, T, d), a mask (G, B, T, d) or none."""
    if not kept:
        return z + change
    groups = (-1, len(kept[0]))
    return torch.addcmul(z.unflatten(0, groups), change.unflatten(0, groups), kept[0]).flatten(0, 1)
