import itertools
import math
from dataclasses import asdict

import pytest
import torch
from scipy import stats
from torch import nn
from torch.nn import functional

from landscape_cli.config import TransformerConfig
from landscape_cli.models import build_model
from landscape_cli.models.vit import Block, SelfAttention, VisionTransformer, patches
from landscape_cli.rng import generator

SEEDS, OBJECTS, CLASSES, WIDTH = 3, 4, 5, 4
SHAPE = (2, 6, 4)  # not square, and two channels: an exchange of axes shows
FLOAT64 = {"dtype": torch.float64}
SWITCHES = ("bias", "output_projection", "class_token", "positions", "pre_norm")
OPTIONS = [dict(zip(SWITCHES, values, strict=True)) for values in itertools.product([False, True], repeat=5)]
EVERY = pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "+".join(k for k, v in o.items() if v) or "none")
INPUTS = pytest.mark.parametrize("inputs", [1, SEEDS])


def settings(**given):
    return asdict(
        TransformerConfig(**{"patch_size": 2, "hidden_size": WIDTH, "num_layers": 2, "num_heads": 2, **given})
    )


def network(seeds=range(SEEDS), shape=SHAPE, **given):
    """A net and its parameters in float64, none of which is zero or one."""
    model = build_model(settings(**given), shape, CLASSES)
    parameters = model.initialise([generator(seed, "test") for seed in seeds])
    for seed, name in itertools.product(range(len(seeds)), parameters):
        draw = generator(seeds[seed], f"more of {name}")
        parameters[name][seed] += 0.3 * torch.randn(parameters[name][seed].shape, generator=draw)
    return model, {name: tensor.double() for name, tensor in parameters.items()}


def objects(inputs=1, shape=SHAPE):
    draw = torch.Generator().manual_seed(inputs)
    x = torch.randn(inputs, OBJECTS, *shape, generator=draw, **FLOAT64)
    return x, torch.randint(CLASSES, (SEEDS, OBJECTS), generator=draw)


def normalised(x, weight, bias):
    centred = x - x.mean(dim=-1, keepdim=True)
    return centred / (centred.square().mean(dim=-1, keepdim=True) + 1e-5).sqrt() * weight + bias


def plainly(own, x, options):
    """Logits of one seed and one object at a time, token by token and head by head."""

    def linear(name, z):
        z = z @ own[f"{name}.weight"].T
        return z + own[f"{name}.bias"] if f"{name}.bias" in own else z

    def norm(name, z):
        return normalised(z, own[f"{name}.weight"], own[f"{name}.bias"])

    def attention(name, z):
        q, k, v = (linear(f"{name}.{part}", z) for part in ("query", "key", "value"))
        mixed, width = torch.zeros_like(z), WIDTH // 2
        for head in (slice(0, width), slice(width, WIDTH)):
            for t in range(len(z)):
                scores = torch.stack([q[t, head] @ k[s, head] for s in range(len(z))]) / math.sqrt(width)
                shares = scores.exp() / scores.exp().sum()
                mixed[t, head] = sum(shares[s] * v[s, head] for s in range(len(z)))
        return linear(f"{name}.output", mixed) if options["output_projection"] else mixed

    def network_of(name, z):
        return linear(f"{name}.ffn.linear2", linear(f"{name}.ffn.linear1", z).clamp(min=0))

    logits = []
    for picture in x:
        z = linear("projection", cut(picture, 2))
        if options["class_token"]:
            z = torch.cat([own["class_token"][None], z])
        if options["positions"]:
            z = z + own["positions"]
        for block in ("blocks.0", "blocks.1"):
            if options["pre_norm"]:
                z = z + attention(f"{block}.attention", norm(f"{block}.norm1", z))
                z = z + network_of(block, norm(f"{block}.norm2", z))
            else:
                z = norm(f"{block}.norm1", z + attention(f"{block}.attention", z))
                z = norm(f"{block}.norm2", z + network_of(block, z))
        z = norm("norm", z) if options["pre_norm"] else z
        logits.append(linear("head", z[0] if options["class_token"] else z.mean(dim=0)))
    return torch.stack(logits)


def cut(picture, size):
    """Patches of one picture (C, H, W) in reading order, one value at a time."""
    channels, height, width = picture.shape
    found = []
    for top, left in itertools.product(range(0, height, size), range(0, width, size)):
        inside = itertools.product(range(channels), range(top, top + size), range(left, left + size))
        found.append(torch.stack([picture[place] for place in inside]))
    return torch.stack(found)


def one(tensors, seed):
    return {name: tensor[seed] for name, tensor in tensors.items()}


def assert_close(found, expected, tolerance=1e-12):
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance)


@EVERY
def test_forward_is_the_network_written_out_for_each_seed(options):
    model, parameters = network(**options)
    for inputs in (1, SEEDS):
        x, _ = objects(inputs)
        logits = model.forward(parameters, x)
        assert logits.shape == (SEEDS, OBJECTS, CLASSES)
        for seed in range(SEEDS):
            own = x[seed % inputs]
            assert_close(logits[seed], model.module(parameters, seed)(own).detach())
    assert_close(logits[1], plainly(one(parameters, 1), x[1], options))


@EVERY
@INPUTS
def test_gradients_are_autograds_of_the_module(options, inputs):
    model, parameters = network(**options)
    x, y = objects(inputs)
    before = {name: tensor.clone() for name, tensor in parameters.items()}
    gradients = model.gradients(parameters, x, y)
    assert gradients.keys() == parameters.keys()
    for seed in range(SEEDS):
        net = model.module(parameters, seed)
        functional.cross_entropy(net(x[seed % inputs]), y[seed]).backward()
        for name, tensor in net.named_parameters():
            assert_close(gradients[name][seed], tensor.grad)
            # A key's bias adds the same to all of a query's scores, and softmax does not see it.
            assert name.endswith("key.bias") or tensor.grad.abs().max() > 1e-6
    assert all(torch.equal(parameters[name], before[name]) for name in before)
    assert not any(tensor.requires_grad for tensor in (*parameters.values(), *gradients.values()))


@pytest.mark.parametrize("options", [OPTIONS[0], OPTIONS[-1]], ids=["none", "all"])
def test_a_seed_in_a_stack_is_the_seed_alone(options):
    model, together = network(**options)
    _, alone = network(seeds=[1], **options)
    for x, y in (objects(1), objects(SEEDS)):
        own = x[1 % len(x)][None]
        assert_close(model.forward(together, x)[1], model.forward(alone, own)[0], 1e-14)
        gradients = model.gradients(together, x, y)
        for name, tensor in model.gradients(alone, own, y[1:2]).items():
            assert_close(gradients[name][1], tensor[0], 1e-14)


def test_the_thesis_network_for_mnist_has_3552_parameters_in_twelve_tensors():
    model = VisionTransformer(asdict(TransformerConfig()), (1, 28, 28), 10)
    shapes = {
        "projection.weight": (16, 16),
        "blocks.0.attention.query.weight": (16, 16),
        "blocks.0.attention.key.weight": (16, 16),
        "blocks.0.attention.value.weight": (16, 16),
        "blocks.0.attention.output.weight": (16, 16),
        "blocks.0.norm1.weight": (16,),
        "blocks.0.norm1.bias": (16,),
        "blocks.0.ffn.linear1.weight": (64, 16),
        "blocks.0.ffn.linear2.weight": (16, 64),
        "blocks.0.norm2.weight": (16,),
        "blocks.0.norm2.bias": (16,),
        "head.weight": (10, 16),
    }
    parameters = model.initialise([generator(0, "test")])
    assert {name: tuple(tensor.shape[1:]) for name, tensor in parameters.items()} == shapes
    assert list(parameters) == list(shapes)
    assert [name for name, _ in model.module(parameters, 0).named_parameters()] == list(shapes)
    assert sum(tensor.numel() for tensor in parameters.values()) == 3552
    assert model.geometry.tokens == 49


@EVERY
def test_parameters_have_a_closed_number(options):
    model, parameters = network(**options, ffn_size=7)
    width, bias = WIDTH, int(options["bias"])
    block = (3 + options["output_projection"]) * (width**2 + bias * width) + 2 * 2 * width
    block += 2 * 7 * width + bias * (7 + width)
    tokens = 6 + options["class_token"]
    expected = 2 * block + 8 * width + bias * width + width * CLASSES + bias * CLASSES
    expected += options["class_token"] * width + options["positions"] * tokens * width + options["pre_norm"] * 2 * width
    assert sum(tensor[0].numel() for tensor in parameters.values()) == expected
    assert sum(tensor.numel() for tensor in model.module(parameters, 0).parameters()) == expected
    assert model.geometry.tokens == tokens


def test_initialisation_is_pytorchs_default_with_identity_norms():
    given = settings(bias=True, class_token=True, positions=True, pre_norm=True, num_layers=1, hidden_size=8)
    drawn = build_model(given, SHAPE, CLASSES).initialise([generator(seed, "initialisation") for seed in range(60)])
    fan_ins = {"projection": 8, "query": 8, "key": 8, "value": 8, "output": 8, "linear1": 8, "linear2": 32, "head": 8}
    for name, values in drawn.items():
        layer, part = name.split(".")[-2:] if "." in name else (name, "")
        assert values.dtype == torch.float32
        if layer.startswith("norm"):
            assert torch.equal(values, torch.ones_like(values) if part == "weight" else torch.zeros_like(values))
        elif layer in ("class_token", "positions"):
            assert stats.kstest(values.flatten(), stats.norm(0, 0.02).cdf).pvalue > 1e-3
        else:
            bound = fan_ins.pop(layer) ** -0.5 if part == "bias" else fan_ins[layer] ** -0.5
            assert stats.kstest(values.flatten(), stats.uniform(-bound, 2 * bound).cdf).pvalue > 1e-3
            assert values.abs().max() <= bound
    assert not fan_ins


def test_each_seed_is_drawn_from_its_own_generator():
    model, _ = network()
    together = model.initialise([generator(seed, "test") for seed in (4, 9)])
    alone = model.initialise([generator(9, "test")])
    for name, tensor in alone.items():
        assert torch.equal(together[name][1], tensor[0])
        assert "norm" in name or not (together[name][0] == tensor[0]).any()


def test_module_is_a_copy_of_one_seed_in_its_own_type():
    model, parameters = network(positions=True)
    net = model.module(parameters, 1)
    assert net.state_dict().keys() == parameters.keys()
    for name, tensor in net.named_parameters():
        assert tensor.dtype == torch.float64
        assert torch.equal(tensor, parameters[name][1])
    before = parameters["head.weight"].clone()
    with torch.no_grad():
        net.head.weight.zero_()
    assert torch.equal(parameters["head.weight"], before)


@pytest.mark.parametrize(("shape", "size"), [((1, 4, 4), 2), ((2, 6, 4), 2), ((3, 3, 9), 3), ((3, 2, 5), 1)], ids=str)
def test_patches_are_cut_in_reading_order(shape, size):
    x = torch.arange(2 * math.prod(shape), **FLOAT64).view(2, *shape)
    assert torch.equal(patches(x, size), torch.stack([cut(picture, size) for picture in x]))


def tokens():
    return torch.randn(3, 5, 6, generator=torch.Generator().manual_seed(0), **FLOAT64)


def drawn(module):
    """The module in float64, every parameter drawn anew."""
    draw = torch.Generator().manual_seed(1)
    module.double()
    with torch.no_grad():
        for tensor in module.parameters():
            tensor.copy_(torch.randn(tensor.shape, generator=draw, **FLOAT64) / 2)
    return module


def copy_attention(ours, theirs):
    with torch.no_grad():
        for kind in ("weight", "bias"):
            if getattr(ours.query, kind) is not None:
                each = [getattr(part, kind) for part in (ours.query, ours.key, ours.value)]
                getattr(theirs, f"in_proj_{kind}").copy_(torch.cat(each))
    theirs.out_proj.load_state_dict(ours.output.state_dict())


@pytest.mark.parametrize("heads", [1, 2, 3])
def test_attention_without_projection_is_pytorchs_dot_product_attention(heads):
    layer, x = drawn(SelfAttention(6, heads, True, output_projection=False)), tokens()
    assert layer.output is None
    q, k, v = (f(x).unflatten(2, (heads, 6 // heads)).transpose(1, 2) for f in (layer.query, layer.key, layer.value))
    expected = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
    assert_close(layer(x), expected)


@pytest.mark.parametrize("bias", [False, True])
def test_attention_is_pytorchs_multi_head_attention(bias):
    ours, x = drawn(SelfAttention(6, 2, bias, output_projection=True)), tokens()
    theirs = nn.MultiheadAttention(6, 2, bias=bias, batch_first=True, **FLOAT64)
    copy_attention(ours, theirs)
    assert_close(ours(x), theirs(x, x, x)[0])


@pytest.mark.parametrize("pre_norm", [False, True])
def test_a_block_is_pytorchs_encoder_layer(pre_norm):
    given = settings(bias=True, hidden_size=6, pre_norm=pre_norm)
    ours, x = drawn(Block(given, 7)), tokens()
    theirs = nn.TransformerEncoderLayer(6, 2, 7, dropout=0, norm_first=pre_norm, batch_first=True, **FLOAT64)
    copy_attention(ours.attention, theirs.self_attn)
    for name in ("linear1", "linear2", "norm1", "norm2"):
        own = getattr(ours.ffn if name.startswith("linear") else ours, name)
        getattr(theirs, name).load_state_dict(own.state_dict())
    assert_close(ours(x), theirs(x))
