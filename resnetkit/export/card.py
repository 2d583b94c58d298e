"""The model card, README.md: what a network is, how to open it, how good it is, where it comes from."""

import json
from pathlib import Path
from typing import Any

from resnetkit.data.preprocess import Preprocessing
from resnetkit.weights.files import Model
from resnetkit.weights.hub import SCHEME

FIGURES = {
    "top1": "top-1 accuracy",
    "top5": "top-5 accuracy",
    "loss": "loss",
    "ece": "calibration error",
}
FRAMINGS = {
    "crop": "the shorter side resized to {resize}, the centre {size} cut out",
    "squash": "resized whole to {size}",
    "letterbox": "all of it fitted into {size}, the rest grey (114)",
}
LICENCE = "to be filled in by the author"


def card(model: Model, *, library: str, use: list[str], notes: list[str]) -> str:
    """A card with the Hub's metadata. The licence is left to the author, in both places where it belongs."""
    spec, network = model.network.spec, model.network
    parameters = sum(parameter.numel() for parameter in network.parameters())
    code = "\n".join(["```python", *use, "```"])
    listed = f"In the order of the outputs: {', '.join(model.classes)}."
    what = f"A residual network: {parameters:,} parameters, {spec.num_classes or 'no'} classes."
    sections = {
        "Licence": f"**{LICENCE.capitalize()}**, here and in the metadata above, before this is published.",
        "Use": code,
        "Pixels": "\n".join(f"- {note}" for note in notes),
        "Classes": listed if spec.num_classes else "None: a backbone without a classifier.",
        "How good": _figures(model),
        "Data": _data(model.provenance),
        "Provenance": _provenance(model.provenance),
    }
    body = "\n\n".join(f"## {title}\n\n{text}" for title, text in sections.items())
    return f"{_metadata(model, library)}\n# {spec.name}\n\n{what}\n\n{body}\n"


def pixels_and_classes(model: Model) -> list[str]:
    """What a file of tensors alone does not carry, a line each."""
    classes = [f"classes, in the order of the outputs: {', '.join(model.classes)}"] if model.classes else []
    return [f"pixels: {describe_pixels(model.preprocessing)}", *classes, *uncalibrated(model)]


def uncalibrated(model: Model) -> list[str]:
    """What to know of the probabilities, in a line, where a temperature was fitted: no other library's file has it."""
    temperature = model.calibration.temperature
    if temperature == 1:
        return []
    return [f"probabilities are those of the logits as they are: the temperature {temperature:.4f} is not in it"]


def describe_pixels(pixels: Preprocessing) -> str:
    height, width = pixels.size
    framing = FRAMINGS[pixels.framing].format(resize=pixels.resize, size=f"{height}x{width}")
    kind = {"rgb": "red, green, blue", "grey": "grey"}.get(pixels.channels, f"{pixels.channels} bands")
    mean, std = (", ".join(f"{value:g}" for value in values) for values in (pixels.mean, pixels.std))
    return f"{kind} in 0..1; {framing} ({pixels.interpolation}, antialiased); mean {mean}, std {std}"


def _metadata(model: Model, library: str) -> str:
    """YAML; a JSON string is one of YAML's."""
    lines = [
        f"# license: {LICENCE}, for example apache-2.0",
        f"library_name: {library}",
        "pipeline_tag: image-classification"
        if model.network.spec.num_classes
        else "pipeline_tag: image-feature-extraction",
        "tags: [image-classification, resnet, resnetkit]",
    ]
    if "top1" in model.metrics and "n" in model.metrics:  # else of the images that chose the epoch
        name, data = (_quoted(text) for text in (model.network.spec.name, _name_of_data(model.provenance)))
        lines += [
            "model-index:",
            f"- name: {name}",
            "  results:",
            "  - task: {type: image-classification}",
            f"    dataset: {{name: {data}, type: imagefolder, split: {_quoted(str(model.metrics.get('split', '')))}}}",
            "    metrics:",
            f"    - {{type: accuracy, name: top-1, value: {model.metrics['top1']:.6f}}}",
        ]
    return "\n".join(["---", *lines, "---", ""])


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _figures(model: Model) -> str:
    metrics = model.metrics
    rows = [
        f"| {title} | {metrics[key]:.4f} | {_interval(metrics.get(f'{key}_interval'))} |"
        for key, title in FIGURES.items()
        if key in metrics and (key != "top5" or len(model.classes) > 5)
    ]
    if not rows:
        return "Not measured."
    counted = f"{metrics['n']:,} images of " if "n" in metrics else ""
    images = f"On {counted}the {metrics.get('split', 'test')} part."
    lines = [images, "", "| figure | value | 95 % interval |", "|---|---|---|", *rows]
    calibration = model.calibration
    if calibration.temperature != 1 and ("loss" in metrics or "ece" in metrics):
        lines += [
            "",
            f"Loss and calibration error are those of logits divided by {calibration.temperature:.4f}, which was "
            f"fitted on {calibration.n:,} images; the tensors here give the logits as they are.",
        ]
    return "\n".join(lines)


def _interval(ends: list[float] | None) -> str:
    return f"{ends[0]:.4f} to {ends[1]:.4f}" if ends else ""


def _name_of_data(provenance: dict[str, Any]) -> str:
    return Path(str(provenance.get("data", "unknown"))).name  # a path of the author's machine tells nobody anything


def _name_of_weights(source: str) -> str:
    return source if source.startswith(SCHEME) else Path(source).name


def _data(provenance: dict[str, Any]) -> str:
    if "data" not in provenance:
        return "Not recorded; say what it was trained on."
    counts = ", ".join(f"{count:,} in {part}" for part, count in provenance.get("images", {}).items())
    lines = [f"{_name_of_data(provenance)}: {counts or 'images not counted'}."]
    if "split_hash" in provenance:
        lines.append(f"Hash of the split: `{provenance['split_hash']}`.")
    return "\n".join(lines)


def _provenance(provenance: dict[str, Any]) -> str:
    told = {key: value for key, value in provenance.items() if key not in ("data", "images", "split_hash", "source")}
    if not told:
        return "Not recorded."
    recipe = told.get("recipe", {})
    if recipe.get("weights"):
        told["recipe"] = recipe | {"weights": _name_of_weights(recipe["weights"])}
    if taken_for := told.get("taken_for"):
        kept = {key: value for key, value in taken_for.items() if key != "probe"}
        told["taken_for"] = kept | {"source": _name_of_weights(taken_for.get("source", "unknown"))}
    return "\n".join(f"- {key}: `{json.dumps(value)}`" for key, value in told.items())
