"""How deep can it go: does the loss fall, how long does a step take, how much memory does it need?"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import inf, log
from pathlib import Path
from statistics import fmean, median
from time import perf_counter
from typing import Any

from resnetkit.device import find_device
from resnetkit.errors import Diverged, ResnetkitError
from resnetkit.lab.cells import Cell
from resnetkit.lab.experiment import Experiment, Finding, Reading, Table
from resnetkit.lab.images import few_images, guessing_loss
from resnetkit.lab.statistics import PowerLaw, lies, mean, power_law
from resnetkit.reporting.graphs import Graph, graph
from resnetkit.training.epochs import Epochs
from resnetkit.training.memory import step_bytes
from resnetkit.training.prepare import Prepared, prepare
from resnetkit.training.recipe import make_recipe
from resnetkit.training.run import new_state
from resnetkit.training.state import Tally, TrainingState

ZERO = "residual, zero-init"
NETS = {"plain": "plain{}_cifar", "residual": "resnet{}_cifar", ZERO: "resnet{}_cifar"}
# Of the loss that guessing has: untrained residual networks begin far above it, and to come down to it nothing need be
# learned. The last tenth of the steps must lie below, at every seed.
FALLEN = 0.9
KEPT = 500  # layers up to which every activation is kept
MiB = 2**20
MEMORY = {"plain": "every activation kept", "checkpoint": "checkpointed"}


@dataclass(frozen=True, kw_only=True)
class Depth(Experiment):
    """`steps` of `batch` images for every network."""

    NAME = "depth"
    QUESTION = "How deep can a network be: does it train, how long does a step take, how much memory does it need?"
    METHOD = (
        "Plain and residual networks of the CIFAR family take the same training steps on the same images: "
        "momentum SGD whose rate rises to 0.1 and falls again. Residual ones are trained twice, from He's "
        "initialisation and from the same with every branch ending in zero (zero-init). A network trains where, "
        f"at every seed, the mean loss over the last tenth of the steps lies below {FALLEN} of the loss of "
        "guessing, the entropy of the labels (2.303 for ten classes alike). Time is the median of the steps but the "
        "first; memory is the bytes that live in a step when most do, weights among them, with every activation kept "
        "(up to 500 layers; deeper ones train checkpointed) and checkpointed; exponents are slopes of a straight line "
        "through the logarithms, that of time through those depths alone that keep every activation. All in float32."
    )
    SOURCE = (
        "He et al. 2015, Deep Residual Learning, section 4.2 (“Exploring Over 1000 layers”); He et al. 2016, Identity "
        "Mappings, section 3; Goyal et al. 2017, section 5.1 (zero-init)."
    )
    QUICK = {"depths": (20, 56, 110), "steps": 20, "seeds": 1}

    data: str = "digits"
    depths: tuple[int, ...] = (20, 56, 110, 302, 1202)
    steps: int = 200
    batch: int = 32
    device: str = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 1:
            raise ResnetkitError(f"steps={self.steps}: give one or more")

    def cells(self) -> list[Cell]:
        grid = product(range(self.seeds), sorted(self.depths), NETS)
        return [{"net": net, "depth": depth, "seed": seed} for seed, depth, net in grid]

    def measure(self, cell: Cell, folder: Path) -> dict[str, Any]:
        prepared = self._prepared(cell)
        device, shallow = find_device(self.device), cell["depth"] <= KEPT
        state, _ = new_state(prepared, device)
        state.net.set_memory("plain" if shallow else "checkpoint")
        losses, seconds = _train(prepared, state, self.steps)
        found: dict[str, Any] = {"losses": losses}
        if seconds[1:]:  # none where the loss was no number at the second step
            found["seconds"] = median(seconds[1:])
        for mode in ("plain", "checkpoint") if shallow else ("checkpoint",):
            fresh, _ = new_state(prepared, device)
            fresh.net.set_memory(mode)
            found[mode] = step_bytes(fresh, prepared, self.batch)
        classes, parameters = len(prepared.dataset.classes), sum(p.numel() for p in state.net.parameters())
        guessing = guessing_loss(prepared.dataset.parts["train"].labels)
        return found | {"classes": classes, "guessing": guessing, "parameters": parameters}

    def _prepared(self, cell: Cell) -> Prepared:
        dataset = few_images(self.data, train=self.steps * self.batch, test=self.batch)
        per_epoch = -(-len(dataset.parts["train"]) // self.batch)
        recipe = make_recipe(
            {
                "model": NETS[cell["net"]].format(cell["depth"]),
                "epochs": -(-self.steps // per_epoch),
                "batch_size": self.batch,
                "seed": cell["seed"],
                "lr": 0.1,
                "schedule": "one_cycle",
                "weight_decay": 1e-4,
                "zero_init_residual": cell["net"] == ZERO,
                "flip": dataset.recipe != "digits",
                "precision": "float32",
            }
        )
        return prepare(dataset, recipe, {}, 0.0)

    def read(self, rows: list[Cell]) -> Reading:
        depths = sorted(self.depths)
        of: Of = lambda net, depth: [r for r in rows if r["net"] == net and r["depth"] == depth]  # noqa: E731
        laws = {}
        for what in ("seconds", *MEMORY):
            fitted = [depth for depth in depths if what != "seconds" or depth <= KEPT]
            points = [(depth, value) for depth in fitted if (value := _middle(of("residual", depth), what))]
            if len(points) > 1:
                laws[what] = power_law(*zip(*points))
        return Reading(
            _findings(of, depths, laws, self.steps, _guessing(rows[0])),
            _graphs(of, depths),
            [_table(of, depths)],
            {what: law._asdict() for what, law in laws.items()},
            f"Batches of {self.batch} images. Losses are means over seeds, a tenth of the steps at a time.",
        )


Of = Callable[[str, int], list[Cell]]


def _middle(rows: list[Cell], what: str) -> float | None:
    """The median over seeds, None where it was not measured."""
    values = [row[what] for row in rows if what in row]
    return median(values) if values else None


def _train(prepared: Prepared, state: TrainingState, steps: int) -> tuple[list[float], list[float]]:
    """Loss and seconds of each of so many steps; fewer where the loss is no number any more."""
    losses: list[float] = []
    seconds: list[float] = []
    began, before = perf_counter(), Tally()

    def after_step(state: TrainingState, waited: float) -> None:
        nonlocal began, before
        tally = state.tally
        if tally.images <= before.images:  # a new epoch
            before = Tally()
        losses.append(tally.loss_since(before))
        seconds.append(perf_counter() - began)
        began, before = perf_counter(), replace(tally)
        if len(losses) >= steps:
            raise _EnoughError

    epochs = Epochs(prepared, state, workers=0)
    try:
        while state.step < epochs.total:
            epochs.begin()
            epochs.train(after_step)
    except (_EnoughError, Diverged):
        pass
    return losses, seconds


class _EnoughError(Exception):
    """The steps are taken."""


def tenths(losses: Sequence[float]) -> list[float]:
    """Means over ten spans of the steps, or every step where there are fewer."""
    spans = min(10, len(losses))
    edges = [len(losses) * i // spans for i in range(spans + 1)]
    return [fmean(losses[a:b]) for a, b in zip(edges, edges[1:])]


def trains(rows: list[Cell], steps: int, guessing: float) -> bool:
    """Whether every seed took all steps and ended below FALLEN of the loss of guessing."""
    lines = [row["losses"] for row in rows]
    return bool(lines) and all(len(line) >= steps and tenths(line)[-1] < FALLEN * guessing for line in lines)


def _guessing(row: Cell) -> float:
    """Rows of earlier versions have no loss of guessing of their own."""
    return row["guessing"] if "guessing" in row else log(row["classes"])


def _findings(of: Of, depths: Sequence[int], laws: dict[str, PowerLaw], steps: int, guessing: float) -> list[Finding]:
    able = {net: [depth for depth in depths if trains(of(net, depth), steps, guessing)] for net in NETS}
    deepest = max(depths)
    below = f"Guessing has {guessing:.3f}; below {FALLEN} of it end"
    findings = [
        Finding(
            "residual_trains",
            f"A residual network of {deepest:,} layers trains",
            # That it learned nothing in so few steps does not say that it cannot.
            True if deepest in able["residual"] + able[ZERO] else None,
            f"Over {steps} steps its loss goes {_course(of('residual', deepest), steps)} with He's initialisation and "
            f"{_course(of(ZERO, deepest), steps)} with zero-init. {below} {_listed(able['residual'])} with He's and "
            f"{_listed(able[ZERO])} with zero-init.",
        ),
        Finding(
            "plain_does_not",
            "Its plain twin does not",
            # Against the one that begins as it does: a plain network of branches that end in zero passes nothing on.
            False if deepest in able["plain"] else True if deepest in able["residual"] else None,
            f"Over the same steps its loss goes {_course(of('plain', deepest), steps)}. {below} "
            f"{_listed(able['plain'])}.",
        ),
    ]
    claims = {
        "seconds": ("time_is_linear", "The time of a step grows in proportion to depth", 0.9, 1.1),
        "plain": ("memory_is_linear", "Memory, with every activation kept, grows in proportion to depth", 0.9, 1.1),
        "checkpoint": ("checkpointed_memory_is_less", "Checkpointed, memory grows more slowly than depth", -inf, 0.9),
    }
    for what, law in laws.items():
        key, claim, low, high = claims[what]
        fits = f", which must lie from {low} to {high}" if low > 0 else f", which must lie below {high}"
        findings.append(Finding(key, claim, lies(law, low, high), f"As depth to the power {law}{fits}."))
    return findings


def _course(rows: list[Cell], steps: int) -> str:
    begun = [row for row in rows if row["losses"]]
    if not begun:
        return "to no number at the first step"
    first, last = mean([row["losses"][0] for row in begun]), mean([tenths(row["losses"])[-1] for row in begun])
    taken = min(len(row["losses"]) for row in rows)
    return f"from {first} to {last}" + (f" and is no number after step {taken}" if taken < steps else "")


def _listed(depths: list[int]) -> str:
    return f"{', '.join(map(str, depths))} layers" if depths else "none of the depths"


def _graphs(of: Of, depths: Sequence[int]) -> list[Graph]:
    graphs = []
    for net in NETS:
        lines = {f"{depth} layers": _loss_line(of(net, depth)) for depth in depths}
        graphs.append(graph(f"Loss, {net}", lines, x_label="tenth of the steps", log_y=True))
    for what, title, unit in (
        ("seconds", "Seconds a step", 1),
        *((mode, f"MiB a step, {words}", MiB) for mode, words in MEMORY.items()),
    ):
        lines = {
            net: [(float(d), value / unit) for d in depths if (value := _middle(of(net, d), what)) is not None]
            for net in NETS
        }
        graphs.append(graph(title, lines, x_label="layers", log_x=True, log_y=True))
    return graphs


def _loss_line(rows: list[Cell]) -> list[tuple[float, float]]:
    lines = [tenths(row["losses"]) for row in rows if row["losses"]]
    return [(float(span), fmean(values)) for span, values in enumerate(zip(*lines), 1)]


def _table(of: Of, depths: Sequence[int]) -> Table:
    lines = []
    for net, depth in product(NETS, depths):
        rows = of(net, depth)
        begun = [row for row in rows if row["losses"]]
        lines.append(
            [
                f"{net}, {depth:,} layers",
                str(mean([row["losses"][0] for row in begun])) if begun else "no number",
                str(mean([tenths(row["losses"])[-1] for row in begun])) if begun else "no number",
                "" if (seconds := _middle(rows, "seconds")) is None else f"{1000 * seconds:,.0f} ms",
                *(f"{rows[0][mode] / MiB:,.0f} MiB" if mode in rows[0] else "" for mode in MEMORY),
                f"{rows[0]['parameters']:,}",
            ]
        )
    header = ("network", "loss at the first step", "last tenth", "time a step", *MEMORY.values(), "parameters")
    return Table("Loss, time and memory", header, lines)
