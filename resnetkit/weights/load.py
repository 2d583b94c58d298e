"""From a name or a file to a network."""

import re
import warnings
from dataclasses import fields, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from resnetkit.architecture.resnet import ResNet
from resnetkit.architecture.spec import NetworkSpec
from resnetkit.architecture.variants import spec
from resnetkit.errors import ModelFileRefused, ResnetkitError
from resnetkit.weights.catalogue import PublishedWeights, by_id, find, meant, published_as
from resnetkit.weights.download import fetch_url
from resnetkit.weights.files import Model, check_tensors, has_record, load_model
from resnetkit.weights.foreign import load_foreign
from resnetkit.weights.hub import SCHEME, at_commit, fetch, pinned
from resnetkit.weights.recognise import read_names

ALIKE = ({"batch", "frozen"}, {"skipinit", "fixup"})  # values of one field that say the same of trained tensors
MAY_DIFFER = ("name", "num_classes", "drop_path_rate", "zero_init_residual", "norm_momentum")  # evaluation is the same
CLASSIFIER = "head.classifier."
ASSUMED_AS = {"pool padding": "pool_padding", "zero-pad placement": "zero_pad"}  # in weights.recognise -> a field


def build(
    name: str,
    num_classes: int | None = None,
    *,
    in_channels: int = 3,
    weights: str | Path | None = None,
    **choices: Any,
) -> ResNet:
    """A network by name: float (N, in_channels, H, W) -> logits (N, num_classes).

    `num_classes` None is 1000, or 10 for `_cifar` names; 0 leaves the classifier out and gives (N, channels).
    `choices` are fields of NetworkSpec, such as `norm="group"` or `output_stride=8`. `weights` is a run folder, model
    file, checkpoint or `hf:owner/name` of the same network, or the id of published weights of it, such as
    `resnet50.a1_in1k`, in full or without the name; for a `num_classes` that is not theirs the head is new, and a
    warning says so. Raises ResnetkitError for what cannot be built, and for weights that were trained with another
    stride, padding, epsilon, ...
    """
    network = ResNet(spec_by_name(name, num_classes, in_channels, **choices))
    network.register_load_state_dict_pre_hook(take_foreign_names)
    if weights is not None:
        source = load(find(name, str(weights)).id if _is_tag(weights) else weights)
        try:
            note = _start(network, source, choices, new_head=num_classes is not None)
        except ResnetkitError as error:
            raise ModelFileRefused(f"{weights}: {error}") from error
        if note:
            warnings.warn(f"{weights}: {note}, which is to be trained", stacklevel=2)
    return network


def _start(network: ResNet, source: Model, choices: dict[str, Any], *, new_head: bool) -> str:
    """Give a network the tensors of a trained one, but for the classifier where the classes are not as many and
    `new_head` allows it; what to know of that. Raises ResnetkitError for other channels, classes or tensors, and for
    another function of them that is not among the `choices` of the caller."""
    own, theirs = network.spec, source.network.spec
    if own.in_channels != theirs.in_channels:
        grey = f": x.expand(-1, {theirs.in_channels}, -1, -1)" if own.in_channels == 1 else ""
        raise ResnetkitError(
            f"it has in_channels={theirs.in_channels}, and here in_channels={own.in_channels}; build it with "
            f"{theirs.in_channels} and bring images to as many{grey}"
        )
    tensors, note = source.network.state_dict(), ""
    if own.num_classes != theirs.num_classes:
        had = f"in place of {theirs.num_classes}" if theirs.num_classes else "where the weights have none"
        note = f"a new head for {own.num_classes} classes {had}" if own.num_classes else ""
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(CLASSIFIER)}
        tensors |= {name: tensor for name, tensor in network.state_dict().items() if name.startswith(CLASSIFIER)}
    check_tensors(network, tensors)
    if note and not new_head:
        raise ResnetkitError(
            f"it has {theirs.num_classes} classes, and {own.name} {own.num_classes} where nothing is said; give "
            f"num_classes={theirs.num_classes}, or another number for a new head"
        )
    _require_same_function(own, source, choices)
    network.load_state_dict(tensors)
    return note


def spec_by_name(name: str, num_classes: int | None = None, in_channels: int = 3, **choices: Any) -> NetworkSpec:
    """As `spec`; the refusal of a publisher's name says what it is called here."""
    try:
        return spec(name, num_classes, in_channels, **choices)
    except ResnetkitError as error:
        if (entry := published_as(name)) is None:
            raise
        chosen = ", ".join(f"{choice}={value!r}" for choice, value in entry.choices.items())
        raise ResnetkitError(
            f"no network is called {name!r} here; it is {entry.variant}{chosen and ' with ' + chosen}, and its "
            f"published weights, {entry.id}, need no name beside them"
        ) from error


def _require_same_function(spec: NetworkSpec, source: Model, choices: dict[str, Any]) -> None:
    """Raise ResnetkitError where tensors of the same shapes make another network. What a foreign file does not tell is
    the caller's to say, as is a dilation that is asked for."""
    other = source.network.spec
    assumed = source.provenance.get("taken_for", {}).get("assumed", {})
    free = {*MAY_DIFFER, *(ASSUMED_AS.get(name, name) for name in assumed), *({"output_stride"} & set(choices))}
    for field in fields(NetworkSpec):
        own, theirs = getattr(spec, field.name), getattr(other, field.name)
        if field.name not in free and own != theirs and {own, theirs} not in ALIKE:
            raise ResnetkitError(f"of a network with {field.name}={theirs!r}, and here it is {own!r}; say the same")


def rebuild(network: NetworkSpec, num_classes: int, in_channels: int, **choices: Any) -> ResNet:
    """A network like another, whatever made it what it is, for other classes and channels."""
    return ResNet(replace(network, num_classes=num_classes, in_channels=in_channels, **choices))


def take_foreign_names(network: ResNet, tensors: dict[str, Any], prefix: str, *_: Any) -> None:
    """Before `load_state_dict`: put a state dict in the names of torchvision, timm, transformers or a CIFAR repository
    into ours. Names of ours, and what nobody knows, are left for PyTorch to judge."""
    if prefix or "stem.convs.conv1.weight" in tensors:
        return
    reading = read_names(tensors)
    if reading is not None:
        found = reading.in_our_names(tensors)
        counters = {n: b for n, b in network.named_buffers() if n.endswith("num_batches_tracked") and n not in found}
        left = {name: value for name, value in tensors.items() if name not in reading.names}
        tensors.clear()
        tensors.update(counters | found | left)


def _is_tag(weights: str | Path) -> bool:
    """Whether it is a word of the catalogue, such as a1_in1k, and no file, folder or repository."""
    return isinstance(weights, str) and re.fullmatch(r"[\w.-]+", weights) is not None and not Path(weights).exists()


def build_resnet(
    input_shape: tuple[int, int, int], num_classes: int, strides: tuple[int, ...] = (1, 1, 1, 1)
) -> ResNet:
    """The notebook's network for (height, width, channels) images, number for number as its Keras code builds it.

    As it stands it never strides after the stem and costs 66.8 GMACs at 224x224, 18 times resnet34;
    `strides=(1, 2, 2, 2)` is the paper's and mends that.
    """
    sides = tuple(input_shape) if isinstance(input_shape, (tuple, list)) else ()
    possible = len(sides) == 3 and all(isinstance(side, int) and side >= 1 for side in sides)
    if not possible:
        raise ResnetkitError(
            f"input_shape={input_shape!r} is impossible; it must be (height, width, channels), each at least 1"
        )
    if sides[0] in (1, 3, 4) and sides[2] > 16:
        raise ResnetkitError(f"input_shape={input_shape!r} is PyTorch's order; give (height, width, channels)")
    height, width, channels = sides
    network_spec = spec("resnet34_notebook", num_classes, channels, strides=strides)
    network = ResNet(network_spec, image_size=(height, width))
    network.register_load_state_dict_pre_hook(take_foreign_names)
    return network


def transfer(network: ResNet, source: Model) -> list[str]:
    """Start `network` from a trained one, but for a classifier of another size; what was left out, a line each.

    Raises ModelFileRefused when anything else differs that changes its answers.
    """
    try:
        note = _start(network, source, {}, new_head=True)
    except ResnetkitError as error:
        raise ModelFileRefused(f"weights: {error}; name the network that they are of with --model") from error
    return [note] if note else []


def load(source: str | Path, preprocessing: str | None = None, *, force: bool = False) -> Model:
    """A model from a run folder, a model file, or a checkpoint of another library: torchvision, timm, transformers or a
    CIFAR repository, as safetensors, a file of torch.save, a Hugging Face folder, `hf:owner/name[@revision]`, a Keras
    file or the id of published weights, such as `resnet50.a1_in1k`.

    `model.report` says what it was taken for, and on what grounds. `preprocessing` (imagenet, cifar10, caffe, tf, unit,
    raw, or mean=...,std=...,size=...) replaces what a foreign file or its kind says; `force` takes weights that are not
    finite. Raises ModelFileRefused, and ResourceExhausted where a disk has no room for what is read or fetched.
    """
    path = locate(source)
    if is_foreign(path):
        place = _on_the_hub(source)
        called = at_commit(place, path) if place else ""
        model = load_foreign(path, preprocessing, force=force, called=called)
    elif preprocessing is not None:
        raise ModelFileRefused(f"{path}: its preprocessing is in the file; --preprocessing is for others' checkpoints")
    else:
        model = load_model(model_path(path))
    model.network.register_load_state_dict_pre_hook(take_foreign_names)
    return model


def opened(source: str | Path | Model, preprocessing: str | None = None) -> Model:
    """A Model as it is, anything else by `load`. Raises ResnetkitError for `preprocessing` of a Model."""
    if not isinstance(source, Model):
        return load(source, preprocessing)
    if preprocessing is not None:
        raise ResnetkitError("preprocessing is for others' checkpoints, as they are loaded; a Model has its own")
    return source


def locate(source: str | Path) -> Path:
    """The file or folder of a source, fetched where it is `hf:owner/name` or the id of published weights.

    Raises ModelFileRefused for none, and as `fetch` and `fetch_url`.
    """
    if not isinstance(source, (str, Path)):
        cure = "; of a network make a Model: rk.Model(network, classes, preprocessing)"
        raise ModelFileRefused(
            f"a run folder, a model file, a checkpoint or an id is wanted, not {type(source).__name__}"
            + (cure if isinstance(source, ResNet) else "")
        )
    if place := _on_the_hub(source):
        return fetch(place)
    if entry := _published(source):
        if entry.url and entry.sha256:
            return fetch_url(entry.url, entry.sha256)
        raise ModelFileRefused(f"{entry.id}: no address of it is known; give the file itself")
    path = Path(source)
    if not path.exists():
        ids = meant(str(source))
        cure = f"; published weights go by their full id: {', '.join(ids)}" if ids else ""
        raise ModelFileRefused(f"{path}: no such model file or run folder, nor a checkpoint{cure}")
    return path


def _published(source: str | Path) -> PublishedWeights | None:
    """The weights whose id it is, where no file or folder is called so."""
    return None if Path(source).exists() else by_id(str(source))


def _on_the_hub(source: str | Path) -> str:
    """`hf:owner/name` of a source that is that, or the id of what lies there; "" for others, and where its publisher's
    own address does without huggingface_hub."""
    entry = _published(source)
    if entry and entry.url and entry.sha256 and find_spec("huggingface_hub") is None:
        return ""
    place = entry.place if entry else str(source)
    return place if place.startswith(SCHEME) else ""


def lasting(source: str | Path) -> str:
    """What names the same weights from any folder and at any time. Raises as `locate`."""
    place = _on_the_hub(source)
    return pinned(place) if place else str(locate(source).resolve())


def is_foreign(path: Path) -> bool:
    """Whether a file or folder is none of ours: a run folder, whole or not, and a model file under any name are."""
    if path.is_dir():
        own = path / "model.safetensors"
        return not (path / "command.json").exists() and not (own.is_file() and has_record(own))
    return not has_record(path)


def model_path(source: str | Path) -> Path:
    """The model file that `source` names: itself, or the one in a run folder. Raises ModelFileRefused."""
    path = Path(source)
    if path.is_dir():
        if not (path / "model.safetensors").exists():
            raise ModelFileRefused(
                f"{path}: no model.safetensors in it; a run writes it at its end (resume it to get there)"
            )
        return path / "model.safetensors"
    if not path.exists():
        raise ModelFileRefused(f"{path}: no such model file or run folder")
    return path
