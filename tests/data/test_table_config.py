"""Tables in configurations: which data sets an experiment takes, stand-ins, settings, keys, small print."""

import json
from pathlib import Path

import pandas as pd
import pytest

from landscape_cli.composing import load
from landscape_cli.data.tables import TABLE_SETS
from landscape_cli.draw import describe, gather
from landscape_cli.errors import BadInput, MissingData
from landscape_cli.experiment import Experiment, Measurement, Point
from landscape_cli.plan import make_plan
from landscape_cli.runner import run
from landscape_cli.validation import load_class

ROWS = "size,kind,price\n" + "".join(f"{k},{'ab'[k % 2]},{3 * k}\n" for k in range(40)) + "41,a,\n"


class Takes(Experiment):
    """Counts what a table holds."""

    uses = frozenset({"dataset"})
    data = "table"

    def points(self):
        names = self.config.grid.get("dataset", [self.config.dataset.name])
        return [Point.of({"dataset": name}, self.settings(dataset=name)) for name in names]

    def measure(self, point, context):
        data = context.table()
        assert context.table() is data
        assert data.source is context.source
        return Measurement({"sizes": pd.DataFrame({"objects": [len(data.y)], "features": [data.X.shape[1]]})})

    def figures(self, results):
        return ()


BARE = ("experiment=schematic_loss_change", "name=takes", "family=test_table_config.Takes", "data.download=false")


@pytest.fixture
def mine(isolated) -> Path:
    path = isolated / "work" / "mine.csv"
    path.write_text(ROWS)
    return path


OWN = ("dataset=csv", "dataset.path=mine.csv", "dataset.target=price", "dataset.encoding=ordinal")


def configured(*overrides):
    return load([*BARE, *overrides])


def keys(*overrides) -> list[str]:
    return [item.key for item in make_plan(configured(*overrides)).located]


def refusal(*overrides) -> str:
    with pytest.raises(BadInput) as raised:
        configured(*overrides)
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize("name", TABLE_SETS)
def test_every_table_can_be_chosen(name):
    config = configured(f"dataset={name}")
    assert (config.dataset.kind, config.dataset.name) == ("table", name)


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["dataset=mnist"], "dataset: 'mnist' is a set of images; takes takes tables, for example dataset=boston"),
        (["dataset=mnist", "dataset.name=boston"], "dataset.kind: 'images'"),
        (["dataset=boston", "dataset.name=mnist"], "dataset: 'mnist' is a set of images"),
        (["dataset=boston", "dataset.name=bostn"], "dataset.name: 'bostn' is no table; did you mean 'boston'?"),
        (["dataset=boston", "+grid.dataset=[boston,mnist]"], "grid.dataset: 'mnist' is a set of images"),
        (["dataset=boston", "+grid.dataset=[boston,nbaa]"], "grid.dataset: 'nbaa' is no table; did you mean 'nba'?"),
        (["dataset=csv"], "dataset.path: null; allowed: "),
        (["dataset=boston", "dataset.path=x.csv"], "dataset.path: 'x.csv' with the table 'boston'"),
        (["dataset=boston", "dataset.train_siz=5"], "did you mean 'dataset.train_size'"),
        (["dataset=boston", "+dataset.normalisation=standard"], "unknown key 'dataset.normalisation'"),
        (["dataset=boston", "dataset.encoding=hot"], "dataset.encoding: 'hot'; allowed: ordinal, one_hot"),
        (["dataset=boston", "dataset.task=rank"], "dataset.task: 'rank'; allowed: auto, regression, classification"),
        (["dataset=boston", "dataset.train_size=0"], "dataset.train_size: 0; allowed: 1 or more"),
        (["dataset=boston", "dataset.drop=crim"], "dataset.drop"),
        (
            ["dataset=boston", "dataset.target=crim", "+grid.dataset=[nba,servo]"],
            "dataset.target: 'crim' is for 'boston'",
        ),
        (["dataset=boston", "dataset.kind=tables"], "dataset.kind: 'tables'; allowed: images, table"),
        (["dataset=boston", "dataset.kind=images"], "dataset.kind: 'images'"),
        (
            ["dataset=boston", "+by_dataset.nba.dataset.path=x"],
            "by_dataset.nba.dataset.path: allowed here: train_size, target, drop, encoding, task",
        ),
        ([], "dataset: the experiment 'takes' needs one"),
    ],
)
def test_refused(overrides, says):
    assert says in refusal(*overrides)


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["dataset=boston"], "dataset: 'boston' is a table; fc_mnist takes images, for example dataset=mnist"),
        (["dataset=csv", "dataset.path=x.csv"], "dataset: 'csv' is a table; fc_mnist takes images"),
        (["dataset.name=boston"], "dataset: 'boston' is a table; fc_mnist takes images"),
        (["+grid.dataset=[mnist,boston]"], "grid.dataset: 'boston' is a table"),
        (["+dataset.train_siz=5"], "dataset.train_size"),
    ],
)
def test_refused_where_images_are_taken(overrides, says):
    with pytest.raises(BadInput) as raised:
        load(["experiment=fc_mnist", *overrides])
    assert says in str(raised.value)


def test_settings_of_a_table_and_of_images():
    config = configured("dataset=boston", "dataset.target=crim", "+grid.dataset=[boston,nba]", "profile=quick")
    boston, nba = (point.settings["dataset"] for point in load_class(config.family)(config).points())
    rest = {"path": None, "drop": None, "encoding": None, "task": "auto", "train_size": None, "max_size": 1000}
    assert boston == {"name": "boston", "target": "crim", **rest}
    assert nba == {"name": "nba", "target": None, **rest}
    (first, *_) = load_class("experiments.chapter1.fully_connected.FullyConnected")(
        load(["experiment=fc_mnist"])
    ).points()
    assert first.settings["dataset"].keys() == {"name", "train_size", "max_size", "normalisation"}


def test_keys_of_points_of_images_are_as_they_were():
    """Results stored before there were tables are found."""
    plan = make_plan(load(["experiment=fc_mnist", "profile=smoke", "data.download=false"]))
    assert [item.key for item in plan.located] == [
        "3cd4a966bd314d539260b88754db6c26",
        "29c3dd9dfed90dcef7dd5ed5a0e81db5",
        "04da34e5735f7204a32662a5ed58d5bc",
        "8ea8ae2467a66139db2c9bf4e8df1298",
    ]


def test_asking_for_the_default_gives_the_same_key():
    plain = keys("dataset=wine")
    assert len(plain) == 1
    for same in ("dataset.target=target", "dataset.task=classification", "dataset.encoding=one_hot", "dataset.drop=[]"):
        assert keys("dataset=wine", same) == plain
    for other in ("dataset.target=alcohol", "dataset.task=regression", "dataset.drop=[ash]", "dataset.train_size=100"):
        assert keys("dataset=wine", other) != plain


def test_key_does_not_hold_the_path_but_the_values(mine):
    before = keys(*OWN)
    (mine.parent / "elsewhere.txt").write_text(ROWS.replace(",", ";"))
    assert keys(*OWN, "dataset.path=elsewhere.txt") == before
    mine.write_text(ROWS.replace("7,b", "7.5,b"))
    assert keys(*OWN) != before


class TestEmbedded:
    def test_each_of_a_grid_is_replaced_by_its_own(self):
        config = configured("dataset=boston", "profile=embedded")
        assert (config.dataset.name, config.dataset.in_place_of) == ("boston", [])  # asked for, and so never swapped
        config = self.swapped("boston", ["boston", "servo", "nba", "wine", "bone_marrow"])
        assert config.grid["dataset"] == ["sklearn_diabetes", "breast_cancer", "wine"]
        assert config.dataset.in_place_of == ["boston", "servo", "nba", "bone_marrow"]
        assert config.dataset.name == "sklearn_diabetes"

    def test_what_was_said_of_the_one_does_not_hold_for_the_other(self):
        config = self.swapped("energy", None, target="Y2", drop=["X1"], train_size=700)
        node = config.dataset
        assert (node.name, node.in_place_of, node.target, node.drop) == ("sklearn_diabetes", ["energy"], None, None)
        assert (node.train_size, node.max_size) == (None, 700)

    def test_a_table_that_needs_no_file_stays(self):
        config = self.swapped("wine", None, drop=["ash"])
        assert (config.dataset.name, config.dataset.in_place_of, config.dataset.drop) == ("wine", [], ["ash"])

    def test_own_stand_in(self):
        assert self.swapped("nba", ["nba", "boston"], embedded="wine").grid["dataset"] == ["wine"]

    @staticmethod
    def swapped(name, grid, **node):
        """As an experiment's own file would have it, with nothing given on the command line."""
        from omegaconf import OmegaConf

        from landscape_cli.composing import compose
        from landscape_cli.validation import prepare

        changes = {"dataset": node, **({"grid": {"dataset": grid}} if grid else {})}
        composed = compose([*BARE, f"dataset={name}", "profile=embedded"])
        OmegaConf.set_struct(composed, False)
        return prepare(OmegaConf.merge(composed, changes), [])


class TestRun:
    def note(self, *overrides) -> str:
        config = configured(*overrides)
        assert run(config, []) == 0
        plan = make_plan(config)
        stored = {item.key: plan.store.read(plan.family, item.key) for item in plan.located}
        results = gather(plan, stored)
        note = describe(plan, results)
        assert "train objects" not in note
        self.frame = results.frames["sizes"]
        return note

    def test_several_tables(self, capsys):
        note = self.note("dataset=wine", "+grid.dataset=[wine,synthetic_regression]", "dataset.train_size=120")
        assert "Wine, a random 120 of 178 objects; Synthetic regression, a random 120 of 1000 objects" in note
        assert self.frame.to_numpy().tolist() == [["wine", 120, 13], ["synthetic_regression", 120, 20]]

    def test_own_table_is_named_by_its_file(self, mine, capsys):
        note = self.note(*OWN)
        assert "mine.csv, all 40 objects, 1 row with missing values left out" in note
        assert self.frame.to_numpy().tolist() == [["csv", 40, 2]]

    def test_profile_caps_the_objects(self, capsys):
        assert "a random 120 of 178 objects" in self.note("dataset=wine", "profile=smoke")

    def test_a_size_for_one_of_them(self, capsys):
        self.note("dataset=wine", "+grid.dataset=[wine,breast_cancer]", "+by_dataset.wine.dataset.train_size=50")
        assert self.frame["objects"].tolist() == [50, 569]

    def test_missing_file_and_too_many_objects(self, landscape):
        gone = landscape("run", *BARE, "dataset=csv", "dataset.path=gone.csv", "dataset.target=y")
        gone.assert_refused(3, "gone.csv", "there is no such file")
        many = landscape("run", *BARE, "dataset=wine", "dataset.train_size=179")
        many.assert_refused(2, "dataset.train_size=179", "178 complete rows")
        away = landscape("run", *BARE, "dataset=boston")
        away.assert_refused(3, "data set 'boston' (Boston Housing) not found")

    def test_drawing_from_stored_results_where_the_data_is_gone(self, tmp_path, isolated, monkeypatch, capsys):
        """The key is found by what was asked, and told from that of other questions."""
        import landscape_cli.plan as planning

        asked = ("dataset=wine", "dataset.drop=[ash]")
        assert run(configured(*asked), []) == 0
        (measured,) = make_plan(configured(*asked)).located

        def gone(wanted, roots):
            raise MissingData("gone")

        monkeypatch.setattr(planning, "locate_table", gone)
        (found,) = make_plan(configured(*asked), from_store=True).located
        assert found.key == measured.key
        assert make_plan(configured(*asked, "dataset.task=classification"), from_store=True).located[0].key == found.key
        for other in ("dataset.drop=[]", "dataset.target=alcohol", "dataset.train_size=100", "dataset.task=regression"):
            assert make_plan(configured(*asked, other), from_store=True).located == ()
        assert make_plan(configured(*asked)).located == ()

    def test_configuration_of_a_run_is_kept(self, tmp_path, capsys):
        assert run(configured("dataset=wine"), []) == 0
        (path,) = (tmp_path / "outputs" / "runs").glob("*/config.yaml")
        assert "kind: table" in path.read_text()
        (document,) = (tmp_path / "outputs" / "results").glob("*/*/point.json")
        stored = json.loads(document.read_text())["settings"]["dataset"]
        assert stored.keys() == {"name", "objects", "checksum", "target", "drop", "encoding", "task"}


class TestData:
    def test_tables_are_listed(self, landscape):
        finished = landscape("data", "list", "wine", "boston")
        assert finished.code == 3
        assert "178 objects, 13 features, classification, 3 classes" in finished.out
        assert "ships with scikit-learn" in finished.out
        assert "data set 'boston' (Boston Housing) not found" in finished.err

    @pytest.mark.parametrize("action", ["fetch", "verify", "where"])
    def test_what_needs_no_file(self, landscape, action):
        finished = landscape("data", action, "synthetic_classification")
        assert (finished.code, finished.err) == (0, "")
        assert "1000 objects, 20 features, classification, 2 classes" in finished.out
