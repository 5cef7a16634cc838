import subprocess
import sys

PROGRAM = """
import importlib, sys
import landscape_cli.data.torchvision_import as first
import torch
second = importlib.reload(first)
assert second.torchvision is sys.modules["torchvision"]
import torchvision, torchvision.datasets, torchvision.models, torchvision.transforms
assert first.torchvision is torchvision
for name in list(sys.modules):
    package, _, own = name.rpartition(".")
    assert not name.startswith("torchvision.") or hasattr(sys.modules[package], own), name
model = torchvision.models.resnet18().eval()
picture = torchvision.transforms.ToTensor()(torch.zeros(3, 64, 64).numpy().transpose(1, 2, 0))
print(tuple(model(picture[None]).shape), torchvision.datasets.MNIST.__name__)
"""

WORKING = """
import sys, types
calls = []
sys.modules["torchvision"] = types.ModuleType("torchvision")
import torch
torch.library.Library = lambda *arguments: calls.append(arguments)
from landscape_cli.data.torchvision_import import torchvision
print(torchvision is sys.modules["torchvision"], calls)
"""


def run(program: str) -> str:
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_torchvision_works_in_a_fresh_process():
    assert run(PROGRAM) == "(1, 1000) MNIST"


def test_working_torchvision_is_left_alone():
    assert run(WORKING) == "True []"
