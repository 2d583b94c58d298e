"""transformers: the folder that AutoModelForImageClassification, ResNetBackbone and AutoImageProcessor open."""

from pathlib import Path
from typing import Any

from torch import Tensor

from resnetkit.architecture.resnet import ResNet
from resnetkit.architecture.spec import EXPANSION
from resnetkit.data.preprocess import COLOURS, Preprocessing
from resnetkit.errors import ResnetkitError
from resnetkit.export.card import card, describe_pixels, uncalibrated
from resnetkit.export.hub import read_folder, write_folder
from resnetkit.export.limits import in_their_names, is_dilated, refuse
from resnetkit.export.limits import require as require_limits
from resnetkit.weights.files import Model
from resnetkit.weights.from_huggingface import PIXELS, RESAMPLING, TABLES, known
from resnetkit.weights.recognise import recognise
from resnetkit.weights.recognised import Recognised

LIMITS = {  # transformers/models/resnet/modeling_resnet.py, version 5
    "stem": ("7x7",),
    "preactivation": (False,),
    "shortcut": ("projection",),
    "shortcut_norm": (True,),
    "activation": ("relu",),
    "attention": ("none",),
    "cardinality": (1,),
    "base_width": (64,),
}
SUFFIX = ""
PIXEL_NOTES = (
    "transformers rounds an odd margin around the centre down, here it is rounded to even: a pixel at most",
    "its processor neither turns images by their EXIF orientation (pipeline() does) nor puts transparent ones on white",
)


def require(model: Model) -> None:
    spec = model.network.spec
    require_limits(spec, "transformers", LIMITS)
    first, *others = spec.strides
    if first not in (1, 2) or any(stride != 2 for stride in others):
        refuse(spec, "transformers", "strides", "its stages stride by 2, the first by 1 or 2")
    if is_dilated(spec):
        refuse(spec, "transformers", "output_stride", "its networks have no dilation")
    processor(model.preprocessing)


def processor(pixels: Preprocessing) -> dict[str, Any]:
    """The preprocessor_config.json whose processor makes these pixels. Raises ResnetkitError where there is none."""
    height, width = pixels.size
    if pixels.channels not in COLOURS:
        raise ResnetkitError(
            f"transformers cannot hold images of {pixels.channels} bands: its processors take pictures; "
            "--to torchvision or timm writes the network"
        )
    record = {
        "do_convert_rgb": pixels.channels == "rgb",
        "do_resize": True,
        "resample": next(number for number, name in RESAMPLING.items() if name == pixels.interpolation),
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(pixels.mean),
        "image_std": list(pixels.std),
    }
    if pixels.framing == "squash":
        return record | {"image_processor_type": "ViTImageProcessor", "size": {"height": height, "width": width}}
    if pixels.framing == "crop":
        return record | {
            "image_processor_type": "BitImageProcessor",
            "size": {"shortest_edge": pixels.resize},
            "do_center_crop": True,
            "crop_size": {"height": height, "width": width},
        }
    raise ResnetkitError(
        f"transformers cannot hold framing={pixels.framing!r}: its processors crop or squash; --to torchvision writes "
        "the tensors alone"
    )


def write(model: Model, folder: Path) -> None:
    spec = model.network.spec
    config: dict[str, Any] = {
        "architectures": ["ResNetForImageClassification" if spec.num_classes else "ResNetModel"],
        "model_type": "resnet",
        "num_channels": spec.in_channels,
        "embedding_size": spec.stem_width,
        "hidden_sizes": [width * EXPANSION[spec.block] for width in spec.widths],
        "depths": spec.depths,
        "layer_type": spec.block,
        "hidden_act": spec.activation,
        "downsample_in_first_stage": spec.strides[0] == 2,
        "downsample_in_bottleneck": spec.stride_in_1x1,
    }
    if spec.num_classes:
        config["id2label"] = dict(enumerate(model.classes))
        config["label2id"] = {name: i for i, name in enumerate(model.classes)}
        config["problem_type"] = "single_label_classification"
    text = card(model, library="transformers", use=use(model, "OWNER/NAME"), notes=notes(model))
    write_folder(folder, _tensors(model.network), text, config, {PIXELS: processor(model.preprocessing)})


def _tensors(network: ResNet) -> dict[str, Tensor]:
    tensors = in_their_names(TABLES, network)
    if not network.spec.num_classes:
        return tensors
    return {name if name.startswith("classifier.") else f"resnet.{name}": value for name, value in tensors.items()}


def read(folder: Path) -> Recognised:
    tensors, config = read_folder(folder)
    return recognise(tensors, known(config))


def use(model: Model, path: str) -> list[str]:
    kind = "AutoModelForImageClassification" if model.network.spec.num_classes else "AutoModel"
    return [
        f"from transformers import AutoImageProcessor, {kind}",
        f"net = {kind}.from_pretrained({path!r})",
        f"processor = AutoImageProcessor.from_pretrained({path!r})",
    ]


def notes(model: Model) -> list[str]:
    grey = ["open images with .convert('L')"] if model.preprocessing.channels == "grey" else []
    return [f"pixels: {describe_pixels(model.preprocessing)}", *PIXEL_NOTES, *grey, *uncalibrated(model)]
