"""torchvision's network, run as its references/classification/train.py does."""

from operators import declare
from torch_peer import TorchPeer


def version() -> str:
    declare()
    import torchvision
    import torchvision.models

    return f"torchvision {torchvision.__version__}"


def make(job: dict):
    from torchvision import models

    return models.get_model(job["model"], weights=None, num_classes=job["classes"])


TorchPeer(make, version).serve()
