"""CycleGAN generators, beside the layers of the original written out here."""

from collections import OrderedDict

import pytest
import torch
from torch import nn

from landscape_cli.distillation.cyclegan import Generator, load_generator, transform
from landscape_cli.errors import BadInput, DamagedData, MissingData

WIDTH = 4


class Residual(nn.Module):
    def __init__(self, width):
        super().__init__()
        norm = {"affine": False, "track_running_stats": False}
        self.conv_block = nn.Sequential(
            *(nn.ReflectionPad2d(1), nn.Conv2d(width, width, kernel_size=3, padding=0, bias=True)),
            *(nn.InstanceNorm2d(width, **norm), nn.ReLU(True)),
            *(nn.ReflectionPad2d(1), nn.Conv2d(width, width, kernel_size=3, padding=0, bias=True)),
            nn.InstanceNorm2d(width, **norm),
        )

    def forward(self, x):
        return x + self.conv_block(x)


def original(ins=3, outs=3, ngf=WIDTH, blocks=9):
    """Lay the generator out as the original does: loops over two samplings, multiples of ngf."""
    layers = [nn.ReflectionPad2d(3), nn.Conv2d(ins, ngf, kernel_size=7), nn.InstanceNorm2d(ngf), nn.ReLU(True)]
    for i in range(2):
        width = 2**i * ngf
        layers += [nn.Conv2d(width, 2 * width, 3, 2, 1), nn.InstanceNorm2d(2 * width), nn.ReLU(True)]
    layers += [Residual(4 * ngf) for _ in range(blocks)]
    for i in range(2):
        width = 2 ** (2 - i) * ngf
        layers += [nn.ConvTranspose2d(width, width // 2, 3, 2, 1, 1), nn.InstanceNorm2d(width // 2), nn.ReLU(True)]
    layers += [nn.ReflectionPad2d(3), nn.Conv2d(ngf, outs, kernel_size=7), nn.Tanh()]
    net = nn.Module()
    net.model = nn.Sequential(*layers)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(blocks)
        for parameter in net.parameters():
            nn.init.normal_(parameter, std=0.2)
    return net.eval()


@pytest.fixture
def saved(tmp_path):
    def save(content, name="latest_net_G_A.pth"):
        torch.save(content, tmp_path / name)
        return tmp_path / name

    return save


@pytest.fixture
def pictures():
    def draw(count=5, channels=3, height=16, width=12):
        return 2 * torch.rand(count, channels, height, width, generator=torch.Generator().manual_seed(0)) - 1

    return draw


def test_the_names_of_the_published_files():
    names = list(Generator().state_dict())
    convolutions = [1, 4, 7]
    expected = [f"model.{place}.{kind}" for place in convolutions for kind in ("weight", "bias")]
    for block in range(10, 19):
        expected += [f"model.{block}.conv_block.{place}.{kind}" for place in (1, 5) for kind in ("weight", "bias")]
    expected += [f"model.{place}.{kind}" for place in (19, 22, 26) for kind in ("weight", "bias")]
    assert names == expected
    shapes = {name: tuple(tensor.shape) for name, tensor in Generator().state_dict().items()}
    assert shapes["model.1.weight"] == (64, 3, 7, 7)
    assert shapes["model.18.conv_block.5.weight"] == (256, 256, 3, 3)
    assert shapes["model.19.weight"] == (256, 128, 3, 3)
    assert sum(tensor.numel() for tensor in Generator().state_dict().values()) == 11_378_179  # as the original prints


@pytest.mark.parametrize(("channels", "blocks"), [(3, 9), (3, 6), (1, 6), (3, 0)])
def test_the_outputs_of_the_original(saved, pictures, channels, blocks):
    net = original(channels, channels, blocks=blocks)
    generator = load_generator(saved(net.state_dict()))
    x = pictures(channels=channels)
    with torch.no_grad():
        expected = net.model(x)
    assert expected.std() > 0.05
    torch.testing.assert_close(transform(generator, x), expected, atol=1e-4, rtol=0)
    assert not generator.training
    assert not any(parameter.requires_grad for parameter in generator.parameters())
    assert not transform(generator, x.requires_grad_()).requires_grad


def test_old_files_and_files_of_several_devices(saved, pictures):
    net = original()
    plain, x = transform(load_generator(saved(net.state_dict())), pictures()), pictures()
    old = OrderedDict()
    for name, tensor in net.state_dict().items():
        old[f"module.{name}"] = tensor
        if name.endswith("bias"):
            place, _, number = name.removesuffix(".bias").rpartition(".")
            norm = f"module.{place}.{int(number) + 1}"
            old |= {f"{norm}.running_mean": torch.ones(len(tensor)), f"{norm}.running_var": torch.ones(len(tensor))}
            old[f"{norm}.num_batches_tracked"] = torch.tensor(7)
    assert torch.equal(transform(load_generator(saved(old, "old.pth")), x), plain)
    double = {name: tensor.double() for name, tensor in net.state_dict().items()}
    assert torch.equal(transform(load_generator(saved(double, "double.pth")), x), plain)


def test_each_picture_by_itself(saved, pictures):
    generator = load_generator(saved(original().state_dict()))
    x = pictures()
    found = transform(generator, x)
    for chunk in (1, 2, 100):
        torch.testing.assert_close(transform(generator, x, chunk=chunk), found, atol=1e-4, rtol=0)
    torch.testing.assert_close(transform(generator, x[3:4])[0], found[3], atol=1e-4, rtol=0)
    assert transform(generator, x[:0]).shape == x[:0].shape
    assert (found.abs() <= 1).all()


def test_loading_draws_nothing(saved):
    path = saved(original().state_dict())
    state = torch.random.get_rng_state()
    load_generator(path)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_pictures_that_do_not_fit(saved, pictures):
    generator = load_generator(saved(original().state_dict()))
    with pytest.raises(BadInput, match=r"mapping.checkpoint: .*\(5, 1, 16, 12\).* takes \(N, 3, H, W\)"):
        transform(generator, pictures(channels=1))
    with pytest.raises(BadInput, match=r"\(3, 16, 12\)"):
        transform(generator, pictures()[0])
    with pytest.raises(BadInput, match=r"does not fit the teacher: .*\(5, 3, 18, 13\) become \(5, 3, 20, 16\)"):
        transform(generator, pictures(height=18, width=13))
    with pytest.raises(BadInput, match=r"pictures of 4 × 12; allowed: a height and width of 8 or more"):
        transform(generator, pictures(height=4))
    assert transform(generator, pictures(height=8, width=8)).shape == (5, 3, 8, 8)
    other = load_generator(saved(original(3, 1).state_dict()))
    with pytest.raises(BadInput, match=r"does not fit the teacher: .*\(5, 3, 16, 12\) become \(5, 1, 16, 12\)"):
        transform(other, pictures())


@pytest.mark.parametrize(("height", "width"), [(17, 30), (18, 13), (9, 11)])
def test_the_shape_that_the_message_names_is_that_of_the_output(pictures, height, width):
    generator = Generator(width=2, blocks=1)
    with torch.no_grad():
        mapped = tuple(generator(pictures(height=height, width=width)).shape)
    with pytest.raises(BadInput) as caught:
        transform(generator, pictures(height=height, width=width))
    assert f"become {mapped};" in str(caught.value)


def test_no_such_file(tmp_path):
    with pytest.raises(MissingData, match=r"mapping.checkpoint: .*none.pth: there is no such file") as caught:
        load_generator(tmp_path / "none.pth")
    assert not isinstance(caught.value, DamagedData)
    with pytest.raises(MissingData, match="there is no such file"):
        load_generator(tmp_path)


def changed(**tensors):
    content = original().state_dict()
    for name, tensor in tensors.items():
        content[name.replace("__", ".")] = tensor
    return content


def without(name):
    return {other: tensor for other, tensor in original().state_dict().items() if other != name}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (lambda: [1, 2], "it holds list"),
        (lambda: {"epoch": 3}, "must hold tensors by name"),
        (lambda: {"weight": torch.ones(2)}, "model.1.weight is missing"),
        (dict, "model.1.weight is missing"),
        (lambda: without("model.1.weight"), "model.1.weight is missing"),
        (lambda: without("model.26.weight"), "model.26.weight is missing"),
        (lambda: without("model.14.conv_block.5.bias"), "model.14.conv_block.5.bias is missing"),
        (lambda: changed(model__2__weight=torch.ones(WIDTH)), "model.2.weight is not known"),
        (lambda: changed(model__1__weight=torch.ones(3)), "model.1.weight has another shape"),
        (lambda: changed(model__7__bias=torch.ones(3)), r"model.7.bias has shape \(3,\), and .* must have \(16,\)"),
        (lambda: changed(model__7__bias=torch.full((16,), torch.nan)), "model.7.bias has values that are not finite"),
        (nn.Identity, "torch cannot read it"),  # a whole network, not its tensors
    ],
)
def test_other_files(saved, content, reason):
    path = saved(content())
    with pytest.raises(DamagedData, match=f"mapping.checkpoint: {path} is not a generator of .*: .*{reason}") as caught:
        load_generator(path)
    assert "\n" not in str(caught.value)


def test_damaged_files(saved):
    path = saved(original().state_dict())
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"not a file of torch", whole[1000:]):
        path.write_bytes(content)
        with pytest.raises(DamagedData, match="torch cannot read it") as caught:
            load_generator(path)
        assert "\n" not in str(caught.value)
