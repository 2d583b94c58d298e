"""Does a deeper plain network train worse, and a deeper residual one not?"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from itertools import product
from pathlib import Path
from typing import Any

from torch import Tensor

from resnetkit.errors import Diverged, ResnetkitError
from resnetkit.evaluation.answers import answer
from resnetkit.lab.cells import Cell
from resnetkit.lab.experiment import Experiment, Finding, Reading, Table
from resnetkit.lab.images import few_images
from resnetkit.lab.runs import trained
from resnetkit.lab.statistics import Mean, exceeds, mean
from resnetkit.reporting.graphs import Graph, graph
from resnetkit.reporting.record import read_record
from resnetkit.training.epochs import FramedBatches
from resnetkit.training.prepare import Prepared, prepare
from resnetkit.training.recipe import make_recipe
from resnetkit.training.trainer import Run

NETS = {"plain": "plain{}_cifar", "residual": "resnet{}_cifar"}
RATE = 0.1  # for the paper's batch
WARMED_UP = 110  # layers from which training begins slowly (He et al. 2015, section 4.2)
PAPERS_DATA = ("cifar10", "cifar-10-batches-py", "cifar-10-batches-bin")  # as the folder is called
PADDING = 1 / 8  # of the side: 4 pixels of 32


@dataclass(frozen=True, kw_only=True)
class Degradation(Experiment):
    """`images` is how many to train on at most, `size` their side in pixels (0: their own)."""

    NAME = "degradation"
    QUESTION = "Does a deeper plain network train worse, and a deeper residual network not?"
    METHOD = (
        "Plain and residual networks of the CIFAR family, alike but for their shortcuts, are trained at several depths "
        "with the same images, budget and recipe: momentum SGD at rate 0.1 for batches of 128 and in proportion for "
        "others, a tenth of it from half of the steps on and a hundredth from three quarters on, weight decay 0.0001, "
        "crops and, but for digits, flips; in bfloat16 where the machine is faster in it, else in float32 (the "
        "results say which). Error is the share of images answered wrongly: in the curves on training images as they "
        "are augmented and on test images after each epoch; in the table on the same images as they are, after the "
        "last epoch. Nothing is chosen by them."
    )
    SOURCE = (
        "He et al. 2015, Deep Residual Learning, section 4.2, figure 6 and table 6; Goyal et al. 2017, section 2.1 "
        "(the rate in proportion to the batch). Here the momentum is Nesterov's, and norms and biases are not decayed."
    )
    SIDE_BY_SIDE = True
    QUICK = {"depths": (20, 56), "images": 5000, "size": 16, "epochs": 10, "batch": 32}

    data: str = "digits"
    depths: tuple[int, ...] = (20, 32, 44, 56, 110)
    images: int = 50_000
    size: int = 0
    epochs: int = 164  # 64,000 steps on 50,000 images
    batch: int = 128
    device: str = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.depths) < 2:
            raise ResnetkitError(f"depths={self.depths[0]}: give two or more, which are compared")

    @property
    def precision(self) -> str:
        return "auto"

    def cells(self) -> list[Cell]:
        grid = product(range(self.seeds), sorted(self.depths), NETS)
        return [{"net": net, "depth": depth, "seed": seed} for seed, depth, net in grid]

    def measure(self, cell: Cell, folder: Path) -> dict[str, Any]:
        prepared = self._prepared(cell)
        place = folder / "runs" / f"{cell['net']}{cell['depth']}-{cell['seed']}"
        try:
            run = trained(place, prepared, self.device)
        except Diverged:
            chance = 1 - 1 / len(prepared.dataset.classes)
            return {"train_error": chance, "test_error": chance, "curve": [], "diverged": True}
        return {
            "train_error": _train_error(run, prepared),
            "test_error": 1 - run.metrics["top1"],
            "curve": [[1 - line["train_top1"], 1 - line["val_top1"]] for line in read_record(place).epochs],
            "diverged": False,
        }

    def _prepared(self, cell: Cell) -> Prepared:
        dataset = few_images(self.data, train=self.images, test=10_000 if not self.size else self.images // 2)
        # As `val` the images are looked at after every epoch; the trainer chooses nothing by them.
        dataset = replace(dataset, parts={"train": dataset.parts["train"], "val": dataset.parts["test"]})
        recipe = make_recipe(
            {
                "model": NETS[cell["net"]].format(cell["depth"]),
                "epochs": self.epochs,
                "batch_size": self.batch,
                "seed": cell["seed"],
                "lr": RATE * self.batch / Degradation.batch,
                "weight_decay": 1e-4,
                "schedule": "step",
                "milestones": (0.5, 0.75),  # 32k and 48k of 64k steps
                "warmup_epochs": 1.0 if cell["depth"] >= WARMED_UP else 0.0,
                "img_size": self.size or None,
                "flip": dataset.recipe != "digits",  # a digit has a handedness
            }
        )
        prepared = prepare(dataset, recipe, {}, 0.0)
        images = prepared.parts["train"].images
        if isinstance(images, Tensor):  # photos have crops of their own
            prepared = prepared.with_settings(crop_padding=round(PADDING * images.shape[-1]))
        return prepared

    def read(self, rows: list[Cell]) -> Reading:
        return Reading(
            _findings(rows, self.depths),
            _graphs(rows, self.depths),
            [self._table(rows)],
            {"differences": {net: mean(_differences(rows, self.depths, net))._asdict() for net in NETS}},
            "Means over seeds. Dashed in the paper's figure 6 are the curves called training here.",
        )

    def _table(self, rows: list[Cell]) -> Table:
        """With the paper's figures beside those of its data."""
        published = json.loads((files("resnetkit.lab") / "papers.json").read_text(encoding="utf-8"))
        paper = published["cifar10_test_error"] if self._of_the_papers_data() else {}
        lines = []
        for net, depth in product(NETS, sorted(self.depths)):
            errors = [mean(_of(rows, net, depth, f"{part}_error")) for part in ("train", "test")]
            diverged = sum(_of(rows, net, depth, "diverged"))
            beside = [paper[net].get(str(depth), "")] if paper else []
            lines.append([f"{net}, {depth} layers", *map(_percent, errors), *beside, str(diverged) if diverged else ""])
        other = "; the paper's is of another budget" if paper and not self._as_the_paper() else ""
        header = ("network", "training", "test", *(["the paper's test"] if paper else []), "seeds that diverged")
        return Table(f"Error after the last epoch{other}", header, lines)

    def _of_the_papers_data(self) -> bool:
        return Path(self.data).name in PAPERS_DATA

    def _as_the_paper(self) -> bool:
        own = self._of_the_papers_data() and not self.size and self.images >= 50_000
        return own and self.epochs == Degradation.epochs and self.batch == Degradation.batch


def _train_error(run: Run, prepared: Prepared) -> float:
    """On the training images as they are."""
    model = run.model
    batches = FramedBatches(prepared.parts["train"], prepared.preprocessing, workers=0)
    return 1 - answer(model.network, batches, model.preprocessing).metrics()["top1"]


def _of(rows: list[Cell], net: str, depth: int, what: str) -> list[Any]:
    return [row[what] for row in rows if row["net"] == net and row["depth"] == depth]


def _differences(rows: list[Cell], depths: Sequence[int], net: str) -> list[float]:
    """Training error of the deepest less that of the shallowest, seed by seed."""
    deep, shallow = (_of(rows, net, depth, "train_error") for depth in (max(depths), min(depths)))
    return [a - b for a, b in zip(deep, shallow)]


def _findings(rows: list[Cell], depths: Sequence[int]) -> list[Finding]:
    by_seed = {net: _differences(rows, depths, net) for net in NETS}
    plain, residual = (mean(values) for values in by_seed.values())
    gap = mean([a - b for a, b in zip(*by_seed.values())])
    pair = f"{max(depths)} layers against {min(depths)}"
    return [
        Finding(
            "plain_degrades",
            "The deeper plain network has the higher training error",
            exceeds(plain, 0.0),
            f"{pair}: training error {_points(plain)}.",
        ),
        Finding(
            "residual_does_not",
            "The deeper residual network has not",
            None if (higher := exceeds(residual, 0.0)) is None else not higher,
            f"{pair}: training error {_points(residual)}.",
        ),
        Finding(
            "depth_costs_residual_less",
            "Depth costs the residual network less than the plain one",
            exceeds(gap, 0.0),
            f"{_points(gap)}, seed by seed.",
        ),
    ]


def _points(difference: Mean) -> str:
    value = f"{100 * difference.value:+.1f} points"
    if difference.low is None or difference.high is None:
        return f"{value} (one seed: no interval)"
    return f"{value} ({100 * difference.low:+.1f} to {100 * difference.high:+.1f})"


def _graphs(rows: list[Cell], depths: Sequence[int]) -> list[Graph]:
    graphs = []
    for net in NETS:
        for i, part in enumerate(("Training", "Test")):
            lines = {f"{depth} layers": _curve(_of(rows, net, depth, "curve"), i) for depth in sorted(depths)}
            graphs.append(graph(f"{part} error, {net}", lines, x_label="epoch", share=True))
    return graphs


def _curve(curves: list[list[list[float]]], which: int) -> list[tuple[float, float]]:
    finished = [curve for curve in curves if curve]
    return [(float(e), mean([pair[which] for pair in pairs]).value) for e, pairs in enumerate(zip(*finished), 1)]


def _percent(error: Mean) -> str:
    text = f"{100 * error.value:.2f} %"
    if error.low is None or error.high is None:
        return text
    return f"{text} ({100 * max(0.0, error.low):.2f} to {100 * min(1.0, error.high):.2f})"
