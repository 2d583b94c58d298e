"""What networks without some of their blocks say together: findings, graphs and tables of `resnet lab ablate`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import comb
from statistics import fmean, median

from resnetkit.architecture.spec import NetworkSpec
from resnetkit.architecture.stages import plan
from resnetkit.evaluation.intervals import difference_interval, wilson_interval
from resnetkit.lab.cells import Cell
from resnetkit.lab.experiment import Finding, Reading, Table
from resnetkit.lab.statistics import Mean, both, lies, mean
from resnetkit.lab.surgery import keeps_shape
from resnetkit.reporting.graphs import Graph, graph

HARDLY = 0.02  # of the images: what a block's loss may cost
COLLAPSE = 0.5  # of the accuracy above chance
LEAP = 0.5  # of the accuracy above chance: what is lost at one step of several is no longer little by little
MOST = 0.95  # of the gradient
LEARNED = 0.2  # of the way from chance to every image: from here on there is something to lose


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
        """Accuracy of one who always says the commonest class: what it surely has, for among a few images of classes
        that are alike one is commonest by chance. Rows of earlier versions do not say how many images it has."""
        row = self.of("whole")[0]
        alike = 1 / self.spec.num_classes
        return max(alike, wilson_interval(row["commonest"], row["n"])[0]) if "commonest" in row else alike

    @property
    def learned(self) -> bool:
        """Whether the whole network surely answers better than by chance, by LEARNED."""
        row = self.of("whole")[0]
        low, _ = wilson_interval(row["right"], row["n"])
        return low >= self.chance + LEARNED * (1 - self.chance)

    @property
    def dropped(self) -> dict[int, float]:
        """Accuracy by the block left out."""
        return {row["block"]: accuracy(row) for row in self.of("drop")}

    def by_count(self, what: str) -> dict[int, Mean]:
        rows = self.of(what)
        counts = sorted({row["count"] for row in rows})
        return {count: mean([accuracy(row) for row in rows if row["count"] == count]) for count in counts}

    def steps(self, what: str) -> list[Mean]:
        """What is lost from each number of blocks or pairs to the next one measured, seed by seed, as a share of what
        the whole network has above chance on the same images; then all of it together."""
        lines = []
        for seed in sorted({row["seed"] for row in self.of(what)}):
            own = sorted((row for row in self.of(what) if row["seed"] == seed), key=lambda row: row["count"])
            line = [own[0]["whole"] / own[0]["n"], *map(accuracy, own)]
            line = [value / (line[0] - self.chance) for value in line]
            lines.append([*(a - b for a, b in zip(line, line[1:])), line[0] - line[-1]])
        return [mean(values) for values in zip(*lines)]

    @property
    def path_gradients(self) -> list[list[float]]:
        """By seed, and by length from 0."""
        rows = self.of("path")
        seeds = sorted({row["seed"] for row in rows})
        return [
            [r["gradient"] for r in sorted(rows, key=lambda row: row["count"]) if r["seed"] == seed] for seed in seeds
        ]

    def lost(self, accuracy: float) -> float:
        """The share that is gone of what the whole network has above chance."""
        return (self.whole - accuracy) / (self.whole - self.chance)


def accuracy(row: Cell) -> float:
    return row["right"] / row["n"]


def cost(row: Cell) -> Mean:
    """The share of images that are answered rightly no more, less those that are now."""
    n, lost = row["n"], row["lost"]
    won = row["right"] - (row["whole"] - lost)
    return Mean((lost - won) / n, *difference_interval(won, lost, n))


def middle(intervals: Sequence[Mean]) -> Mean:
    """The median, between the medians of the ends."""
    ends = [(found.value, found.low or 0.0, found.high or 0.0) for found in intervals]
    return Mean(*(median(values) for values in zip(*ends)))


def read_ablation(trials: Mapping[str, Trials]) -> Reading:
    residual = trials["residual"]
    findings = [_survives(residual), *([_collapses(trials["plain"])] if "plain" in trials else [])]
    findings += [_gradual(residual), _order(residual), _short(residual)]
    figures = {
        net: {"whole": own.whole, "median_without_one": median(own.dropped.values()) if own.dropped else None}
        for net, own in trials.items()
    }
    return Reading(findings, _graphs(trials), _tables(trials), figures)


def _finding(own: Trials, key: str, claim: str, holds: bool | None, says: str) -> Finding:
    """Nothing is found out from a network that has nothing to lose."""
    if not own.learned:
        says = f"Whole, it answers {own.whole:.1%} rightly, where chance is {own.chance:.0%}: it has nothing to lose."
    return Finding(key, claim, holds if own.learned else None, says)


def _survives(residual: Trials) -> Finding:
    dropped, lost = residual.dropped, middle([cost(row) for row in residual.of("drop")])
    worst = min(dropped, key=lambda block: dropped[block])
    shape = "which changes the shape" if not keeps_shape(plan(residual.spec)[worst]) else "which keeps the shape"
    return _finding(
        residual,
        "residual_survives",
        f"A residual network hardly notices the loss of one block: it costs {HARDLY:.0%} of the images at most",
        lies(lost, high=HARDLY),
        f"Whole, it answers {residual.whole:.1%} rightly; the loss of one block costs {_percent(lost)} in the median. "
        f"The worst to lose is block {worst + 1}, {shape}: {dropped[worst]:.1%} are left.",
    )


def _collapses(plain: Trials) -> Finding:
    key, claim = "plain_collapses", "A plain network collapses when it loses one block"
    if not plain.learned or not plain.dropped:
        return _finding(plain, key, claim, None, "Each of its blocks changes the shape, so none can be left out.")
    ends = [wilson_interval(row["right"], row["n"]) for row in plain.of("drop")]
    left = middle([Mean(accuracy(row), low, high) for row, (low, high) in zip(plain.of("drop"), ends)])
    assert left.low is not None and left.high is not None
    lost = Mean(plain.lost(left.value), plain.lost(left.high), plain.lost(left.low))
    return _finding(
        plain,
        key,
        claim,
        lies(lost, low=COLLAPSE),
        f"Whole, it answers {plain.whole:.1%} rightly; without one block {_percent(left)} in the median (chance is "
        f"{plain.chance:.0%}).",
    )


def _gradual(residual: Trials) -> Finding:
    found = residual.by_count("some")
    ends = ", ".join(f"{count} blocks {found[count].value:.1%}" for count in list(found)[:: max(1, len(found) // 3)])
    return _little_by_little(
        residual,
        "some",
        "accuracy_falls_gradually",
        "The more blocks are left out, the more accuracy is lost, little by little",
        f"Without {ends}",
    )


def _order(residual: Trials) -> Finding:
    key, claim = "order_matters_gradually", "The order of the blocks matters little by little, too"
    found, rows = residual.by_count("swap"), residual.of("swap")
    if all(row["tau"] == 1 for row in rows):
        return _finding(residual, key, claim, None, "No pair of blocks could be exchanged.")
    most = max(found)
    tau = fmean(row["tau"] for row in rows if row["count"] == most)
    return _little_by_little(
        residual,
        "swap",
        key,
        claim,
        f"After {most} exchanges (Kendall's tau {tau:.2f}) {found[most].value:.1%} are right",
    )


def _little_by_little(own: Trials, what: str, key: str, claim: str, says: str) -> Finding:
    """A fall, of which no step takes more than LEAP."""
    if not own.learned or len(own.by_count(what)) < 3:
        return _finding(own, key, claim, None, "Too few of the blocks can be moved.")
    *steps, together = own.steps(what)
    largest = max(steps, key=lambda step: step.value)
    falls = lies(together, low=HARDLY)
    holds = both(falls, *(lies(step, high=LEAP) for step in steps))
    return _finding(
        own,
        key,
        claim,
        holds,
        f"{says}. Of what is above chance, the largest step from one of {len(steps) + 1} numbers to the next takes "
        f"{_percent(largest)}, all together {_percent(together)}; little by little means no step above {LEAP:.0%}.",
    )


def _short(residual: Trials) -> Finding:
    by_seed = residual.path_gradients
    shares = path_shares(_means(by_seed))
    low, high = middle_share(shares)
    n = len(shares) - 1
    centre = mean([_centre(path_shares(own)) for own in by_seed])
    few = sum(comb(n, length) for length in range(low, high + 1)) / 2**n
    return _finding(
        residual,
        "paths_are_short",
        "The gradient comes through short paths",
        lies(centre, high=n / 2),
        f"Of the {n} blocks, paths through {low} to {high} of them bring {MOST:.0%} of the gradient, {centre} in "
        f"the mean; half of all paths are longer than {n / 2:g}. Those lengths are {few:.2g} of all paths.",
    )


def _means(lines: Sequence[Sequence[float]]) -> list[float]:
    return [fmean(values) for values in zip(*lines)]


def _centre(shares: Sequence[float]) -> float:
    return sum(length * share for length, share in enumerate(shares))


def _percent(share: Mean) -> str:
    if share.low is None or share.high is None:
        return f"{share.value:.1%}"
    return f"{share.value:.1%} ({share.low:.1%} to {share.high:.1%})"


def _graphs(trials: Mapping[str, Trials]) -> list[Graph]:
    residual = trials["residual"]
    dropped = {
        net: [(float(b + 1), value) for b, value in own.dropped.items()] for net, own in trials.items() if own.dropped
    }
    one = {
        net: [_reach(float(row["block"] + 1), wilson_interval(row["right"], row["n"])) for row in own.of("drop")]
        for net, own in trials.items()
        if net in dropped
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
    gradients = _means(residual.path_gradients)
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
    return [value / (sum(brought) or 1.0) for value in brought]


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
