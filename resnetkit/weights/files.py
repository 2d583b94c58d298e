"""The model file: one safetensors with the tensors and, in its metadata, everything needed to use them.

The metadata has one key, `resnetkit`, whose value is a JSON object: `schema`, `task`, `spec`, `classes`,
`preprocessing`, `metrics`, `provenance`, and `calibration` where held-out images gave one. Nothing in the file can run.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from resnetkit.architecture.resnet import ResNet
from resnetkit.architecture.spec import NetworkSpec
from resnetkit.atomic import write_atomically
from resnetkit.data.preprocess import Preprocessing
from resnetkit.errors import ModelFileRefused, ResnetkitError
from resnetkit.weights.calibration import CALIBRATIONS, Calibration
from resnetkit.weights.safetensors_file import read_header, read_safetensors
from resnetkit.weights.untrusted import bare, one_line, open_untrusted, shown

SCHEMAS = {"classification": 1, "multilabel": 2}  # by task: what knew one label an image only must not read the others
KEY = "resnetkit"
NESTED = ("images", "recipe", "taken_for")  # objects of `provenance`, where it has them


@dataclass
class Model:
    """A network with what its numbers mean; `calibration` is that of its task and makes probabilities of logits.
    `report` says what was read and how it was understood."""

    network: ResNet
    classes: list[str]
    preprocessing: Preprocessing
    metrics: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    report: str = ""
    calibration: Calibration = field(default_factory=Calibration)

    @property
    def task(self) -> str:
        """classification, of one label an image, or multilabel."""
        return self.calibration.task

    def save(self, path: str | Path) -> None:
        """Write a model file for `rk.load`, over one that is there, wholly or not at all.

        Raises ResnetkitError for what would not load, such as other classes or channels than the network's, and where
        the system refuses, ResourceExhausted where the disk gives out.
        """
        if not isinstance(self.network, ResNet):
            raise ResnetkitError(
                f"a model file holds a network of rk.build, not {type(self.network).__name__}; of one that was "
                "compiled or wrapped as a whole give the network itself"
            )
        if not isinstance(self.preprocessing, Preprocessing):
            raise ResnetkitError(f"the preprocessing of a model is an rk.Preprocessing, not {self.preprocessing!r}")
        record = {
            "schema": SCHEMAS[self.task],
            "task": self.task,
            "spec": asdict(self.network.spec),
            "image_size": self.preprocessing.size,
            "classes": self.classes,
            "preprocessing": self.preprocessing.to_dict(),
            "metrics": self.metrics,
            "provenance": self.provenance,
            "calibration": self.calibration.to_dict(),
        }
        try:
            read = json.loads(json.dumps(record))
        except (TypeError, ValueError) as error:
            raise ResnetkitError(f"{path}: not saved, for its record is no JSON: {error}") from error
        tensors = self.network.state_dict()
        _as_recorded(read, tensors)
        try:
            save_tensors(Path(path), tensors, record)
        except RuntimeError as error:  # tensors that are one, or have no values
            raise ResnetkitError(f"{path}: not saved: {one_line(error)}") from error


def save_tensors(path: Path, tensors: dict[str, Tensor], record: dict[str, Any]) -> None:
    """Write tensors with a JSON record beside them, as `write_atomically` does."""
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}

    write_atomically(path, lambda partial: partial.write_bytes(save(whole, metadata={KEY: json.dumps(record)})))


def has_record(path: Path) -> bool:
    """Whether a file is a model file of ours, by its content; one that is named as such and whose header does not read
    counts, for reading it says why."""
    with open_untrusted(path) as file:
        try:
            return KEY in read_header(file)[2]
        except (ValueError, RecursionError, OSError):
            return path.suffix == ".safetensors"


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the record of `save_tensors`. Raises ModelFileRefused."""
    if not path.is_file():
        raise ModelFileRefused(f"{path}: no such model file")
    tensors, metadata = read_safetensors(path)
    try:
        record = json.loads(metadata.get(KEY, "null"))
    except (ValueError, RecursionError) as error:
        raise ModelFileRefused(f"{path}: its record is damaged: {one_line(error)}; write it again") from error
    if not isinstance(record, dict):
        raise ModelFileRefused(f"{path}: a safetensors file without resnetkit's record, so not a model file of ours")
    return tensors, record


def load_model(path: Path) -> Model:
    """Read a model file. Raises ModelFileRefused where file, record and tensors do not agree."""
    tensors, record = read_tensors(path)
    schema, task = record.get("schema"), str(record.get("task", Calibration.task))
    if schema is None and "step" in record:
        raise ModelFileRefused(
            f"{path}: a training checkpoint; `resnet train --resume RUN` goes on with it, or name the run for its model"
        )
    if schema not in SCHEMAS.values():
        raise ModelFileRefused(
            f"{path}: schema {schema!r}; this version reads {', '.join(map(str, SCHEMAS.values()))}: update resnetkit"
        )
    if SCHEMAS.get(task) != schema:
        raise ModelFileRefused(f"{path}: task {task!r} is none that schema {schema} has")
    try:
        model = _as_recorded(record, tensors)
    except ResnetkitError as error:
        raise ModelFileRefused(f"{path}: refused: {error}") from error
    model.network.load_state_dict(tensors, assign=True)
    model.network.float().eval()
    counts = f"{len(tensors)} tensors, {len(model.classes)} classes"
    model.report = f"model file of {model.network.spec.name} for {task}, schema {schema}: {counts}"
    return model


def _as_recorded(record: dict[str, Any], tensors: dict[str, Tensor]) -> Model:
    """The model that a record describes, whose network has no numbers yet. Raises ResnetkitError where it does not
    agree with itself or with the tensors."""
    try:
        spec = NetworkSpec.from_dict(record["spec"])
        preprocessing = Preprocessing.from_dict(record["preprocessing"])
        calibration = CALIBRATIONS[record.get("task", Calibration.task)].from_dict(record.get("calibration", {}))
        classes = [str(name) for name in record["classes"]]
        metrics, provenance = record.get("metrics", {}), record.get("provenance", {})
        _require_objects(metrics, provenance)
        calibration.thresholds_for(len(classes), None, None)  # refuses those of other classes
        _require_fitting(classes, preprocessing, spec)
        if sum(spec.depths) > len(tensors):  # before that many blocks are built
            raise ResnetkitError(f"its record has {sum(spec.depths)} blocks, and the file {len(tensors)} tensors")
        height, width = record["image_size"]
        with torch.device("meta"):
            network = ResNet(spec, (height, width))
        check_tensors(network, tensors)
    except KeyError as error:
        raise ResnetkitError(f"its record lacks {error}") from error
    except (TypeError, ValueError, ArithmeticError, AttributeError, RuntimeError) as error:
        raise ResnetkitError(str(error)) from error
    return Model(network, classes, preprocessing, metrics, provenance, calibration=calibration)


def _require_fitting(classes: list[str], preprocessing: Preprocessing, spec: NetworkSpec) -> None:
    """Raise ResnetkitError where a network has other outputs than there are classes, or takes other channels."""
    if len(classes) != spec.num_classes:
        raise ResnetkitError(f"{len(classes)} class names for {spec.num_classes} outputs")
    require_channels(preprocessing, spec)


def require_channels(preprocessing: Preprocessing, spec: NetworkSpec, cure: str = "") -> None:
    """Raise ResnetkitError where images would come with other channels than the network takes."""
    if (given := len(preprocessing.mean)) != spec.in_channels:
        takes = f"the network takes {spec.in_channels} channels"
        raise ResnetkitError(f"{takes}, and its preprocessing gives {given}{cure}")


def _require_objects(metrics: Any, provenance: Any) -> None:
    """Raise ResnetkitError where a part of the record that is read by name has no names."""
    parts = {"metrics": metrics, "provenance": provenance}
    if isinstance(provenance, dict):
        parts |= {name: provenance.get(name, {}) for name in NESTED}
    for name, part in parts.items():
        if not isinstance(part, dict):
            raise ResnetkitError(f"{name} in its record is {shown(part)}, no object")
    if not all(isinstance(count, int) for count in parts["images"].values()):
        raise ResnetkitError(f"images in its record are {shown(parts['images'])}, no counts")


def check_tensors(network: ResNet, tensors: dict[str, Tensor]) -> None:
    """Raise ResnetkitError that names up to five tensors when names or shapes differ from the network's, or numbers are
    whole or complex where its are real."""
    own = network.state_dict()
    problems = [f"{name} is missing" for name in own if name not in tensors]
    problems += [f"{bare(name)} is unknown" for name in tensors if name not in own]
    problems += [
        f"{name} is {tuple(tensors[name].shape)}, not {tuple(own[name].shape)}"
        for name in own
        if name in tensors and tensors[name].shape != own[name].shape
    ]
    problems += [
        f"{name} is {str(tensors[name].dtype).removeprefix('torch.')}, no weights"
        for name in own
        if name in tensors and own[name].is_floating_point() and not tensors[name].is_floating_point()
    ]
    if problems:
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise ResnetkitError(f"the tensors are not those of {network.spec.name}: {'; '.join(problems[:5])}{more}")
