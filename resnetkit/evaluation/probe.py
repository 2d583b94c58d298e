"""A few hundred images settle what a foreign checkpoint's names and shapes cannot: pixels, padding, strides, shortcuts.

A batch norm stores the mean and variance that its inputs had in training. Each candidate runs over the images; the true
one reproduces what is stored. With labels, accuracy ranks those that moments cannot tell apart.
"""

from dataclasses import replace
from math import prod
from pathlib import Path

from torch import Tensor, nn

from resnetkit.architecture.spec import NetworkSpec
from resnetkit.architecture.summary import measure
from resnetkit.errors import ResnetkitError
from resnetkit.evaluation import candidates
from resnetkit.evaluation.candidates import PIXELS, Choices, Pixels
from resnetkit.evaluation.moments import Fit, fit
from resnetkit.evaluation.probe_images import LEAST, ProbeImages, read_images
from resnetkit.evaluation.verdicts import Tried, Verdict, distance, nearest, settle
from resnetkit.weights.files import Model
from resnetkit.weights.foreign import describe
from resnetkit.weights.load import is_foreign, load, locate

IMAGES = 256
BUDGET = 2e12  # multiply-adds, about a minute on two cores: of large networks it takes fewer images


def probe(source: str | Path, data: str | Path, preprocessing: str | None = None, *, force: bool = False) -> Model:
    """A foreign checkpoint as a model, with what its names and shapes do not tell settled by images like those that it
    was trained on. The other arguments are those of `load`.

    `data` is anything that training reads, of which the training part is used, or a folder of images without labels.
    What the file, its config or `preprocessing` tells stays, but a contradiction is reported. What the images do not
    settle by a clear margin stays as `load` takes it. `model.report` says what was settled and why;
    `model.provenance["taken_for"]["probe"]` has the ranking. Raises ResnetkitError, for our own files and for networks
    without batch norm too.
    """
    if not is_foreign(locate(source)):
        raise ResnetkitError(f"{source}: a model file of ours says what it is; --probe is for others' checkpoints")
    model = load(source, preprocessing, force=force)
    taken_for = model.provenance["taken_for"]
    if not any(isinstance(module, nn.BatchNorm2d) for module in model.network.modules()):
        raise ResnetkitError(f"{source}: no batch norm in it, so no stored moments to compare with those of images")
    open_ = candidates.choices(model.network.spec, taken_for["names"])
    macs = sum(part.macs for part in measure(model.network)) * prod(map(len, open_.values()))
    count = int(min(IMAGES, max(LEAST, BUDGET // macs)))
    images = read_images(data, model.classes, model.preprocessing, count)
    by_pixels = _try_pixels(model, images)
    before = {PIXELS: by_pixels[0].words[PIXELS]} | {what: next(iter(words)) for what, words in open_.items()}
    told = {what: word for what, word in before.items() if candidates.is_told(what, taken_for)}
    tried = _try_networks(model, images, by_pixels[:1] if PIXELS in told else nearest(by_pixels), open_)
    several = len({one.words[PIXELS] for one in tried}) > 1
    verdicts = {PIXELS: settle(PIXELS, tried if several else by_pixels, before[PIXELS], told)}
    verdicts |= {what: settle(what, tried, before[what], told) for what in open_}
    taken_for["probe"] = {
        "images": images.described,
        "verdicts": {what: vars(verdict) for what, verdict in verdicts.items()},
        "pixels": [one.to_dict() for one in sorted(by_pixels, key=distance)],
        "networks": [one.to_dict() for one in sorted(tried, key=distance)],
    }
    taken = {what: verdict.taken for what, verdict in verdicts.items()}
    _become(model, next(one.pixels for one in by_pixels if one.words[PIXELS] == taken[PIXELS]), open_, taken)
    _record(model, verdicts, str(data))
    return model


def _try_pixels(model: Model, images: ProbeImages) -> list[Tried]:
    """Every preprocessing at the first norm, in the view that brings it nearer; the one that was loaded comes first."""
    found = []
    for one in candidates.pixels(model.network.spec, model.preprocessing, model.provenance["taken_for"]["blue_first"]):
        fits = {view: _run(model, one, model.network.spec, images.views[view], first=True) for view in images.views}
        view = min(fits, key=lambda view: fits[view].distance)
        found.append(Tried({PIXELS: one.words}, one, view, fits[view]))
    return found


def _try_networks(model: Model, images: ProbeImages, by_pixels: list[Tried], open_: Choices) -> list[Tried]:
    found = []
    for one in by_pixels:
        for words, spec in candidates.combinations(model.network.spec, open_):
            seen = _run(model, one.pixels, spec, images.views[one.view])
            right = None if images.labels is None else seen.answers == images.labels
            found.append(Tried(one.words | words, one.pixels, one.view, seen, right))
    return found


def _run(model: Model, pixels: Pixels, spec: NetworkSpec, groups: list[Tensor], *, first: bool = False) -> Fit:
    net = candidates.network(model.network, spec, turned=pixels.turned)
    return fit(net, [pixels.preprocessing.normalise(group) for group in groups], first=first)


def _become(model: Model, pixels: Pixels, open_: Choices, taken: dict[str, str]) -> None:
    """Make a model the candidate that was taken."""
    spec = candidates.chosen(model.network.spec, open_, taken)
    assert spec is not None
    taken_for = model.provenance["taken_for"]
    taken_for["names"] = candidates.still_fitting(taken_for["names"], spec)
    spec = replace(spec, name=taken_for["names"][0])
    model.network = candidates.network(model.network, spec, turned=pixels.turned)
    model.preprocessing = pixels.preprocessing
    taken_for["blue_first"] ^= pixels.turned


def _record(model: Model, verdicts: dict[str, Verdict], data: str) -> None:
    taken_for = model.provenance["taken_for"]
    settled = [what for what, verdict in verdicts.items() if verdict.by in ("moments", "labels")]
    for what in settled:
        for assumption in candidates.ASSUMED[what]:
            taken_for["assumed"].pop(assumption, None)
    if PIXELS in settled:
        name = Path(data).resolve().name  # where it lies is nobody's business who gets the model
        taken_for["preprocessing_from"] = f"{verdicts[PIXELS].taken}, as the images of {name} settle"
    taken_for["preprocessing"] = model.preprocessing.to_dict()
    model.report = describe(taken_for)
