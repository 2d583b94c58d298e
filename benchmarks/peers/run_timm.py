"""timm's network, run as its train.py does without options."""

from operators import declare
from torch_peer import TorchPeer


def version() -> str:
    declare()
    import timm

    return f"timm {timm.__version__}"


def make(job: dict):
    import timm

    return timm.create_model(job["model"], pretrained=False, num_classes=job["classes"])


TorchPeer(make, version).serve()
