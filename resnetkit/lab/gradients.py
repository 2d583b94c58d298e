"""Do gradients vanish in a deep plain network, and what does a shortcut change?"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from math import inf, isfinite
from pathlib import Path
from statistics import fmean, median
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from resnetkit.architecture.resnet import ResNet
from resnetkit.architecture.variants import spec
from resnetkit.data.loaders import TrainingBatches
from resnetkit.device import find_device
from resnetkit.errors import Diverged, ResnetkitError
from resnetkit.lab.cells import Cell
from resnetkit.lab.experiment import Experiment, Finding, Reading, Table
from resnetkit.lab.images import NOISE, few_images, in_memory
from resnetkit.lab.statistics import Mean, both, geometric_mean, lies, number
from resnetkit.reporting.graphs import Graph, graph
from resnetkit.training.averaging import Average
from resnetkit.training.epochs import training_batches
from resnetkit.training.loop import train_epoch
from resnetkit.training.optimizer import make_optimizer
from resnetkit.training.prepare import Prepared, prepare
from resnetkit.training.recipe import make_recipe
from resnetkit.training.state import Tally, TrainingState

NETS = {"plain": "plain{}_cifar", "residual": "resnet{}_cifar", "pre-activation": "preact_resnet{}_cifar"}
SETTINGS = {  # norm and initialisation
    "batch norm, He": ("batch", "he"),
    "batch norm, PyTorch": ("batch", "pytorch"),
    "batch norm, zero-init": ("batch", "zero"),
    "no norm, He": ("none", "he"),
    "no norm, PyTorch": ("none", "pytorch"),
    "no norm, zero-init": ("none", "zero"),
}
TRAINED = ("batch norm, He", "batch norm, zero-init", "no norm, He", "no norm, PyTorch")
TRAINING_BATCH = 16
VANISHED = 1e-3  # of the gradient that the last block gets; a verdict asks that the whole interval lies on one side
EXPLODED, TAMED = 100, 10  # times another network's gradient
RATE = 0.1


class Norms(NamedTuple):
    """By block, from the input on: the gradient of its first convolution's weight (Euclidean norm), and its output
    (root mean square)."""

    loss: float
    gradients: list[float]
    activations: list[float]


def initialised(
    name: str, num_classes: int, in_channels: int, norm: str, init: str, seed: int, **choices: Any
) -> ResNet:
    """A network with `norm` and `choices`, by He's initialisation (ours), PyTorch's default of every layer, or He's
    with the last layer of every residual branch at zero."""
    torch.manual_seed(seed)
    net = ResNet(spec(name, num_classes, in_channels, norm=norm, zero_init_residual=init == "zero", **choices))
    if init == "pytorch":
        for module in net.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                module.reset_parameters()
    return net


def blocks_of(net: ResNet) -> list[nn.Module]:
    return [block for stage in net.stages for block in stage]  # type: ignore[attr-defined]


def gradient_norms(net: ResNet) -> list[float]:
    """Of the first convolution's weight in every block, from the gradients that lie there."""
    return [float(block.get_submodule("branch.conv1").weight.grad.norm()) for block in blocks_of(net)]  # type: ignore


def block_norms(net: ResNet, x: Tensor, labels: Tensor) -> Norms:
    """What one forward and backward pass of the cross-entropy on x (N, C, H, W) leaves; in training mode."""
    outputs: list[float] = []

    def note(_: nn.Module, __: Any, output: Tensor) -> None:
        outputs.append(float(output.detach().square().mean().sqrt()))

    hooks = [block.register_forward_hook(note) for block in blocks_of(net)]
    net.train()
    net.zero_grad(set_to_none=True)
    loss = F.cross_entropy(net(x), labels)
    loss.backward()
    for hook in hooks:
        hook.remove()
    return Norms(loss.item(), gradient_norms(net), outputs)


def train_and_watch(prepared: Prepared, net: ResNet, steps: int) -> dict[str, Any]:
    """Loss and the first block's gradient at each of so many steps of the training package's own loop; `diverged` is
    the step where the loss was no number, or None."""
    recipe = prepared.recipe
    state = TrainingState(net, make_optimizer(net, recipe), Average(net, 0.0))
    found: dict[str, Any] = {"losses": [], "first": [], "diverged": None}
    before = Tally()

    def after_step(state: TrainingState, waited: float) -> None:
        nonlocal before
        loss = state.tally.loss_since(before)
        if not isfinite(loss):  # on a GPU the loop itself looks seldom
            raise Diverged(f"the loss is {loss}")
        found["losses"].append(loss)
        found["first"].append(gradient_norms(net)[0])
        before = replace(state.tally)

    batches = training_batches(prepared, workers=0, device=next(net.parameters()).device)
    net.train()
    try:
        train_epoch(
            state,
            _repeated(batches, prepared.preprocessing.size, steps),
            recipe,
            rate=lambda step: recipe.lr,
            preprocessing=prepared.preprocessing,
            after_step=after_step,
        )
    except Diverged:
        found["diverged"] = len(found["losses"])
    return found


def _repeated(batches: TrainingBatches, size: tuple[int, int], steps: int) -> Iterator[tuple[Tensor, Tensor]]:
    for epoch in range(-(-steps // batches.steps)):
        for step, batch in enumerate(batches.epoch(epoch, size), epoch * batches.steps):
            if step < steps:
                yield batch


@dataclass(frozen=True, kw_only=True)
class Gradients(Experiment):
    """`batch` images start the measurement, `steps` of TRAINING_BATCH images follow at the depth in the middle."""

    NAME = "gradients"
    QUESTION = "Do gradients vanish in a deep plain network, and what does a shortcut change?"
    METHOD = (
        "Plain, residual and pre-activation networks of the CIFAR family are built with and without batch norm, by "
        "PyTorch's default initialisation, He's, and He's with every residual branch ending in zero. One backward pass "
        "of the cross-entropy on a batch gives the Euclidean norm of the gradient of each block's first convolution, "
        "and the root mean square of each block's output. At the middle depth training goes on with momentum SGD at "
        "rate 0.1, and the first block's gradient is followed."
    )
    SOURCE = (
        "He et al. 2015, Deep Residual Learning, section 4.1 (“we argue that this optimization difficulty is unlikely "
        "to be caused by vanishing gradients”); He et al. 2015, Delving Deep into Rectifiers, section 2.2 (the "
        "initialisation); Goyal et al. 2017, section 5.1 (zero-init); He et al. 2016, Identity Mappings, section 2."
    )

    data: str = NOISE
    depths: tuple[int, ...] = (20, 56, 110)
    batch: int = 64
    steps: int = 24
    device: str = "cpu"

    SIDE_BY_SIDE = True
    QUICK = {"seeds": 2, "depths": (8, 20, 56), "steps": 12}

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 0:
            raise ResnetkitError(f"steps={self.steps}: give 0 or more")

    def cells(self) -> list[Cell]:
        grid = product(range(self.seeds), self.depths, NETS, SETTINGS)
        return [
            {"net": net, "depth": depth, "setting": setting, "seed": seed}
            for seed, depth, net, setting in grid
            if net != "plain" or "zero" not in setting
        ]

    @property
    def middle(self) -> int:
        return sorted(self.depths)[len(self.depths) // 2]

    def measure(self, cell: Cell, folder: Path) -> dict[str, Any]:
        name = NETS[cell["net"]].format(cell["depth"])
        recipe = make_recipe(
            {
                "model": name,
                "epochs": 1,
                "lr": RATE,
                "batch_size": TRAINING_BATCH,
                "seed": cell["seed"],
                "flip": False,
                "weight_decay": 0.0,
                "precision": "float32",
            }
        )
        prepared = prepare(few_images(self.data, train=4 * max(self.batch, TRAINING_BATCH), test=1), recipe, {}, 0.0)
        part, preprocessing = prepared.parts["train"], prepared.preprocessing
        classes, channels = len(prepared.dataset.classes), len(preprocessing.mean)
        block = spec(NETS["residual"].format(cell["depth"])).block  # preact_resnet164_cifar has bottlenecks, alone
        device = find_device(self.device)
        build: Callable[[], ResNet] = partial(
            initialised, name, classes, channels, *SETTINGS[cell["setting"]], cell["seed"], block=block
        )
        first = preprocessing.normalise(preprocessing.frame(in_memory(part, self.data)[: self.batch])).to(device)
        found = block_norms(build().to(device), first, part.labels[: self.batch].to(device))._asdict()
        if cell["depth"] == self.middle and cell["setting"] in TRAINED and self.steps:
            found["training"] = train_and_watch(prepared, build().to(device), self.steps)
        return found

    def read(self, rows: list[Cell]) -> Reading:
        by = {(row["net"], row["depth"], row["setting"]): [] for row in rows}  # type: ignore[var-annotated]
        for row in map(_with_infinities, rows):
            by[row["net"], row["depth"], row["setting"]].append(row)
        firsts = {key: geometric_mean([row["gradients"][0] for row in own]) for key, own in by.items()}
        return Reading(
            _findings(by, firsts, self.middle),
            _graphs(by, self.middle),
            _tables(by, firsts, self.depths, self.middle),
            {"first_block": [{"net": n, "depth": d, "setting": s, **v._asdict()} for (n, d, s), v in firsts.items()]},
            f"Depth {self.middle}, means over seeds. A gradient of exactly 0 has no place on a logarithmic axis and is "
            "not drawn; where branches start at zero, every first convolution's is 0 before the first step. Lines of "
            "training end where the loss was no number any more.",
        )


Rows = dict[tuple[str, int, str], list[Cell]]
Firsts = dict[tuple[str, int, str], Mean]


def _with_infinities(row: Cell) -> Cell:
    """The row with infinity where a size was too large for a float, or no number, which comes of one that was: JSON
    gives both back as None."""
    told: Cell = {"loss": _size(row["loss"])}
    told |= {what: [_size(value) for value in row[what]] for what in ("gradients", "activations")}
    if run := row.get("training"):
        told["training"] = run | {what: [_size(value) for value in run[what]] for what in ("losses", "first")}
    return row | told


def _size(value: float | None) -> float:
    return value if value is not None and isfinite(value) else inf


def _share_left(rows: list[Cell]) -> Mean:
    """The first block's gradient as a share of the last one's."""
    return _factor([row["gradients"][0] for row in rows], [row["gradients"][-1] for row in rows])


def _factor(some: Sequence[float], others: Sequence[float]) -> Mean:
    """How many times others, seed by seed; 0 where both are."""
    return geometric_mean([a / b if b else 0.0 if not a else inf for a, b in zip(some, others)])


def _findings(by: Rows, firsts: Firsts, depth: int) -> list[Finding]:
    def first(net: str, setting: str) -> Mean:
        return firsts[net, depth, setting]

    def times(net: str, setting: str, than: str, its: str) -> Mean:
        some, others = ([row["gradients"][0] for row in by[key]] for key in ((net, depth, setting), (than, depth, its)))
        return _factor(some, others)

    normed = [_share_left(by["plain", depth, setting]) for setting in ("batch norm, He", "batch norm, PyTorch")]
    bare = _share_left(by["plain", depth, "no norm, PyTorch"])
    short = _share_left(by["residual", depth, "no norm, PyTorch"])
    he = _share_left(by["plain", depth, "no norm, He"])
    bare_he, bare_zero = (by["residual", depth, f"no norm, {init}"] for init in ("He", "zero-init"))
    explodes = times("residual", "no norm, He", "residual", "batch norm, He")
    ratio = times("plain", "batch norm, He", "residual", "batch norm, He")
    vanish = [lies(share, high=VANISHED) for share in normed]
    return [
        Finding(
            "plain_batch_norm_vanishes",
            "With batch norm, the plain network's gradient vanishes",
            True if True in vanish else None if None in vanish else False,
            f"At depth {depth} the first block of the plain network gets a gradient of "
            f"{first('plain', 'batch norm, He')} by He's initialisation and {first('plain', 'batch norm, PyTorch')} by "
            f"PyTorch's, {normed[0]} and {normed[1]} times the last block's."
            + (" Batch norm alone keeps it from vanishing, as He et al. argued." if vanish == [False, False] else ""),
        ),
        Finding(
            "plain_default_vanishes",
            "Without norm and by PyTorch's default initialisation, the plain network's gradient vanishes and the "
            "residual's does not",
            both(lies(bare, high=VANISHED), lies(short, low=VANISHED)),
            f"At depth {depth} the plain network's first block gets {first('plain', 'no norm, PyTorch')}, the "
            f"residual's {first('residual', 'no norm, PyTorch')}: {bare} and {short} times the last block's.",
        ),
        Finding(
            "he_cures_plain",
            "He's initialisation alone keeps the plain network's gradient from vanishing",
            lies(he, low=VANISHED),
            f"Without norm the plain network's first block gets {first('plain', 'no norm, He')}, {he} times the last "
            "block's.",
        ),
        Finding(
            "residual_explodes",
            "Without norm and by He's initialisation, it is the residual network that explodes",
            lies(explodes, low=EXPLODED),
            f"Its first block gets {first('residual', 'no norm, He')}, {explodes} times what it gets with "
            f"batch norm; the last block's output is {number(_growth(bare_he))} times the first's, "
            f"and {number(_growth(bare_zero))} times with branches that start at zero. "
            f"The loss before the first step is {number(_loss(bare_he))}.",
        ),
        Finding(
            "shortcut_tames",
            "With batch norm, the shortcut keeps the first block's gradient from being large",
            lies(ratio, low=TAMED),
            f"The plain network's first block gets {ratio} times the gradient of the residual's "
            f"({first('residual', 'batch norm, He')}; pre-activation {first('pre-activation', 'batch norm, He')}).",
        ),
    ]


def _growth(rows: list[Cell]) -> float:
    return median(row["activations"][-1] / row["activations"][0] for row in rows)


def _loss(rows: list[Cell]) -> float:
    return median(row["loss"] for row in rows)


def _graphs(by: Rows, depth: int) -> list[Graph]:
    graphs = []
    for what, title in (("gradients", "Gradient"), ("activations", "Output")):
        for setting in SETTINGS:
            lines = {net: _by_block(by.get((net, depth, setting), []), what) for net in NETS}
            if any(value > 0 for line in lines.values() for _, value in line):  # zero-init: none before the first step
                graphs.append(graph(f"{title} by block: {setting}", lines, x_label="block", log_y=True))
    for what, title in (("first", "First block's gradient in training"), ("losses", "Loss in training")):
        for setting in TRAINED:
            runs = {net: [row.get("training") for row in by.get((net, depth, setting), [])] for net in NETS}
            lines = {net: _by_step([run[what] for run in own if run]) for net, own in runs.items()}
            if any(lines.values()):
                graphs.append(graph(f"{title}: {setting}", lines, x_label="step", log_y=True))
    return graphs


def _by_block(rows: list[Cell], what: str) -> list[tuple[float, float]]:
    columns = zip(*(row[what] for row in rows))
    return [(float(block), geometric_mean(values).value) for block, values in enumerate(columns, 1)]


def _by_step(lines: list[list[float]]) -> list[tuple[float, float]]:
    """As long as every seed has a number."""
    return [
        (float(step), geometric_mean(values).value)
        for step, values in enumerate(zip(*lines), 1)
        if all(map(isfinite, values))
    ]


def _tables(by: Rows, firsts: Firsts, depths: tuple[int, ...], middle: int) -> list[Table]:
    tables = [
        Table(
            f"Gradient of the first block at depth {depth}, before the first step",
            ("norm, initialisation", *NETS),
            [[setting, *(str(firsts.get((net, depth, setting), "")) for net in NETS)] for setting in SETTINGS],
        )
        for depth in depths
    ]
    rows = []
    for (net, depth, setting), own in by.items():
        runs = [row["training"] for row in own if "training" in row]
        if runs and depth == middle:
            ended = [run["diverged"] for run in runs if run["diverged"] is not None]
            first = [run["losses"][0] if run["losses"] else row["loss"] for row, run in zip(own, runs)]
            last = [fmean(run["losses"][-5:]) for run in runs if run["diverged"] is None]
            rows.append(
                [
                    f"{net}, {setting}",
                    f"{median(first):.3g}",
                    f"{median(last):.3g}" if last else "",
                    f"{len(ended)} of {len(runs)}" + (f", after {min(ended)} steps" if ended else ""),
                ]
            )
    if rows:
        header = ("network", "loss at the first step", "mean of the last five", "seeds that diverged")
        tables.append(Table(f"Training at depth {middle}", header, rows))
    return tables
