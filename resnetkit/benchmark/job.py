"""What is measured: one record, told to every contender alike."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from resnetkit.cores import core_count, usable_cores
from resnetkit.device import find_device, find_precision
from resnetkit.errors import ResnetkitError, did_you_mean
from resnetkit.weights.load import spec_by_name

Kind = Literal["step", "inference", "loader", "memory", "startup"]
KINDS: tuple[Kind, ...] = ("step", "inference", "loader", "memory", "startup")
SMALL_SIDE, PHOTO_SIDE = 32, 224  # pixels, where nothing is said: those of CIFAR and ImageNet
SMALL_BATCH, PHOTO_BATCH = 128, 16
DEVICES = ("cpu", "cuda")  # workers wait for the first GPU
COMPILED = ("off", "on", "graphs")  # as `resnet train --compile` has them


@dataclass(frozen=True, kw_only=True)
class Job:
    """`cores` are those that every worker is pinned to, with a thread on each. `data` is a folder of JPEGs by class,
    `cache` where our loader keeps them decoded; `compile` is as for `resnet train`, ours alone."""

    kind: Kind
    model: str
    img_size: int
    batch_size: int
    classes: int
    precision: str
    device: str
    cores: tuple[int, ...]
    data: str | None = None
    cache: str | None = None
    compile: str = "off"
    seed: int = 0

    @property
    def threads(self) -> int:
        return len(self.cores)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"cores": list(self.cores), "threads": self.threads}


def make_job(
    kind: str,
    model: str,
    *,
    img_size: int | None = None,
    batch_size: int | None = None,
    precision: str | None = None,
    device: str = "cpu",
    threads: int | None = None,
    data: Path | None = None,
    compile: str = "off",
) -> Job:
    """A job with what is not said filled in. Raises ResnetkitError for what cannot be measured."""
    if kind not in KINDS:
        raise ResnetkitError(f"benchmark {kind!r} is not known; it must be {', '.join(KINDS)}")
    found = next(name for name in KINDS if name == kind)
    if compile not in COMPILED:
        raise ResnetkitError(f"compile={compile!r}: {did_you_mean(compile, COMPILED)}")
    if compile != "off" and kind != "step":
        raise ResnetkitError(f"compile={compile} is for `resnet benchmark step`, and not for {kind}")
    if data is not None and kind != "loader":
        raise ResnetkitError(f"data={data} is for `resnet benchmark loader`, and not for {kind}")
    if kind == "loader" and (device != "cpu" or precision is not None):
        raise ResnetkitError("a loader has no device and no precision; leave --device and --precision out")
    if device not in DEVICES:
        raise ResnetkitError(f"device={device!r}: a benchmark runs on {' or '.join(DEVICES)}")
    find_device(device)
    if precision is not None and (precision != "auto" or kind not in ("step", "memory")):
        find_precision(precision)
    if compile == "graphs" and device == "cpu":
        raise ResnetkitError("compile=graphs records CUDA graphs; give device=cuda, or compile=on")
    network = spec_by_name(model)
    small = model.endswith("_cifar")
    one_image = kind in ("inference", "startup")
    usable = usable_cores()
    if threads is not None and not 1 <= threads <= len(usable):
        raise ResnetkitError(f"threads={threads}: this process may use {len(usable)} cores")
    return Job(
        kind=found,
        model=model,
        img_size=img_size or (SMALL_SIDE if small else PHOTO_SIDE),
        batch_size=batch_size or (1 if one_image else SMALL_BATCH if small else PHOTO_BATCH),
        classes=network.num_classes,
        precision=precision or ("auto" if kind in ("step", "memory") else "float32"),
        device=device,
        cores=tuple(usable[: threads or core_count()]),
        data=str(data.resolve()) if data is not None else None,
        compile=compile,
    )
