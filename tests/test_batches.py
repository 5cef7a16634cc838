"""Points that are measured together: each is stored, and fails, by itself."""

from __future__ import annotations

import pytest
from test_runner import FOUR, TOY, Toy, documents, stored_files

from landscape_cli.claims import Claims

BATCHED = (*FOUR, "family=test_batches.Batched")


class Batched(Toy):
    """Measures all its points at once, unless one of them cannot be measured."""

    stored_as = "Toy"

    def together(self, points):
        return [list(points)]

    def measure_together(self, points, context):
        together.append([point.settings["x"] for point in points])
        return [self.measure(point, context) for point in points]


together: list[list[int]] = []  # of every call


@pytest.fixture(autouse=True)
def calls():
    together.clear()


def test_are_stored_as_they_would_be_alone(landscape, tmp_path):
    outputs = [tmp_path / name for name in ("batched", "alone")]
    assert landscape("run", *BATCHED, f"output_dir={outputs[0]}").code == 0
    assert together == [[1, 2, 3, 4]]
    assert landscape("run", *FOUR, f"output_dir={outputs[1]}").code == 0
    assert together == [[1, 2, 3, 4]]
    assert stored_files(outputs[0]) == stored_files(outputs[1])


def test_only_the_missing_ones(landscape):
    assert landscape("run", *TOY, "+grid.x=[1,3]").code == 0
    assert landscape("run", *BATCHED).code == 0
    assert together == [[2, 4]]


@pytest.mark.parametrize("words", [("checkpoint=true",), ("threads=2",)], ids=" ".join)
def test_each_alone(landscape, tmp_path, words):
    """A checkpoint is one point's; several threads of an operator divide several points' work otherwise."""
    assert landscape("run", *BATCHED, *words).code == 0
    assert not together
    assert len(documents(tmp_path / "outputs")) == 4


def test_one_that_fails_leaves_the_others(landscape, tmp_path):
    finished = landscape("run", *BATCHED, "+measure.failing=[3]", "+measure.odd=expected")
    assert finished.code == 1
    assert finished.lines[0] == "1 failed:"
    assert "x=3: x = 3 diverged" in finished.lines[1]
    assert {document["settings"]["x"] for document in documents(tmp_path / "outputs").values()} == {1, 2, 4}


def test_a_damaged_one_beside_one_that_fails_is_measured_again(landscape, tmp_path):
    assert landscape("run", *TOY, "+grid.x=[1,2]").code == 0
    before = stored_files(tmp_path / "outputs")
    damaged, *_ = (tmp_path / "outputs").rglob("squares.parquet")
    damaged.write_bytes(b"damaged")
    finished = landscape("run", *BATCHED, "+measure.failing=[3]")
    assert finished.code == 1
    assert "damaged point" in finished.err
    assert before.items() <= stored_files(tmp_path / "outputs").items()


def test_nothing_is_claimed_after_ctrl_c(landscape, tmp_path, monkeypatch):
    def stopped(self, points, context):
        raise KeyboardInterrupt

    monkeypatch.setattr(Batched, "measure_together", stopped)
    assert landscape("run", *BATCHED).code == 130
    monkeypatch.undo()
    claims = Claims(tmp_path / "outputs" / "results" / "Toy" / ".claims")
    assert not claims.living()
    claims.close()
