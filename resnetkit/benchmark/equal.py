"""Whether a peer does the work that ours does: its weights in our network give its logits."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from resnetkit.architecture.folding import folded
from resnetkit.architecture.resnet import ResNet
from resnetkit.architecture.summary import complexity
from resnetkit.weights.load import load

TOLERANCE = 1e-4  # of the largest logit, in float32


def compare_work(exported: dict[str, str], ours: ResNet, *, predicting: bool = False) -> dict[str, Any]:
    """`exported` names the weights file, images (N, C, H, W) and logits (N, classes) that a peer wrote.

    Our network is compared as it trains or, `predicting`, as the predictor folds it. `macs_ratio` is how many times our
    multiplications the peer's network takes: 1 for the same network.
    """
    images = torch.from_numpy(np.load(exported["images"]))
    logits = torch.from_numpy(np.load(exported["logits"]))
    net = load(Path(exported["weights"])).network.eval()
    with torch.inference_mode():
        answers = (folded(net) if predicting else net)(images)
    net.image_size = ours.image_size = (images.shape[2], images.shape[3])
    return logits_agree(answers, logits) | {"macs_ratio": complexity(net)["macs"] / complexity(ours)["macs"]}


def logits_agree(ours: torch.Tensor, theirs: torch.Tensor) -> dict[str, Any]:
    """Logits (N, classes) of the same images by two networks."""
    error = float((ours - theirs).abs().max() / theirs.abs().max())
    agreement = float((ours.argmax(1) == theirs.argmax(1)).float().mean())
    return {"equal": error <= TOLERANCE and agreement == 1, "error": error, "top1_agreement": agreement}
