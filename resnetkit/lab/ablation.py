"""What networks without some of their blocks say together: findings, graphs and tables of `resnet lab ablate`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import comb
from statistics import median

from scipy.stats import spearmanr

from resnetkit.architecture.spec import NetworkSpec
from resnetkit.architecture.stages import plan
from resnetkit.evaluation.intervals import wilson_interval
from resnetkit.lab.experiment import Cell, Finding, Reading, Table
from resnetkit.lab.statistics import Mean, geometric_mean, mean
from resnetkit.lab.surgery import keeps_shape
from resnetkit.reporting.graphs import Graph, graph

HARDLY = 0.02  # of the accuracy: what a block's loss may cost
COLLAPSE = 0.5  # of the accuracy above chance
MOST = 0.95  # of the gradient
LINKED = 0.8  # rank correlation


@dataclass(frozen=True)
class Trials:
    """The rows of one network."""

    spec: NetworkSpec
    rows: list[Cell]

    def of(self, what: str) -> list[Cell]:
        return [row for row in self.rows if row["what"] == what]

    @property
    def whole(self) -> float:
        """Accuracy with every block in its place."""
        return accuracy(self.of("whole")[0])

    @property
    def chance(self) -> float:
        return 1 / self.spec.num_classes

    @property
    def dropped(self) -> dict[int, float]:
        """Accuracy by the block left out."""
        return {row["block"]: accuracy(row) for row in self.of("drop")}

    def by_count(self, what: str) -> dict[int, Mean]:
        rows = self.of(what)
        counts = sorted({row["count"] for row in rows})
        return {count: mean([accuracy(row) for row in rows if row["count"] == count]) for count in counts}

    @property
    def path_gradients(self) -> list[float]:
        """By length, from 0."""
        rows = self.of("path")
        lengths = range(1 + max(row["count"] for row in rows))
        return [geometric_mean([r["gradient"] for r in rows if r["count"] == length]).value for length in lengths]

    def lost(self, accuracy: float) -> float:
        """The share that is gone of what the whole network has above chance."""
        return (self.whole - accuracy) / (self.whole - self.chance)


def accuracy(row: Cell) -> float:
    return row["right"] / row["n"]


def read_ablation(trials: Mapping[str, Trials]) -> Reading:
    residual = trials["residual"]
    findings = [_survives(residual), *([_collapses(trials["plain"])] if "plain" in trials else [])]
    findings += [_gradual(residual), _order(residual), _short(residual)]
    figures = {
        net: {"whole": own.whole, "median_without_one": median(own.dropped.values())} for net, own in trials.items()
    }
    return Reading(findings, _graphs(trials), _tables(trials), figures)


def _survives(residual: Trials) -> Finding:
    dropped = residual.dropped
    middle, worst = median(dropped.values()), min(dropped, key=lambda block: dropped[block])
    shape = "which changes the shape" if not keeps_shape(plan(residual.spec)[worst]) else "which keeps the shape"
    return Finding(
        "residual_survives",
        "A residual network hardly notices the loss of one block",
        residual.whole - middle <= HARDLY,
        f"Whole, it answers {residual.whole:.1%} rightly; without one block {middle:.1%} in the median. The worst to "
        f"lose is block {worst + 1}, {shape}: {dropped[worst]:.1%}.",
    )


def _collapses(plain: Trials) -> Finding:
    middle = median(plain.dropped.values())
    return Finding(
        "plain_collapses",
        "Its plain twin collapses when it loses one",
        plain.lost(middle) >= COLLAPSE,
        f"Whole, the plain network answers {plain.whole:.1%} rightly; without one block {middle:.1%} in the median "
        f"(chance is {plain.chance:.0%}).",
    )


def _gradual(residual: Trials) -> Finding:
    found = residual.by_count("some")
    link = _link(list(found), [value.value for value in found.values()]) if len(found) > 2 else 0.0
    ends = ", ".join(f"{count} blocks {found[count].value:.1%}" for count in list(found)[:: max(1, len(found) // 3)])
    return Finding(
        "accuracy_falls_gradually",
        "The more blocks are left out, the more accuracy is lost, little by little",
        link <= -LINKED if len(found) > 2 else None,
        f"Without {ends}; rank correlation of blocks left out and accuracy {link:.2f}.",
    )


def _order(residual: Trials) -> Finding:
    rows = [row for row in residual.of("swap") if row["tau"] < 1]
    link = _link([row["tau"] for row in rows], [accuracy(row) for row in rows]) if len(rows) > 2 else 0.0
    far = min(rows, key=lambda row: row["tau"], default=None)
    words = "No pair of blocks could be exchanged."
    if far is not None:
        words = (
            f"At the strongest mixing (Kendall's tau {far['tau']:.2f}) {accuracy(far):.1%} are right; rank correlation "
            f"of tau and accuracy {link:.2f}."
        )
    return Finding(
        "order_matters_gradually",
        "The order of the blocks matters little by little, too",
        link >= LINKED / 2 if len(rows) > 2 else None,
        words,
    )


def _short(residual: Trials) -> Finding:
    shares = path_shares(residual.path_gradients)
    low, high = middle_share(shares)
    n = len(shares) - 1
    centre = sum(length * share for length, share in enumerate(shares))
    few = sum(comb(n, length) for length in range(low, high + 1)) / 2**n
    return Finding(
        "paths_are_short",
        "The gradient comes through short paths",
        centre < n / 2,
        f"Of the {n} blocks, paths through {low} to {high} of them bring {MOST:.0%} of the gradient, {centre:.1f} in "
        f"the mean; half of all paths are longer than {n / 2:g}. Those lengths are {few:.2g} of all paths.",
    )


def _link(x: Sequence[float], y: Sequence[float]) -> float:
    found = float(spearmanr(x, y)[0])
    return 0.0 if found != found else found  # NaN where one does not vary


def _graphs(trials: Mapping[str, Trials]) -> list[Graph]:
    residual = trials["residual"]
    dropped = {net: [(float(b + 1), value) for b, value in own.dropped.items()] for net, own in trials.items()}
    one = {
        net: [_reach(float(row["block"] + 1), wilson_interval(row["right"], row["n"])) for row in own.of("drop")]
        for net, own in trials.items()
    }
    found = {net: own.by_count("some") for net, own in trials.items()}
    lines = {
        net: [(float(c), v.value) for c, v in [(0, Mean(trials[net].whole)), *own.items()]]
        for net, own in found.items()
    }
    reach = {
        net: [(float(c), v.low, v.high) for c, v in own.items() if v.low is not None and v.high is not None]
        for net, own in found.items()
    }
    swaps = {net: [(row["tau"], accuracy(row)) for row in own.of("swap")] for net, own in trials.items()}
    gradients = residual.path_gradients
    shares = path_shares(gradients)
    n = len(shares) - 1
    numbers = {
        "of the gradient": [(float(k), share) for k, share in enumerate(shares)],
        "of the paths": [(float(k), comb(n, k) / 2**n) for k in range(n + 1)],
    }
    path = {"gradient": [(float(k), value) for k, value in enumerate(gradients)]}
    return [
        graph("Accuracy without one block", dropped, x_label="block left out", share=True, spreads=one, dots=True),
        graph("Accuracy without several", lines, x_label="blocks left out", share=True, spreads=reach),
        graph("Accuracy after exchanges", swaps, x_label="Kendall's tau to the true order", share=True, dots=True),
        graph("Gradient along one path", path, x_label="blocks on the path", log_y=True),
        graph("Share of path lengths", numbers, x_label="blocks on the path", share=True),
    ]


def _reach(x: float, ends: Sequence[float]) -> tuple[float, float, float]:
    low, high = ends
    return x, low, high


def _tables(trials: Mapping[str, Trials]) -> list[Table]:
    tables = []
    for own in trials.values():
        rows = [_line("none", own.of("whole")[0], "")]
        for row in own.of("drop"):
            where = plan(own.spec)[row["block"]]
            rows.append(
                _line(
                    str(row["block"] + 1),
                    row,
                    f"stage {where.stage + 1}{'' if keeps_shape(where) else ', changes the shape'}",
                )
            )
        title = f"Accuracy of {own.spec.name} without one block"
        tables.append(Table(title, ("block left out", "where", "accuracy", "95 % interval (Wilson)"), rows))
    for what, title in (("some", "Accuracy without several blocks"), ("swap", "Accuracy after exchanges of pairs")):
        counts = sorted({count for own in trials.values() for count in own.by_count(what)})
        lines = [[str(c), *(str(own.by_count(what).get(c, "")) for own in trials.values())] for c in counts]
        tables.append(Table(title, ("how many", *trials), lines))
    return tables


def _line(name: str, row: Cell, where: str) -> list[str]:
    low, high = wilson_interval(row["right"], row["n"])
    return [name, where, f"{accuracy(row):.2%}", f"{low:.2%} to {high:.2%}"]


def path_shares(gradients: Sequence[float]) -> list[float]:
    """Of the mean gradient along one path of each length from 0 to n: the share of all paths together that paths of
    the length bring, comb(n, length) of them."""
    n = len(gradients) - 1
    brought = [comb(n, length) * value for length, value in enumerate(gradients)]
    return [value / sum(brought) for value in brought]


def middle_share(shares: Sequence[float], most: float = MOST) -> tuple[int, int]:
    """The lengths between which `most` lies, as much below them as above."""
    total, low, high = 0.0, 0, len(shares) - 1
    for length, share in enumerate(shares):
        if total <= (1 - most) / 2:
            low = length
        if total < (1 + most) / 2:
            high = length
        total += share
    return low, high
