"""A trained CycleGAN generator as the mapping φ between domains of pictures (thesis 4.2.3).

The ResNet generator of Zhu, Park, Isola and Efros (Unpaired image-to-image translation using cycle-consistent
adversarial networks, ICCV 2017), layer by layer as in its authors' pytorch-CycleGAN-and-pix2pix, so that the files
that it writes (``latest_net_G_A.pth`` and the published ones) fit.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from landscape_cli.data.locate import expand
from landscape_cli.errors import BadInput, DamagedData, MissingData

# Written by instance normalisation before torch 0.4, and not used since.
OUTDATED = ("running_mean", "running_var", "num_batches_tracked")
FIRST_BLOCK = 10  # place of the first residual block in ``model``
SMALLEST = 8  # pixels; a side of 4 becomes 1 after the two strides, and one pixel cannot be reflected
CHUNK_PIXELS = 2**19  # with 64 channels, 128 MiB for the output of the widest layer


class ResidualBlock(nn.Module):
    """x + F(x), F two 3 × 3 convolutions with reflection padding and instance normalisation."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv_block = nn.Sequential(
            nn.ReflectionPad2d(1),
            nn.Conv2d(width, width, 3),
            nn.InstanceNorm2d(width),
            nn.ReLU(),
            nn.ReflectionPad2d(1),
            nn.Conv2d(width, width, 3),
            nn.InstanceNorm2d(width),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, width, H, W) -> (N, width, H, W)."""
        return x + self.conv_block(x)


class Generator(nn.Module):
    """Two strided convolutions, residual blocks, two transposed convolutions; tanh at the end.

    Parameters
    ----------
    in_channels, out_channels
        Of the pictures.
    width
        Channels after the first layer, ``ngf``; four times as many in the residual blocks.
    blocks
        Residual blocks: 9, or 6 for pictures of 128 × 128.
    """

    def __init__(self, in_channels: int = 3, out_channels: int = 3, width: int = 64, blocks: int = 9) -> None:
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        self.model = nn.Sequential(
            nn.ReflectionPad2d(3),
            nn.Conv2d(in_channels, width, 7),
            *_normalised(width),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
            *_normalised(2 * width),
            nn.Conv2d(2 * width, 4 * width, 3, stride=2, padding=1),
            *_normalised(4 * width),
            *(ResidualBlock(4 * width) for _ in range(blocks)),
            nn.ConvTranspose2d(4 * width, 2 * width, 3, stride=2, padding=1, output_padding=1),
            *_normalised(2 * width),
            nn.ConvTranspose2d(2 * width, width, 3, stride=2, padding=1, output_padding=1),
            *_normalised(width),
            nn.ReflectionPad2d(3),
            nn.Conv2d(width, out_channels, 7),
            nn.Tanh(),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, in_channels, H, W) -> (N, out_channels, 4⌈H/4⌉, 4⌈W/4⌉), in [-1, 1]."""
        return self.model(x)


def _normalised(width: int) -> tuple[nn.Module, ...]:
    return nn.InstanceNorm2d(width), nn.ReLU()


def load_generator(path: str | Path) -> Generator:
    """Read a generator from a file of pytorch-CycleGAN-and-pix2pix, its size off the tensors' shapes.

    Returns
    -------
    On the CPU, in float32, in ``eval()``, without gradients.

    Raises
    ------
    MissingData
        There is no such file.
    DamagedData
        It is not a state dict of torch, or not of this generator: with dropout, batch normalisation, a U-Net.
    """
    file = expand(path)
    if not file.is_file():
        raise MissingData(f"mapping.checkpoint: {path}: there is no such file; name one of a CycleGAN generator")
    tensors = _tensors(file)
    blocks = {int(found[1]) for name in tensors if (found := re.match(r"model\.(\d+)\.conv_block\.", name))}
    last = f"model.{FIRST_BLOCK + len(blocks) + 7}.weight"
    for name in ("model.1.weight", last):
        if name not in tensors or tensors[name].dim() != 4:
            raise _foreign(file, f"{name} {'has another shape' if name in tensors else 'is missing'}")
    width, in_channels = tensors["model.1.weight"].shape[:2]
    with torch.device("meta"):  # neither drawn nor allocated: the file's tensors take the places
        generator = Generator(in_channels, len(tensors[last]), width, len(blocks))
    expected = generator.state_dict()
    for name, tensor in expected.items():
        if name not in tensors:
            raise _foreign(file, f"{name} is missing")
        if tensors[name].shape != tensor.shape:
            shapes = f"{tuple(tensors[name].shape)}, and by the first layer must have {tuple(tensor.shape)}"
            raise _foreign(file, f"{name} has shape {shapes}")
        if not tensors[name].isfinite().all():
            raise _foreign(file, f"{name} has values that are not finite")
    unknown = [name for name in tensors if name not in expected]
    if unknown:
        raise _foreign(file, f"{unknown[0]} is not known")
    generator.load_state_dict(tensors, assign=True)
    return generator.eval().requires_grad_(False)


@torch.no_grad()
def transform(generator: Generator, x: torch.Tensor, chunk: int | None = None) -> torch.Tensor:
    """Map pictures, each by itself.

    Parameters
    ----------
    x
        Shape (N, C, H, W), in [-1, 1]; on any device, the work is done on the generator's.
    chunk
        Pictures at once; None: as many as hold half a million pixels.

    Returns
    -------
    Shape (N, C, H, W), in [-1, 1], on the device of ``x``.

    Raises
    ------
    BadInput
        Pictures of other channels than the generator takes or gives, of a side below 8, or not a multiple of 4: the
        two strides round up, and the output would be larger.
    """
    if x.dim() != 4 or x.shape[1] != generator.in_channels:
        raise BadInput(
            f"mapping.checkpoint: pictures of shape {tuple(x.shape)}, and the generator takes (N, "
            f"{generator.in_channels}, H, W); name one that was trained on such pictures"
        )
    count, channels, height, width = x.shape
    mapped = (count, generator.out_channels, height + -height % 4, width + -width % 4)
    if mapped != tuple(x.shape):
        raise BadInput(
            f"mapping.checkpoint: the mapping's output does not fit the teacher: pictures of shape {tuple(x.shape)} "
            f"become {mapped}; allowed: a height and width divisible by 4, a generator of {channels} output channels"
        )
    if min(height, width) < SMALLEST:
        raise BadInput(
            f"mapping.checkpoint: pictures of {height} × {width}; allowed: a height and width of {SMALLEST} or more"
        )
    generator.eval()
    device = next(generator.parameters()).device
    chunk = chunk or max(1, CHUNK_PIXELS // (height * width))
    found = torch.empty_like(x, memory_format=torch.contiguous_format)
    for start in range(0, count, chunk):
        part = x[start : start + chunk]
        found[start : start + chunk] = generator(part.to(device, torch.float32)).to(found)
    return found


def _tensors(file: Path) -> dict[str, torch.Tensor]:
    """Read a state dict, without what is outdated, and without the prefix of a network on several devices."""
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling raises a dozen classes on a wrong file
        reason = " ".join(str(error).split())[:160]
        raise _foreign(file, f"torch cannot read it ({type(error).__name__}: {reason})") from error
    if not isinstance(content, Mapping) or not all(isinstance(tensor, torch.Tensor) for tensor in content.values()):
        raise _foreign(file, f"it holds {type(content).__name__}, and must hold tensors by name")
    return {
        str(name).removeprefix("module."): tensor.float()
        for name, tensor in content.items()
        if str(name).rpartition(".")[2] not in OUTDATED
    }


def _foreign(file: Path, reason: str) -> DamagedData:
    return DamagedData(
        f"mapping.checkpoint: {file} is not a generator of pytorch-CycleGAN-and-pix2pix (resnet, instance "
        f"normalisation, no dropout): {reason}"
    )
