"""Does a residual network need every one of its blocks?"""

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any

import torch
import torch.nn.functional as F
from scipy.stats import kendalltau
from torch import Tensor

from resnetkit.architecture.resnet import ResNet
from resnetkit.architecture.spec import NetworkSpec
from resnetkit.architecture.stages import Row, plan
from resnetkit.architecture.variants import spec
from resnetkit.device import find_device
from resnetkit.errors import ResnetkitError
from resnetkit.lab.ablation import Trials, read_ablation
from resnetkit.lab.cells import Cell
from resnetkit.lab.experiment import Experiment, Reading
from resnetkit.lab.images import few_images
from resnetkit.lab.surgery import droppable, keeps_shape, one_path, reordered, without
from resnetkit.lab.twins import NAMES, framed_images, require_kind, trained_twin
from resnetkit.weights.files import Model
from resnetkit.weights.load import load

BATCH = 250
MEASURED = 8  # numbers of blocks left out, and of pairs exchanged
DRAWN = 250  # images for what is drawn at random: draws differ by more than images do
PATHS, PATH_IMAGES = 8, 8  # of every length, at each seed


@dataclass(frozen=True, kw_only=True)
class Ablate(Experiment):
    """`model` is a residual network, `against` a plain one, tried on `data`; without `model` both are trained, `depth`
    layers deep, on `data` or the digits."""

    NAME = "ablate"
    QUESTION = "Does a residual network need every one of its blocks?"
    METHOD = (
        "In a trained network blocks are left out at test time, one or several drawn at random, so that their "
        "shortcut alone is left (in a plain network, nothing: only blocks that keep the shape can go), and pairs of "
        "blocks of one shape are exchanged, each seed going on from what it drew before. Accuracy is measured on test "
        f"images without training, on {DRAWN} of them for what is drawn; chance is the share that the commonest class "
        "surely has, or that of equal classes. For the paths, the gradient of the loss at the first block's input is "
        "let back through the branches of k blocks drawn at random and the shortcuts of all others, "
        f"for {PATHS} paths of each length and {PATH_IMAGES} images at every seed; its norm, the arithmetic "
        "mean over the paths, times the number of such paths is what length k brings."
    )
    SOURCE = (
        "Veit, Wilber and Belongie 2016, Residual Networks Behave Like Ensembles of Relatively Shallow Networks, "
        "sections 4.1 to 4.3 (figures 3, 5 and 6)."
    )
    POSITIONAL = "model"
    QUICK = {"images": 500, "seeds": 3}

    seeds: int = 5
    model: str = ""
    against: str = ""
    data: str = ""
    images: int = 2000
    depth: int = 20
    epochs: int = 10
    device: str = "cpu"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.against and not self.model:
            raise ResnetkitError("against: give the residual MODEL that it is the twin of, too")
        if self.model and not self.data:
            raise ResnetkitError(f"{self.model}: name labelled images like those that it was trained on with --data")
        for name in ("depth", "epochs"):
            if self.model and (value := getattr(self, name)) != getattr(Ablate, name):
                raise ResnetkitError(f"{name}={value} is for networks that are trained here; leave it out with a MODEL")

    @property
    def nets(self) -> list[str]:
        return ["residual"] if self.model and not self.against else ["residual", "plain"]

    @property
    def precision(self) -> str:
        return "float32" if self.model else "auto"

    def cells(self) -> list[Cell]:
        cells: list[Cell] = []
        for net in self.nets:
            rows = plan(self._spec(net))
            can = droppable(rows)
            cells += [{"net": net, "what": "whole"}, *({"net": net, "what": "drop", "block": i} for i in can)]
            drawn = [("some", count) for count in spread_out(2, len(can) - 1)]
            drawn += [("swap", count) for count in spread_out(1, len(rows) // 2)]
            if net == "residual":
                drawn += [("path", count) for count in range(len(rows) + 1)]
            cells += [
                {"net": net, "what": what, "count": count, "seed": seed}
                for seed in range(self.seeds)
                for what, count in drawn
            ]
        return cells

    def _spec(self, net: str) -> NetworkSpec:
        if self.model:
            return self._given[net].network.spec
        return spec(NAMES[net].format(self.depth))

    @cached_property
    def _given(self) -> dict[str, Model]:
        given = {"residual": load(self.model)} | ({"plain": load(self.against)} if self.against else {})
        for net, model in given.items():
            require_kind(model, self.model if net == "residual" else self.against, plain=net == "plain")
        return given

    def known(self) -> dict[str, Any]:
        """What the networks hold: a run that was trained again lies where it lay."""
        if not self.model:
            return {}
        return {"models": {net: tensors_sha256(model.network) for net, model in self._given.items()}}

    @cached_property
    def _ready(self) -> dict[str, tuple[ResNet, Tensor, Tensor]]:
        """By net: the network and the images it is tried on, normalised, with their labels; as they are asked for."""
        return {}

    def _prepare(self, net: str, folder: Path) -> tuple[ResNet, Tensor, Tensor]:
        if net not in self._ready:
            data = self.data or "digits"
            if self.model:
                model = self._given[net]
            else:
                model = trained_twin(net, self.depth, data, 50_000, self.epochs, 0, folder, self.device)
            device = find_device(self.device)
            dataset = few_images(data, train=1, test=self.images)
            images, labels = framed_images(model, dataset, "test", self.images)
            x = model.preprocessing.normalise(images.to(device))
            self._ready[net] = model.network.to(device).eval(), x, labels.to(device)
        return self._ready[net]

    def measure(self, cell: Cell, folder: Path) -> dict[str, Any]:
        """The cell of the whole network says which one it is, and how many images are of the commonest class, so that
        all can be read again without either."""
        net, x, labels = self._prepare(cell["net"], folder)
        draw = Random(f"{cell.get('seed')} {cell['what']}")
        if cell["what"] == "path":
            paths = [draw.sample(range(len(net.rows)), cell["count"]) for _ in range(PATHS)]
            norms = [path_gradient(net, x[:PATH_IMAGES], labels[:PATH_IMAGES], through) for through in paths]
            return {"gradient": fmean(norms)}
        if "seed" in cell:
            x, labels = x[:DRAWN], labels[:DRAWN]
        whole = self._whole(cell["net"])[: len(x)]
        if cell["what"] == "swap":
            order = exchanged(net.rows, cell["count"], draw)
            with reordered(net, order):
                tau = float(kendalltau(range(len(order)), order)[0])
                return compared(whole, answered(net, x, labels)) | {"tau": tau}
        able = droppable(net.rows)
        dropped = [cell["block"]] if "block" in cell else draw.sample(able, len(able))[: cell.get("count", 0)]
        with without(net, dropped):
            found = compared(whole, answered(net, x, labels))
        if cell["what"] == "whole":
            return found | {"network": asdict(net.spec), "commonest": int(labels.bincount().max())}
        return found

    def _whole(self, net: str) -> Tensor:
        """Which images the whole network answers rightly, bool (N,)."""
        if net not in self._answers:
            self._answers[net] = answered(*self._ready[net])
        return self._answers[net]

    @cached_property
    def _answers(self) -> dict[str, Tensor]:
        return {}

    def read(self, rows: list[Cell]) -> Reading:
        trials = {}
        for net in self.nets:
            own = [row for row in rows if row["net"] == net]
            (network,) = (row["network"] for row in own if row["what"] == "whole")
            trials[net] = Trials(NetworkSpec.from_dict(network), own)
        return read_ablation(trials)


def tensors_sha256(net: ResNet) -> str:
    found = sha256()
    for tensor in net.state_dict().values():
        found.update(tensor.cpu().numpy().tobytes())
    return found.hexdigest()


@torch.inference_mode()
def answered(net: ResNet, x: Tensor, labels: Tensor) -> Tensor:
    """Which of the images x (N, C, H, W) are answered rightly, bool (N,)."""
    batches = zip(x.split(BATCH), labels.split(BATCH))
    return torch.cat([net(images).argmax(1) == truth for images, truth in batches])


def compared(whole: Tensor, now: Tensor) -> dict[str, int]:
    """Of two networks' answers to the same images: how many are right now, how many were, how many are so no more."""
    right, before, lost = (int(which.sum()) for which in (now, whole, whole & ~now))
    return {"right": right, "n": len(now), "whole": before, "lost": lost}


def path_gradient(net: ResNet, x: Tensor, labels: Tensor, through: Collection[int]) -> float:
    """Norm of the loss's gradient at the first block's input along one path; see `one_path`."""
    with torch.no_grad():
        start = net.stem(x)
    start.requires_grad_()
    with one_path(net, through):
        loss = F.cross_entropy(net.head(net.norm(net.stages(start))), labels)
    (gradient,) = torch.autograd.grad(loss, start)
    return float(gradient.norm())


def exchanged(rows: Sequence[Row], pairs: int, draw: Random) -> list[int]:
    """The order of the blocks after so many exchanges of two that have one shape, drawn at random."""
    order = list(range(len(rows)))
    alike: dict[tuple[int, int], list[int]] = {}
    for i, row in enumerate(rows):
        if keeps_shape(row):
            alike.setdefault((row.stage, row.in_channels), []).append(i)
    groups = [group for group in alike.values() if len(group) > 1]
    for _ in range(pairs if groups else 0):
        a, b = draw.sample(draw.choices(groups, [len(group) for group in groups])[0], 2)
        order[a], order[b] = order[b], order[a]
    return order


def spread_out(low: int, high: int) -> list[int]:
    """About MEASURED whole numbers from `low` to `high`."""
    if high < low:
        return []
    return sorted({round(low + (high - low) * i / (MEASURED - 1)) for i in range(MEASURED)})
