"""``experiment=own``: what a stranger's module may be, and what is said in one line where it cannot be measured."""

import json
import re
import sys
import textwrap
from pathlib import Path

import pytest

PACKAGE = """
    import numpy as np
    import torch
    from torch import nn
    from torch.utils.data import Dataset, TensorDataset


    class Net(nn.Module):
        def __init__(self, width=4, inputs=3, outputs=2):
            super().__init__()
            self.body = nn.Sequential(nn.Linear(inputs, width), nn.Tanh(), nn.Linear(width, outputs))

        def forward(self, x):
            return self.body(x)


    class Flat(Net):
        def forward(self, x):
            return self.body(x).sum()


    class Pair(Net):
        def forward(self, x):
            return self.body(x), x


    class Logarithm(Net):
        def forward(self, x):
            return torch.log(self.body(x).detach().abs() * 0 + x[:, :2].abs()) + 0 * self.body(x)


    class Broken(Net):
        def forward(self, x):
            raise KeyError("where did it go")


    def arrays(count=40, real=False, bad=(), labels=2):
        x = torch.randn(count, 3, generator=torch.Generator().manual_seed(0))
        for row in bad:
            x[row, 1] = float("nan")
        y = x.sum(dim=1) if real else (x[:, 0] > 0).long() + labels - 2
        return x, y


    def four(count=40):
        x, y = arrays(count)
        return x[:30], y[:30], x[30:], y[30:]


    def as_numpy(count=40):
        return tuple(part.numpy() for part in arrays(count))


    def tensors(count=40):
        return TensorDataset(*arrays(count))


    class Pairs(Dataset):
        def __init__(self, count=40, grow=False):
            self.x, self.y = arrays(count)
            self.grow = grow

        def __len__(self):
            return len(self.x)

        def __getitem__(self, row):
            return self.x[row, : 2 if self.grow and row == 7 else 3], int(self.y[row])


    def splits(count=40):
        return Pairs(count), Pairs(20)


    def words(count=40):
        x, y = arrays(count)
        return x, ["yes" if label else "no" for label in y]


    def uneven():
        x, y = arrays()
        return x, y[:-3]


    def zeros(count=40):
        x, y = arrays(count)
        x[5] = x[9] = 0
        return x, y


    def nothing():
        return torch.zeros(0, 3), torch.zeros(0)


    def three():
        return 1, 2, 3


    def huber(outputs, target):
        return nn.functional.huber_loss(outputs, target, reduction="none").sum(dim=1)


    def mean_huber(outputs, target):
        return nn.functional.huber_loss(outputs, target)


    NUMBER = 3
"""
QUICK = ("seeds=1", "training.epochs=1", "measure.curvature=false", "plot.formats=[png]", "plot.dpi=50")
MODEL, DATA = "model._target_=strange.Net", "dataset._target_=strange.arrays"


@pytest.fixture
def strange(isolated, monkeypatch):
    """A module ``strange.py`` in the current folder, gone again after the test."""
    write(isolated / "work" / "strange.py")
    monkeypatch.setattr(sys, "path", list(sys.path))
    forget()
    yield isolated / "work" / "strange.py"
    forget()


def write(path: Path, text: str = PACKAGE) -> None:
    path.write_text(textwrap.dedent(text))


def forget() -> None:
    """A command finds modules, data and networks anew, as a process of its own would."""
    from landscape_cli.own import checking, data

    checking._known.clear()
    data._read.clear()
    for name in [name for name in sys.modules if name.split(".")[0] in ("strange", "inner")]:
        del sys.modules[name]


def stored(tmp_path) -> list[dict]:
    return [json.loads(p.read_text()) for p in sorted(tmp_path.glob("outputs/results/OwnModel/*/point.json"))]


@pytest.mark.parametrize(
    "dataset",
    ["arrays", "four", "as_numpy", "tensors", "Pairs", "splits", "words", "as_numpy dataset.normalisation=standard"],
)
def test_data_of_every_make(landscape, strange, tmp_path, dataset):
    name, *more = dataset.split()
    done = landscape("run", "experiment=own", MODEL, f"dataset._target_=strange.{name}", *more, *QUICK)
    assert (done.code, done.err) == (0, "")
    (point,) = stored(tmp_path)
    dataset = point["settings"]["dataset"]
    assert dataset["objects"] == {"four": 30}.get(name, 40)
    assert f"{3 * 4 + 4 + 4 * 2 + 2} parameters, {dataset['objects']} objects" in done.out


def test_the_same_objects_have_the_same_checksum_however_they_come(landscape, strange, tmp_path):
    for name in ("arrays", "as_numpy", "tensors", "Pairs", "words"):
        assert landscape("run", "experiment=own", MODEL, f"dataset._target_=strange.{name}", *QUICK).code == 0
    assert len({point["settings"]["dataset"]["checksum"] for point in stored(tmp_path)}) == 1


@pytest.mark.parametrize("dataset", ["sklearn.datasets.load_wine", "sklearn.datasets.load_wine return_X_y=true"])
def test_a_bunch_and_a_pair_of_scikit_learn(landscape, strange, dataset):
    target, *more = dataset.split()
    words = [f"dataset._target_={target}", *(f"+dataset.{text}" for text in more), "dataset.normalisation=standard"]
    done = landscape("run", "experiment=own", MODEL, "model.inputs=13", "+model.arguments.outputs=3", *words, *QUICK)
    assert (done.code, done.err) == (0, "")
    assert "178 objects" in done.out


def test_a_frame_of_pandas_and_real_targets(landscape, strange):
    words = ("dataset._target_=sklearn.datasets.load_diabetes", "dataset.return_X_y=true", "dataset.as_frame=true")
    done = landscape("run", "experiment=own", MODEL, "model.inputs=10", "model.outputs=1", *words, *QUICK)
    assert (done.code, done.err) == (0, "")
    assert "units of the loss" in done.out


def test_a_users_table_and_named_pictures(landscape, strange, tmp_path):
    Path("my.csv").write_text("a,b,c,kind\n" + "\n".join(f"{i},{i * i % 7},{i % 5},{'xy'[i % 2]}" for i in range(30)))
    table = ("dataset=csv", "dataset.path=my.csv", "dataset.target=kind")
    done = landscape("run", "experiment=own", MODEL, *table, *QUICK)
    assert (done.code, done.err) == (0, "")
    assert "30 objects" in done.out
    write(strange, PACKAGE.replace("return self.body(x)\n", "return self.body(x.flatten(1))\n", 1))
    forget()
    sizes = ("model.inputs=64", "model.outputs=10", "dataset.train_size=50")
    done = landscape("run", "experiment=own", MODEL, "dataset=digits", *sizes, *QUICK)
    assert (done.code, done.err) == (0, "")
    assert "50 objects" in done.out


def test_a_shipped_network_on_ones_own_data(landscape, strange):
    done = landscape("run", "experiment=own", "model=mlp", "model.num_layers=0", DATA, *QUICK)
    assert (done.code, done.err) == (0, "")
    real = ("dataset.real=true", "training.epochs=2")
    done = landscape("run", "experiment=own", "model=feedforward", "model.hidden=[4]", DATA, *real, *QUICK[2:])
    assert (done.code, done.err) == (0, "")
    done = landscape("run", "experiment=own", "model=conv2d", DATA, *QUICK)
    assert (done.code, len(done.lines)) == (2, 1)
    assert "conv2d" in done.err


def test_nested_targets_are_built(landscape, strange, tmp_path):
    from PIL import Image

    for kind, shade in (("black", 20), ("white", 230)):
        (tmp_path / "pictures" / kind).mkdir(parents=True)
        for number in range(4):
            picture = Image.new("RGB", (4, 4), (shade, shade + number, shade))
            picture.save(tmp_path / "pictures" / kind / f"{number}.png")
    folder = ("dataset._target_=torchvision.datasets.ImageFolder", f"dataset.root={tmp_path / 'pictures'}")
    write(strange, PACKAGE.replace("return self.body(x)\n", "return self.body(x.flatten(1))\n", 1))
    words = ("experiment=own", MODEL, "model.inputs=48", *folder, *QUICK)
    done = landscape("run", *words)
    done.assert_refused(2, "dataset._target_", "object 0", "Image", "ToTensor")
    done = landscape("run", *words, "dataset.transform._target_=torchvision.transforms.ToTensor")
    assert (done.code, done.err) == (0, "")
    assert "8 objects" in done.out


BAD = {
    "model._target_=strange.Nett": ("model._target_", "strange has no 'Nett'", "did you mean 'Net'"),
    "model._target_=stange.Net": ("model._target_", "no module 'stange'", "did you mean 'strange'"),
    "model._target_=Net": ("model._target_: 'Net'", "package.module.Name"),
    "model._target_=strange.NUMBER": ("model._target_: strange.NUMBER", "int", "cannot be called"),
    "model._target_=strange.arrays": ("model._target_: strange.arrays", "returned a tuple", "torch.nn.Module"),
    "model.wdth=3": ("model.wdth", "did you mean 'width'", "(width=4, inputs=3, outputs=2)"),
    "model.width=wide": ("model._target_: strange.Net", "raised TypeError", "strange.py:"),
    "model.inputs=5": ("model._target_: strange.Net", "(2, 3)", "raised RuntimeError", "strange.py:"),
    "model._target_=strange.Flat": ("strange.Flat returned ()", "input of (2, 3)", "needed: (2, …)"),
    "model._target_=strange.Pair": ("strange.Pair returned a tuple", "needed: a tensor"),
    "model._target_=strange.Broken": ("strange.Broken", "raised KeyError", "where did it go"),
    "model._target_=strange.Logarithm dataset._target_=strange.zeros": (
        *("measure.loss", "not finite", "2 of 40 objects", "number 5, 9"),
    ),
    "dataset._target_=strange.uneven": ("dataset._target_: strange.uneven", "40 objects x and 37 targets y"),
    "dataset._target_=strange.nothing": ("dataset._target_: strange.nothing", "no object"),
    "dataset._target_=strange.three": ("dataset._target_: strange.three", "a tuple of 3", "(x, y)"),
    "dataset._target_=strange.NUMBER": ("dataset._target_", "cannot be called"),
    "dataset.bad=[3,11,17]": ("x is not finite", "3 of 40 objects", "number 3, 11, 17"),
    "dataset.labels=5": ("strange.Net returned (2, 2)", "at least 5", "classes up to 4"),
    "dataset.labels=1": ("class -1",),
    "dataset.count=1": ("dataset.train_size", "2 or more"),
    "dataset.train_size=50": ("dataset.train_size=50", "has 40 train objects"),
    "dataset._target_=strange.Pairs dataset.grow=true": ("object 7", "(2,)", "object 0 (3,)"),
    "measure.loss=strange.mean_huber dataset.real=true model.outputs=1": ("measure.loss", "()", "(2,)", "reduction"),
    "measure.loss=strange.hubre": ("measure.loss", "did you mean 'huber' or"),
    "measure.loss=hubre": ("measure.loss: 'hubre'", "cross_entropy"),
    "measure.loss=squared_error": ("strange.Net returned (2, 2)", "needed: (2,)"),
    "model.width=3 model.arguments.width=4": ("model.width", "one of them"),
    "training.augmentation=crop_flip": ("training.augmentation", "pictures"),
    "dataset._target_=null": ("dataset._target_: not given", "dataset._target_=my_pkg.data"),
}


@pytest.mark.parametrize("changes", BAD)
def test_what_cannot_be_measured_is_said_in_one_line_before_any_training(landscape, strange, changes):
    given = {text.partition("=")[0]: text for text in (MODEL, DATA, *changes.split(), *QUICK)}
    landscape("run", "experiment=own", *given.values()).assert_refused(2, *BAD[changes])


def test_nothing_given_says_what_to_give(landscape):
    landscape("run", "experiment=own").assert_refused(2, "model._target_", "dataset._target_", "my_pkg")


def test_a_sweep_over_all_experiments_passes_over_it(landscape):
    done = landscape("run", "-m", "experiment=own", "seeds=1,2")
    assert (done.code, done.err) == (0, "")
    assert done.out.count("own: skipped: model._target_ and dataset._target_: not given") == 2


def test_only_it_takes_networks_of_ones_own(landscape):
    landscape("run", "experiment=fc_mnist", "model=own", MODEL, "dataset=digits").assert_refused(2, "model", "fc_mnist")
    landscape("run", "experiment=fc_mnist", "dataset=own", DATA).assert_refused(2, "dataset", "data of your own")


def test_dry_run_and_show_measure_nothing(landscape, strange, tmp_path):
    done = landscape("run", "experiment=own", MODEL, DATA, "--dry-run")
    assert (done.code, done.out.count("missing  ")) == (0, 5)
    done = landscape("show", "own", MODEL, DATA, "model.width=7")
    assert done.code == 0
    assert re.search(r"arguments:\s+width: 7", done.out)
    assert landscape("show", "own").code == 0
    assert not stored(tmp_path)


def test_a_second_run_measures_nothing_and_another_argument_does(landscape, strange):
    words = ("run", "experiment=own", MODEL, DATA, *QUICK)
    assert "0 stored, 1 to measure" in landscape(*words).out
    forget()
    assert "1 stored, 0 to measure" in landscape(*words).out
    # What is only read off the results does not measure them again.
    assert "1 stored, 0 to measure" in landscape(*words, "measure.threshold=0.5").out
    for change in ("model.width=5", "dataset.count=41", "measure.loss=squared_error model.outputs=1", "seed=1"):
        assert "0 stored, 1 to measure" in landscape(*words, *change.split()).out, change


def test_changed_code_weights_and_values_are_measured_again(landscape, strange, tmp_path):
    words = ("run", "experiment=own", MODEL, DATA, *QUICK)
    beside = strange.with_name("inner.py")
    beside.write_text("SLOPE = 1.0\n")
    helped = PACKAGE.replace("return self.body(x)\n", "from inner import SLOPE; return self.body(x) * SLOPE\n", 1)
    write(strange, helped)
    assert landscape(*words).code == 0
    for place, text in (
        (beside, "SLOPE = 2.0\n"),  # of a module that it imports
        (strange, helped.replace("nn.Tanh()", "nn.ReLU()")),
        (strange, helped.replace("nn.Tanh()", "nn.ReLU()").replace("manual_seed(0)", "manual_seed(1)")),
    ):
        write(place, text)
        forget()
        assert "0 stored, 1 to measure" in landscape(*words).out
    weighted = helped.replace("nn.Linear(width, outputs))", "nn.Linear(width, outputs)); self.load()", 1).replace(
        "def forward(self, x)",
        "def load(self):\n            self.body[0].weight.data.fill_(float(open('w').read()))\n\n"
        "        def forward(self, x)",
        1,
    )
    write(strange, weighted)
    for weight in ("0.5", "0.25"):  # weights that the code reads, though the code is the same
        Path("w").write_text(weight)
        forget()
        assert "0 stored, 1 to measure" in landscape(*words, "training.epochs=0").out
    code = [point["settings"]["code"] for point in stored(tmp_path)]
    assert all(set(each) == {"inner", "strange"} for each in code)


def test_the_command_works_from_a_folder_of_its_own(strange, start):
    process = start("run", "experiment=own", MODEL, DATA, *QUICK, cwd=strange.parent)
    out, err = process.communicate()
    assert (process.returncode, err) == (0, "")
    assert "enough data" in out


def test_a_killed_run_goes_on_with_what_is_left(strange, start, tmp_path):
    import signal
    import time

    words = ("run", "experiment=own", MODEL, DATA, "seeds=3", "training.epochs=150", *QUICK[2:])
    process = start(*words, cwd=strange.parent)
    end = time.monotonic() + 60
    while not stored(tmp_path) and time.monotonic() < end:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    before = len(stored(tmp_path))
    assert before >= 1
    again = start(*words, cwd=strange.parent)
    out, err = again.communicate()
    assert (again.returncode, err) == (0, "")
    assert len(stored(tmp_path)) == 3
    assert f"{before} stored, {3 - before} to measure" in out


def test_an_edit_below_a_package_is_another_network(isolated, monkeypatch):
    """A class that the package's __init__ takes from a module of its own, as most do."""
    from landscape_cli.own.code import code_of

    folder = isolated / "work" / "nets_below"
    folder.mkdir()
    (folder / "__init__.py").write_text("from nets_below.net import Net\n")
    (folder / "net.py").write_text("from nets_below.layers import scale\n\n\nclass Net:\n    scale = scale\n")
    (folder / "layers.py").write_text("scale = 1\n")
    monkeypatch.syspath_prepend(str(isolated / "work"))
    before = code_of(["nets_below.Net"], "model._target_")
    assert set(before) == {"nets_below", "nets_below.net", "nets_below.layers"}
    (folder / "layers.py").write_text("scale = 100\n")
    after = code_of(["nets_below.Net"], "model._target_")
    assert {name for name in before if before[name] != after[name]} == {"nets_below.layers"}
