"""What does the loss look like around a minimum, with shortcuts and without?"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import isfinite
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from resnetkit.data.datasets import Dataset
from resnetkit.device import find_device
from resnetkit.errors import Diverged, ResnetkitError
from resnetkit.lab.cells import Cell
from resnetkit.lab.experiment import Experiment, Finding, Reading, Table
from resnetkit.lab.images import few_images, guessing_loss
from resnetkit.lab.statistics import exceeds, geometric_mean, mean
from resnetkit.lab.twins import framed_images, trained_twin
from resnetkit.reporting.graphs import Graph, Heat, graph, heat

NETS = ("plain", "residual")
Direction = dict[str, Tensor]
TRAINED_ON = 50_000  # images at most
LEARNED = 0.5  # of the loss of guessing: above it there is no minimum to look around
CENTRE = 1e-3  # added to losses before their logarithm is drawn


def random_direction(net: nn.Module, seed: int) -> Direction:
    """A normal direction in the space of the weights, every filter of it as long as the network's own filter; norms and
    biases stand still (Li et al. 2018, section 4)."""
    generator = torch.Generator().manual_seed(seed)
    direction = {}
    for name, weight in net.named_parameters():
        if weight.ndim < 2:
            continue
        drawn = torch.randn(weight.shape, generator=generator).to(weight.device)
        own, length = weight.detach().flatten(1).norm(dim=1), drawn.flatten(1).norm(dim=1)
        direction[name] = drawn * (own / length).reshape(-1, *[1] * (weight.ndim - 1))
    return direction


@torch.no_grad()
def loss_along(
    net: nn.Module, steps: Sequence[tuple[float, ...]], directions: Sequence[Direction], x: Tensor, labels: Tensor
) -> list[float]:
    """The mean cross-entropy on x (N, C, H, W) at the weights moved by each of `steps`, a share of each direction.

    In evaluation mode: statistics of batch norm stay as trained. The weights are put back.
    """
    weights = dict(net.named_parameters())
    start = {name: weights[name].clone() for name in directions[0]}
    losses = []
    net.eval()
    for step in steps:
        for name, value in start.items():
            moved = sum((share * own[name] for share, own in zip(step, directions)), torch.zeros_like(value))
            weights[name].copy_(value + moved)
        losses.append(float(F.cross_entropy(net(x), labels)))
    for name, value in start.items():
        weights[name].copy_(value)
    return losses


def grid(points: int) -> list[float]:
    """From -1 to 1, 0 among them."""
    return [round(-1 + 2 * i / (points - 1), 6) for i in range(points)]


@dataclass(frozen=True, kw_only=True)
class Landscape(Experiment):
    """`points` along a line, `side` each way over the plane; odd numbers, so that the minimum is among them."""

    NAME = "landscape"
    QUESTION = "What does the loss look like around a minimum, with shortcuts and without?"
    METHOD = (
        "A plain and a residual network of each depth are trained alike, in bfloat16 where the machine is faster in "
        "it, else in float32 (the results say which), and the loss on training images is measured in float32 where the "
        "weights are moved along a random direction, up to its own length each way. Every filter of the "
        "direction is made as long as the network's own filter, without which a network's scale would decide how sharp "
        "it looks; norms and biases stand still. The plane is spanned by two such directions. Networks are "
        f"compared where each has learned: where the loss in the middle is below {LEARNED} of the loss "
        "of guessing, the entropy of the labels."
    )
    SOURCE = "Li et al. 2018, Visualizing the Loss Landscape of Neural Nets, sections 4 and 5 (figures 1 and 5)."
    QUICK = {"depths": (20,), "epochs": 5, "points": 15, "side": 9, "seeds": 2}

    data: str = "digits"
    depths: tuple[int, ...] = (20, 56)
    images: int = 256
    epochs: int = 15
    points: int = 41
    side: int = 15
    device: str = "cpu"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in (("points", 5), ("side", 3)):
            value = getattr(self, name)
            if value < least or value % 2 == 0:
                raise ResnetkitError(f"{name}={value}: give an odd number from {least} on, so that 0 is among them")

    @property
    def precision(self) -> str:
        return "auto"

    def cells(self) -> list[Cell]:
        cells = product(range(self.seeds), sorted(self.depths), NETS)
        return [{"net": net, "depth": depth, "seed": seed} for seed, depth, net in cells]

    def measure(self, cell: Cell, folder: Path) -> dict[str, Any]:
        seed = cell["seed"]
        try:
            model = trained_twin(
                cell["net"], cell["depth"], self.data, TRAINED_ON, self.epochs, seed, folder, self.device
            )
        except Diverged:
            return {"diverged": True}
        device = find_device(self.device)
        net = model.network.to(device)
        images, labels = framed_images(model, self._images(), "train", self.images)
        x, labels = model.preprocessing.normalise(images.to(device)), labels.to(device)
        directions = [random_direction(net, seed=2 * seed + i) for i in range(2)]
        line = loss_along(net, [(step,) for step in grid(self.points)], directions[:1], x, labels)
        found: dict[str, Any] = {"line": line, "test_error": 1 - model.metrics["top1"]}
        if seed == 0:
            places = grid(self.side)
            flat = loss_along(net, list(product(reversed(places), places)), directions, x, labels)
            found["plane"] = [flat[i : i + self.side] for i in range(0, len(flat), self.side)]
        return found

    def _images(self) -> Dataset:
        return few_images(self.data, train=TRAINED_ON, test=TRAINED_ON)

    def read(self, rows: list[Cell]) -> Reading:
        places = grid(self.points)
        by = {
            (net, depth): [r for r in rows if (r["net"], r["depth"]) == (net, depth)]
            for net in NETS
            for depth in self.depths
        }
        return Reading(
            _findings(by, places, guessing_loss(self._images().parts["train"].labels)),
            _graphs(by, places, grid(self.side)),
            [_table(by, places)],
            notes="Means over seeds along the line; over the plane is the first seed's, the stronger the "
            "colour the higher, by its logarithm.",
        )


Rows = dict[tuple[str, int], list[Cell]]


def rise(line: Sequence[float], places: Sequence[float], reach: float = 0.5) -> float:
    """By how much the loss is higher than in the middle, the mean over the places within `reach`."""
    centre = line[len(line) // 2]
    return fmean(loss - centre for loss, place in zip(line, places) if 0 < abs(place) <= reach)


def valleys(line: Sequence[float]) -> int:
    """Places lower than both neighbours, the one in the middle not counted."""
    middle = len(line) // 2
    inner = range(1, len(line) - 1)
    return sum(line[i] < line[i - 1] and line[i] < line[i + 1] and abs(i - middle) > 1 for i in inner)


def _findings(by: Rows, places: Sequence[float], guessing: float) -> list[Finding]:
    findings = []
    for depth in sorted({depth for _, depth in by}):
        key = f"steeper_{depth}"
        claim = f"At {depth} layers the loss rises faster around the plain network's minimum"
        if unready := [net for net in NETS if not _learned(by[net, depth], guessing)]:
            why = f"The {' and the '.join(unready)} network did not come below {LEARNED * guessing:.2f} at every seed"
            findings.append(Finding(key, claim, None, f"{why}, half of what guessing has: it is at no minimum."))
            continue
        plain, residual = ([rise(row["line"], places) for row in by[net, depth]] for net in NETS)
        gap = mean([a - b for a, b in zip(plain, residual)])
        findings.append(
            Finding(
                key,
                claim,
                exceeds(gap, 0.0),
                f"Within half the weights' own length it is higher by {geometric_or_plain(plain)} for the "
                f"plain network and {geometric_or_plain(residual)} for the residual; the difference is {gap}. "
                f"Other valleys on the line: {fmean(valleys(r['line']) for r in by['plain', depth]):.1f} and "
                f"{fmean(valleys(r['line']) for r in by['residual', depth]):.1f} a seed.",
            )
        )
    return findings


def _learned(rows: list[Cell], guessing: float) -> bool:
    """Whether each seed's loss in the middle is well below that of guessing."""
    return all("line" in row and row["line"][len(row["line"]) // 2] < LEARNED * guessing for row in rows)


def geometric_or_plain(values: Sequence[float]) -> str:
    return str(geometric_mean(values) if min(values) > 0 else mean(values))


def _graphs(by: Rows, places: Sequence[float], plane: Sequence[float]) -> list[Graph | Heat]:
    graphs: list[Graph | Heat] = []
    for depth in sorted({depth for _, depth in by}):
        lines = {
            net: [
                (place, fmean(losses) + CENTRE)
                for place, losses in zip(places, zip(*(row["line"] for row in by[net, depth] if "line" in row)))
                if all(map(isfinite, losses))
            ]
            for net in NETS
        }
        graphs.append(graph(f"Loss along a line, {depth} layers", lines, x_label="share of the direction", log_y=True))
    for (net, depth), rows in sorted(by.items(), key=lambda item: (item[0][1], item[0][0])):
        for row in rows:
            if "plane" in row:
                values = [[loss + CENTRE for loss in line] for line in row["plane"]]
                graphs.append(
                    heat(f"Loss over a plane, {net}, {depth} layers", values, plane, x_label="share of each direction")
                )
    return graphs


def _table(by: Rows, places: Sequence[float]) -> Table:
    lines = []
    for (net, depth), all_rows in sorted(by.items(), key=lambda item: (item[0][1], item[0][0])):
        if rows := [row for row in all_rows if "line" in row]:
            facts = [
                f"{fmean(row['line'][len(places) // 2] for row in rows):.3g}",
                geometric_or_plain([rise(row["line"], places) for row in rows]),
                str(mean([row["test_error"] for row in rows])),
            ]
        else:
            facts = [""] * 3
        diverged = len(all_rows) - len(rows)
        lines.append([f"{net}, {depth} layers", *facts, str(diverged) if diverged else ""])
    header = (
        "network",
        "loss at the minimum",
        "mean rise within half the weights' length",
        "test error",
        "seeds that diverged",
    )
    return Table("Around the minimum", header, lines)
