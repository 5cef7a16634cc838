import math
import re
import threading
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional

from landscape_cli.errors import ImpossibleModel
from landscape_cli.models.encoder_decoder import EncoderDecoder, sinusoids
from landscape_cli.rng import generator

SOURCES, TARGETS, WIDTH, FFN, LAYERS, HEADS = 11, 13, 8, 12, 2, 2
BEGIN, END = 1, 2


class Networks:
    """Stacked networks with their parameters, called like one module."""

    def __init__(self, model, parameters):
        self.model, self.parameters = model, parameters

    def __call__(self, source, target, generators=None):
        return self.model.forward(self.parameters, source, target, generators)

    def __getitem__(self, name):
        return self.parameters[f"{name}.weight"]

    def greedy(self, source, *given):
        return self.model.greedy(self.parameters, source, *given)

    def alone(self, network):
        return Networks(self.model, {name: tensor[network, None] for name, tensor in self.parameters.items()})


def network(seed=0, dtype=torch.float64, count=2, **given):
    """Small nets none of whose biases and layer norms is zero or one."""
    options = {"hidden_size": WIDTH, "ffn_size": FFN, "num_layers": LAYERS, "num_heads": HEADS, **given}
    model = EncoderDecoder(SOURCES, TARGETS, **options)
    parameters = model.initialise([generator(seed + k, "test") for k in range(count)])
    for k in range(count):
        draw = generator(seed + k, "more")
        for tensor in parameters.values():
            tensor[k] += 0.3 * torch.randn(tensor.shape[1:], generator=draw)
    return Networks(model, {name: tensor.to(dtype) for name, tensor in parameters.items()})


def sentences(seed=0, number=5, source_length=6, target_length=7, groups=2):
    """Ids of sentences of several lengths, the first of which are the longest ones, others for each network."""
    draw = generator(seed, "sentences")
    source = torch.randint(3, SOURCES, (groups, number, source_length), generator=draw)
    target = torch.randint(3, TARGETS, (groups, number, target_length), generator=draw)
    target[:, :, 0] = BEGIN
    for row in range(1, number):
        source[:, row, source_length - row :] = 0
        target[:, row, target_length - row :] = 0
    return source, target


class Reference(nn.Module):
    """The same network around PyTorch's own transformer, with another network's weights."""

    def __init__(self, own, network):
        super().__init__()
        self.own = {name: tensor[network] for name, tensor in own.parameters.items()}
        self.transformer = nn.Transformer(
            WIDTH, HEADS, LAYERS, LAYERS, FFN, 0.0, batch_first=True, norm_first=True, dtype=torch.float64
        ).eval()
        names = {
            r"attention\.project\.": "self_attn.in_proj_",
            r"attention\.output\.": "self_attn.out_proj.",
            r"cross\.project\.": "multihead_attn.in_proj_",
            r"cross\.output\.": "multihead_attn.out_proj.",
            r"ffn\.": "",
            r"^(\w+)_norm\.": r"\1.norm.",
            r"^(\w+)\.(?=\d)": r"\1.layers.",
        }
        copied = {}
        for name, tensor in self.own.items():
            if "embedding" not in name:
                for pattern, new in names.items():
                    name = re.sub(pattern, new, name)
                copied[name] = tensor
        self.transformer.load_state_dict(copied)

    def forward(self, source, target):
        def embedded(name, ids):
            angles = [[t / 10000 ** (2 * (i // 2) / WIDTH) for i in range(WIDTH)] for t in range(ids.shape[1])]
            positions = [[math.cos(a) if i % 2 else math.sin(a) for i, a in enumerate(row)] for row in angles]
            return self.own[f"{name}.weight"][ids] * math.sqrt(WIDTH) + torch.tensor(positions).double()

        length = target.shape[1]
        z = self.transformer(
            embedded("source_embedding", source),
            embedded("target_embedding", target),
            tgt_mask=torch.ones(length, length, dtype=torch.bool).triu(1),
            src_key_padding_mask=source == 0,
            tgt_key_padding_mask=target == 0,
            memory_key_padding_mask=source == 0,
        )
        return z @ self.own["target_embedding.weight"].T


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
def test_logits_are_those_of_pytorchs_transformer():
    net, (source, target) = network(count=3), sentences(groups=3)
    with torch.no_grad():
        logits = net(source, target)
        expected = torch.stack([Reference(net, k)(source[k], target[k]) for k in range(3)])
    assert logits.shape == (3, 5, 7, TARGETS)
    assert expected.std() > 0.5
    # Of padding too: behind a sentence it attends to what is before it, like any other position.
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-10)


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
def test_long_sentences_are_those_of_pytorchs_transformer():
    net, (source, target) = network(count=1), sentences(source_length=20, target_length=18, groups=1)
    with torch.no_grad():
        torch.testing.assert_close(net(source, target)[0], Reference(net, 0)(source[0], target[0]), rtol=0, atol=1e-10)


def test_sentences_are_given_to_networks_in_turn():
    net, (source, target) = network(count=4), sentences()
    with torch.no_grad():
        logits = net(source, target[:1])
        for k in range(4):
            alone = net.alone(k)(source[k % 2, None], target[:1])
            torch.testing.assert_close(logits[k, None], alone, rtol=0, atol=1e-12)
        assert net.greedy(source, BEGIN, END, 4).shape[:2] == (4, 5)


def test_positions_are_sines_and_cosines():
    table = sinusoids(40, 6)
    for t, i in ((0, 0), (3, 0), (39, 2), (17, 4)):
        angle = t / 10000 ** (i / 6)
        assert table[t, i] == pytest.approx(math.sin(angle), abs=1e-7)
        assert table[t, i + 1] == pytest.approx(math.cos(angle), abs=1e-7)


def test_more_padding_changes_nothing():
    net, (source, target) = network(), sentences()
    with torch.no_grad():
        logits = net(source, target)
        for more in (3, 14):
            padded = net(functional.pad(source, (0, more + 1)), functional.pad(target, (0, more)))
            torch.testing.assert_close(padded[:, :, : target.shape[2]], logits, rtol=0, atol=1e-12)
        alone = net(source[:, 3:4, :3], target[:, 3:4, :4])
    torch.testing.assert_close(alone, logits[:, 3:4, :4], rtol=0, atol=1e-12)


def test_the_embedding_of_padding_reaches_no_sentence():
    net, (source, target) = network(), sentences()
    with torch.no_grad():
        target[:, :, 2] = 0  # inside a sentence
        before = net(source, target)
        net["source_embedding"][:, 0] += 5
        net["target_embedding"][:, 0] += 5
        after = net(source, target)
    words = target != 0
    # Its output weights have changed with it, so its own logit may.
    torch.testing.assert_close(after[words][:, 1:], before[words][:, 1:], rtol=0, atol=1e-12)


def test_later_subwords_change_no_earlier_logits():
    net, (source, target) = network(), sentences(number=1)
    with torch.no_grad():
        logits = net(source, target)
        for t in range(1, target.shape[2]):
            changed = target.clone()
            changed[:, :, t] = 3 + (target[:, :, t] - 2) % (TARGETS - 3)
            after = net(source, changed)
            torch.testing.assert_close(after[:, :, :t], logits[:, :, :t], rtol=0, atol=1e-12)
            assert (after[:, :, t] - logits[:, :, t]).abs().amax(dim=(1, 2)).min() > 1e-3


def test_word_order_of_the_source_matters():
    net, (source, target) = network(), sentences(number=1)
    with torch.no_grad():
        assert (net(source.flip(2), target) - net(source, target)).abs().amax(dim=(1, 2, 3)).min() > 1e-3


def test_a_sentence_of_padding_alone_is_finite():
    net = network()
    leaves = [tensor.requires_grad_() for tensor in net.parameters.values()]
    logits = net(torch.zeros(1, 1, 4, dtype=torch.int64), torch.tensor([[[0, 3]]]))
    assert logits.isfinite().all()
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(logits.sum(), leaves))


def slowly(net, source, length):
    """Greedy translation without an end, a sentence at a time, the whole target anew at each step."""
    rows = []
    for sentence in source:
        row = [BEGIN]
        for _ in range(length):
            logits = net(sentence[None, None], torch.tensor([[row]]))[0, 0, -1]
            row.append(1 + int(logits[1:].argmax()))
        rows.append(row[1:])
    return rows


def ended(networks, end):
    """Cut each network's rows behind their first end, and fill up to the longest of all."""
    networks = [[row[: row.index(end) + 1] if end in row else row for row in rows] for rows in networks]
    longest = max(len(row) for rows in networks for row in rows)
    return [[row + [0] * (longest - len(row)) for row in rows] for rows in networks]


def test_cached_greedy_translation_is_the_stepwise_one():
    seed = 4
    net, (source, _) = network(seed), sentences(seed, number=8, source_length=9)
    with torch.no_grad():
        # Otherwise a translation would be one id again and again, as the output weights are the embedding.
        for k in range(2):
            net["decoder_norm"][k].normal_(generator=generator(seed + k, "signs"))
        for name, tensor in net.parameters.items():
            if "coder." in name and tensor.dim() == 3:
                tensor *= 4
        endless = [slowly(net.alone(k), source[k], 20) for k in range(2)]
    assert len({tuple(row) for rows in endless for row in rows}) >= 10
    ends = {row.index(END) for rows in endless for row in rows if END in row}
    assert len(ends) >= 3  # they end at different times
    assert net.greedy(source, BEGIN, END, 1).tolist() == [[row[:1] for row in rows] for rows in endless]
    for end in range(1, TARGETS):
        assert net.greedy(source, BEGIN, end, 20).tolist() == ended(endless, end)


def test_greedy_translation_stops_when_all_have_ended():
    net, (source, _) = network(), sentences()
    table = net["target_embedding"]
    net["decoder_norm"].zero_()
    net.parameters["decoder_norm.bias"].copy_(table[:, END] * 9)
    table[:, 0] = table[:, END] * 2  # padding is likelier, and excepted
    assert net.greedy(source, BEGIN, END, 20).tolist() == [[[END]] * 5] * 2
    others = net.greedy(source, BEGIN, 12, 20)
    assert others.tolist() == [[[END] * 20] * 5] * 2
    assert others.dtype == torch.int64


def test_greedy_translation_has_neither_dropout_nor_gradients():
    source, _ = sentences()
    net = network(dropout=0.9)
    for tensor in net.parameters.values():
        tensor.requires_grad_()
    found = net.greedy(source, BEGIN, END, 9)
    assert found.equal(network(dropout=0.0).greedy(source, BEGIN, END, 9))
    assert not found.requires_grad


def test_gradients_are_differences():
    net = network(hidden_size=4, ffn_size=3, num_layers=1, dropout=0.3)
    source, target = sentences(number=2, source_length=3, target_length=3)

    def losses():
        logits = net(source, target[:, :, :-1], [generator(k, "masks") for k in range(2)])
        told = target[:, :, 1:].flatten()
        found = functional.cross_entropy(logits.flatten(0, 2), told, ignore_index=0, reduction="none")
        return found.view(2, -1).sum(dim=1)

    leaves = [tensor.requires_grad_() for tensor in net.parameters.values()]
    gradients = torch.autograd.grad(losses().sum(), leaves)
    step = 1e-5
    with torch.no_grad():
        for name, tensor, gradient in zip(net.parameters, leaves, gradients, strict=True):
            # The key's bias moves all scores of a query alike, so its gradient is 0 and stays checked too.
            flat = tensor.view(2, -1)  # both networks' at once
            for i in range(0, flat.shape[1], 3):
                kept = flat[:, i].clone()
                flat[:, i] = kept + step
                above = losses()
                flat[:, i] = kept - step
                difference = (above - losses()) / (2 * step)
                flat[:, i] = kept
                found = gradient.flatten(1)[:, i].tolist()
                assert found == pytest.approx(difference.tolist(), abs=1e-8, rel=1e-6), (name, i)


def test_initialisation_is_xaviers_and_its_generators():
    def drawn(*seeds):
        model = EncoderDecoder(300, 400, hidden_size=64, ffn_size=100)
        return model.initialise([generator(seed, "test") for seed in seeds])

    torch.manual_seed(0)
    both = drawn(1, 2)
    torch.manual_seed(1)
    again = drawn(2, 1)
    for name, (tensor, other) in both.items():
        assert tensor.equal(again[name][1]), name
        if tensor.dim() == 1:
            assert tensor.eq(float("norm" in name and "weight" in name)).all(), name
            continue
        assert not tensor.equal(other), name
        bound = math.sqrt(6 / (tensor.shape[0] + tensor.shape[1]))
        assert 0.99 * bound < tensor.abs().max() <= bound, name
        assert tensor.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.03), name
    matrices = [tensor[0] for tensor in both.values() if tensor.dim() == 3]
    assert len({tensor.flatten()[0].item() for tensor in matrices}) == 2 + 2 * 4 + 2 * 6


def test_dropout_comes_from_its_generator_alone():
    net, (source, target) = network(dropout=0.2), sentences()
    with torch.no_grad():
        torch.manual_seed(0)
        state = torch.get_rng_state()
        first = net(source, target, [generator(k, "masks") for k in range(2)])
        assert torch.get_rng_state().equal(state)
        torch.manual_seed(1)
        masks = [generator(k, "masks") for k in range(2)]
        assert net(source, target, masks).equal(first)
        assert not net(source, target, masks).equal(first)  # the generators have moved on
        assert not net(source, target).equal(first)
        without = network(dropout=0.0)
        assert without(source, target, masks).equal(net(source, target))


def test_dropout_does_not_depend_on_the_networks_beside():
    net, (source, target) = network(dropout=0.2, count=4), sentences()
    source[1, :, 3:], target[1, :, 5:] = 0, 0  # the second and fourth network's are shorter
    with torch.no_grad():
        logits = net(source, target, [generator(k, "masks") for k in range(2)])
        for k in range(4):
            own = [source[k % 2, None], target[k % 2, None]]
            if k % 2:
                own = [own[0][:, :, :3], own[1][:, :, :5]]
            alone = net.alone(k)(*own, [generator(k % 2, "masks")])
            torch.testing.assert_close(logits[k, None, :, : alone.shape[2]], alone, rtol=0, atol=1e-12)


def test_dropout_keeps_the_expectation_and_drops_its_share():
    net = network(dropout=0.25, num_layers=1, hidden_size=64, dtype=torch.float32)
    ids = torch.ones(1, 8, 60, dtype=torch.int64)
    masks = [generator(k, "masks") for k in range(2)]
    _, kept = net.model._embed(net["source_embedding"], ids, 2, masks)
    assert len(kept) == 2
    assert not kept[0].equal(kept[1])
    for mask in kept:
        assert mask.shape == (2, 8, 60, 64)
        assert not mask[0].equal(mask[1])
        assert mask.unique().tolist() == pytest.approx([0, 4 / 3])
        assert mask.mean(dim=(1, 2, 3)).tolist() == pytest.approx([1, 1], abs=0.02)  # 6 deviations


def test_dropout_reaches_every_part():
    net, (source, target) = network(dropout=1 - 1e-7), sentences()
    with torch.no_grad():
        masks = [generator(k, "masks") for k in range(2)]
        memory, _ = net.model.encode(net.parameters, source, masks)
        logits = net(source, target, masks)
    # With all embeddings and all changes dropped only the last layer norm's bias is left.
    torch.testing.assert_close(memory, net.parameters["encoder_norm.bias"][:, None, None].expand_as(memory))
    bias = net.parameters["decoder_norm.bias"]
    expected = (net["target_embedding"] @ bias[:, :, None])[:, None, None, :, 0]
    torch.testing.assert_close(logits, expected.expand_as(logits))


def trained(seeds, steps, dropout=0.1):
    """Train a network a seed on sequences of 6 symbols and their reverses."""
    sizes = {"hidden_size": 32, "ffn_size": 64, "num_layers": 1, "num_heads": 4}
    model = EncoderDecoder(13, 13, **sizes, dropout=dropout, max_length=8)
    parameters = model.initialise([generator(seed, "initialisation") for seed in seeds])
    leaves = [tensor.requires_grad_() for tensor in parameters.values()]
    optimiser = torch.optim.Adam(leaves, 3e-3)
    draws, masks = ([generator(seed, purpose) for seed in seeds] for purpose in ("order", "masks"))
    for _ in range(steps):
        source, target = (torch.stack(ids) for ids in zip(*(reverses(128, draw) for draw in draws), strict=True))
        logits = model.forward(parameters, source, target[:, :, :-1], masks)
        losses = functional.cross_entropy(logits.flatten(0, 2), target[:, :, 1:].flatten(), reduction="sum")
        optimiser.zero_grad()
        (losses / (128 * 7)).backward()
        optimiser.step()
    return Networks(model, {name: tensor.detach() for name, tensor in parameters.items()})


def reverses(number, draw):
    source = torch.randint(3, 13, (number, 6), generator=draw)
    ends = [torch.full((number, 1), which) for which in (BEGIN, END)]
    return source, torch.cat([ends[0], source.flip(1), ends[1]], dim=1)


def test_reversing_a_sequence_is_learnt():
    net = trained([0, 1], 150, dropout=0.0)
    source, target = reverses(500, generator(0, "test"))
    written = net.greedy(source[None], BEGIN, END, 8)
    assert written.shape[2] >= 7
    right = (written[:, :, :7] == target[:, 1:]).all(dim=2).double().mean(dim=1)
    assert right.min().item() > 0.9


def test_seeds_learn_what_each_learns_alone():
    both = trained([0, 1], 6).parameters
    for k in range(2):
        for name, tensor in trained([k], 6).parameters.items():
            torch.testing.assert_close(both[name][k, None], tensor, rtol=0, atol=1e-5)


def test_networks_on_threads_do_not_disturb_each_other():
    alone = [trained([seed], 6).parameters for seed in range(2)]
    found = {}

    def train(seed):
        found[seed] = trained([seed], 6).parameters

    threads = [threading.Thread(target=train, args=(seed,)) for seed in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed, expected in enumerate(alone):
        for name, tensor in expected.items():
            torch.testing.assert_close(found[seed][name], tensor, rtol=0, atol=1e-6)


def test_impossible_sizes_are_refused():
    for wrong in ({"hidden_size": 9, "num_heads": 3}, {"num_heads": 3}, {"dropout": 1.0}):
        with pytest.raises(ImpossibleModel, match=next(iter(wrong))):
            network(**wrong)
    net, (source, target) = network(max_length=6), sentences()
    with pytest.raises(ImpossibleModel, match="7 subwords; max_length is 6"):
        net(source, target)
    with pytest.raises(ImpossibleModel, match="max_length"):
        net.greedy(source, BEGIN, END, 7)
    with pytest.raises(ValueError, match="padding"):
        net.greedy(source, 0, END, 6)


def test_depth_and_width_count_parameters():
    sizes = [sum(tensor[0].numel() for tensor in network(num_layers=n).parameters.values()) for n in (1, 2, 3)]
    encoder = 4 * (WIDTH * WIDTH + WIDTH) + 2 * WIDTH * FFN + WIDTH + FFN + 2 * 2 * WIDTH
    decoder = encoder + 4 * (WIDTH * WIDTH + WIDTH) + 2 * WIDTH
    assert [b - a for a, b in pairwise(sizes)] == [encoder + decoder] * 2
    assert sizes[0] == encoder + decoder + (SOURCES + TARGETS) * WIDTH + 2 * 2 * WIDTH
