"""Everything a checkpoint holds, and nothing else: a run goes on from it bit for bit.

Order, augmentation and the network's own randomness are functions of (seed, epoch, step), so no generator is kept.
"""

import copy
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from resnetkit.architecture.resnet import ResNet
from resnetkit.architecture.spec import NetworkSpec
from resnetkit.errors import Diverged, ModelFileRefused, ResnetkitError
from resnetkit.training.averaging import Average
from resnetkit.training.pruning import Pruning
from resnetkit.weights.files import check_tensors, read_tensors, save_tensors


@dataclass
class Tally:
    """Sums over the images an epoch has seen so far; on a GPU they are tensors until they are read."""

    loss: float = 0.0
    right: float = 0.0
    images: int = 0

    def read(self) -> "Tally":
        """The same as numbers. Raises Diverged where the loss is none."""
        if not math.isfinite(self.loss):
            raise Diverged("the loss is no longer a number; lower lr or lengthen warmup_epochs")
        return Tally(float(self.loss), float(self.right), self.images)

    def loss_since(self, before: "Tally") -> float:
        """The mean over the images seen since it was `before`."""
        return float(self.loss - before.loss) / (self.images - before.images)


@dataclass
class TrainingState:
    """A network on its way. `step` counts optimizer steps from the start of the run; `best` is the best of the figure
    that its task chooses by, so far, `stale` the epochs since; `ended` is the speed of an epoch whose last step is
    done and whose figures are not in yet."""

    net: ResNet
    optimizer: Optimizer
    average: Average
    pruning: Pruning = field(default_factory=Pruning)
    step: int = 0
    best: float = -1.0
    stale: int = 0
    ended: dict[str, float] | None = None
    tally: Tally = field(default_factory=Tally)

    def final_tensors(self) -> dict[str, Tensor]:
        """What the run delivers: the average where there is one, else the network."""
        return self.net.state_dict() | self.average.values

    def delivered(self) -> ResNet:
        """A copy of the network with the weights that the run delivers."""
        net = copy.deepcopy(self.net)
        net.load_state_dict(self.final_tensors())
        return net

    def require_finite(self) -> None:
        """Raise Diverged where a weight or a statistic is no number, as after a step that the loss did not foretell."""
        tensors = self.net.state_dict()
        finite = torch.stack([value.isfinite().all() for value in tensors.values()])
        if not finite.all():  # waited for once
            name = next(name for name, whole in zip(tensors, finite.tolist()) if not whole)
            raise Diverged(f"{name} is no longer finite; lower lr or lengthen warmup_epochs")

    def save(self, path: Path) -> None:
        """Write a checkpoint as `write_atomically` does. Raises Diverged rather than keep a spoilt network."""
        self.require_finite()
        tensors = {f"network.{name}": value for name, value in self.net.state_dict().items()}
        tensors |= {f"average.{name}": value for name, value in self.average.values.items()}
        tensors |= {f"pruning.{name}": value for name, value in self.pruning.tensors().items()}
        for name, parameter in self.net.named_parameters():
            for key, value in self.optimizer.state[parameter].items():
                if isinstance(value, Tensor):
                    tensors[f"optimizer.{key}.{name}"] = value
        record = {"step": self.step, "best": self.best, "stale": self.stale, "ended": self.ended}
        save_tensors(path, tensors, record | {"tally": vars(self.tally.read()), "spec": asdict(self.net.spec)})

    def restore(self, path: Path) -> None:
        """Take over a checkpoint of the same run. Raises ModelFileRefused."""
        tensors, record = read_tensors(path)
        groups: dict[str, dict[str, Tensor]] = {"network": {}, "average": {}, "pruning": {}, "optimizer": {}}
        try:
            for name, value in tensors.items():
                group, _, rest = name.partition(".")
                groups[group][rest] = value
            self._check_network(record)
            check_tensors(self.net, groups["network"])
            if groups["average"].keys() != self.average.values.keys():
                raise ResnetkitError("its average is not of this recipe")
            kept, own = groups["pruning"], self.pruning.tensors()
            if {n: v.shape for n, v in kept.items()} != {n: v.shape for n, v in own.items()}:
                raise ResnetkitError("its prune_easy is not of this recipe")
            self.step, self.best, self.stale = record["step"], record["best"], record["stale"]
            self.ended = record.get("ended")  # earlier versions saved after the figures alone
            self.tally = Tally(**record["tally"])
        except (ResnetkitError, KeyError, TypeError, AttributeError) as error:
            raise ModelFileRefused(f"{path}: not a checkpoint of this run: {error}") from error
        self.net.load_state_dict(groups["network"])
        with torch.no_grad():
            for name, value in self.average.values.items():
                value.copy_(groups["average"][name])
            for name, value in self.pruning.tensors().items():
                value.copy_(groups["pruning"][name])
        self._restore_optimizer(groups["optimizer"])

    def _check_network(self, record: dict[str, Any]) -> None:
        """Raise ResnetkitError where the checkpoint is of another network, whose tensors may have the same shapes;
        those of earlier versions do not say."""
        if "spec" not in record:
            return
        kept, own = asdict(NetworkSpec.from_dict(record["spec"])), asdict(self.net.spec)
        if changes := [f"{name} was {kept[name]!r} and is {own[name]!r}" for name in own if kept[name] != own[name]]:
            raise ResnetkitError(f"{self.net.spec.name} is another network now: {'; '.join(changes)}; train anew")

    def _restore_optimizer(self, tensors: dict[str, Tensor]) -> None:
        by_parameter: dict[str, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            key, _, parameter_name = name.partition(".")
            by_parameter.setdefault(parameter_name, {})[key] = value
        for name, parameter in self.net.named_parameters():
            self.optimizer.state[parameter] = {
                # Like the parameter in memory format too, or the next step would round in another order.
                key: torch.empty_like(parameter).copy_(value)
                if value.shape == parameter.shape
                else value.to(parameter.device)
                for key, value in by_parameter.get(name, {}).items()
            }


def checkpoint_spec(path: Path) -> NetworkSpec | None:
    """The network of a checkpoint, None where an earlier version wrote it, which did not say. Raises
    ModelFileRefused."""
    _, record = read_tensors(path)
    try:
        return NetworkSpec.from_dict(record["spec"]) if "spec" in record else None
    except (ResnetkitError, TypeError, AttributeError) as error:
        raise ModelFileRefused(f"{path}: not a checkpoint of this run: {error}") from error
