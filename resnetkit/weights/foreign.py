"""Other people's trained networks as models of ours: what they are, what is assumed, which pixels and labels."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from resnetkit.architecture.resnet import ResNet
from resnetkit.architecture.spec import NetworkSpec
from resnetkit.data.preprocess import Preprocessing
from resnetkit.errors import ModelFileRefused, ResnetkitError, ResourceExhausted
from resnetkit.weights import from_huggingface, from_timm
from resnetkit.weights.catalogue import by_hash
from resnetkit.weights.checkpoint import Checkpoint, is_keras_file, open_checkpoint, require_sound
from resnetkit.weights.classes import class_names
from resnetkit.weights.download import file_sha256
from resnetkit.weights.files import Model, check_tensors, require_channels
from resnetkit.weights.from_keras import read_keras
from resnetkit.weights.neighbour import library_of, strange_config
from resnetkit.weights.preprocessing import parse_preprocessing, usual
from resnetkit.weights.recognise import recognise
from resnetkit.weights.recognised import Recognised
from resnetkit.weights.untrusted import one_line

GUESSES = (
    "taken to be those of CIFAR in the standard order",
    "taken to be those of ImageNet in the standard order",
    "of no known names, so numbered",
)
CONFIGS: dict[str, Any] = {"transformers": from_huggingface, "timm": from_timm}


@dataclass(frozen=True)
class _Beside:
    """What the files beside a checkpoint say: choices of the network, pixels, labels."""

    known: dict[str, Any]
    preprocessing: Preprocessing | None = None
    classes: list[str] | None = None
    source: str = ""


def load_foreign(path: Path, preprocessing: str | None = None, *, force: bool = False, called: str = "") -> Model:
    """A checkpoint of another library, a Hugging Face folder or a Keras file, `called` so where not by its path.

    `preprocessing` as in weights.preprocessing, in place of what the file or its kind says. `force` takes weights that
    are not finite. Raises ModelFileRefused, and ResourceExhausted.
    """
    try:
        found, beside = _read(path, force, pixels=preprocessing is None)
        with _possible(path):
            network = _network(found)
        pixels, blue_first, reason, told = _pixels(found, beside, path, preprocessing)
        if found.size is not None and "size=" not in (preprocessing or ""):
            pixels = _of_size(pixels, found.size, cropped="crop=" in (preprocessing or ""))
        require_channels(pixels, found.spec, "; say it with --preprocessing mean=...,std=...")
    except (ModelFileRefused, ResourceExhausted):
        raise
    except ResnetkitError as error:
        raise ModelFileRefused(f"{path}: {error}") from error
    if blue_first:
        _take_red_first(network)
        pixels = replace(pixels, mean=pixels.mean[::-1], std=pixels.std[::-1])
        reason += "; its first convolution is turned round, so that it takes red first"
    network.image_size = pixels.size
    classes, labels_from = _classes(found, beside)
    taken_for = {
        "source": called or str(path),
        "ecosystem": found.ecosystem,
        "names": list(found.names),
        "classes": found.spec.num_classes,
        "assumed": _sized(found.assumed, pixels, preprocessing),
        "notes": found.notes,
        "preprocessing": pixels.to_dict(),
        "preprocessing_from": reason,
        "preprocessing_told": told,
        "blue_first": blue_first,
        "classes_from": labels_from,
    }
    return Model(network, classes, pixels, {}, {"taken_for": taken_for}, describe(taken_for))


def _read(path: Path, force: bool, *, pixels: bool) -> tuple[Recognised, _Beside]:
    if path.is_file() and is_keras_file(path):
        found = read_keras(path)
        return replace(found, notes=[*found.notes, *require_sound(path, found.tensors, force=force)]), _Beside({})
    checkpoint = open_checkpoint(path, force=force)
    strange = strange_config(checkpoint)
    beside = _beside(checkpoint, pixels) if checkpoint.config and not strange else _Beside({})
    with _possible(path):
        found = recognise(checkpoint.tensors, beside.known)
    beside, unfit = _fitting(beside, found.spec)
    return replace(found, notes=[*checkpoint.notes, *strange, *found.notes, *unfit]), beside


@contextmanager
def _possible(path: Path) -> Iterator[None]:
    """Raises ModelFileRefused for what comes of shapes that no network has, under the names of one."""
    try:
        yield
    except ResnetkitError:
        raise
    except (ArithmeticError, LookupError, TypeError, ValueError, RuntimeError) as error:
        raise ModelFileRefused(f"{path}: its tensors have shapes that no network has: {one_line(error)}") from error


def _fitting(beside: _Beside, spec: NetworkSpec) -> tuple[_Beside, list[str]]:
    """What goes with the network, and what is left out, a note each."""
    named, pixels, notes = beside.classes, beside.preprocessing, []
    of = f"of {beside.source}'s config beside it"
    if named is not None and len(named) != spec.num_classes:
        beside = replace(beside, classes=None)
        if spec.num_classes:
            notes.append(f"left out: the {len(named)} labels {of}, for {spec.num_classes} classes")
    if pixels is not None and len(pixels.mean) != spec.in_channels:
        beside = replace(beside, preprocessing=None)
        notes.append(f"left out: the preprocessing {of}, of {len(pixels.mean)} channels for {spec.in_channels}")
    return beside, notes


def adopt_classes(model: Model, classes: list[str]) -> None:
    """Take over as many names, in their order, where those of a foreign network are a guess which none of them speaks
    against. Of a set in its standard order names that are numbers are the classes' own, and so go by number."""
    taken_for = model.provenance.get("taken_for", {})
    guess = taken_for.get("classes_from")
    if guess in GUESSES[:2] and all(name.isdecimal() for name in classes):
        classes = sorted(classes, key=int)
    known = set(model.classes)
    agree = all(name == own or name not in known for name, own in zip(classes, model.classes))
    if guess in GUESSES and len(classes) == len(model.classes) and agree and classes != model.classes:
        model.classes = list(classes)
        taken_for["classes_from"] = "taken to be those of the images it was tested on, in their order"


def describe(taken_for: dict[str, Any]) -> str:
    """What a user should know of a foreign network before trusting its numbers, a line each."""
    what = " or ".join(taken_for["names"])
    lines = [
        f"{taken_for['source']}: {what}, in the names of {taken_for['ecosystem']}",
        f"classes: {taken_for['classes'] or 'none'}, {taken_for['classes_from']}",
    ]
    lines += [f"assumed {name}: {value}" for name, value in taken_for["assumed"].items()]
    mean, std = (_short(taken_for["preprocessing"][name]) for name in ("mean", "std"))
    lines.append(f"preprocessing: {taken_for['preprocessing_from']}; mean {mean}, std {std}")
    return "\n".join([*lines, *_probed(taken_for), *taken_for["notes"]])


def _probed(taken_for: dict[str, Any]) -> list[str]:
    """What images settled, see evaluation.probe."""
    if "probe" not in taken_for:
        return []
    verdicts = taken_for["probe"]["verdicts"].items()
    return [
        f"probed with {taken_for['probe']['images']}",
        *(f"  {what}: {verdict['taken']}; {verdict['reason']}" for what, verdict in verdicts),
    ]


def _short(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:.4g}" for value in values)


def _network(found: Recognised) -> ResNet:
    with torch.device("meta"):
        network = ResNet(found.spec)
    own = network.state_dict()
    counters = {name: torch.tensor(0) for name in own if name.endswith("num_batches_tracked")}
    tensors = counters | {name: value.contiguous() for name, value in found.tensors.items()}
    check_tensors(network, tensors)
    network.load_state_dict(tensors, assign=True)
    return network.float().eval()


def _beside(checkpoint: Checkpoint, pixels: bool) -> _Beside:
    """What the config beside a checkpoint says. Raises ResnetkitError for one that is none."""
    config, library = checkpoint.config, library_of(checkpoint.config)
    folder = checkpoint.path if checkpoint.path.is_dir() else checkpoint.path.parent
    reader = CONFIGS[library]
    try:
        seen = reader.preprocessing(config, folder) if pixels else None
        return _Beside(reader.known(config), seen, reader.classes(config), library)
    except ResnetkitError:
        raise
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise ResnetkitError(f"config.json of {library}: damaged ({one_line(error)}); mend or remove it") from error


def _pixels(found: Recognised, beside: _Beside, path: Path, asked: str | None) -> tuple[Preprocessing, bool, str, bool]:
    """What the user says, else the file, the config beside it, the catalogue, or the usual of its kind; whether blue
    comes first; on what grounds; and whether that is more than a guess."""
    if asked is not None:
        return *parse_preprocessing(asked, found.spec), "as --preprocessing says", True
    if found.preprocessing is not None:
        return found.preprocessing, False, "as the file says", True
    if beside.preprocessing is not None:
        return beside.preprocessing, False, f"as {beside.source}'s config beside it says", True
    entry = by_hash(file_sha256(path)) if path.is_file() else None
    if entry is not None:
        return Preprocessing.from_dict(entry.preprocessing), False, f"as the catalogue has it for {entry.id}", True
    if found.ecosystem == "keras":
        word, _, reason = found.assumed["preprocessing"].partition(": ")
        return *parse_preprocessing(word, found.spec), f"{word}: {reason}", False
    pixels, reason = usual(found.spec, found.ecosystem)
    return pixels, False, reason, False


def _sized(assumed: dict[str, str], pixels: Preprocessing, asked: str | None) -> dict[str, str]:
    """With the size that is taken where a file leaves it open; the user's is none that is assumed."""
    if "size" not in assumed:
        return assumed
    if "size=" in (asked or ""):
        return {name: why for name, why in assumed.items() if name != "size"}
    return assumed | {"size": f"{pixels.size[0]}x{pixels.size[1]}: {assumed['size']}"}


def _of_size(pixels: Preprocessing, size: tuple[int, int], *, cropped: bool) -> Preprocessing:
    """The same, or images of the size that a file says where it is another: whole, or `cropped` in that share."""
    if pixels.size == size:
        return pixels
    if cropped and pixels.resize is not None:
        return replace(pixels, size=size, resize=round(min(size) * pixels.resize / min(pixels.size)))
    return replace(pixels, size=size, framing="squash", resize=None)


def _take_red_first(network: ResNet) -> None:
    weight = network.get_parameter("stem.convs.conv1.weight")
    with torch.no_grad():
        weight.copy_(weight.flip(1))


def _classes(found: Recognised, beside: _Beside) -> tuple[list[str], str]:
    count = found.spec.num_classes
    if beside.classes is not None:
        return beside.classes, f"as {beside.source}'s config beside it says"
    names = class_names(count, found.spec.stem)
    if names is not None:
        return names, GUESSES[0 if found.spec.stem == "3x3" else 1]
    return [f"class {i}" for i in range(count)], GUESSES[2]
