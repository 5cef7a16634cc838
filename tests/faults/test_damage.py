"""Damaged files and other formats: found, said, mended where that is ours to do, and refused where it is not."""

import hashlib
import json
import os
import random
import signal
import time
from pathlib import Path

import pytest
from fault_toys import LOG, REAL, assert_same, documents_of, hidden, logged, toy

from landscape_cli.claims import STALE

DAMAGES = 50
POINTS = 48
WORDS = toy(POINTS)


def canonical(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def with_checksum(document):
    document.pop("checksum", None)
    return {**document, "checksum": hashlib.sha256(canonical(document).encode()).hexdigest()}


def damage(path, chance):
    """Damage a file in one of five ways; it is other than before."""
    content = path.read_bytes()
    how = chance.choice(("flip", "cut", "empty", "delete", "garbage"))
    if how == "delete":
        path.unlink()
    elif how == "flip" and content:
        place = chance.randrange(len(content))
        path.write_bytes(content[:place] + bytes([content[place] ^ 1 << chance.randrange(8)]) + content[place + 1 :])
    elif how == "cut" and content:
        path.write_bytes(content[: chance.randrange(len(content))])
    elif how == "empty" and content:
        path.write_bytes(b"")
    else:
        path.write_bytes(chance.randbytes(chance.randrange(1, 300)))
    return how


def files_below(*folders):
    return sorted(path for folder in folders for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def output():
    return Path(os.environ["LANDSCAPE_OUTPUTS"])


@pytest.fixture(scope="class")
def whole(server, tmp_path_factory):
    """An undisturbed run; not to be written to."""
    folder = tmp_path_factory.mktemp("whole")
    os.environ[LOG] = str(folder / "log")
    try:
        code, child = server.run(*WORDS, f"output_dir={folder}")
    finally:
        del os.environ[LOG]
    assert code == 0, child.err
    return folder


class TestDamage:
    @pytest.mark.parametrize("seed", [0, 1])
    def test_fifty_files(self, forks, whole, output, seed):
        """Any file of the store: points, the format, grids, and what a killed and a failed run left."""
        chance = random.Random(seed)
        code, child = forks.run(*WORDS)
        assert code == 0, child.err
        code, child = forks.run(*toy(POINTS + 2, f"+measure.failing=[{POINTS},{POINTS + 1}]"))
        assert code == 1
        code, _ = forks.run("run", *REAL, at=("writing a checkpoint", 7, "kill -9 $PPID"))
        assert code == -signal.SIGKILL
        assert len(hidden(output)) >= 3  # claims, checkpoints, failures
        of = {document["key"]: document["settings"].get("x") for document in documents_of(output).values()}
        damaged = set()
        for path in chance.sample(files_below(output / "results", output / "runs" / "grids"), DAMAGES):
            damage(path, chance)
            if path.parent.name in of and of[path.parent.name] is not None:
                damaged.add(of[path.parent.name])
        assert len(damaged) > 10
        for path in output.glob("results/*/.claims/*/*"):  # damaged ones are another machine's for all we know
            os.utime(path, (time.time() - STALE - 1,) * 2)
        Path(os.environ[LOG]).unlink()
        for words in (("status",), ("list",), WORDS):
            code, child = forks.run(*words)
            assert code == 0, child.err
            assert "Traceback" not in child.err + child.out
        said = [line for line in child.lines if line.startswith("damaged point")]
        assert {int(line.partition("x=")[2].partition(",")[0]) for line in said} == damaged
        assert len(said) == len(child.lines) == len(damaged)
        assert f"{POINTS} points: {POINTS - len(damaged)} stored, {len(damaged)} to measure" in child.out
        assert sorted(logged()) == sorted(damaged)
        code, child = forks.run("run", *REAL)  # checkpoints and claims may be damaged
        assert code == 0, child.err
        code, child = forks.run(*WORDS)
        assert (code, child.err) == (0, "")
        assert "0 to measure" in child.out
        self._same(output, whole)

    @staticmethod
    def _same(output, whole):
        mine = {d["settings"]["x"]: key for key, d in documents_of(output).items() if "x" in d["settings"]}
        assert len(mine) == POINTS
        for key in mine.values():
            for path in (whole / "results" / "Logged" / key).iterdir():
                if path.name != "point.json":
                    assert (output / "results" / "Logged" / key / path.name).read_bytes() == path.read_bytes()

    def test_every_file_of_the_store_at_once(self, forks, whole, output):
        """Nothing is readable any more: the store is as good as empty."""
        code, child = forks.run(*WORDS)
        assert code == 0, child.err
        chance = random.Random(2)
        for path in files_below(output / "results", output / "runs" / "grids"):
            path.write_bytes(chance.randbytes(40))
        code, child = forks.run("status")
        assert code == 0, child.err
        code, child = forks.run(*WORDS)
        assert code == 0, child.err
        assert len(child.lines) == POINTS
        assert "Traceback" not in child.err
        assert_same(output, whole)
        assert hidden(output) == []

    def test_lost_parameters_are_said(self, forks, output):
        """A file that is missing is damage, whichever it is."""
        words = ("run", *REAL, "keep_parameters=true")
        assert forks.run(*words)[0] == 0
        path = min(output.rglob("parameters.safetensors"))
        path.unlink()
        code, child = forks.run(*words)
        assert code == 0, child.err
        assert "3 stored, 1 to measure" in child.out
        assert path.is_file()
        assert "damaged point" in child.err


class TestOtherFormat:
    @pytest.fixture
    def measured(self, forks, output):
        code, child = forks.run(*toy(3))
        assert code == 0, child.err
        return output

    @staticmethod
    def _refused(forks, output, *texts):
        before = {path: path.read_bytes() for path in files_below(output)}
        for words in (toy(3), toy(4), toy(3, "shard.count=2")):
            code, child = forks.run(*words)
            assert code == 2, child.err
            assert len(child.lines) == 1, child.err
            assert "Traceback" not in child.err
            for text in ("format 7", "Use that version", "output_dir", *texts):
                assert text in child.err, child.err
        code, child = forks.run("status")
        assert "Traceback" not in child.err
        after = {path: path.read_bytes() for path in files_below(output)}
        assert after == before

    def test_of_the_store(self, forks, measured):
        path = measured / "results" / "format.json"
        path.write_text(json.dumps(with_checksum({"format": 7, "landscape": "9.9.9"})))
        self._refused(forks, measured, "landscape 9.9.9", "results")

    def test_of_one_point(self, forks, measured):
        path = min(measured.glob("results/Logged/*/point.json"))
        document = {**json.loads(path.read_text()), "format": 7}
        document["provenance"]["versions"]["landscape-cli"] = "9.9.9"
        path.write_text(json.dumps(with_checksum(document)))
        self._refused(forks, measured, "landscape 9.9.9", path.parent.name)

    def test_a_damaged_format_is_written_again(self, forks, measured):
        path = measured / "results" / "format.json"
        good = path.read_bytes()
        for text in ("", "[]", "null", good.decode().replace("1", "7"), '{"checksum": 3}'):
            path.write_text(text)
            code, child = forks.run(*toy(3))
            assert code == 0, child.err
            assert path.read_bytes() == good
