"""A ResNet-18 and a folder of pictures, as ``landscape run experiment=own`` wants them: two functions."""

from pathlib import Path

# A plain `import torchvision` fails beside a CPU-only torch; everywhere else this is the same.
from landscape_cli.data.torchvision_import import torchvision


def resnet18(classes=3):
    """Return an untrained network; it is built once for every seed, and trained by the command."""
    return torchvision.models.resnet18(num_classes=classes)


def load(folder, size=32):
    """Return the pictures of ``folder/train`` and ``folder/test``, one subfolder a class, as two data sets."""
    steps = [
        torchvision.transforms.Resize((size, size)),
        torchvision.transforms.ToTensor(),
        torchvision.transforms.Normalize([0.5] * 3, [0.5] * 3),
    ]
    transform = torchvision.transforms.Compose(steps)
    return tuple(torchvision.datasets.ImageFolder(Path(folder) / part, transform) for part in ("train", "test"))
