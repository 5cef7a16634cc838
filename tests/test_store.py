"""The store: what it keeps, its keys, and that a point is whole or absent under kills, races and damage."""

import contextlib
import json
import os
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from landscape_cli.claims import draft_name
from landscape_cli.composing import load
from landscape_cli.errors import DamagedPoint
from landscape_cli.experiment import Measurement
from landscape_cli.plan import make_plan
from landscape_cli.store import Store, key_of

DOCUMENT = {"settings": {"a": 1}, "coordinates": {"x": "é"}, "version": 1, "provenance": {"seconds": 0.5}}


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "outputs")


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


def measurement(value=0.0, parameters=None):
    frame = pd.DataFrame({"k": np.arange(1, 4), "loss": [value, 0.1 + 0.2, 1e-300], "name": ["a", "ü", None]})
    frame.attrs["units"] = {"k": "objects", "loss": "nats"}
    other = pd.DataFrame({"dead": [True, False], "mean": np.array([1.5, np.nan], dtype=np.float32)})
    arrays = {"spectrum": np.arange(6.0).reshape(2, 3)}
    return Measurement({"curves": frame, "networks": other}, arrays, parameters or {})


def keys(overrides):
    return [item.key for item in make_plan(load(overrides)).located]


class TestRoundTrip:
    def test_frames_arrays_and_document_come_back(self, store):
        written = measurement()
        store.write("Family", "key", written, DOCUMENT)
        read = store.read("Family", "key")
        assert read.frames.keys() == {"curves", "networks"}
        for name, frame in written.frames.items():
            pd.testing.assert_frame_equal(read.frames[name], frame, check_exact=True)
        np.testing.assert_array_equal(read.arrays["spectrum"], written.arrays["spectrum"])
        assert DOCUMENT.items() <= read.document.items()
        assert (read.document["family"], read.document["key"]) == ("Family", "key")

    def test_nothing_but_the_point_is_left(self, store):
        store.write("Family", "key", measurement(), DOCUMENT)
        assert [path.name for path in (store.root / "Family").iterdir()] == ["key"]
        names = {path.name for path in store.folder("Family", "key").iterdir()}
        assert names == {"point.json", "curves.parquet", "networks.parquet", "spectrum.npy"}

    def test_units_are_in_the_schema(self, store):
        """A reader that is not pandas finds them: on the fields, or as JSON in the schema's own metadata."""
        store.write("Family", "key", measurement(), DOCUMENT)
        schema = pq.read_schema(store.folder("Family", "key") / "curves.parquet")
        texts = [value.decode() for key, value in (schema.metadata or {}).items() if key != b"ARROW:schema"]
        found = {field.name: field.metadata[b"units"].decode() for field in schema if field.metadata}
        for text in texts:
            found |= _units(json.loads(text)) if text.startswith("{") else {}
        assert found == {"k": "objects", "loss": "nats"}

    def test_units_come_back(self, store):
        store.write("Family", "key", measurement(), DOCUMENT)
        assert store.read("Family", "key").frames["curves"].attrs["units"] == {"k": "objects", "loss": "nats"}

    def test_parameters_are_safetensors(self, store, torch):
        from safetensors.torch import load_file

        weights = torch.arange(12.0).reshape(3, 4).T  # not contiguous
        store.write("Family", "key", measurement(parameters={"layers.0": weights}), DOCUMENT)
        read = load_file(store.folder("Family", "key") / "parameters.safetensors")
        assert read.keys() == {"layers.0"}
        assert torch.equal(read["layers.0"], weights)
        assert store.has("Family", "key", parameters=True)

    def test_has(self, store):
        assert not store.has("Family", "key")
        store.write("Family", "key", measurement(), DOCUMENT)
        assert store.has("Family", "key")
        assert not store.has("Family", "key", parameters=True)
        assert not store.has("Other", "key")

    def test_first_writer_wins(self, store):
        store.write("Family", "key", measurement(1.0), DOCUMENT)
        store.write("Family", "key", measurement(2.0), DOCUMENT)
        assert store.read("Family", "key").frames["curves"]["loss"][0] == 1.0

    def test_parameters_supersede_a_point_without_them(self, store, torch):
        store.write("Family", "key", measurement(1.0), DOCUMENT)
        store.write("Family", "key", measurement(1.0, {"w": torch.ones(2)}), DOCUMENT)
        assert store.has("Family", "key", parameters=True)
        store.write("Family", "key", measurement(1.0), DOCUMENT)
        assert store.has("Family", "key", parameters=True)

    def test_a_failed_write_leaves_nothing(self, store):
        broken = Measurement({"curves": pd.DataFrame({"x": [1]}), "bad": pd.DataFrame({"x": [object()]})})
        with pytest.raises(Exception, match="object"):
            store.write("Family", "key", broken, DOCUMENT)
        assert not store.root.exists()

    def test_discard(self, store):
        store.write("Family", "key", measurement(), DOCUMENT)
        store.discard("Family", "key")
        store.discard("Family", "key")
        assert list((store.root / "Family").iterdir()) == []

    @pytest.mark.parametrize("damage", ["{", "[]", "null", "{}", "\x00", '{"settings": null}'])
    def test_documents_pass_over_what_cannot_be_read(self, store, damage):
        for key in ("a", "b", "c"):
            store.write("Family", key, measurement(), DOCUMENT)
        (store.folder("Family", "b") / "point.json").write_text(damage)
        assert [document["key"] for document in store.documents("Family")] == ["a", "c"]
        assert list(store.documents("Other")) == []


def _units(node):
    if isinstance(node, dict):
        if "units" in node:
            return node["units"]
        for value in node.values():
            if found := _units(value):
                return found
    return {}


class TestDamage:
    @pytest.fixture(
        params=["point.json", "curves.parquet", "networks.parquet", "spectrum.npy", "parameters.safetensors"]
    )
    def file(self, request, store, torch):
        store.write("Family", "key", measurement(parameters={"w": torch.ones(5)}), DOCUMENT)
        return store.folder("Family", "key") / request.param

    @pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
    def test_truncated(self, store, file, share):
        content = file.read_bytes()
        file.write_bytes(content[: int(len(content) * share)])
        with pytest.raises(DamagedPoint, match="key"):
            store.read("Family", "key")

    @pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7, 0.9])
    def test_flipped_byte(self, store, file, share):
        content = bytearray(file.read_bytes())
        content[int(len(content) * share)] ^= 1
        file.write_bytes(content)
        with pytest.raises(DamagedPoint, match="key"):
            store.read("Family", "key")

    def test_deleted(self, store, file):
        file.unlink()
        with pytest.raises(DamagedPoint, match="key"):
            store.read("Family", "key")

    def test_replaced_by_a_folder(self, store, file):
        file.unlink()
        file.mkdir()
        with pytest.raises(DamagedPoint, match="key"):
            store.read("Family", "key")

    def test_a_file_too_many(self, store):
        """A frame that was put there later is none of the point's."""
        store.write("Family", "key", measurement(), DOCUMENT)
        folder = store.folder("Family", "key")
        (folder / "more.parquet").write_bytes((folder / "curves.parquet").read_bytes())
        with contextlib.suppress(DamagedPoint):
            assert store.read("Family", "key").frames.keys() == {"curves", "networks"}

    @pytest.mark.parametrize(
        "edit",
        [
            lambda d: d["settings"].update(a=2),
            lambda d: d["provenance"].update(device="cuda"),
            lambda d: d["files"].pop("curves.parquet"),
            lambda d: d.pop("checksum"),
            lambda d: d.pop("files"),
            lambda d: d.clear(),
            lambda d: d.update(files=[]),
        ],
    )
    def test_edited_document(self, store, edit):
        store.write("Family", "key", measurement(), DOCUMENT)
        path = store.folder("Family", "key") / "point.json"
        document = json.loads(path.read_text())
        edit(document)
        path.write_text(json.dumps(document))
        with pytest.raises(DamagedPoint):
            store.read("Family", "key")

    @pytest.mark.parametrize("text", ["[]", "null", "3", '"x"', "", "\x00", "{}"])
    def test_document_of_another_shape(self, store, text):
        store.write("Family", "key", measurement(), DOCUMENT)
        (store.folder("Family", "key") / "point.json").write_text(text)
        with pytest.raises(DamagedPoint):
            store.read("Family", "key")

    def test_a_point_moved_to_another_key_is_not_that_point(self, store):
        store.write("Family", "key", measurement(), DOCUMENT)
        store.folder("Family", "key").rename(store.folder("Family", "other"))
        with pytest.raises(DamagedPoint):
            store.read("Family", "other")

    def test_a_write_mends(self, store, file):
        file.write_bytes(file.read_bytes()[:-1])
        store.write("Family", "key", measurement(7.0), DOCUMENT)
        assert store.read("Family", "key").frames["curves"]["loss"][0] == 7.0


class TestKey:
    BASE = ("grid.hidden_size=[8]", "grid.num_layers=[2]", "model.hidden_size=8", "model.num_layers=2")  # one point

    @pytest.mark.parametrize(
        "override",
        [
            "dataset.train_size=100",
            "dataset.max_size=100",
            "model.bias=true",
            "model.hidden_size=9 grid.hidden_size=[9]",
            "training.epochs=3",
            "training.batch_size=32",
            "training.learning_rate=0.002",
            "measure.permutations=99",
            "measure.smoothing=0.5",
            "seeds=4",
            "seed=1",
        ],
    )
    def test_changes_with(self, override):
        (before,) = keys(self.BASE)
        (after,) = keys([*self.BASE, *override.split()])
        assert before != after

    @pytest.mark.parametrize(
        "override",
        [
            "device=cuda",
            "threads=1",
            "output_dir=elsewhere",
            "plot.dpi=100",
            "plot.formats=[svg]",
            "shard.count=2",
            "keep_parameters=true",
            "name=other",
            "title=other",
            "data.download=false",
            "debug=true",
            "dry_run=true",
            "sweep=full",
            "dataset.train_size=1437",  # all that there are
            "dataset.embedded=mnist",
        ],
    )
    def test_does_not_change_with(self, override):
        assert keys(self.BASE) == keys([*self.BASE, override])

    def test_changes_with_version_and_family(self, monkeypatch):
        from experiments.chapter1.fully_connected import FullyConnected

        before = keys(self.BASE)
        monkeypatch.setattr(FullyConnected, "version", 2)
        assert not set(before) & set(keys(self.BASE))
        assert key_of("A", 1, {"a": 1}) != key_of("B", 1, {"a": 1})

    def test_changes_with_the_checksum_of_the_data(self, monkeypatch):
        from landscape_cli import plan

        before, locate = keys(self.BASE), plan.locate
        monkeypatch.setattr(plan, "locate", lambda *a: replace(locate(*a), checksum="0" * 64))
        assert not set(before) & set(keys(self.BASE))

    def test_does_not_depend_on_the_order_of_settings(self):
        assert key_of("A", 1, {"a": 1, "b": {"c": 2, "d": 3}}) == key_of("A", 1, {"b": {"d": 3, "c": 2}, "a": 1})

    def test_profile_that_caps_nothing_shares_the_points(self):
        values = ["dataset.train_size=100", "training.epochs=1", "seeds=2", "measure.permutations=4"]
        common = [*self.BASE, *values]
        assert keys([*common, "profile=smoke"]) == keys([*common, "profile=paper"])

    def test_experiments_that_share_points_share_keys(self):
        """Fig 1.3 on all digits with the quickstart's training is the quickstart."""
        same = ["dataset=digits", "dataset.train_size=null", "training.epochs=40", "measure.smoothing=0.9"]
        assert keys(["experiment=fc_mnist", *same]) == keys(["experiment=quickstart"])

    def test_a_data_set_as_axis_shares_with_the_single_ones(self):
        together = keys(["experiment=fc_pixels", "+grid.dataset=[digits]", "dataset.train_size=null"])
        single = keys(["experiment=fc_mnist", "dataset=digits", "dataset.train_size=null"])
        assert together == single


KILLED = """
    import os, random, signal, sys, time
    from pathlib import Path
    sys.path.insert(0, sys.argv[2])
    from test_store import DOCUMENT, Store, measurement

    store, random = Store(Path(sys.argv[1])), random.Random(0)
    store.write("Family", "warm", measurement(), DOCUMENT)
    kills = drafts = 0
    until = time.monotonic() + 15
    while kills < 30 and time.monotonic() < until:
        child = os.fork()
        if not child:
            number = 0
            while True:
                store.write("Family", f"{kills}-{number}", measurement(float(number)), DOCUMENT)
                store.write("Family", "shared", measurement(1.0), DOCUMENT)
                number += 1
        time.sleep(random.uniform(0.01, 0.06))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        kills += 1
        drafts += len(list((store.root / "Family").glob(".draft-*")))
        for folder in (store.root / "Family").iterdir():
            if not folder.name.startswith(".draft-"):
                assert store.has("Family", folder.name), folder
                value = store.read("Family", folder.name).frames["curves"]["loss"][0]
                number = folder.name.partition("-")[2]
                assert value == float(number or folder.name == "shared"), folder
        store.tidy("Family")
        assert not list((store.root / "Family").glob(".draft-*"))
    print(kills, drafts, len(list((store.root / "Family").iterdir())))
"""

RACE = """
    import os, sys
    from pathlib import Path
    sys.path.insert(0, sys.argv[2])
    from test_store import DOCUMENT, Store, measurement

    store, writers = Store(Path(sys.argv[1])), 6
    store.write("Family", "warm", measurement(), DOCUMENT)
    for number in range(16):
        key = f"key{number}"
        if number % 2:
            store.write("Family", key, measurement(-1.0), DOCUMENT)
            (store.folder("Family", key) / "curves.parquet").write_bytes(b"damaged")
        ready, go = os.pipe()
        children = []
        for writer in range(writers):
            child = os.fork()
            if not child:
                os.close(go)
                os.read(ready, 1)  # returns when every writer's copy of the other end is closed
                code = 1
                try:
                    store.write("Family", key, measurement(float(writer)), {**DOCUMENT, "writer": writer})
                    code = 0
                finally:
                    os._exit(code)
            children.append(child)
        os.close(go)
        os.close(ready)
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        assert codes == [0] * writers, (number, codes)
        point = store.read("Family", key)
        assert point.frames["curves"]["loss"][0] == point.document["writer"], number
    assert not list((store.root / "Family").glob(".draft-*"))
    print("whole")
"""


def _in_a_process(script, output):
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(output), str(Path(__file__).parent)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.split()


class TestProcesses:
    def test_a_killed_writer_leaves_points_whole_or_absent(self, tmp_path):
        kills, drafts, points = map(int, _in_a_process(KILLED, tmp_path / "outputs"))
        assert kills >= 10  # on a slow machine fewer fit into the time
        assert drafts >= 3, "no kill came in the middle of a write: the test tested nothing"
        assert points >= 10

    def test_writers_of_one_point_all_succeed(self, tmp_path):
        assert _in_a_process(RACE, tmp_path / "outputs") == ["whole"]

    def test_drafts_of_the_living_and_of_other_hosts_stay(self, store, monkeypatch):
        """A host's name may begin with another's: ``node`` must not clear what ``node-1`` is writing."""
        ended = subprocess.Popen([sys.executable, "-c", ""])
        ended.wait()

        def draft(host, process):
            monkeypatch.setattr("landscape_cli.claims.socket.gethostname", lambda: host)
            monkeypatch.setattr("landscape_cli.claims.os.getpid", lambda: process)
            path = store.root / "Family" / draft_name()
            path.mkdir(parents=True)
            return path

        own = os.getpid()
        stays = {
            draft("node", ended.pid): False,
            draft("node", own): True,
            draft("other", ended.pid): True,
            draft(f"node-{ended.pid}", own): True,
            draft("node-gpu", ended.pid): True,
        }
        monkeypatch.setattr("landscape_cli.claims.socket.gethostname", lambda: "node")
        store.tidy("Family")
        assert {path: path.exists() for path in stays} == stays

    def test_clearing_where_nothing_is(self, store):
        store.tidy("Family")
        assert not store.root.exists()

    def test_writing_is_quick(self, store):
        began = time.perf_counter()
        for number in range(10):
            store.write("Family", str(number), measurement(), DOCUMENT)
        assert time.perf_counter() - began < 5
