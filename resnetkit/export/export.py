"""A model as files of another library: refused, or written, read back and found the same."""

from pathlib import Path
from typing import Any, Protocol

import torch

from resnetkit.atomic import create_atomically
from resnetkit.errors import ModelFileRefused, ResnetkitError, did_you_mean
from resnetkit.export import keras_format, to_huggingface, to_timm, to_torchvision
from resnetkit.weights.files import Model
from resnetkit.weights.load import is_foreign, opened
from resnetkit.weights.recognised import Recognised


class Target(Protocol):
    """A module that knows one format. `use` are lines of Python that open what was written at a path, `notes` what to
    know of it."""

    SUFFIX: str

    def require(self, model: Model) -> None:
        """Raise ResnetkitError that names what of a model the format cannot hold."""

    def write(self, model: Model, path: Path) -> None:
        """Make a new file or folder."""

    def read(self, path: Path) -> Recognised:
        """What was written, as a network of ours."""

    def use(self, model: Model, path: str) -> list[str]: ...

    def notes(self, model: Model) -> list[str]: ...


TARGETS: dict[str, Target] = {
    "torchvision": to_torchvision,
    "timm": to_timm,
    "huggingface": to_huggingface,
    "keras": keras_format,
}
COUNTER = "num_batches_tracked"  # which not every format has


def export(
    source: str | Path | Model, *, to: str, out: str | Path | None = None, preprocessing: str | None = None
) -> dict[str, Any]:
    """Write a run's, a model file's or a Model's network in the format of `to`, one of TARGETS.

    `out` is a new file or folder [default: in a run's exports/, else beside the model file or checkpoint, or here for
    what is fetched], `preprocessing` as in `load`. The record says where it is, how to open it, what to know of it, and
    how many tensors came back equal, bit for bit, when it was read again. Raises ResnetkitError when `out` exists or
    the format cannot hold the network.
    """
    if to not in TARGETS:
        raise ResnetkitError(f"--to {to}: {did_you_mean(to, TARGETS)}")
    target = TARGETS[to]
    model = opened(source, preprocessing)
    if model.task != "classification":
        raise ResnetkitError(f"{to}: only models of one label an image are exported, and this one gives several")
    target.require(model)
    path = Path(out) if out is not None else _default(source, to, target.SUFFIX)
    if target.SUFFIX == keras_format.SUFFIX != path.suffix:
        raise ResnetkitError(f"--out {path}: Keras opens only what ends in {target.SUFFIX}; name it so")
    equal = 0

    def write(partial: Path) -> None:
        nonlocal equal
        target.write(model, partial)
        equal = equal_tensors(model, target.read(partial))

    create_atomically(path, write)
    return {
        "to": to,
        "path": str(path),
        "network": model.network.spec.name,
        "tensors_equal": equal,
        "use": target.use(model, str(path)),
        "notes": target.notes(model),
    }


def equal_tensors(model: Model, found: Recognised) -> int:
    """How many tensors were read back, all equal bit for bit but for counters that the format lacks.

    Raises ModelFileRefused where one is not.
    """
    state = model.network.state_dict()
    own = {name: value for name, value in state.items() if name in found.tensors or not name.endswith(COUNTER)}
    differ = [name for name in own if name not in found.tensors or not _equal(own[name].cpu(), found.tensors[name])]
    differ += [name for name in found.tensors if name not in own]
    if differ:
        raise ModelFileRefused(f"read back, {len(differ)} of {len(own)} tensors differ: {', '.join(differ[:5])}")
    return len(own)


def _equal(own: torch.Tensor, read: torch.Tensor) -> bool:
    if own.shape != read.shape or own.dtype != read.dtype:
        return False
    return bool(torch.equal(*(tensor.contiguous().view(-1).view(torch.uint8) for tensor in (own, read))))


def _default(source: str | Path | Model, to: str, suffix: str) -> Path:
    if isinstance(source, Model):
        return Path(f"{source.network.spec.name}-{to}{suffix}")
    path = Path(source)
    if not path.exists():  # what was fetched: the cache is no place for it
        return Path(f"{path.name.partition('@')[0]}-{to}{suffix}")
    if path.is_dir() and not is_foreign(path):
        return path / "exports" / f"{to}{suffix}"
    path = path.resolve()
    return path.with_name(f"{path.name if path.is_dir() else path.stem}-{to}{suffix}")
