"""What lies beside the points of a store: format, failures, durations; what is said when nothing can be written."""

import errno
import json

import pandas as pd
import pytest

from landscape_cli.errors import CannotWrite, OtherFormat
from landscape_cli.experiment import Measurement
from landscape_cli.store import FORMAT, Store, _canonical, _digest

MEASUREMENT = Measurement({"squares": pd.DataFrame({"y": [4]})})
DOCUMENT = {"settings": {}, "coordinates": {}, "version": 1, "provenance": {"seconds": 0.5}}


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "outputs")


def signed(document):
    own = {name: value for name, value in document.items() if name != "checksum"}
    return json.dumps({**own, "checksum": _digest(_canonical(own).encode())})


class TestFormat:
    def test_a_new_store_says_its_format(self, store):
        store.open()
        assert json.loads((store.root / "format.json").read_text())["format"] == FORMAT
        store.open()

    @pytest.mark.parametrize("text", ["", "{", "null", '{"format": 7, "landscape": "9.9"}'])
    def test_a_damaged_record_is_written_again(self, store, text):
        store.root.mkdir(parents=True)
        (store.root / "format.json").write_text(text)
        store.open()
        assert json.loads((store.root / "format.json").read_text())["format"] == FORMAT

    def test_another_versions_store_is_left_alone(self, store):
        store.root.mkdir(parents=True)
        text = signed({"format": 7, "landscape": "9.9"})
        (store.root / "format.json").write_text(text)
        with pytest.raises(OtherFormat, match=r"landscape 9\.9 in format 7.*another output_dir"):
            store.open()
        assert (store.root / "format.json").read_text() == text

    def test_another_versions_point_is_no_damage(self, store):
        store.write("Family", "key", MEASUREMENT, DOCUMENT)
        path = store.folder("Family", "key") / "point.json"
        path.write_text(signed({**json.loads(path.read_text()), "format": 7}))
        with pytest.raises(OtherFormat, match="format 7"):
            store.read("Family", "key")

    def test_a_command_says_so_in_one_line_and_changes_nothing(self, landscape, measured, small):
        before = {path: path.read_bytes() for path in measured.rglob("*") if path.is_file()}
        path = measured / "results" / "format.json"
        before[path] = signed({"format": 7, "landscape": "9.9"}).encode()
        path.write_bytes(before[path])
        finished = landscape("run", *small)
        assert finished.code == 2
        assert len(finished.lines) == 1
        assert "landscape 9.9" in finished.err
        assert {path: path.read_bytes() for path in measured.rglob("*") if path.is_file()} == before


class TestFailures:
    def test_one_is_kept_until_the_point_is_stored(self, store):
        store.write_failure("Family", "key", {"error": "ValueError: no"})
        store.write_failure("Family", "key", {"error": "ValueError: still no"})
        path = store.root / "Family" / ".failed" / "key.json"
        assert json.loads(path.read_text()) == {"error": "ValueError: still no"}
        store.checkpoints("Family", "key").mkdir(parents=True)
        store.forget("Family", "key")
        assert not any((store.root / "Family").iterdir())

    def test_others_stay(self, store):
        store.write_failure("Family", "other", {"error": "ValueError: no"})
        store.forget("Family", "key")
        assert (store.root / "Family" / ".failed" / "other.json").exists()


def test_durations(store):
    store.write("Family", "key", MEASUREMENT, DOCUMENT)
    assert store.seconds("Family", "key") == 0.5
    assert store.seconds("Family", "other") is None
    (store.folder("Family", "key") / "point.json").write_text("[]")
    assert store.seconds("Family", "key") is None


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EDQUOT])
def test_a_disk_that_takes_no_more_is_told_from_other_errors(store, monkeypatch, number):
    def full(handle):
        raise OSError(number, "no more")

    monkeypatch.setattr("landscape_cli.store.os.fsync", full)
    with pytest.raises(CannotWrite, match="no more"):
        store.write("Family", "key", MEASUREMENT, DOCUMENT)
    assert not any((store.root / "Family").iterdir())


def test_another_error_stays_what_it_is(store, monkeypatch):
    def broken(handle):
        raise OSError(errno.EIO, "bad disk")

    monkeypatch.setattr("landscape_cli.store.os.fsync", broken)
    with pytest.raises(OSError, match="bad disk"):
        store.write("Family", "key", MEASUREMENT, DOCUMENT)


class TestTidy:
    def test_what_a_kill_between_storing_and_forgetting_leaves(self, store):
        store.write("Family", "key", MEASUREMENT, DOCUMENT)
        store.write_failure("Family", "key", {"error": "before"})
        store.checkpoints("Family", "key").mkdir(parents=True)
        (store.root / "Family" / ".claims" / "key").mkdir(parents=True)
        store.tidy("Family")
        assert [path.name for path in (store.root / "Family").iterdir()] == ["key"]

    def test_what_belongs_to_a_point_that_is_measured_stays(self, store):
        """With its parameters this time: the stored point lacks them."""
        store.write("Family", "key", MEASUREMENT, DOCUMENT)
        store.checkpoints("Family", "key").mkdir(parents=True)
        claims = store.claims("Family")
        assert claims.take("key")
        store.tidy("Family")
        assert store.checkpoints("Family", "key").is_dir()
        assert claims.owner("key") is not None
        claims.close()

    def test_what_belongs_to_a_missing_point_stays(self, store):
        store.write_failure("Family", "key", {"error": "no"})
        store.checkpoints("Family", "key").mkdir(parents=True)
        store.tidy("Family")
        assert len(list((store.root / "Family").rglob("key*"))) == 2
