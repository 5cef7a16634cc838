"""Fig 3.12, Tables 3.5 and 3.6: KL- and S-sufficiency beside the nine classical methods (thesis 3.6.3)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from experiments.chapter3 import sample_size_claims, sample_size_tables
from experiments.chapter3.sample_size_figures import comparison
from experiments.chapter3.sample_size_methods import SampleSizeMethods
from landscape_cli.experiment import NOT_REPRODUCED, REPRODUCED, Figure, Results, Table, Verdict
from landscape_cli.samplesize.rules import AS_DEFINED, COMPARED, METHODS

LAW = (
    "KL(k) falls like 1/k, so that it is within 5 % of its value at m from k = m/1.05 on, on any noisy data; S is near "
    "one from the first size on. As published: one next object a sample, whose noise moves KL's m* to the grid's end."
)


class SampleSizeComparison(SampleSizeMethods):
    """Eleven methods on one data set against what is available, or on several data sets in a table."""

    stored_as = "SampleSizeMethods"

    def figures(self, results: Results) -> Iterator[Figure]:
        """Fig 3.12."""
        if "dataset" not in self.config.grid and "copies" in results.frames:
            yield comparison(results, f"fig_3_12_{self.config.name}")

    def tables(self, results: Results) -> Iterator[Table]:
        """Tables 3.5 and 3.6, or the medians that Fig 3.12 shows."""
        if "dataset" in self.config.grid:
            yield sample_size_tables.datasets(results, "3.5", "table_3_5_posterior_datasets")
            name = "table_3_6_posterior_table"
            yield sample_size_tables.sufficient_sizes(results, name, "3.6", COMPARED, LAW)
        elif "copies" in results.frames:
            caption = "Median of m* over bootstrap copies of the table; a dash: not reached by half of them."
            yield Table(self.config.name, _medians(results).reset_index(), caption, {"available": "d"})

    def claims(self, results: Results) -> Iterator[Verdict]:
        """The rows of Table 3.6, or what Fig 3.12's caption says."""
        if "dataset" in self.config.grid:
            yield from sample_size_claims.rows(results, "3.6", COMPARED)
            return
        if "copies" not in results.frames:
            return
        medians = _medians(results).fillna(np.inf)
        finite = medians.replace(np.inf, np.nan)
        largest = finite["KL-sufficiency"] >= finite.max(axis=1)
        first = results.frames["curves"]["size"].min()
        smallest = medians["S-sufficiency"] <= first
        for method, claim, which, agrees in (
            (
                "KL-sufficiency",
                "KL needs a larger sample than the other criteria",
                "the largest that is reached",
                largest,
            ),
            (
                "S-sufficiency",
                "S says that a minimal sample is sufficient",
                f"the first one looked at, {first}",
                smallest,
            ),
        ):
            share = float(np.mean(agrees))
            yield Verdict(
                claim=f"{claim}, whatever is available",
                source="Fig 3.12",
                statistic=f"share of available sizes at which m* of {method} is {which}",
                verdict=REPRODUCED if share == 1 else NOT_REPRODUCED,
                effect=share,
                low=share,
                high=share,
                note="a share of its last value: KL falls like 1/k, so that its m* is m/1.05 on any noisy data"
                if method.startswith("KL")
                else "S is near one from the start",
            )


def _medians(results: Results) -> pd.DataFrame:
    """Median m* by available size and method; NaN where half of the copies do not reach it."""
    dataset = results.frames["table"]["dataset"].iloc[0]
    copies = sample_size_tables.own(results.frames["copies"], dataset, AS_DEFINED)
    columns = {}
    for method in COMPARED:
        table = copies[copies["method"] == method].pivot(index="available", columns="copy", values="m_star")
        median = np.quantile(table.fillna(np.inf).to_numpy(), 0.5, axis=1, method="inverted_cdf")
        columns[METHODS[method].title] = pd.Series(np.where(np.isfinite(median), median, np.nan), index=table.index)
    return pd.DataFrame(columns)
