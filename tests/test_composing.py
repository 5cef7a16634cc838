"""The traps of Hydra, and every other impossible command: one line, the right exit code, nothing measured."""

import pytest

from landscape_cli.composing import load
from landscape_cli.errors import BadInput
from landscape_cli.listing import shipped

UNKNOWN_KEYS = [
    ("seeed=1", "'seeed'", "did you mean 'seed'"),
    ("+seeed=1", "'seeed'", "did you mean 'seed'"),
    ("++seeed=1", "'seeed'", "did you mean 'seed'"),
    ("model.widht=3", "'model.widht'", "model.hidden_size"),
    ("+model.widht=3", "'model.widht'", "model.hidden_size"),
    ("++model.widht=3", "'model.widht'", "model.hidden_size"),
    ("++model.hiden_size=3", "'model.hiden_size'", "did you mean 'model.hidden_size'"),
    ("measure.smothing=0.5", "'measure.smothing'", "did you mean 'measure.smoothing'"),
    ("+measure.smothing=0.5", "'measure.smothing'", "did you mean 'measure.smoothing'"),
    ("+training.epoch=3", "'training.epoch'", "did you mean 'training.epochs'"),
    ("+dataset.trainsize=3", "'dataset.trainsize'", "did you mean 'dataset.train_size'"),
    ("+profile.objekts=3", "'profile.objekts'", "did you mean 'profile.objects'"),
    ("plot.dip=5", "'plot.dip'", "did you mean 'plot.dpi'"),
    ("grid.hiden_size=[1]", "grid.hiden_size", "hidden_size'"),
    ("+grid.hiden_size=[1]", "grid.hiden_size", "did you mean 'hidden_size'"),
    ("datset=mnist", "'datset'", "did you mean 'dataset'"),
]

UNKNOWN_NAMES = [
    ("experiment=quikstart", "did you mean 'quickstart'", "schematic_loss_change"),
    ("experiment=", "experiment=", "quickstart"),
    ("experiment=nosuch", "experiment=nosuch", "quickstart"),
    ("profile=smok", "did you mean 'smoke'", "embedded, paper, quick, smoke"),
    (
        "dataset=minst",
        "did you mean 'mnist'",
        "abalone, auto_mpg",
        "digits_32, energy, facebook, fashion_mnist, forest_fires",
    ),
    ("dataset=", "dataset=", "digits"),
    ("model=mpl", "did you mean 'mlp'", "valid: conv1d, conv2d, encoder_decoder, feedforward, lenet, mlp"),
    ("training=sgd", "training=sgd", "valid: adam"),
    ("hydra/launcher=nosuch", "hydra/launcher=nosuch", "basic"),
]

HYDRA_SETTINGS = [
    "+hydra.foo=1",
    "++hydra.foo=1",
    "hydra.job.chdir=true",
    "++hydra.job.chdir=true",
    "hydra.run.dir=elsewhere",
    "hydra.output_subdir=.hydra",
    "hydra/job_logging=default",
    "~hydra.job.chdir",
]

WRONG_TYPES = [
    ("model.hidden_size=abc", "model.hidden_size", "'abc'", "Integer"),
    ("model.hidden_size=", "model.hidden_size", "''", "Integer"),
    ("model.bias=perhaps", "model.bias", "'perhaps'", ("bool", "Bool")),
    ("model.bias=3", "model.bias", "3", ("bool", "Bool", "true")),
    ("seeds=1.5", "seeds", "1.5", "Integer"),
    ("seeds=", "seeds", "''", "Integer"),
    ("seeds=null", "seeds", ("None", "null"), "int"),
    ("training.epochs=[1]", "training.epochs", "[1]", "Integer"),
    ("training.learning_rate=fast", "training.learning_rate", "'fast'", "Float"),
    ("training=3", "training", "3", "adam"),
    ("dataset.train_size=abc", "dataset.train_size", "'abc'", "Integer"),
    ("grid.hidden_size=4", "grid.hidden_size", "4", ("List", "list")),
    ("grid.hidden_size=[a]", "grid.hidden_size", "'a'", "Integer"),
    ("grid.hidden_size=[1.5]", "grid.hidden_size", "1.5", "Integer"),
    ("+grid.dataset=[3]", "grid.dataset", "3"),
    ("plot.formats=pdf", "plot.formats", "'pdf'", "list"),
    ("data.roots=here", "data.roots", "'here'", "list"),
    ("output_dir=null", "output_dir", ("None", "null")),
    ("output_dir=", "output_dir"),
    ("measure=3", "measure", "3"),
    ("seeds=99999999999999999999", "seeds", "99999999999999999999"),
]

IMPOSSIBLE = [
    ("model.hidden_size=0", "model.hidden_size: 0", "1 or more"),
    ("model.hidden_size=-3", "model.hidden_size: -3", "1 or more"),
    ("model.num_layers=-1", "model.num_layers: -1", "0 or more"),
    ("model.kind=cnn", "model.kind", "'cnn'", "mlp"),
    ("seed=-1", "seed: -1", "0 or more"),
    ("seeds=0", "seeds: 0", "1 or more"),
    ("threads=0", "threads: 0", "1 or more"),
    ("measure.smoothing=1", "measure.smoothing: 1", "0 or more and less than 1"),
    ("measure.smoothing=-0.1", "measure.smoothing: -0.1", "0 or more and less than 1"),
    ("measure.smoothing=nan", "measure.smoothing: nan", "0 or more and less than 1"),
    ("measure.permutations=1", "measure.permutations: 1", "2 or more"),
    ("training.epochs=-1", "training.epochs: -1", "0 or more"),
    ("training.batch_size=0", "training.batch_size: 0", "1 or more"),
    ("training.learning_rate=0", "training.learning_rate: 0.0", "more than 0"),
    ("training.learning_rate=inf", "training.learning_rate: inf", "finite"),
    ("grid.hidden_size=[4,0]", "grid.hidden_size: 0", "1 or more"),
    ("grid.hidden_size=[]", "grid.hidden_size: empty", "one value or more"),
    ("sweep=half", "sweep: 'half'", "cross, full"),
    ("shard.count=0", "shard.count: 0", "1 or more"),
    ("shard.index=-1", "shard.index: -1", "0 or more"),
    ("shard.index=1", "shard.index: 1", "0"),
    ("dataset.train_size=0", "dataset.train_size: 0", "1 or more"),
    ("dataset.train_size=1438", "dataset.train_size=1438", "1437", "digits"),
    ("device=gpu", "device: 'gpu'", "auto, cpu, cuda, cuda:N or mps"),
    ("device=", "device: ''", "auto, cpu, cuda, cuda:N or mps"),
    ("device=cuda:99", "device: 'cuda:99'", "device=auto"),
    ("plot.formats=[]", "plot.formats: empty", "pdf, png, svg"),
    ("plot.formats=[bmp]", "plot.formats: 'bmp'", "pdf, png, svg"),
    ("plot.dpi=5", "plot.dpi: 5", "50 or more"),
    ("profile.objects=0", "profile.objects: 0", "1 or more"),
    ("family=nosuch.Class", "family", "'nosuch.Class'"),
    ("family=landscape_cli.store.Store", "family", "landscape_cli.store.Store"),
    ("name=../evil", "name: '../evil'", "a-z, 0-9 and _"),
    ("thesis=other", "thesis: 'other'", "figure N.N"),
    ("profile.name=paper", "profile.name", "profile=NAME"),
    ("debug=maybe", "debug", "'maybe'"),
    ("dataset=null", "dataset"),
    ("model=null", "model"),
    ("profile=null", "profile"),
    ("experiment=null", "experiment"),
    ("output_dir=${nosuch}", "output_dir", "nosuch"),
]

UNREADABLE = ["foo", "a=[1", "=3", "model..x=3"]


def _cases(table):
    return [pytest.param(row[0], row[1:], id=row[0]) for row in table]


@pytest.mark.parametrize(("override", "texts"), _cases([*UNKNOWN_KEYS, *UNKNOWN_NAMES, *WRONG_TYPES, *IMPOSSIBLE]))
def test_run_refuses_in_one_line(landscape, tmp_path, override, texts, small):
    landscape("run", *small, override).assert_refused(2, *texts)


@pytest.mark.parametrize("override", HYDRA_SETTINGS)
def test_settings_of_hydra_that_are_the_runners_are_refused(landscape, tmp_path, override, small):
    finished = landscape("run", *small, override)
    finished.assert_refused(2, override, "hydra/launcher, hydra/sweeper")


@pytest.mark.parametrize("word", UNREADABLE)
def test_words_that_are_no_override_are_named(landscape, tmp_path, word, small):
    landscape("run", *small, word).assert_refused(2, f"{word}: ", "key=value")


def test_shard_index_beyond_its_count(landscape, tmp_path, small):
    finished = landscape("run", *small, "shard.index=3", "shard.count=2")
    finished.assert_refused(2, "shard.index: 3", "1")


def test_several_values_without_multirun(landscape, tmp_path, small):
    landscape("run", *small, "seed=1,2").assert_refused(2, "seed=1,2", ("-m", "--multirun"))


def test_output_folder_below_a_file(landscape, tmp_path, small):
    (tmp_path / "file").write_text("mine")
    target = tmp_path / "file" / "outputs"
    finished = landscape("run", *small, f"output_dir={target}")
    finished.assert_refused(2, f"output_dir: {target}", "cannot be written")
    assert (tmp_path / "file").read_text() == "mine"


def test_output_folder_of_a_sweep_below_a_file(landscape, tmp_path, small):
    (tmp_path / "file").write_text("mine")
    finished = landscape("run", "-m", *small, "seed=0,1", f"output_dir={tmp_path / 'file' / 'x'}")
    finished.assert_refused(2, "output_dir", "cannot be written")


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_missing_data_names_files_places_and_remedies(landscape, tmp_path, name, isolated):
    finished = landscape("run", f"experiment=fc_{name}", "data.download=false")
    file = {"mnist": "train-images-idx3-ubyte", "cifar10": "data_batch_1"}[name]
    places = [str(isolated / "no-data"), str(isolated / "work" / "data"), str(isolated / "home/.cache/landscape")]
    remedies = [f"`landscape data fetch {name}`", "profile=embedded"]
    finished.assert_refused(3, file, *places, *remedies)


def test_unknown_name_of_a_data_set(landscape, tmp_path, small):
    finished = landscape("run", *small, "dataset.name=mnis")
    finished.assert_refused(3, "'mnis'", "images/mnis.npz", "did you mean 'mnist'", "digits")


def test_download_that_fails_says_what_is_missing(landscape, tmp_path):
    finished = landscape("run", "experiment=fc_mnist")
    assert finished.code == 3
    error = finished.lines[-1]
    assert error.startswith("landscape: data set 'mnist'")
    assert "download" in error
    assert "profile=embedded" in error
    assert "Traceback" not in finished.err


@pytest.mark.parametrize(
    "override", ["model.widht=3", "+seeed=1", "+hydra.foo=1", "model.hidden_size=0", "foo=[", "model=mpl"]
)
@pytest.mark.parametrize("command", ["show", "figures"])
def test_show_and_figures_refuse_what_run_refuses(landscape, tmp_path, command, override):
    finished = landscape(command, "quickstart", override)
    finished.assert_refused(2, override.lstrip("+").partition("=")[0])


@pytest.mark.parametrize(
    ("words", "texts"),
    [
        (["show", "quikstart"], ["'quikstart'", "did you mean 'quickstart'"]),
        (["figures", "quikstart"], ["'quikstart'", "did you mean 'quickstart'"]),
        (["data", "fetch", "nosuch"], ["'nosuch'", "digits, digits_32, mnist, fashion_mnist, cifar10, cifar100"]),
        (["data", "fetch", "minst"], ["'minst'", "did you mean 'mnist'"]),
        (["data", "nosuch"], ["nosuch", "fetch"]),
        (["data"], ["fetch"]),
        (["nosuch"], ["nosuch", "doctor"]),
        (["runn"], ["runn", "run"]),
        (["list", "more"], ["more"]),
        (["show"], ["NAME"]),
        (["figures", "--chapter", "9"], ["9", "1, 2, 3, 4"]),
        (["run", "--nosuch"], ["--nosuch"]),
    ],
    ids=" ".join,
)
def test_other_commands_refuse_in_one_line(landscape, tmp_path, words, texts):
    landscape(*words).assert_refused(2, *texts)


def test_missing_argument_is_named_alone(landscape):
    assert "key=value" not in landscape("show").lines[-1]


def test_debug_shows_the_traceback(landscape, small):
    finished = landscape("run", *small, "model.hidden_size=0", "--debug")
    assert finished.code == 2
    assert "Traceback" in finished.err
    assert "model.hidden_size: 0" in finished.lines[-1]


@pytest.mark.parametrize("override", ["hydra.verbose=false", "hydra/launcher=basic", "hydra/sweeper=basic"])
def test_allowed_settings_of_hydra_pass(landscape, override, small):
    assert landscape("run", *small, "--dry-run", override).code == 0


def test_load_gives_what_run_uses():
    config = load(["experiment=fc_mnist", "training.epochs=3", "model.bias=true"])
    assert (config.name, config.training.epochs, config.model.bias, config.seeds) == ("fc_mnist", 3, True, 5)
    assert config.dataset.train_size == 10000


def test_load_twice_keeps_nothing():
    assert load(["seeds=2"]).seeds == 2
    assert load([]).seeds == 5


def test_suggestions_are_not_repeated():
    with pytest.raises(BadInput) as refused:
        load(["datset=mnist"])
    suggestions = str(refused.value).partition("did you mean ")[2].rstrip("?").split(" or ")
    assert len(suggestions) == len(set(suggestions)), suggestions


def test_every_experiment_is_an_option():
    with pytest.raises(BadInput) as refused:
        load(["experiment=nosuch"])
    assert all(name in str(refused.value) for name in shipped())
