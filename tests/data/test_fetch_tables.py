"""Fetching tables, from a server on this machine."""

import hashlib
import io
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from landscape_cli.data import fetch_tables
from landscape_cli.data.fetch_tables import fetch_table
from landscape_cli.data.table_files import digest, read_delimited
from landscape_cli.data.tables import TABLE_SETS
from landscape_cli.data.tabular import load_table, locate_table
from landscape_cli.errors import BadInput, MissingData

TEXT = "x;G3\n1;2\n2;4\n3;5\n"


@pytest.fixture
def published(server, monkeypatch, tmp_path_factory):
    """Student, of three rows, in a zip archive; servo, of these three rows too, a file of pinned bytes."""
    path = tmp_path_factory.mktemp("values") / "x.csv"
    path.write_text(TEXT)
    values = digest(read_delimited(path, (), ("",), 2, False))
    tiny = {"rows": 3, "columns": 2, "complete": 3, "digest": values, "target": "G3", "encoding": None, "orders": {}}
    student, servo = TABLE_SETS["student"], TABLE_SETS["servo"]
    archived = replace(student.files[0], url=f"{server['url']}/student.zip")
    plain = replace(servo.files[0], url=f"{server['url']}/servo", sha256=hashlib.sha256(TEXT.encode()).hexdigest())
    monkeypatch.setitem(TABLE_SETS, "student", replace(student, files=(archived,), **tiny))
    monkeypatch.setitem(TABLE_SETS, "servo", replace(servo, files=(plain,), **tiny))
    server["/student.zip"], server["/servo"] = zipped(TEXT), TEXT.encode()
    return server


def zipped(text: str, name: str = "student-por.csv") -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr(name, text)
    return content.getvalue()


def files_below(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*"))


def refusal(name, root) -> str:
    with pytest.raises(MissingData) as raised:
        fetch_table(name, root, progress=False)
    assert "\n" not in str(raised.value)
    assert str(raised.value).startswith(f"download of '{name}' failed (")
    assert f"`landscape data fetch {name}`" in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize(("name", "file"), [("servo", "sample_size_paper/servo.csv"), ("student", "student-por.csv")])
def test_fetch_brings_the_table_and_only_the_table(published, tmp_path, name, file, capfd):
    root = tmp_path / "new" / "root"
    source = fetch_table(name, root, progress=False)
    assert source == locate_table({"name": name}, [root])
    np.testing.assert_array_equal(load_table(source).y, [2, 4, 5])
    place = root / "tabular" / file
    assert source.files == (place,)
    assert [path for path in root.rglob("*") if path.is_file()] == [place]
    assert capfd.readouterr().err == ""
    asked = len(published["asked"])
    fetch_table(name, root)
    assert len(published["asked"]) == asked == 1


def test_damaged_file_is_replaced(published, tmp_path):
    place = tmp_path / "tabular" / "student-por.csv"
    place.parent.mkdir()
    place.write_text("damaged")
    assert fetch_table("student", tmp_path, progress=False).files == (place,)


@pytest.mark.parametrize(
    ("path", "content", "says"),
    [
        ("/student.zip", zipped(TEXT.replace("4", "40")), "is damaged: digest"),
        ("/student.zip", zipped(TEXT, "other.csv"), "student-por.csv"),
        ("/student.zip", b"no archive", "not a zip file"),
        ("/student.zip", b"", "404"),
        ("/servo", TEXT.replace("4", "40").encode(), "hash"),
    ],
)
def test_failure_leaves_nothing_behind(published, tmp_path, path, content, says):
    published[path] = content
    assert says in refusal(path[1:].removesuffix(".zip"), tmp_path)
    assert files_below(tmp_path) == []


def test_server_that_stops_answering(published, tmp_path, monkeypatch):
    monkeypatch.setattr(fetch_tables, "TIMEOUT_SECONDS", 0.2)
    published["/servo"] = None
    assert "timed out" in refusal("servo", tmp_path)
    assert files_below(tmp_path) == []


def test_root_that_cannot_be_made(published, tmp_path):
    (tmp_path / "file").write_text("")
    refusal("servo", tmp_path / "file" / "root")


def test_what_needs_no_fetching(server, tmp_path):
    assert fetch_table("wine", tmp_path) == locate_table({"name": "wine"}, [])
    assert server["asked"] == []


def test_unknown_name(tmp_path):
    with pytest.raises(BadInput, match=r"known are boston, .*did you mean 'wine_quality'"):
        fetch_table("wine-quality", tmp_path)


def test_a_run_fetches_what_is_missing(published, isolated):
    from experiments.chapter1.schematic import SchematicLossChange as Schematic
    from landscape_cli.config import Config, TableConfig
    from landscape_cli.experiment import dataset_settings
    from landscape_cli.plan import _Finder

    config = Config("a", "b", "c", dataset=TableConfig("servo"))
    wanted = {"dataset": dataset_settings(config.dataset, "servo")}
    with pytest.raises(MissingData, match="not found"):
        _Finder(config, False, Schematic(config)).resolve(wanted)
    assert _Finder(config, True, Schematic(config)).resolve(wanted)["dataset"]["objects"] == 3
    assert list((isolated / "no-data").rglob("servo.csv"))
