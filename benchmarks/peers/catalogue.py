"""The catalogue of published weights, read from the torchvision and timm at hand. Run in .venv-peers:

python -m benchmarks.peers.catalogue > resnetkit/weights/catalogue.json
"""

import json
import re
from dataclasses import asdict
from typing import Any

import torch

from benchmarks.peers.operators import declare
from resnetkit.architecture.resnet import ResNet
from resnetkit.architecture.variants import spec
from resnetkit.data.preprocess import Preprocessing
from resnetkit.weights.catalogue import PublishedWeights
from resnetkit.weights.recognise import recognise

Choices = dict[str, Any]

D26 = {"depths": (2, 2, 2, 2)}
G32X4D, G32X8D = ({"cardinality": 32, "base_width": width} for width in (4, 8))
SE, ECA, GROUP = {"attention": "se"}, {"attention": "eca"}, {"norm": "group"}
PREACT_D = {"stem": "deep", "shortcut": "pooled"}
TIMM: dict[str, tuple[str, Choices]] = {  # their architectures that are ours under another name or with choices
    "resnet26": ("resnet50", D26),
    "resnet26d": ("resnet50d", D26),
    "resnet50_gn": ("resnet50", GROUP),
    "resnext50d_32x4d": ("resnet50d", G32X4D),
    "resnext101_32x4d": ("resnet101", G32X4D),
    "resnext101_32x16d": ("resnet101", {"cardinality": 32, "base_width": 16}),
    "resnext101_32x32d": ("resnet101", {"cardinality": 32, "base_width": 32}),
    "seresnet152d": ("resnet152d", SE),
    "seresnext26d_32x4d": ("resnet50d", D26 | G32X4D | SE),
    "seresnext50_32x4d": ("resnext50_32x4d", SE),
    "seresnext101_32x4d": ("resnet101", G32X4D | SE),
    "seresnext101_32x8d": ("resnext101_32x8d", SE),
    "seresnext101_64x4d": ("resnext101_64x4d", SE),
    "seresnext101d_32x8d": ("resnet101d", G32X8D | SE),
    "ecaresnet101d": ("resnet101d", ECA),
    "ecaresnet269d": ("ecaresnet50d", {"depths": (3, 30, 48, 8)}),
    "ecaresnetlight": ("resnet50", {"depths": (1, 1, 11, 3), "shortcut": "pooled"} | ECA),
    "resnetv2_18": ("preact_resnet18", {}),
    "resnetv2_34": ("preact_resnet34", {}),
    "resnetv2_50": ("preact_resnet50", {}),
    "resnetv2_101": ("preact_resnet101", {}),
    "resnetv2_18d": ("preact_resnet18", PREACT_D),
    "resnetv2_34d": ("preact_resnet34", PREACT_D),
    "resnetv2_50d_gn": ("preact_resnet50", PREACT_D | GROUP),
}
SAME_NAME = re.compile(
    r"resnet(18|34|50|101|152|200)[cds]?|resnext(50|101)_\d+x\d+d|wide_resnet\d+_2|seresnet50|ecaresnet50d"
)
HASH = re.compile(r"-([0-9a-f]{8,64})\.\w+$")  # torch.hub's convention: the first digits of the SHA-256

AKAMASTER = {
    "library": "a CIFAR repository",
    "licence": "bsd-2-clause",
    "preprocessing": Preprocessing(size=(32, 32), framing="squash").to_dict(),
    "published": "https://github.com/akamaster/pytorch_resnet_cifar10",
}
FILES = (  # whose figures tests/architecture/test_published_checkpoints.py measures
    PublishedWeights(
        id="resnet20_cifar.akamaster_cifar10",
        variant="resnet20_cifar",
        url=f"{AKAMASTER['published']}/raw/master/pretrained_models/resnet20-12fca82f.th",
        sha256="12fca82f0bebc4135bf1f32f6e3710e61d5108578464b84fd6d7f5c1b04036c8",
        top1=0.9173,
        **AKAMASTER,
    ),
    PublishedWeights(
        id="resnet56_cifar.akamaster_cifar10",
        variant="resnet56_cifar",
        url=f"{AKAMASTER['published']}/raw/master/pretrained_models/resnet56-4bfd9763.th",
        sha256="4bfd97631478d6b638d2764fd2baff3edb1d7d82252d54439343b6596b9b5367",
        top1=0.9339,
        **AKAMASTER,
    ),
    PublishedWeights(
        id="resnet8_cifar.mlperf_tiny_cifar10",
        variant="resnet8_cifar",
        choices={
            "shortcut": "projection",
            "shortcut_norm": False,
            "conv_bias": True,
            "norm_eps": 1e-3,
            "padding": "same",
        },
        library="keras",
        sha256="5f938a8eea605438cc7360aa13c987bc6d7bd0c8d931b2917361ae7ae4eeda2f",
        licence="apache-2.0",
        preprocessing=Preprocessing(
            size=(32, 32), framing="squash", mean=(0.0,) * 3, std=(1 / 255,) * 3
        ).to_dict(),
        top1=0.8719,
        published="measured on CIFAR-10's 10,000 test images; MLPerf Tiny asks for 0.85",
    ),
)  # fmt: skip


def from_torchvision() -> list[PublishedWeights]:
    from torchvision import models

    entries = []
    for name in models.list_models(module=models):
        if models.get_model_builder(name).__module__ != "torchvision.models.resnet":
            continue
        with torch.device("meta"):
            require_same_tensors(models.get_model(name).state_dict(), name, {})
        for weights in models.get_model_weights(name):
            framing = weights.transforms()
            (figures,) = weights.meta["_metrics"].values()
            entries.append(
                PublishedWeights(
                    id=f"{name}.{weights.name.lower()}",
                    variant=name,
                    library="torchvision",
                    url=weights.url,
                    sha256=file_hash(weights.url),
                    preprocessing=Preprocessing(
                        size=(framing.crop_size[0],) * 2,
                        resize=framing.resize_size[0],
                        mean=tuple(framing.mean),
                        std=tuple(framing.std),
                        interpolation=framing.interpolation.value,
                    ).to_dict(),
                    top1=round(figures["acc@1"] / 100, 6),
                    top5=round(figures["acc@5"] / 100, 6),
                    published=f"torchvision, {type(weights).__name__}.{weights.name}",
                    recipe=weights.meta["recipe"],
                )
            )
    return entries


def from_timm() -> list[PublishedWeights]:
    from timm.models import create_model, get_pretrained_cfg, is_model_in_modules, list_models, list_pretrained

    entries = []
    for name in list_models():
        if not is_model_in_modules(name, ("resnet", "resnetv2")) or not (name in TIMM or SAME_NAME.fullmatch(name)):
            continue
        variant, choices = TIMM.get(name, (name, {}))
        tags = list_pretrained(f"{name}.*")
        if tags:
            with torch.device("meta"):
                require_same_tensors(create_model(name).state_dict(), variant, choices)
        for tag in tags:
            config = get_pretrained_cfg(tag)
            own = choices if config.num_classes == 1000 else choices | {"num_classes": config.num_classes}
            entries.append(
                PublishedWeights(
                    id=tag if own else tag.replace(name, variant, 1),
                    variant=variant,
                    choices=own,
                    library="timm",
                    url=config.url or None,
                    hf_hub_id=config.hf_hub_id,
                    sha256=file_hash(config.url),
                    licence=config.license,
                    preprocessing=timm_preprocessing(config).to_dict(),
                    recipe=config.paper_ids,
                )
            )
    return entries


def timm_preprocessing(config: Any) -> Preprocessing:
    """What timm's validate.py does by default: the sizes for testing where the entry names them."""
    from timm.data import create_transform, resolve_data_config

    data = resolve_data_config(pretrained_cfg=config.to_dict(), use_test_size=True)
    resize, crop, _, normalise = create_transform(**data).transforms
    assert isinstance(resize.size, int) and data["crop_mode"] == "center"
    return Preprocessing(
        size=tuple(crop.size),
        resize=resize.size,
        mean=tuple(round(value, 6) for value in normalise.mean.tolist()),
        std=tuple(round(value, 6) for value in normalise.std.tolist()),
        interpolation=resize.interpolation.value,
    )


def require_same_tensors(theirs: dict[str, torch.Tensor], variant: str, choices: Choices) -> None:
    """Their tensors in our names must be those of our network."""
    with torch.device("meta"):
        ours = ResNet(spec(variant, **choices)).state_dict()
    found = recognise(theirs).tensors
    assert {k: v.shape for k, v in found.items()} == {k: v.shape for k, v in ours.items()}, (variant, choices)


def file_hash(url: str | None) -> str | None:
    match = HASH.search(url or "")
    return match[1] if match else None


def main() -> None:
    declare()
    import timm
    import torchvision

    entries = (*from_torchvision(), *from_timm(), *FILES)
    assert len({entry.id for entry in entries}) == len(entries)
    rows = ",\n".join(json.dumps(asdict(entry)) for entry in entries)
    versions = json.dumps({"torchvision": torchvision.__version__.split("+")[0], "timm": timm.__version__})
    print(f'{{"read_from": {versions}, "weights": [\n{rows}\n]}}')


if __name__ == "__main__":
    main()
