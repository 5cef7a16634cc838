"""What a report tells is what was drawn, and why the rest was not."""

import json
import math
from dataclasses import replace

import pandas as pd
import pytest

from landscape_cli.drawn import read_records
from landscape_cli.experiment import INCONCLUSIVE, NOT_REPRODUCED, REPRODUCED
from landscape_cli.listing import catalogue, thesis
from landscape_cli.report.gather import (
    FAILS,
    HOLDS,
    LOOSE,
    Claim,
    Entry,
    Grid,
    Part,
    Report,
    Theorem,
    default_variant,
    gather,
    number,
    table_of,
)
from landscape_cli.report.page import page
from landscape_cli.report.write import claims_csv, summary
from landscape_cli.reproduce import Result, write_results


def entry(report, name):
    return next(one for one in report.entries if one.item.name == name)


def test_every_item_of_the_thesis_is_there_in_order(drawn):
    report = gather(drawn, "smoke")
    assert [one.item.name for one in report.entries] == [item.name for item in catalogue()]
    assert report.drawn == {"figure": (3, 47), "table": (2, 17)}
    assert {one.item.name for one in report.entries if one.state == "drawn"} == {
        *("figure 1.1", "figure 1.3", "figure 4.1", "table 2.1", "table 4.1")
    }


def test_what_was_not_run_says_how(drawn):
    part = entry(gather(drawn, "smoke"), "figure 1.2").parts[0]
    assert part.reasons == ["not measured yet"]
    assert part.command == "landscape run experiment=minimum_drift_mnist profile=smoke"
    words = ("plot.language=ru", "profile=smoke", "device=cpu")
    (part,) = entry(gather(drawn, "smoke", words), "figure 1.2").parts
    assert part.command == "landscape run experiment=minimum_drift_mnist plot.language=ru profile=smoke"
    assert entry(gather(drawn, ""), "figure 1.2").parts[0].command == "landscape run experiment=minimum_drift_mnist"


def test_captions_and_sizes_are_those_of_the_drawing(drawn):
    (part,) = entry(gather(drawn, "smoke"), "figure 1.3").parts
    assert "Digits, the first 120 of 1437 train objects; in place of mnist; 2 seeds, 1 epoch" in part.record.note
    assert part.command.startswith("landscape run experiment=fc_mnist profile=smoke")
    assert len(part.record.origin.seconds) == part.record.points
    assert min(part.record.origin.seconds.values()) > 0
    assert part.record.origin.began <= part.record.origin.ended <= part.record.time
    assert any(version.startswith("torch 2") for version in part.record.origin.versions)
    assert {piece.name for piece in gather(drawn, "smoke").others("fc_mnist")} == {"end_values_fc_mnist"}


def test_claims_are_those_of_the_file(drawn):
    report = gather(drawn, "smoke")
    path = drawn / "tables" / "smoke" / "claims_fc_mnist.csv"
    frame = pd.read_csv(path)
    assert [claim.claim for claim in report.claims["fc_mnist"]] == list(frame["claim"])
    assert [claim.verdict for claim in report.claims["fc_mnist"]] == list(frame["verdict"])
    chapter = dict(report.tally)["Chapter 1"]
    assert sum(chapter.values()) == len(frame.drop_duplicates(["claim", "statistic", "effect"]))
    assert sum(dict(report.tally)["Beyond the thesis"].values()) == 0  # the theorems are counted by themselves


def test_claims_csv_holds_every_claim(drawn):
    report = gather(drawn, "smoke")
    (drawn / "claims.csv").write_text(claims_csv(report))
    frame = pd.read_csv(drawn / "claims.csv")
    every = pd.concat([pd.read_csv(path) for path in sorted((drawn / "tables" / "smoke").glob("claims_*.csv"))])
    assert sorted(frame["claim"]) == sorted(every["claim"])
    assert set(frame["verdict"]) <= {REPRODUCED, NOT_REPRODUCED, INCONCLUSIVE}
    row = frame[frame["experiment"] == "fc_mnist"].iloc[0]
    assert (row["makes"], row["profile"]) == ("figure 1.3", "smoke")
    assert row["command"].startswith("landscape run experiment=fc_mnist profile=smoke")


def test_the_summary_counts(drawn):
    report = gather(drawn, "smoke")
    line = summary(report)
    assert line.startswith("report: 3 of 47 figures drawn, 2 of 17 tables drawn, ")
    for verdict in (REPRODUCED, NOT_REPRODUCED, INCONCLUSIVE):
        assert f"{report.counts[verdict]} claims {verdict}" in line
    assert f"{sum(report.theorem_tally.values())} theorems and lemmas (holds {report.theorem_tally[HOLDS]}, " in line


def test_theorems_are_those_of_the_table(drawn):
    report = gather(drawn, "smoke")
    frame = pd.read_csv(drawn / "tables" / "smoke" / "theorems.csv")
    assert len(report.theorems) == len(frame)
    assert sum(report.theorem_tally.values()) == len(set(zip(frame["kind"], frame["theorem"], strict=True)))
    asked = frame["statement"].str.endswith(", asked of ‖H‖")  # of Theorems 11 to 15, which bound H_O
    assert 0 < asked.sum() < len(frame)
    fail = frame[frame["verdict"].str.startswith("fails") & ~asked]
    assert report.theorem_tally[FAILS] == len(set(zip(fail["kind"], fail["theorem"], strict=True)))
    assert report.about.theorems == "theorems"
    row = frame[frame["printed_smallest"].notna()].iloc[0]
    own = next(one for one in report.theorems if one.number == str(row["theorem"]) and one.quantity == row["quantity"])
    assert own.smallest == pytest.approx(row["printed_smallest"])


def theorem(name, verdict, as_printed=True):
    return Theorem("Theorem", name, "", "", verdict, math.nan, as_printed, math.nan, "", "")


def test_a_theorem_that_fails_once_fails():
    assert theorem("1", "fails: violated once").state == FAILS
    assert theorem("1", "holds, loose by a factor of 3 at the median").state == LOOSE
    assert theorem("1", "holds, exact to 1e-15").state == HOLDS
    report = Report(
        thesis(),
        [],
        [],
        {},
        [theorem("1", "holds"), theorem("1", "fails: x"), theorem("2", "holds, loose by a factor of 9")],
        {},
    )
    assert dict(report.theorem_tally) == {FAILS: 1, LOOSE: 1}


def test_a_report_is_of_one_profile_the_largest(drawn, landscape):
    assert default_variant(drawn) == "smoke"
    words = ("experiment=schematic_loss_change", "plot.formats=[png]", "plot.dpi=50")
    assert landscape("run", *words, "profile=embedded").code == 0
    assert default_variant(drawn) == "embedded"
    assert landscape("run", *words).code == 0
    finished = landscape("report")
    assert "report: 1 of 47 figures drawn" in finished.out
    assert (drawn / "report" / "index.html").is_file()
    small = landscape("report", "profile=smoke")
    assert "report: 3 of 47 figures drawn" in small.out
    assert (drawn / "report" / "smoke" / "index.html").is_file()
    assert "1 of 47" in (drawn / "report" / "index.html").read_text()  # a smaller one overwrites nothing
    report = gather(drawn, "smoke")
    assert report.others_drawn == {"paper": 1, "embedded": 1}
    assert {record.profile for record in report.records.values()} == {"smoke"}
    assert landscape("report", "profile=quick").code == 1


def test_files_that_are_not_what_was_drawn_are_told_and_not_shown(drawn):
    folder = drawn / "tables" / "smoke"
    path = folder / "claims_fc_mnist.csv"
    path.write_text(path.read_text().replace("inconclusive", "reproduced"))
    (folder / "table_2_1_vit_architectures.md").write_text("")
    (drawn / "figures" / "smoke" / "fig_1_1_schematic_loss_change.png").unlink()
    report = gather(drawn, "smoke")
    assert report.claims["fc_mnist"] == []
    for name, command in {
        "figure 1.1": "landscape figures schematic_loss_change profile=smoke",
        "figure 1.3": "landscape figures fc_mnist profile=smoke",
        "table 2.1": "landscape figures vit_architectures profile=smoke",
    }.items():
        assert entry(report, name).state == "drawn in part"
        (reason,) = entry(report, name).parts[0].reasons
        assert reason.startswith("changed or gone since it was drawn: ")
        assert f"again: {command}" in reason


def test_a_later_failure_is_told_beside_what_was_drawn_before(drawn):
    failed = Result("fc_mnist", "failed", ["the disk burnt"], False, 1.0, "landscape run", "9999-01-01T00:00:00Z")
    write_results(drawn, "smoke", [failed])
    one = entry(gather(drawn, "smoke"), "figure 1.3")
    assert one.state == "drawn in part"
    assert one.parts[0].reasons[1:] == ["the disk burnt"]
    assert one.parts[0].reasons[0].startswith("the last run failed; this is what was drawn at 20")
    write_results(drawn, "smoke", [replace(failed, time="2001-01-01T00:00:00Z")])
    assert entry(gather(drawn, "smoke"), "figure 1.3").state == "drawn"


def test_settings_of_ones_own_are_told(drawn, landscape, small):
    assert landscape("run", "experiment=schematic_loss_change", *small, "seeds=1", "device=cpu").code == 0
    (variant,) = {record.variant for record in read_records(drawn)} - {"smoke"}
    record = gather(drawn, variant).records["schematic_loss_change"]
    assert record.changed == ["seeds=1"]
    assert "seeds=1</code> (1 experiment)" in page(gather(drawn, variant))
    assert "device=cpu" not in record.command


def test_a_run_with_a_missing_data_set_is_told_in_part(landscape, tmp_path, small):
    words = ("experiment=fc_pixels", "grid.dataset=[digits,nosuch]", "grid.hidden_size=[4]", "grid.num_layers=[1]")
    assert landscape("run", *words, *small).code == 3
    variant = next((tmp_path / "outputs" / "figures").iterdir()).name
    one = entry(gather(tmp_path / "outputs", variant), "figure 1.5")
    part = next(part for part in one.parts if part.name == "fc_pixels")
    assert one.state == "drawn in part"
    assert part.piece is not None
    assert (
        part.reasons == ["2 of 4 points are missing: " + ", ".join(part.record.missing)]
        or "points are missing" in part.reasons[0]
    )


def test_records_that_cannot_be_read_are_passed_over(drawn):
    folder = drawn / "runs" / "drawn"
    path = folder / "fc_mnist@smoke.json"
    path.write_text(path.read_text()[:100])
    old = json.loads((folder / "theorems@smoke.json").read_text())
    del old["report"]
    (folder / "theorems@smoke.json").write_text(json.dumps(old))
    records = gather(drawn, "smoke").records
    assert set(records) == {"schematic_loss_change", "vit_architectures", "belsley_illustration"}


def test_tables_are_read_as_their_files_show_them(drawn):
    (part,) = entry(gather(drawn, "smoke"), "table 2.1").parts
    table = table_of(part.piece)
    frame = pd.read_csv(drawn / "tables" / "smoke" / f"{part.piece.name}.csv")
    assert list(table.header) == list(frame.columns)
    assert len(table.rows) == len(frame)
    for path in part.piece.files:
        path.unlink()
    assert table_of(part.piece) is None


def test_a_bar_in_a_cell_is_no_column(tmp_path):
    from landscape_cli.drawn import Piece
    from landscape_cli.experiment import Table
    from landscape_cli.plotting.output import save_table

    frame = pd.DataFrame({"|a|": ["|L_{k+1} - L_k|", "plain"], "b": [1.5, math.nan]})
    files = save_table(Table("odd", frame, "Odd."), tmp_path, "")
    table = table_of(Piece("table", "odd", "Odd.", "", files))
    assert list(table.header) == ["|a|", "b"]
    assert [list(row) for row in table.rows] == [["|L_{k+1} - L_k|", "1.5"], ["plain", "–"]]


@pytest.mark.parametrize(
    ("value", "text"), [(1234.5, "1.23e+03"), (-0.25, "−0.25"), (math.nan, "–"), (math.inf, "∞"), (-math.inf, "−∞")]
)
def test_numbers(value, text):
    assert number(value) == text


def test_bad_input(landscape, tmp_path):
    landscape("report", "fc_mnist").assert_refused(2, "fc_mnist", "profile=quick")
    landscape("report", "profile=tiny").assert_refused(2, "profile=tiny")
    finished = landscape("report")
    assert finished.code == 1
    assert "report: 0 of 47 figures drawn" in finished.out
    assert "landscape reproduce profile=embedded" in (tmp_path / "outputs" / "report" / "index.html").read_text()


def test_claims_that_fail_alike_are_told_once():
    claims = {
        "fc_mnist": [claim("fc_mnist", NOT_REPRODUCED, 0.5), claim("fc_mnist", REPRODUCED, 0.5)],
        "fc_cifar10": [claim("fc_cifar10", NOT_REPRODUCED, 0.5)],
        "fc_cifar100": [claim("fc_cifar100", NOT_REPRODUCED, 0.75)],
        "theorems": [claim("theorems", NOT_REPRODUCED, 0.5)],
    }
    entries = [Entry(item, [Part(name, "", "", None, None, []) for name in item.experiments]) for item in catalogue()]
    beyond = [Part("theorems", "", "", None, None, [])]
    found = Report(thesis(), entries, beyond, claims, [], {}).not_reproduced()
    assert [names for _, names in found] == [["fc_mnist", "fc_cifar10"], ["fc_cifar100"]]


def claim(name, verdict, effect):
    return Claim(name, "quick", "wider is lower", "1.4", "slope", verdict, effect, 0.0, 1.0, math.nan, "")


def test_columns_of_numbers():
    rows = [["a", "1.5", "−2e-05", "3", "–"], ["1", "–", "∞", "not reached", "–"]]
    assert Grid(["t", "x", "y", "m", "none"], rows).numeric == [False, True, True, False, True]
    assert Grid(["t", "x"], []).numeric == [False, False]
