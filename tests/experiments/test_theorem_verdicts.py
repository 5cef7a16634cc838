"""What the table of theorems says of bounds, identities and sequences, from frames built by hand."""

import math

import numpy as np
import pandas as pd
import pytest

from experiments.beyond.statements import COUNTEREXAMPLES, SEQUENCES
from experiments.beyond.theorems import Theorems, TheoremsOptions, tried, verdicts
from landscape_cli.config import Config
from landscape_cli.experiment import NOT_REPRODUCED, REPRODUCED, Results

MISPRINTED, EXACT = ("19", "21", "24", "25"), ("10", "18", "20")


def experiment() -> Theorems:
    return Theorems(Config(name="theorems_test", title="", family="", measure=TheoremsOptions(), seeds=1))


def found(frames) -> Results:
    return Results(tuple(experiment().points()), (), frames, {}, {}, "paper")


def networks(theorem="11", quantity="gauss_newton", measured=(1.0,) * 4, printed=10.0, corrected=5.0, **more):
    rows = {"kind": "random", "against": "", "theorem": theorem, "quantity": quantity, "tight": np.nan}
    return pd.DataFrame({**rows, "measured": measured, "printed": printed, "corrected": corrected, **more})


def judged(*given, **frames) -> pd.DataFrame:
    parts = {"networks": pd.concat(given, ignore_index=True)} if given else {}
    return verdicts(found(parts | frames)).set_index("theorem")


@pytest.mark.parametrize(
    ("printed", "verdict"),
    [
        ([0.5, 3, 3, 3], "fails: violated once"),
        ([0.5, 0.9, 0.1, 3], "fails: violated 3 times"),
        ([1 - 1e-12, 1, 1.5, 1.9], "holds"),
        ([1, 2, 1.9, 5], "holds"),
        ([1, 20, 30, 40], "holds, loose by a factor of 25 at the median"),
        ([2e6, 2e6, 2e6, 3e9], "holds, loose by a factor of 2e+06 at the median"),
    ],
)
def test_a_bound_fails_or_holds_or_is_loose(printed, verdict):
    row = judged(networks(printed=printed)).loc["11"]
    assert row["verdict"] == verdict
    assert (row["printed_smallest"], row["printed_median"]) == (min(printed), np.median(printed))
    assert (row["corrected_smallest"], row["quantity"]) == (5, "‖H_O‖")
    assert row["counterexample"] == ""
    (claim,) = experiment().claims(found({"networks": networks(printed=printed)}))
    assert claim.verdict == (NOT_REPRODUCED if "fails" in verdict else REPRODUCED)
    assert (claim.note, claim.effect, claim.source) == (verdict, min(printed), "thesis, Theorem 11")


def test_adversaries_count_for_the_bound_that_they_sought_and_never_for_the_median():
    def attacked(against):
        return networks(measured=(100.0,) * 4, kind="adversarial", against=against)

    for against, failed in {"printed": (4, 0), "corrected": (0, 4)}.items():
        (row,) = tried(found({"networks": pd.concat([networks(), attacked(against)])})).to_dict("records")
        assert (row["printed_violations"], row["corrected_violations"]) == failed
        assert (row["printed_median"], row["corrected_median"]) == (10, 5)


def test_dead_networks_do_not_count_and_counterexamples_do():
    known = pd.DataFrame([{"theorem": "8", "quantity": "hessian", "measured": 4.0, "printed": 1.0, "corrected": 8.0}])
    given = [networks("8", quantity, measured=(0.0, 1, 1, 1)) for quantity in ("gauss_newton", "hessian")]
    table = judged(*given, counterexamples=known).reset_index().set_index("quantity")
    assert table.loc["‖H‖", "verdict"] == "fails: violated once"
    assert (table.loc["‖H‖", "printed_smallest"], table.loc["‖H‖", "corrected_smallest"]) == (0.25, 2)
    assert table.loc["‖H‖", "counterexample"] == COUNTEREXAMPLES[0].text
    assert table.loc["‖H_O‖", "verdict"].startswith("holds")
    assert table.loc["‖H_O‖", "counterexample"] == ""


@pytest.mark.parametrize(("theorem", "other"), [("4", "8"), ("5", "12"), ("6", "13"), ("7", "17")])
def test_theorems_4_to_7_lean_on_the_bound_that_gives_them_their_hessian(theorem, other):
    own = networks(theorem, "difference")
    holds = "holds, loose by a factor of 10 at the median"
    for leant, verdict in (
        (networks(other, "hessian"), holds),
        (networks(other, "gauss_newton", printed=0.5), holds),
        (networks("9", "hessian", printed=0.5), holds),
        (
            networks(other, "hessian", printed=0.5),
            f"fails with the M_H of Theorem {other}, which is violated; given M_H it {holds}",
        ),
    ):
        assert judged(own, leant).loc[theorem, "verdict"] == verdict
    assert judged(own).loc[theorem, "verdict"] == holds
    assert (
        judged(networks(theorem, "difference", printed=0.5), leant).loc[theorem, "verdict"] == "fails: violated 4 times"
    )


@pytest.mark.parametrize("theorem", MISPRINTED + EXACT)
def test_identities_are_exact_or_not(theorem):
    for error, exact in ((3e-15, True), (2e-3, False)):
        row = judged(identities=pd.DataFrame({"theorem": [theorem], "error": error, "networks": 1})).loc[theorem]
        right = (
            "fails as printed, by derivation; corrected exact to 3e-15"
            if theorem in MISPRINTED
            else "holds, exact to 3e-15"
        )
        assert row["verdict"] == (right if exact else "fails: relative error 0.002")
        assert (row["quantity"], math.isnan(row["printed_smallest"])) == ("identity", True)


@pytest.mark.parametrize(("theorem", "limit"), [("10", 1e-12), ("18", 1e-10), ("25", 1e-10)])
def test_identities_are_exact_up_to_their_limit(theorem, limit):
    for factor, fails in ((0.5, False), (2, True)):
        row = judged(identities=pd.DataFrame({"theorem": [theorem], "error": factor * limit})).loc[theorem]
        assert row["verdict"].startswith("fails: relative error") == fails


@pytest.mark.parametrize(("theorem", "kind"), [("8", "Theorem"), ("22", "Lemma"), ("23", "Lemma"), ("26", "Theorem")])
def test_lemmas_are_called_lemmas(theorem, kind):
    given = networks(theorem, "hessian")
    assert judged(given).loc[theorem, "kind"] == kind
    (claim,) = experiment().claims(found({"networks": given}))
    assert (claim.claim.partition(",")[0], claim.source) == (f"{kind} {theorem}", f"thesis, {kind} {theorem}")


def test_networks_are_counted_that_judged_the_corrected_bound():
    parts = [networks(), networks(kind="trained", measured=(0.0, 1, 1, 1))]  # one of them dead
    parts += [networks(kind="adversarial", against=against) for against in ("printed", "corrected", "corrected")]
    assert judged(*parts).loc["11", ["random", "trained", "adversarial"]].tolist() == [4, 3, 8]


@pytest.mark.parametrize(
    ("value", "limit", "start"), [(0.5, 0, "fails"), (0.05, 0, "holds"), (0.78, 1, "fails"), (1.02, 1, "holds")]
)
def test_sequences_come_to_their_limit_or_not(value, limit, start):
    frame = pd.DataFrame([{"theorem": "28", "value": value, "limit": limit, "what": "KL(k)"}])
    assert judged(sequences=frame).loc["28", "verdict"] == f"{start}: KL(k) = {value}, promised {limit}"
    text = judged(sequences=frame).loc["28", "counterexample"]
    assert text == (SEQUENCES["28"] if start == "fails" else "")
