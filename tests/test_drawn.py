"""What a command drew is not drawn again from the same results by the same code, and is from any others."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pandas as pd
import pytest
from test_runner import FOUR, TOY, Toy, contents

from landscape_cli import draw as drawing

TWO = (*TOY, "+grid.x=[1,2]")


@pytest.fixture
def draws(monkeypatch):
    """One entry for each time that something is drawn."""
    found, draw = [], drawing.draw

    def counted(plan, *given):
        found.append(plan.config.name)
        return draw(plan, *given)

    monkeypatch.setattr(drawing, "draw", counted)
    monkeypatch.setattr("landscape_cli.commands.draw", counted)
    return found


@pytest.fixture
def output(tmp_path):
    return tmp_path / "outputs"


@pytest.fixture
def drawn(landscape, draws, output):
    """The output folder of :data:`TWO`, which was drawn; nothing is counted yet."""
    finished = landscape("run", *TWO)
    assert (finished.code, draws) == (0, ["toy"])
    draws.clear()
    return output


def record(output) -> Path:
    (path,) = (output / "runs" / "drawn").iterdir()
    return path


def read(path):
    return json.loads(path.read_text())


def timeless(path):
    told = read(path)
    del told["report"]["time"]
    return told


def said(finished):
    """What was printed but for the line that counts points."""
    assert (finished.code, finished.err) == (0, "")
    return [line for line in finished.out.splitlines() if " to measure" not in line]


def test_the_same_command_says_the_same_and_draws_nothing(landscape, draws, output, small):
    first = landscape("run", *small)
    before = contents(output, "figures") | contents(output, "tables")
    times = {path: (output / path).stat().st_mtime_ns for path in before}
    assert draws == ["quickstart"]
    second = landscape("run", *small)
    assert draws == ["quickstart"]
    assert said(second) == said(first)
    assert {Path(line.strip()) for line in second.out.splitlines()} >= {output / path for path in before}
    assert any("confirmed" in line or "refuted" in line or "inconclusive" in line for line in said(second)), second.out
    assert "4 points: 4 stored, 0 to measure" in second.out
    assert contents(output, "figures") | contents(output, "tables") == before
    assert {path: (output / path).stat().st_mtime_ns for path in before} == times
    assert said(landscape("run", *small)) == said(first)


@pytest.mark.parametrize(
    "odd",
    [
        "no figures",
        "nothing",
    ],
)
def test_an_experiment_that_draws_little_says_the_same(landscape, output, monkeypatch, odd):
    monkeypatch.setattr(Toy, "figures", lambda self, results: [])
    if odd == "nothing":
        monkeypatch.setattr(Toy, "tables", lambda self, results: [])
    first = landscape("run", *TOY, "+grid.x=[1]")
    assert said(landscape("run", *TOY, "+grid.x=[1]")) == said(first)


def test_how_it_is_run_is_no_difference(landscape, draws, drawn):
    for words in (["workers=2"], ["device=cpu"], ["threads=1"], ["--debug"]):
        assert landscape("run", *TWO, *words).code == 0
    assert draws == []


@pytest.mark.parametrize("pattern", ["figures/*/toy.png", "tables/*/toy.csv", "tables/*/toy.tex"])
@pytest.mark.parametrize("how", ["deleted", "altered", "emptied"])
def test_a_file_that_is_not_what_was_drawn(landscape, draws, drawn, pattern, how):
    (path,) = drawn.glob(pattern)
    before = path.read_bytes()
    if how == "deleted":
        path.unlink()
    else:
        path.write_bytes(before[:-1] + bytes([before[-1] ^ 1]) if how == "altered" else b"")
    assert landscape("run", *TWO).code == 0
    assert draws == ["toy"]
    assert path.read_bytes() == before
    assert landscape("run", *TWO).code == 0
    assert draws == ["toy"]


@pytest.mark.parametrize("words", [["plot.dpi=60"], ["plot.formats=[png,svg]"], ["title=another"]])
def test_another_configuration(landscape, draws, drawn, words):
    assert landscape("run", *TWO, *words).code == 0
    assert draws == ["toy"]


def test_another_resolution_is_a_larger_picture(landscape, drawn):
    (path,) = drawn.glob("figures/*/toy.png")
    before = path.read_bytes()
    assert landscape("run", *TWO, "plot.dpi=60").code == 0
    assert path.read_bytes() != before
    assert landscape("run", *TWO).code == 0
    assert path.read_bytes() == before


def test_other_points(landscape, draws, drawn):
    for words, count in ((FOUR, 1), (TWO, 1), ((*TOY, "+grid.x=[1]"), 2), ((*TOY, "+grid.x=[2,1]"), 3)):
        assert landscape("run", *words).code == 0
        assert len(draws) == count


def test_other_code(landscape, draws, drawn, monkeypatch):
    for module in ("drawn", "runner"):
        monkeypatch.setattr(f"landscape_cli.{module}.code_digest", lambda family: f"another {family}")
    assert landscape("run", *TWO).code == 0
    assert landscape("run", *TWO).code == 0
    assert draws == ["toy"]


def test_code_that_changes_meanwhile_is_drawn_again(landscape, draws, drawn, monkeypatch):
    """What is loaded may be the old or the new one."""
    with monkeypatch.context() as patch:
        patch.setattr("landscape_cli.drawn.code_digest", lambda family: "edited")
        assert landscape("run", *FOUR).code == 0
    assert landscape("run", *FOUR).code == 0
    assert draws == ["toy", "toy"]


def test_what_a_family_of_ones_own_imports(landscape, draws, output, monkeypatch, tmp_path):
    (tmp_path / "own_plots.py").write_text("COLOUR = 'red'\n")
    (tmp_path / "own_family.py").write_text(
        "import own_plots\nfrom test_runner import Toy as Base\n\nclass Toy(Base):\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    words = (*TWO, "family=own_family.Toy")
    for text, count in (("", 1), ("", 1), ("COLOUR = 'blue'\n", 2)):
        if text:
            (tmp_path / "own_plots.py").write_text(text)
        assert landscape("run", *words).code == 0
        assert len(draws) == count


def test_a_style_of_ones_own(landscape, draws, drawn, monkeypatch, tmp_path):
    (tmp_path / "matplotlibrc").write_text("lines.linewidth: 9\n")
    monkeypatch.setenv("MATPLOTLIBRC", str(tmp_path / "matplotlibrc"))
    assert landscape("run", *TWO).code == 0
    assert draws == ["toy"]


def test_other_versions(landscape, draws, drawn, monkeypatch):
    monkeypatch.setattr("landscape_cli.provenance.versions", lambda: {"matplotlib": "0"})
    assert landscape("run", *TWO).code == 0
    assert draws == ["toy"]


def test_a_familys_own_module_is_its_code(landscape, draws, isolated, monkeypatch):
    """Where it is no part of the package."""
    file = isolated / "work" / "own_toy.py"
    file.write_text("from test_runner import Toy as Base\n\nclass Toy(Base):\n    pass\n")
    monkeypatch.syspath_prepend(file.parent)
    words = ("run", *TWO, "family=own_toy.Toy")
    for _ in range(2):
        assert landscape(*words).code == 0
    assert len(draws) == 1
    file.write_text(file.read_text() + "\n# Changed.\n")
    assert landscape(*words).code == 0
    assert len(draws) == 2


@pytest.mark.parametrize("file", ["point.json", "squares.parquet"])
@pytest.mark.parametrize("how", ["flipped", "truncated", "deleted"])
def test_a_damaged_point_is_measured_and_drawn_again(landscape, draws, drawn, file, how):
    path = sorted(drawn.glob(f"results/*/*/{file}"))[0]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.unlink()
    if how != "deleted":
        path.write_bytes(content if how == "flipped" else content[: len(content) // 2])
    finished = landscape("run", *TWO)
    assert finished.code == 0
    assert "2 points: 1 stored, 1 to measure" in finished.out
    assert "damaged point" in finished.err
    assert draws == ["toy"]


def test_a_point_with_other_numbers_is_drawn_again(landscape, draws, drawn, monkeypatch):
    """Another command measured it anew: the point is whole, and not what was drawn."""
    path = sorted(drawn.glob("results/*/*/point.json"))[0]
    path.unlink()
    measure = Toy.measure

    def other(self, point, context):
        measurement = measure(self, point, context)
        measurement.frames["squares"]["y"] += 1
        return measurement

    monkeypatch.setattr(Toy, "measure", other)
    (table,) = drawn.glob("tables/*/toy.csv")
    assert landscape("run", *TWO, "name=other").code == 0
    assert landscape("run", *TWO).code == 0
    assert draws == ["other", "toy"]
    frame = pd.read_csv(table)
    assert (frame["y"] - frame["x"] ** 2).sum() == 1


@pytest.mark.parametrize(
    "content",
    [
        *("", "{", "[]", "[1, 2]", "null", "7", '"text"', "{}", "\xff", '{"inputs": 1, "lines": 2, "files": 3}'),
        *('{"inputs": "", "lines": [], "files": {}}', '{"inputs": "", "lines": [], "files": {"toy.png": "0"}}'),
    ],
)
def test_a_record_that_is_none(landscape, draws, drawn, content):
    path = record(drawn)
    before = timeless(path)
    path.write_bytes(content.encode("latin-1"))
    finished = landscape("run", *TWO)
    assert (finished.code, finished.err) == (0, "")
    assert draws == ["toy"]
    assert timeless(path) == before


def test_a_record_without_a_part_of_it(landscape, draws, drawn):
    for count, part in enumerate(("inputs", "lines", "files"), start=1):
        content = json.loads(record(drawn).read_text())
        del content[part]
        record(drawn).write_text(json.dumps(content))
        assert landscape("run", *TWO).code == 0
        assert len(draws) == count


def test_a_failing_point_fails_again(landscape, draws, output):
    words = ("run", *FOUR, "+measure.failing=[3]")
    for count in (1, 2):
        finished = landscape(*words)
        assert finished.code == 1
        assert "x = 3" in finished.err
        assert "4 points: 3 stored, 1 to measure" in finished.out or count == 1
        assert "MISSING 1 of 4 points" in finished.out
        assert len(draws) == count
    told = read(record(output))
    assert (told["inputs"], told["report"]["missing"]) == (None, ["x=3"])


def test_a_figure_that_fails_fails_again(landscape, draws, output):
    for count in (1, 2):
        finished = landscape("run", *TWO, "+measure.odd=figures")
        assert finished.code == 1
        assert "cannot draw" in finished.err
        assert len(draws) == count
    told = read(record(output))
    assert (told["inputs"], told["report"]["failures"]) == (None, ["figures: cannot draw"])


def test_a_point_that_fails_after_the_whole_was_drawn(landscape, draws, drawn, monkeypatch):
    for path in drawn.glob("results/*/*/point.json"):
        path.unlink()
    monkeypatch.setattr(Toy, "measure", lambda self, point, context: 1 / 0)
    for _ in range(2):
        assert landscape("run", *TWO).code == 1


def test_missing_data_is_no_whole_grid(landscape, draws, output, monkeypatch):
    words = ("run", "profile=smoke", "data.download=false", "plot.formats=[png]", "plot.dpi=50", "seeds=1")
    words += ("grid.hidden_size=[4]", "grid.num_layers=[1]", "+grid.dataset=[digits,mnist]")
    for count in (1, 2):
        finished = landscape(*words)
        assert finished.code == 3, finished.err
        assert len(draws) == count
    told = read(record(output))
    assert told["inputs"] is None
    assert told["report"]["missing"]
    assert all("mnist" in label for label in told["report"]["missing"])


def test_figures_draws_whatever_was_drawn(landscape, draws, measured, small):
    for count in (1, 2):
        assert landscape("figures", "quickstart", *small).code == 0
        assert len(draws) == count


def test_a_run_recalls_what_figures_drew(landscape, draws, measured, small):
    (measured / "runs" / "drawn" / "quickstart@smoke.json").unlink()
    assert landscape("figures", "quickstart", *small).code == 0
    assert draws == ["quickstart"]
    assert landscape("run", *small).code == 0
    assert draws == ["quickstart"]


def test_shards_draw_at_the_end(landscape, draws, output):
    for index in range(2):
        assert landscape("run", *FOUR, "shard.count=2", f"shard.index={index}").code == 0
    assert draws == ["toy"]
    assert landscape("run", *FOUR, "shard.count=2", "shard.index=1").code == 0
    assert draws == ["toy"] * 2


def test_variants_leave_each_others_files_alone(landscape, draws, drawn):
    others = [(*TWO, "+measure.seconds=0.001"), (*TWO, "profile=smoke"), (*TWO, "name=second")]
    for words in others:
        assert landscape("run", *words).code == 0
    assert len(draws) == 3
    for words in (TWO, *others):
        assert landscape("run", *words).code == 0
    assert len(draws) == 3
    next((drawn / "figures").glob("*seconds*/toy.png")).write_bytes(b"")
    assert landscape("run", *TWO).code == 0
    assert len(draws) == 3
    assert landscape("run", *others[0]).code == 0
    assert len(draws) == 4


def test_a_folder_that_was_moved_names_its_own_files(landscape, drawn, tmp_path):
    moved = drawn.rename(tmp_path / "moved")
    for _ in range(2):
        finished = landscape("run", *TWO, f"output_dir={moved}")
        assert finished.code == 0
        assert f"{moved}/figures" in finished.out
        assert str(tmp_path / "outputs") not in finished.out
    assert not (tmp_path / "outputs").exists()


def test_a_stored_run_imports_nothing_that_draws_or_computes(landscape, measured, small):
    assert landscape("run", *small).code == 0  # the folder was copied: drawn here, once
    script = textwrap.dedent(f"""
        import sys
        from landscape_cli.cli import dispatch
        assert dispatch(["run", *{small}]) == 0
        print(sorted({{"torch", "torchvision", "matplotlib"}} & set(sys.modules)))
    """)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "4 points: 4 stored, 0 to measure" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"
