"""The network of transformers, run as any PyTorch module is."""

from pathlib import Path
from typing import Any

from torch_peer import TorchPeer

SIZES = {  # depths and kind of block of its ResNetConfig
    "resnet18": ((2, 2, 2, 2), "basic"),
    "resnet34": ((3, 4, 6, 3), "basic"),
    "resnet50": ((3, 4, 6, 3), "bottleneck"),
    "resnet101": ((3, 4, 23, 3), "bottleneck"),
    "resnet152": ((3, 8, 36, 3), "bottleneck"),
}


def version() -> str:
    import transformers
    from transformers import ResNetForImageClassification  # noqa: F401

    return f"transformers {transformers.__version__}"


def make(job: dict):
    from torch import nn
    from transformers import ResNetConfig, ResNetForImageClassification

    if job["model"] not in SIZES:
        raise ValueError(f"transformers is measured on {', '.join(SIZES)}, not on {job['model']}")
    depths, block = SIZES[job["model"]]
    widths = [64, 128, 256, 512] if block == "basic" else [256, 512, 1024, 2048]
    config = ResNetConfig(depths=list(depths), hidden_sizes=widths, layer_type=block, num_labels=job["classes"])

    class Logits(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = ResNetForImageClassification(config)

        def forward(self, x):
            return self.model(x).logits

    return Logits()


class Transformers(TorchPeer):
    def save(self, network: Any, place: Path) -> str:
        network.model.save_pretrained(place / "weights")
        return str(place / "weights")


Transformers(make, version).serve()
