"""What a foreign network may be that its names and shapes do not tell: pixels, and choices of its spec."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import torch

from resnetkit.architecture.resnet import ResNet
from resnetkit.architecture.spec import NetworkSpec
from resnetkit.architecture.variants import spec as named
from resnetkit.data.preprocess import Preprocessing
from resnetkit.errors import ResnetkitError
from resnetkit.weights.preprocessing import NAMED, parse_preprocessing

Fields = dict[str, Any]
Choices = dict[str, dict[str, Fields]]  # what is open -> its possible values in words -> fields of NetworkSpec

PIXELS = "preprocessing"
ASSUMED = {  # what may be open -> the assumptions that show that nothing told it
    PIXELS: (PIXELS,),
    "shortcut": ("shortcut", "zero-pad placement"),
    "padding": ("padding",),
    "pool padding": ("pool padding",),
    "stride_in_1x1": ("stride_in_1x1",),
}


@dataclass(frozen=True)
class Pixels:
    """One way to prepare pixels. `words` are what --preprocessing takes for it; `turned` says that the first
    convolution reads the channels in the other order than the network that was loaded."""

    words: str
    preprocessing: Preprocessing
    turned: bool


def pixels(spec: NetworkSpec, taken: Preprocessing, blue_first: bool) -> list[Pixels]:
    """The one that was taken, then every other named preprocessing, red first and blue first, of the same framing."""
    found = []
    for name in NAMED:
        try:
            record, named_blue = parse_preprocessing(name, spec)
        except ResnetkitError:  # images of bands have no named moments
            continue
        mean, std = (record.mean[::-1], record.std[::-1]) if named_blue else (record.mean, record.std)
        for blue in (False, True) if spec.in_channels == 3 else (False,):
            words = name if blue == named_blue else _spelt(mean, std, blue)
            found.append(Pixels(words, replace(taken, mean=mean, std=std), blue != blue_first))
    same = next((one for one in found if one.preprocessing == taken and not one.turned), None)
    first = same or Pixels(_spelt(taken.mean, taken.std, blue_first), taken, False)
    return [first, *(one for one in found if one is not same)]


def _spelt(mean: tuple[float, ...], std: tuple[float, ...], blue: bool) -> str:
    order = -1 if blue else 1
    of_mean, of_std = (",".join(f"{value:.6g}" for value in values[::order]) for values in (mean, std))
    return f"mean={of_mean},std={of_std}" + ",channels=bgr" * blue


def choices(spec: NetworkSpec, names: Iterable[str]) -> Choices:
    """What is open in a spec whose tensors `names` share, the value it has first of each."""
    found: Choices = {}
    strided = any(stride > 1 for stride in spec.strides)
    pooled = spec.stem != "3x3"
    if spec.shortcut in ("zero_pad", "none"):
        found["shortcut"] = {
            "zero_pad": {"shortcut": "zero_pad", "zero_pad": "sides"},
            "zero_pad, zeros at the end": {"shortcut": "zero_pad", "zero_pad": "end"},
            "none": {"shortcut": "none"},
        }
    elif len(shortcuts := {_shortcut_of(name, spec) for name in names}) > 1:
        found["shortcut"] = {kind: {"shortcut": kind} for kind in sorted(shortcuts)}
    if strided or pooled:
        kinds = ["symmetric", "same"] + ["same_in_stages"] * pooled
        found["padding"] = {kind: {"padding": kind} for kind in kinds}
    if pooled:  # after ReLU a zero is as good as minus infinity
        kinds = ["lowest", "none"] + ["zeros"] * spec.preactivation
        found["pool padding"] = {kind: {"pool_padding": kind} for kind in kinds}
    if spec.block == "bottleneck" and strided:
        found["stride_in_1x1"] = {str(here): {"stride_in_1x1": here} for here in (False, True)}
    return {what: _taken_first(spec, words) for what, words in found.items()}


def _shortcut_of(name: str, spec: NetworkSpec) -> str:
    try:
        return named(name).shortcut
    except ResnetkitError:
        return spec.shortcut


def _taken_first(spec: NetworkSpec, words: dict[str, Fields]) -> dict[str, Fields]:
    return dict(sorted(words.items(), key=lambda item: _changed(spec, item[1]) != spec))


def is_told(what: str, taken_for: dict[str, Any]) -> bool:
    """Whether a file, its config or the user said it."""
    if what == PIXELS:
        return bool(taken_for["preprocessing_told"])
    return not any(name in taken_for["assumed"] for name in ASSUMED[what])


def combinations(spec: NetworkSpec, open_: Choices) -> Iterator[tuple[dict[str, str], NetworkSpec]]:
    """Every combination of what is open that is a network, in words and as a spec."""
    for words in product(*open_.values()):
        taken = dict(zip(open_, words))
        if (candidate := chosen(spec, open_, taken)) is not None:
            yield taken, candidate


def chosen(spec: NetworkSpec, open_: Choices, taken: dict[str, str]) -> NetworkSpec | None:
    """The spec with what the words say; None where that is no network."""
    fields: Fields = {}
    for what, words in open_.items():
        fields |= words[taken[what]]
    return _changed(spec, fields)


def still_fitting(names: list[str], spec: NetworkSpec) -> list[str]:
    """Of networks that have the same tensors, those with this shortcut; all where none has."""
    return [name for name in names if _shortcut_of(name, spec) == spec.shortcut] or names


def network(loaded: ResNet, spec: NetworkSpec, *, turned: bool) -> ResNet:
    """The network of a candidate, over the tensors of the one that was loaded."""
    tensors = loaded.state_dict()
    if turned:
        first = "stem.convs.conv1.weight"
        tensors = tensors | {first: tensors[first].flip(1)}
    with torch.device("meta"):
        net = ResNet(spec, loaded.image_size)
    net.load_state_dict(tensors, assign=True)
    return net.eval()


def _changed(spec: NetworkSpec, fields: Fields) -> NetworkSpec | None:
    try:
        return replace(spec, **fields)
    except ResnetkitError:
        return None
