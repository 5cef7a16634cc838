"""All theorems of the thesis about losses, Hessians and sample sizes in one table: which hold, how loosely, which fail.

Each is tried on random, trained and adversarial networks of small sizes, on the counterexamples that are known, or, if
it is an identity, against automatic differentiation in float64.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from experiments.beyond.bounds import ROUNDING, VARIANTS, BoundsOptions, searched, with_ratios
from experiments.beyond.statements import COUNTEREXAMPLES, SEQUENCES, STATEMENTS, Statement
from landscape_cli.config import bounded
from landscape_cli.experiment import (
    NOT_REPRODUCED,
    REPRODUCED,
    Context,
    Experiment,
    Figure,
    Measurement,
    Point,
    Results,
    Table,
    Verdict,
)

if TYPE_CHECKING:
    from experiments.beyond.search import Family

LEANS = {"4": "8", "5": "12", "6": "13", "7": "17"}  # theorem -> the one that gives it M_H
OF_THE_PART = ("11", "12", "13", "14", "15", "16")  # are about ‖H_O‖; Theorems 5 and 6 take them for ‖H‖
GROUPS = ("connected", "convolutional", "pooled", "attention", "block", "identities", "norms", "losses", "posteriors")
EXACT = 1e-10  # relative error up to which an identity counts as one
LAYERS = 1e-12  # and Theorem 10, whose factors are zeros, ones and products
SHAPES = ((3, 4), (1, 8), (2, 8), (3, 16))  # of the matrices that layer norms take
LIMIT = 0.1  # distance from its limit at which a sequence does not come


@dataclass
class TheoremsOptions(BoundsOptions):
    """How hard each theorem is tried."""

    networks: int = bounded(1000, minimum=2)  # of each kind and size
    identities: int = bounded(20, minimum=1)  # networks whose derivatives are built


class Theorems(Experiment):
    """Tries every theorem; no data is needed."""

    Options = TheoremsOptions
    uses = frozenset({"seeds"})
    threads = 1

    def points(self) -> list[Point]:
        """One point a group of theorems."""
        points = []
        for group in GROUPS:
            settings = self.settings()
            points.append(Point.of({"group": group}, {**settings, "seeds": settings["seeds"][:1], "group": group}))
        return points

    def measure(self, point: Point, context: Context) -> Measurement:
        """Frames ``networks`` (as of the bounds' experiments), ``identities``, ``sequences``, ``counterexamples``."""
        from landscape_cli.rng import generator

        options, group = point.settings["measure"], point.settings["group"]
        seed = point.settings["seeds"][0]

        def draw(kind: str) -> object:
            return generator(seed, f"{kind} {group}", point.stream)

        if group == "identities":
            return Measurement({"identities": identity_errors(options["identities"], draw("identities"))})
        if group == "posteriors":
            return Measurement({"sequences": sequences(seed)})
        if group == "norms":
            frames = [layer_norms(options["networks"], draw("norms"))]
        elif group == "losses":
            frames = [loss_differences(options["networks"], draw("losses"))]
        else:
            members = enumerate(context.progress(families(group, options, draw("pool")), desc=group))
            frames = [
                searched(family, options["networks"], options["ascent_steps"], lambda kind, n=n: draw(f"{kind} {n}"))
                for n, family in members
            ]
        found = {"networks": pd.concat(frames, ignore_index=True)}
        known = pd.DataFrame(
            [{"theorem": c.theorem, "quantity": c.quantity, **c.values()} for c in COUNTEREXAMPLES if c.group == group]
        )
        return Measurement(found | ({"counterexamples": known} if len(known) else {}))

    def figures(self, results: Results) -> Iterator[Figure]:
        """Draw the smallest ratio of bound and exact norm of every theorem."""
        from landscape_cli.plotting.style import FULL_WIDTH, new_figure, titled_legend

        table = tried(results)
        if table.empty:
            return
        table = table[table["printed_smallest"].notna() | table["corrected_smallest"].notna()]
        names = [f"{row.theorem}: {SYMBOLS[row.quantity]}" for row in table.itertuples()]
        drawing, ((ax,),) = new_figure(1, 1, FULL_WIDTH, 0.9 + 0.24 * len(names))
        height = np.arange(len(names))[::-1]
        for variant, colour, marker, text in (
            ("printed", "#d55e00", "X", "as printed, smallest"),
            ("corrected", "#0072b2", "o", "corrected, smallest"),
        ):
            ax.plot(table[f"{variant}_smallest"], height, marker, color=colour, markersize=4.5, label=text, zorder=3)
        ax.plot(table["printed_median"], height, "|", color="#d55e00", markersize=9, label="as printed, median")
        ax.axvspan(ax.get_xlim()[0], 1, color="0.9", zorder=0)
        ax.axvline(1, color="0.3", linewidth=0.7)
        ax.set_xscale("log")
        ax.set_yticks(height, names)
        ax.set_ylim(-0.7, len(names) - 0.3)
        ax.set_xlabel("bound over exact value; grey: violated")
        titled_legend(drawing, "Every bound of the thesis against exact values", ax, 3)
        note = (
            f"{self.config.measure.networks} random, as many trained networks, and adversarial ones from as many "
            "starts towards each bound, a size; and the known counterexamples."
        )
        yield Figure(self.config.name, drawing, "Smallest ratio of each theorem's bound and the exact value.", note)

    def tables(self, results: Results) -> Iterator[Table]:
        """The table of all theorems."""
        caption = "The theorems: as printed, and as they hold."
        formats = dict.fromkeys(("printed_smallest", "printed_median", "corrected_smallest"), ".3g")
        yield Table(self.config.name, verdicts(results), caption, formats)

    def claims(self, results: Results) -> Iterator[Verdict]:
        """One verdict a theorem, as printed."""
        for row in verdicts(results).itertuples():
            smallest = row.printed_smallest
            yield Verdict(
                claim=f"{row.kind} {row.theorem}, {row.quantity}: {row.statement}",
                source=f"thesis, {row.kind} {row.theorem}",
                statistic="smallest printed bound over exact value; of identities and limits see the note",
                verdict=NOT_REPRODUCED if row.verdict.startswith("fails") else REPRODUCED,
                effect=smallest,
                low=smallest,
                high=math.inf,
                note=row.verdict,
            )


SYMBOLS = {
    "gauss_newton": "‖H_O‖",
    "hessian": "‖H‖",
    "layer_norm_jacobian": "‖J_LN‖",
    "layer_norm_hessian": "‖H_LN‖",
    "output_norm": "‖FFN(Y)‖",
    "difference": "|ΔL|",
    "network": "‖∂²Z‖",
}


def families(group: str, options: dict, generator: object) -> list[Family]:
    """Small networks of several sizes."""
    import torch
    from torch import nn

    from experiments.beyond.search import (
        AttentionFamily,
        BlockFamily,
        ChainFamily,
        Training,
        convolutions,
        normal,
    )

    training = Training(options["train_steps"], 16, 5e-3)

    def pool(*shape: int, classes: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
        """Random objects, the class the largest of a random linear map."""
        x = normal((64, *shape), generator)
        return x, (x.flatten(1) @ normal((math.prod(shape), classes), generator)).argmax(dim=1)

    def connected(*widths: int) -> ChainFamily:
        modules: list[nn.Module] = []
        for fan_in, fan_out in itertools.pairwise(widths):
            modules += [nn.Linear(fan_in, fan_out, bias=False), nn.ReLU()]
        data = pool(widths[0], classes=widths[-1])
        return ChainFamily(nn.Sequential(*modules[:-1]), widths[:1], ("8", "9", "11"), data, training)

    if group == "connected":
        return [connected(2, 2), connected(2, 3, 2), connected(3, 3, 4, 3)]
    if group == "convolutional":
        head = [*convolutions((1, 4, 4), 2, 2, 2, 3)[:-1], nn.ReLU(), nn.Flatten(), nn.Linear(4, 3, bias=False)]
        return [
            ChainFamily(convolutions((2, 4), 2, 2, 2, 3), (2, 4), ("12",), pool(2, 4), training),
            ChainFamily(convolutions((1, 4, 4), 2, 2, 2, 3), (1, 4, 4), ("13",), pool(1, 4, 4), training),
            ChainFamily(nn.Sequential(*head), (1, 4, 4), ("16",), pool(1, 4, 4), training),
        ]
    if group == "pooled":
        return [
            ChainFamily(convolutions((1, 6, 6), 2, 2, 2, 3, kind, 1), (1, 6, 6), (number,), pool(1, 6, 6), training)
            for number, kind in (("14", "max"), ("15", "average"))
        ]
    if group == "attention":
        return [AttentionFamily(2, 2, 2, options["train_steps"]), AttentionFamily(3, 3, 2, options["train_steps"])]
    return [BlockFamily(2, 3, 2, 3, options["train_steps"])]


def identity_errors(count: int, generator: object) -> pd.DataFrame:
    """Largest relative error of each identity over random networks: theorem, error."""
    import torch
    from torch import nn
    from torch.func import jacfwd, jacrev

    from experiments.beyond.search import BlockFamily, ChainFamily, Training, convolutions, normal
    from landscape_cli.bounds import blocks
    from landscape_cli.curvature import GaussNewton, Objective, dense
    from landscape_cli.curvature.chain import factorise

    untrained = Training(0, 1, 1.0)  # of unit scale
    errors: dict[str, float] = {}

    def note(theorem: str, found: torch.Tensor, exact: torch.Tensor) -> None:
        scale = float(exact.abs().max()) or 1.0
        errors[theorem] = max(errors.get(theorem, 0.0), float((found - exact).abs().max()) / scale)

    family = BlockFamily(2, 3, 2, 3, 0)
    body = convolutions((1, 4, 4), 2, 2, 2, 3)
    nets = [
        (nn.Sequential(nn.Linear(3, 4, bias=False), nn.ReLU(), nn.Linear(4, 3, bias=False)), (3,)),
        (convolutions((2, 4), 2, 2, 2, 3), (2, 4)),
        (body, (1, 4, 4)),
        (convolutions((1, 6, 6), 2, 2, 2, 3, "max", 1), (1, 6, 6)),
        (convolutions((1, 6, 6), 2, 2, 2, 3, "average", 1), (1, 6, 6)),
        (nn.Sequential(*body[:-1], nn.ReLU(), nn.Flatten(), nn.Linear(4, 3, bias=False)), (1, 4, 4)),
    ]
    chains = [
        (
            net.double(),
            shape,
            ChainFamily(net, shape, (), (normal((4, *shape), generator), torch.arange(4) % 3), untrained),
        )
        for net, shape in nets
    ]
    for _ in range(count):
        state = {name: tensor[0] for name, tensor in family.train(1, generator).items()}  # no steps: of unit scale
        x = state["X"]
        weights = {name: state[name] for name in family.shapes}
        size = x.numel()
        jacobian, curvature = blocks.layer_norm_derivatives(x)
        note("18", jacobian, jacrev(blocks.layer_norm)(x).reshape(size, size))
        note("19", curvature, jacfwd(jacrev(blocks.layer_norm))(x).reshape(-1, size))
        attention = blocks.attention_derivatives(x, weights)
        layer = lambda own: super(BlockFamily, family).output(own, x)  # noqa: B023, E731 - used within the turn
        second = jacfwd(jacrev(layer))(weights)
        for (i, j), found in attention.curvatures.items():
            note("21", found, second[i][j].reshape(found.shape))
        block = blocks.block_derivatives(x, weights)
        whole = lambda own: family.output(own, x)  # noqa: B023, E731
        first, second = jacrev(whole)(weights), jacfwd(jacrev(whole))(weights)
        for i, found in block.jacobians.items():
            note("24", found, first[i].reshape(found.shape))
        for (i, j), found in block.curvatures.items():
            note("25", found, second[i][j].reshape(found.shape))
        values = normal((3, 4), generator)
        slope = jacrev(torch.relu)(values).reshape(12, 12)
        note("20", torch.diag((values > 0).double().flatten()), slope)
        for net, shape, chain in chains:
            drawn = chain.train(1, generator)
            own = [weight[0] for weight in chain.weights(drawn)]
            for part, weight in zip(chain.chain.layers, own, strict=True):
                net.get_submodule(part.name).weight.data = weight
            objective = Objective(net, drawn["x"].view(1, *shape), drawn["y"])
            note("10", factorise(chain.chain, own, drawn["x"][0]).product(), dense(GaussNewton(objective)))
    return pd.DataFrame({"theorem": list(errors), "error": list(errors.values()), "networks": count})


def layer_norms(count: int, generator: object) -> pd.DataFrame:
    """Lemmas 22 and 23 at random matrices of several shapes: rows as of the bounds' experiments."""
    found = [_layer_norms(count // len(SHAPES) + 1, rows, columns, generator) for rows, columns in SHAPES]
    return pd.concat(found, ignore_index=True)


def _layer_norms(count: int, rows: int, columns: int, generator: object) -> pd.DataFrame:
    import torch
    from torch.func import jacfwd, jacrev, vmap

    from experiments.beyond.search import log_uniform, normal
    from landscape_cli.bounds.attention import layer_norm_bounds
    from landscape_cli.bounds.blocks import layer_norm

    x = normal((count, rows, columns), generator) * log_uniform((0.1, 10), count, generator)[:, None, None]
    jacobians = vmap(jacrev(layer_norm))(x).reshape(count, rows * columns, rows * columns)
    curvatures = vmap(jacfwd(jacrev(layer_norm)))(x).reshape(count, -1, rows * columns)
    norm, deviation = torch.linalg.matrix_norm(x, 2), x.std(dim=-1, correction=0).amin(dim=-1)
    printed = layer_norm_bounds(norm, deviation, rows, columns, printed=True)
    corrected = layer_norm_bounds(norm, deviation, rows, columns)
    y, w1, w2 = layer_norm(x), normal((count, columns, 5), generator), normal((count, 5, columns), generator)
    parts = [torch.linalg.matrix_norm(matrix, 2) for matrix in (y, w1, w2)]
    bound = math.sqrt(min(rows, 5)) * parts[0] * parts[1] * parts[2]
    measured = {
        ("23", "layer_norm_jacobian"): (torch.linalg.matrix_norm(jacobians, 2), printed[0], corrected[0]),
        ("23", "layer_norm_hessian"): (torch.linalg.matrix_norm(curvatures, 2), printed[1], corrected[1]),
        ("22", "output_norm"): (torch.linalg.matrix_norm((y @ w1).clamp(min=0) @ w2, 2), bound, bound),
    }
    return pd.concat([_frame(*key, *values) for key, values in measured.items()], ignore_index=True)


def loss_differences(count: int, generator: object) -> pd.DataFrame:
    """Theorems 4 to 7 where the Taylor term is exact: objects with quadratic losses and a common minimum."""
    import torch

    from experiments.beyond.search import log_uniform, normal
    from landscape_cli.bounds.chains import loss_difference

    objects, size = 5, 4
    half = normal((count, objects, size, size), generator)
    hessians = half @ half.mT * log_uniform((0.01, 100), count * objects, generator).view(count, objects, 1, 1)
    least = torch.rand(count, objects, generator=generator, dtype=torch.float64)
    theta = normal((count, size), generator)
    losses = least + 0.5 * torch.einsum("ni,noij,nj->no", theta, hessians, theta)
    k = objects - 1
    measured = (losses.mean(dim=1) - losses[:, :k].mean(dim=1)).abs()
    most = torch.linalg.matrix_norm(hessians, 2).amax(dim=1)
    given = (float(k), least.amax(dim=1), most, theta.norm(dim=1))
    frames = [
        _frame(theorem, "difference", measured, loss_difference(*given, True, theorem), loss_difference(*given))
        for theorem in ("4", "5", "6", "7")
    ]
    return pd.concat(frames, ignore_index=True)


def sequences(seed: int) -> pd.DataFrame:
    """Theorems 27 to 30: the value at the last k and its promised limit."""
    from landscape_cli.bounds.sample_size import Posterior, drifting_means, shrinking_posteriors

    k = np.array([1e6])
    kl, score = shrinking_posteriors(k)
    random, posterior = np.random.default_rng(seed), Posterior(3, 1.0, 1.0)
    for _ in range(20000):
        step = posterior.add(random.uniform(-1, 1, 3), random.uniform(-1, 1))
    rows = [
        ("27", float(drifting_means(k)[0]), 0.0, "M(k)"),
        ("28", float(kl[0]), 0.0, "KL(k)"),
        ("29", float(score[0]), 1.0, "S(k)"),
        ("30", step.mean + step.covariance, 0.0, "‖m_{k+1} - m_k‖ + ‖Σ_{k+1} - Σ_k‖"),
    ]
    return pd.DataFrame(rows, columns=["theorem", "value", "limit", "what"])


def tried(results: Results) -> pd.DataFrame:
    """One row a theorem and quantity: networks, violations, smallest and median ratios, counterexamples among them."""
    networks = with_ratios(results.frames["networks"]) if "networks" in results.frames else pd.DataFrame()
    known = results.frames.get("counterexamples", pd.DataFrame(columns=["theorem", "quantity"]))
    rows = []
    for (theorem, quantity), own in networks.groupby(["theorem", "quantity"]) if len(networks) else []:
        row = {"theorem": theorem, "quantity": quantity}
        for kind in ("random", "trained", "adversarial"):
            row[kind] = int(((own["kind"] == kind) & own["against"].isin(("", "corrected"))).sum())
        examples = known[(known["theorem"] == theorem) & (known["quantity"] == quantity)]
        for variant in VARIANTS[:2]:
            ratios = own.loc[own["against"].isin(("", variant)), f"{variant}_ratio"].dropna()
            extra = (examples[variant] / examples["measured"]).dropna() if len(examples) else ratios.iloc[:0]
            every = pd.concat([ratios, extra])
            row[f"{variant}_violations"] = int((every < 1 - ROUNDING).sum())
            row[f"{variant}_smallest"] = every.min()
            row[f"{variant}_median"] = own.loc[own["kind"] != "adversarial", f"{variant}_ratio"].median()
        rows.append(row)
    table = pd.DataFrame(rows)
    return table.sort_values("theorem", key=lambda names: names.astype(int), kind="stable") if len(table) else table


def verdicts(results: Results) -> pd.DataFrame:
    """The table of all theorems, those whose group is stored."""
    table = tried(results)
    errors = results.frames.get("identities", pd.DataFrame(columns=["theorem"])).set_index("theorem")
    limits = results.frames.get("sequences", pd.DataFrame(columns=["theorem"])).set_index("theorem")
    known = {(c.theorem, c.quantity): c for c in reversed(COUNTEREXAMPLES)}
    rows = []
    for statement in STATEMENTS:
        number = statement.theorem
        own = table[table["theorem"] == number] if len(table) else table
        leant = (
            table[(table["theorem"] == LEANS.get(number)) & (table["quantity"] == "hessian")] if len(table) else table
        )
        rows += [_row(statement, _bound_verdict(row, leant), row, known) for row in own.to_dict("records")]
        if number in errors.index:
            error = float(errors.loc[number, "error"])
            rows.append(_row(statement, _identity_verdict(statement, error), {"quantity": "identity"}, known))
        if number in limits.index:
            value, limit = float(limits.loc[number, "value"]), float(limits.loc[number, "limit"])
            text = f"{limits.loc[number, 'what']} = {value:.4g}, promised {limit:g}"
            verdict = f"fails: {text}" if abs(value - limit) > LIMIT else f"holds: {text}"
            rows.append(_row(statement, verdict, {"quantity": "limit"}, known))
    return pd.DataFrame(rows)


def _bound_verdict(row: dict, leant: pd.DataFrame) -> str:
    count = row["printed_violations"]
    if count:
        return f"fails: violated {'once' if count == 1 else f'{count} times'}"
    loose = row["printed_median"]
    holds = f"holds, loose by a factor of {loose:.2g} at the median" if loose > 2 else "holds"
    if len(leant) and int(leant["printed_violations"].iloc[0]):
        return f"fails with the M_H of Theorem {leant['theorem'].iloc[0]}, which is violated; given M_H it {holds}"
    return holds


def _identity_verdict(statement: Statement, error: float) -> str:
    if error > (LAYERS if statement.theorem == "10" else EXACT):
        return f"fails: relative error {error:.2g}"
    exact = f"exact to {error:.1g}"
    return f"fails as printed, by derivation; corrected {exact}" if statement.misprinted else f"holds, {exact}"


def _row(statement: Statement, verdict: str, row: dict, known: dict) -> dict:
    example = known.get((statement.theorem, row["quantity"]))
    text = SEQUENCES.get(statement.theorem, "") if row["quantity"] == "limit" else example.text if example else ""
    asked = row["quantity"] == "hessian" and statement.theorem in OF_THE_PART
    return {
        "kind": statement.kind,
        "theorem": statement.theorem,
        "statement": f"{statement.text}, asked of ‖H‖" if asked else statement.text,
        "quantity": SYMBOLS.get(row["quantity"], row["quantity"]),
        "verdict": verdict,
        **{kind: row.get(kind, 0) for kind in ("random", "trained", "adversarial")},
        "printed_smallest": row.get("printed_smallest", math.nan),
        "printed_median": row.get("printed_median", math.nan),
        "corrected_smallest": row.get("corrected_smallest", math.nan),
        "corrected_violations": row.get("corrected_violations", 0),
        "counterexample": text if verdict.startswith("fails") else "",
        "corrected": statement.corrected,
    }


def _frame(theorem: str, quantity: str, measured: object, printed: object, corrected: object) -> pd.DataFrame:
    columns = {"kind": "random", "against": "", "theorem": theorem, "quantity": quantity}
    columns |= {"network": np.arange(len(measured)), "measured": measured.numpy()}
    return pd.DataFrame({**columns, "printed": printed.numpy(), "corrected": corrected.numpy(), "tight": np.nan})
