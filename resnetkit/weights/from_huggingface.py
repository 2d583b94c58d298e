"""transformers' ResNetForImageClassification and ResNetBackbone: names, config.json, preprocessor_config.json.

models/resnet/modeling_resnet.py, version 5: its norms are PyTorch's own, of epsilon 1e-5.
"""

from pathlib import Path
from typing import Any

from resnetkit.data.preprocess import Preprocessing, channels_of
from resnetkit.errors import ResnetkitError
from resnetkit.weights.preprocessing import CURE
from resnetkit.weights.rename import Table
from resnetkit.weights.untrusted import read_json, within

LAYER = "encoder.stages.{stage}.layers.{block}."
TABLE = Table(
    "transformers",
    {
        "embedder.embedder.convolution": "stem.convs.conv1",
        "embedder.embedder.normalization": "stem.convs.norm1",
        LAYER + "layer.{i-1}.convolution": "stages.{stage}.{block}.branch.conv{i}",
        LAYER + "layer.{i-1}.normalization": "stages.{stage}.{block}.branch.norm{i}",
        LAYER + "shortcut.convolution": "stages.{stage}.{block}.shortcut.conv",
        LAYER + "shortcut.normalization": "stages.{stage}.{block}.shortcut.norm",
        "classifier.1": "head.classifier",
    },
    {"preactivation": False, "stem": "7x7", "shortcut": "projection", "attention": "none"},
)
TABLES = (TABLE,)

PIXELS = "preprocessor_config.json"
RESAMPLING = {2: "bilinear", 3: "bicubic"}  # Pillow's numbers
WHOLE_FROM = 384  # ConvNext's processor squashes from this size on, and crops below it
CONVNEXT_CROP = 224 / 256


def known(config: dict[str, Any]) -> dict[str, Any]:
    """What a config.json tells of a network beyond its tensors, in the words of NetworkSpec. Raises ResnetkitError for
    what ours cannot be."""
    if config.get("model_type") != "resnet":
        raise ResnetkitError(f"model_type {config.get('model_type')!r} of transformers is not read; resnet is")
    if config.get("problem_type") == "multi_label_classification":
        raise ResnetkitError("a network of several labels an image is not read from transformers")
    activation = config.get("hidden_act", "relu")
    if activation != "relu":  # ResNetConvLayer is built without it
        raise ResnetkitError(
            f"hidden_act {activation!r}: transformers applies it to a block's sum and ReLU within, which ours cannot"
        )
    bottleneck = config.get("layer_type", "bottleneck") == "bottleneck"
    stages = len(config.get("depths", (3, 4, 6, 3)))
    return {
        "strides": (2 if config.get("downsample_in_first_stage", False) else 1, *(2,) * (stages - 1)),
        "stride_in_1x1": bottleneck and bool(config.get("downsample_in_bottleneck", False)),
        "activation": "relu",
        "padding": "symmetric",
        "norm_eps": 1e-5,
    }


def classes(config: dict[str, Any]) -> list[str] | None:
    """The labels of a config.json in the order of the outputs; None where it has none but LABEL_0, LABEL_1, ..."""
    names = {int(i): str(name) for i, name in (config.get("id2label") or {}).items()}
    if sorted(names) != list(range(len(names))):
        raise ResnetkitError("id2label does not number its labels from 0 without a gap")
    if all(name == f"LABEL_{i}" for i, name in names.items()):
        return None
    return [names[i] for i in range(len(names))]


def preprocessing(config: dict[str, Any], folder: Path) -> Preprocessing | None:
    """What the folder's preprocessor_config.json says; None without one. Raises ResnetkitError for pixels that no
    Preprocessing makes."""
    if not (folder / PIXELS).is_file():
        return None
    try:
        return _preprocessing(read_json(within(folder, PIXELS)))
    except (LookupError, ValueError, TypeError, AttributeError, ArithmeticError) as error:
        problem = f"it lacks {error}" if isinstance(error, KeyError) else error
        raise ResnetkitError(f"{PIXELS}: {problem}; {CURE}") from error


def _preprocessing(record: dict[str, Any]) -> Preprocessing:
    if not record.get("do_rescale", True) or abs(record.get("rescale_factor", 1 / 255) - 1 / 255) > 1e-9:
        raise ResnetkitError("its pixels are not scaled to 0..1")
    if not record.get("do_resize", True):
        raise ResnetkitError("it does not resize, and networks here see one size")
    interpolation = RESAMPLING.get(record.get("resample", 3))
    if interpolation is None:
        raise ResnetkitError(f"resample {record['resample']} is neither bilinear (2) nor bicubic (3)")
    moments: dict[str, Any] = {"mean": (0.0,) * 3, "std": (1.0,) * 3}
    if record.get("do_normalize", True):
        moments = {"mean": tuple(record["image_mean"]), "std": tuple(record["image_std"])}
    channels = channels_of(len(moments["mean"]))
    return Preprocessing(**_framing(record), channels=channels, interpolation=interpolation, **moments)


def _framing(record: dict[str, Any]) -> dict[str, Any]:
    size = record["size"]
    edge = size if isinstance(size, int) else size.get("shortest_edge")
    if _kind(record) == "ConvNext":
        if edge >= WHOLE_FROM:
            return {"size": (edge, edge), "framing": "squash"}
        return {"size": (edge, edge), "resize": int(edge / record.get("crop_pct", CONVNEXT_CROP))}
    if edge is None or (isinstance(size, int) and not record.get("do_center_crop")):
        sides = (size, size) if isinstance(size, int) else (size["height"], size["width"])
        if record.get("do_center_crop"):
            raise ResnetkitError("it squashes and then crops, which no framing here does")
        return {"size": sides, "framing": "squash"}
    if not record.get("do_center_crop", _kind(record) in ("Bit", "CLIP")):
        raise ResnetkitError("its images keep their proportions and so have many sizes")
    crop = record["crop_size"]
    return {"size": (crop, crop) if isinstance(crop, int) else (crop["height"], crop["width"]), "resize": edge}


def _kind(record: dict[str, Any]) -> str:
    """`Bit` of BitImageProcessorFast, `ConvNext` of ConvNextFeatureExtractor."""
    name = str(record.get("image_processor_type") or record.get("feature_extractor_type") or "")
    for end in ("Pil", "Fast", "ImageProcessor", "FeatureExtractor"):
        name = name.removesuffix(end)
    return name
