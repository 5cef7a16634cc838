"""Tables: what files parse to, what is used of them, and what is refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import zscore

from landscape_cli.data.table_files import digest, read_arff, read_delimited, read_sheet
from landscape_cli.data.tables import TABLE_SETS
from landscape_cli.data.tabular import load_table, locate_table
from landscape_cli.errors import BadInput, DamagedData, MissingData

TEXT = "a,kind,b,y\n1,red,0.1,3\n2,blue,0.2,5\n3,red,,7\n4,green,1e-1,9\n"


@pytest.fixture
def own(tmp_path):
    """Write a table and say what is wanted of it."""

    def write(content: str | bytes, **wanted) -> dict:
        path = tmp_path / "mine.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return {"name": "csv", "path": str(path), "target": "y", **wanted}

    return write


def refusal(wanted, error=BadInput, roots=()) -> str:
    with pytest.raises(error) as raised:
        locate_table(wanted, roots)
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.fixture
def tables(real_data) -> Path:
    """A data root with real tables, or a skip."""
    if not (real_data / "tabular").is_dir():
        pytest.skip(f"no real tables: {real_data} has no tabular/")
    return real_data


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    """A known table of three rows in the place of servo, written as asked below ``tmp_path``."""
    text = "motor,screw,gain,answer\nA,E,1.5,2\nC,B,2.25,3\nE,A,-1,4.5\n"
    path = tmp_path / "first"
    path.write_text(text)
    columns = read_delimited(path, (), ("",), 4, False)
    changed = replace(TABLE_SETS["servo"], rows=3, columns=4, complete=3, digest=digest(columns))
    monkeypatch.setitem(TABLE_SETS, "servo", changed)

    def write(content: str = text, below: str = "tabular", root: Path = tmp_path) -> Path:
        place = root / below / "sample_size_paper" / "servo.csv"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content.encode())
        return place

    write.text = text
    return write


class TestOwn:
    def test_rows_with_gaps_are_left_out_and_text_is_encoded(self, own):
        source = locate_table(own(TEXT, encoding="one_hot"), [])
        assert (source.train_objects, source.dropped, source.task, source.features) == (3, 1, "regression", 5)
        data = load_table(source)
        assert data.features == ("a", "kind=blue", "kind=green", "kind=red", "b")
        np.testing.assert_array_equal(data.X[:, 1:4], [[0, 0, 1], [1, 0, 0], [0, 1, 0]])
        np.testing.assert_array_equal(data.X[:, 4], [0.1, 0.2, 0.1])
        np.testing.assert_array_equal(data.y, [3, 5, 9])
        codes = load_table(locate_table(own(TEXT, encoding="ordinal"), [])).X[:, 1]
        np.testing.assert_array_equal(codes, [2, 0, 1])

    @pytest.mark.parametrize("marker", ["", "NA", "NaN", "nan", "N/A", "null", "?"])
    def test_missing_values(self, own, marker):
        assert locate_table(own(f"x,y\n1,2\n{marker},3\n5,4\n6,5\n"), []).dropped == 1

    @pytest.mark.parametrize(
        "change",
        [
            lambda text: text.replace("\n", "\r\n"),
            lambda text: text.replace(",", ";"),
            lambda text: text.replace(",", "\t"),
            lambda text: text.replace("red", '"red"').replace(",", " , "),
            lambda text: "\ufeff" + text + "\n\n",
        ],
    )
    def test_layout_makes_no_difference(self, own, change):
        before = locate_table(own(TEXT, encoding="ordinal"), [])
        after = locate_table(own(change(TEXT), encoding="ordinal"), [])
        assert after.checksum == before.checksum

    def test_checksum_is_of_the_used_columns(self, own):
        wanted = {"drop": ["kind"]}
        before = locate_table(own(TEXT, **wanted), [])
        assert locate_table(own(TEXT.replace("blue", "grey"), **wanted), []).checksum == before.checksum
        assert locate_table(own(TEXT.replace("0.2", "0.3"), **wanted), []).checksum != before.checksum

    def test_part_is_random_fixed_and_in_order(self, own):
        rows = "".join(f"{k},{2 * k}\n" for k in range(100))
        source = locate_table(own("x,y\n" + rows), [])
        some, again = load_table(source, 30), load_table(source, 30)
        np.testing.assert_array_equal(some.X, again.X)
        chosen = some.X[:, 0]
        assert len(chosen) == 30
        assert (np.diff(chosen) > 0).all()
        assert chosen.max() > 60
        np.testing.assert_array_equal(some.y, 2 * chosen)
        assert set(chosen) < set(load_table(source, 31).X[:, 0])

    def test_more_than_there_are(self, own):
        source = locate_table(own("x,y\n1,2\n2,3\n3,5\n"), [])
        with pytest.raises(BadInput, match=r"dataset\.train_size=4 is not possible: .* 3 complete rows"):
            load_table(source, 4)

    @pytest.mark.parametrize(
        ("target", "task", "classes", "y"),
        [
            (["-1", "2", "-1", "2"], "classification", ("-1", "2"), [0, 1, 0, 1]),
            (["no", "yes", "yes", "no"], "classification", ("no", "yes"), [0, 1, 1, 0]),
            (["1", "2", "3", "4.5"], "regression", (), [1, 2, 3, 4.5]),
        ],
    )
    def test_task_is_told_from_the_target(self, own, target, task, classes, y):
        data = load_table(locate_table(own("x,y\n" + "".join(f"{k},{v}\n" for k, v in enumerate(target))), []))
        assert (data.source.task, data.classes) == (task, classes)
        np.testing.assert_array_equal(data.y, y)

    def test_two_words_can_be_regressed_on(self, own):
        data = load_table(locate_table(own("x,y\n1,b\n2,a\n3,a\n", task="regression"), []))
        assert data.classes == ()
        np.testing.assert_array_equal(data.y, [1, 0, 0])

    def test_part_that_loses_a_class(self, own):
        source = locate_table(own("x,y\n" + "".join(f"{k},{int(k < 2)}\n" for k in range(50))), [])
        with pytest.raises(BadInput, match=r"have [01] of class '1'"):
            load_table(source, 5)

    def test_file_that_changes_between(self, own):
        source = locate_table(own("x,y\n1,2\n2,3\n3,5\n"), [])
        own("x,y\n1,2\n2,4\n3,5\n")
        with pytest.raises(DamagedData, match="has changed"):
            load_table(source)

    def test_path_is_read_from_the_current_folder(self, own, tmp_path, monkeypatch):
        own("x,y\n1,2\n2,3\n3,5\n")
        monkeypatch.chdir(tmp_path)
        source = locate_table({"name": "csv", "path": "mine.csv", "target": "y"}, [])
        assert source.place == str(tmp_path / "mine.csv")


@pytest.mark.parametrize(
    ("content", "wanted", "texts"),
    [
        (TEXT, {}, ["dataset.encoding", "'kind'", "'red'", "one_hot", "ordinal", "dataset.drop=[kind]"]),
        (TEXT, {"target": "Y", "drop": ["kind"]}, ["dataset.target: 'Y'", "columns: a, kind, b, y"]),
        (TEXT, {"target": "kidn"}, ["did you mean 'kind'"]),
        (TEXT, {"target": None}, ["dataset.target: null", "a, kind, b, y"]),
        (TEXT, {"drop": ["kidn"]}, ["dataset.drop: 'kidn'", "did you mean 'kind'"]),
        (TEXT, {"drop": ["y"]}, ["dataset.drop: 'y' is the target"]),
        (TEXT, {"drop": ["a", "b", "kind"]}, ["nothing is left"]),
        (TEXT, {"target": "kind", "task": "regression"}, ["dataset.task: regression", "'kind'", "classification"]),
        ("x,y\n1,a\n2,b\n3,b\n", {}, ["class 'a'", "1 object"]),
        ("x,y\n1,a\n2,a\n", {}, ["one class only, 'a'"]),
        ("x,y\n1,2\n3,inf\n", {"target": "x"}, ["'y'", "'inf'"]),
        ("x,y\n1,1e999\n3,2\n", {}, ["'y'", "too large"]),
        ("1,2\n3,4\n", {}, ["the first line must name the columns"]),
        ("x,x,y\n1,2,3\n", {}, ["two columns have the name 'x'"]),
        ("x,,y\n1,2,3\n", {}, ["column 2 has no name"]),
        ("y\n1\n2\n", {}, ["one column only", "comma or semicolon or tab"]),
        ("", {}, ["it is empty"]),
        ("\n\n", {}, ["it is empty"]),
        ("x,y\n", {}, ["no rows"]),
        ("x,y\n1,2\n3\n", {}, ["line 3 has 1 cells, and there are 2 columns"]),
        ("x,y\n1,2\n\n3,4,5\n", {}, ["line 4 has 3 cells"]),
        (b"x,y\n1,\xff\xfe\n", {}, ["not text in UTF-8"]),
        (b"x,y\n1,\0\n", {}, ["not text"]),
        ("x,z,y\n1,,3\n2,NA,4\n", {}, ["every row has a missing value", "'z'", "dataset.drop=[z]"]),
    ],
)
def test_bad_tables_are_refused(own, content, wanted, texts):
    message = refusal(own(content, **wanted))
    for text in texts:
        assert text in message, message


def test_names_and_paths_that_do_not_fit(own, tmp_path):
    assert "dataset.path: null" in refusal({"name": "csv"})
    assert "did you mean 'boston'" in refusal({"name": "bostn"})
    assert "has its own file" in refusal({"name": "boston", "path": "x.csv"})
    gone = refusal({"name": "csv", "path": str(tmp_path / "gone.csv"), "target": "y"}, MissingData)
    assert str(tmp_path / "gone.csv") in gone
    assert "cannot be read" in refusal({"name": "csv", "path": str(tmp_path), "target": "y"})


class TestKnown:
    @pytest.mark.parametrize("below", ["tabular", "."])
    def test_is_found_and_encoded_in_order(self, tiny, tmp_path, below):
        place = tiny(below=below)
        source = locate_table({"name": "servo"}, [tmp_path / "nothing", tmp_path])
        assert (source.files, source.place, source.encoding) == ((place,), str(place), "ordinal")
        np.testing.assert_array_equal(load_table(source).X, [[0, 4, 1.5], [2, 1, 2.25], [4, 0, -1]])

    def test_other_bytes_of_the_same_values(self, tiny, tmp_path):
        checksum = TABLE_SETS["servo"].digest
        for text in (
            tiny.text.replace("\n", "\r\n"),
            tiny.text.replace(",", ";"),
            tiny.text.replace("A", '"A"').replace("2.25", "2.250"),
        ):
            tiny(text)
            assert locate_table({"name": "servo"}, [tmp_path]).checksum == checksum

    @pytest.mark.parametrize(
        ("old", "new", "says"),
        [
            ("2.25", "2.26", "digest of its values"),
            ("E,A,-1,4.5\n", "", "3 rows and 4 columns expected, 2 rows and 4 columns found"),
            ("gain,", "", "columns"),
            ("C,B", "C", "line 3 has 3 cells"),
            ("motor", "engine", "digest"),
        ],
    )
    def test_other_values_are_damage(self, tiny, tmp_path, old, new, says):
        place = tiny(tiny.text.replace(old, new))
        message = refusal({"name": "servo"}, DamagedData, [tmp_path])
        assert f"{place} is damaged: " in message
        assert says in message
        assert "landscape data fetch servo" in message

    def test_sound_copy_comes_before_a_damaged_one(self, tiny, tmp_path):
        tiny(tiny.text.replace("2.25", "9"), root=tmp_path / "first root")
        sound = tiny(root=tmp_path / "second")
        found = locate_table({"name": "servo"}, [tmp_path / "first root", tmp_path / "second"])
        assert found.files == (sound,)

    def test_missing_one_says_what_to_do(self, tmp_path):
        message = refusal({"name": "energy"}, MissingData, [tmp_path])
        assert message.startswith(
            "data set 'energy' (Energy Efficiency) not found: looked for tabular/ENB2012_data.csv"
        )
        assert "`landscape data fetch energy`" in message

    def test_half_of_two_files(self, tmp_path):
        (tmp_path / "tabular").mkdir()
        (tmp_path / "tabular" / "winequality-red.csv").write_text("x;y\n")
        assert "winequality-white.csv is missing" in refusal({"name": "wine_quality"}, MissingData, [tmp_path])

    @pytest.mark.parametrize("name", [name for name, known in TABLE_SETS.items() if not known.files])
    def test_what_needs_no_file(self, name):
        known = TABLE_SETS[name]
        data = load_table(locate_table({"name": name}, []))
        assert data.X.shape == (known.complete, known.columns - 1)
        assert data.source.checksum == known.digest
        assert known.stand_in == name

    def test_stand_ins_need_no_file(self):
        for known in TABLE_SETS.values():
            other = TABLE_SETS[known.stand_in]
            assert not other.files
            assert other.task == known.task


def test_workbook_gives_the_numbers_of_its_export(tmp_path):
    import openpyxl

    book = openpyxl.Workbook()
    for row in [["a", "b", None], [0.1, 3, None], [None, -2.5e-7, None], [None, None, None]]:
        book.active.append(row)
    book.save(tmp_path / "x.xlsx")
    (tmp_path / "x.csv").write_text("a,b\n0.1,3.0\n,-2.5e-07\n")
    assert digest(read_sheet(tmp_path / "x.xlsx", ("",))) == digest(
        read_delimited(tmp_path / "x.csv", (), ("",), 2, False)
    )


def test_arff(tmp_path):
    path = tmp_path / "x.arff"
    path.write_bytes(
        b"% about\r\n@relation x\r\n@attribute a numeric\r\n@ATTRIBUTE 'b c' {u, v}\r\n@data\r\n1,u\r\n?,v\r\n"
    )
    columns = read_arff(path, ("", "?"))
    assert list(columns) == ["a", "b c"]
    np.testing.assert_array_equal(columns["a"], [1, np.nan])
    assert columns["b c"].tolist() == ["u", "v"]


class TestReal:
    @pytest.mark.parametrize("name", TABLE_SETS)
    def test_every_known_table_is_what_was_pinned(self, name, tables):
        known = TABLE_SETS[name]
        source = locate_table({"name": name}, [tables])
        assert (source.train_objects, source.dropped) == (known.complete, known.rows - known.complete)
        assert (source.task, source.target) == (known.task, known.target)
        data = load_table(source)
        assert data.X.shape == (known.complete, known.columns - 1 - len(known.drop))
        assert np.isfinite(data.X).all()

    def test_boston_is_that_of_statlib_but_for_one_cell(self, tables):
        data = load_table(locate_table({"name": "boston"}, [tables]))
        theirs = np.loadtxt(tables / "tabular" / "housing.data")
        ours = np.column_stack([data.X, data.y])
        assert np.argwhere(ours != theirs).tolist() == [[445, 0]]
        assert (ours[445, 0], theirs[445, 0]) == (0.6718, 10.6718)
        ours[445, 0] = 10.6718
        np.testing.assert_array_equal(zscore(ours), zscore(theirs))

    def test_orders(self, tables):
        fires = load_table(locate_table({"name": "forest_fires"}, [tables]))
        month, day = (fires.X[:, fires.features.index(name)] for name in ("month", "day"))
        np.testing.assert_array_equal(month[:4], [2, 9, 9, 2])  # mar, oct, oct, mar
        np.testing.assert_array_equal(day[:4], [4, 1, 5, 4])  # fri, tue, sat, fri
        servo = load_table(locate_table({"name": "servo"}, [tables]))
        np.testing.assert_array_equal(servo.X[:2, :2], [[4, 4], [1, 3]])  # E, E; B, D

    def test_nba_without_its_gaps(self, tables):
        data = load_table(locate_table({"name": "nba"}, [tables]))
        assert data.X.shape == (1329, 19)
        assert (data.classes, data.source.dropped) == (("0", "1"), 11)

    def test_abalone_one_hot(self, tables):
        data = load_table(locate_table({"name": "abalone", "encoding": "one_hot"}, [tables]))
        assert data.features[:4] == ("sex=M", "sex=F", "sex=I", "length")
        np.testing.assert_array_equal(data.X[:, :3].sum(axis=1), 1)

    def test_targets_of_the_energy_table_change_places(self, tables):
        source = locate_table({"name": "energy", "target": "Y2"}, [tables])
        assert (source.target, source.drop, source.features) == ("Y2", ("Y1",), 8)

    @pytest.mark.parametrize("name", ["energy", "real_estate"])
    def test_workbook_alone_will_do(self, name, tables, tmp_path):
        (file,) = TABLE_SETS[name].files
        (tmp_path / file.name).write_bytes((tables / "tabular" / file.name).read_bytes())
        source = locate_table({"name": name}, [tmp_path])
        assert source.files == (tmp_path / file.name,)
        whole = locate_table({"name": name}, [tables])
        np.testing.assert_array_equal(load_table(source).X, load_table(whole).X)
