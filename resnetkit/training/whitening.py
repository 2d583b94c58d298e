"""A stem that begins as a whitening of the training images, so that nothing has to be learnt there."""

import torch
from torch import Tensor, nn

from resnetkit.architecture.resnet import ResNet
from resnetkit.data.preprocess import Preprocessing
from resnetkit.errors import ResnetkitError

IMAGES = 5_000  # whose patches are measured, as in airbench94
PIECE = 250  # of them at a time: patches are as many times as large as a kernel has places
LEAST_VARIANCE = 5e-4  # added to every direction's, as in airbench94: else noise is blown up


@torch.no_grad()
def whiten(net: ResNet, images: Tensor, preprocessing: Preprocessing) -> str:
    """Let the filters of the stem be the directions in which the patches of `images`, uint8 (N, C, H, W), vary, each
    divided by the deviation along it, the strongest first and each followed by its negative, which the activation would
    else lose. Filters beyond these keep their values.

    Page 2019, How to Train Your ResNet 8; Jordan 2024, section 3.2. Returns a line on how many directions found
    a place. Raises ResnetkitError for a stem that is not of one 3x3 convolution.
    """
    if net.spec.stem != "3x3":
        raise ResnetkitError(
            f"setting whiten is for a stem of one 3x3 convolution; {net.spec.name} has stem={net.spec.stem!r}: "
            "leave it out"
        )
    conv = net.stem.convs[0]
    assert isinstance(conv, nn.Conv2d)
    sample = images[:: -(-len(images) // IMAGES)]
    variances, directions = torch.linalg.eigh(_covariance(conv, sample, preprocessing))
    filters = (directions / (variances + LEAST_VARIANCE).sqrt()).T.flip(0)
    both = torch.stack([filters, -filters], 1).flatten(0, 1).view(-1, *conv.weight.shape[1:])
    count = min(len(both), len(conv.weight))
    conv.weight[:count] = both[:count].to(conv.weight.dtype)
    return f"whiten {count // 2} of {len(filters)} directions of a patch, in {len(conv.weight)} filters"


def _covariance(conv: nn.Conv2d, images: Tensor, preprocessing: Preprocessing) -> Tensor:
    """Of the patches that a convolution sees of the images, as the network does; float64 (C k k, C k k)."""
    height, width = conv.kernel_size
    side, count = conv.weight[0].numel(), 0
    products = torch.zeros(side, side, dtype=torch.float64)
    for piece in images.split(PIECE):
        x = preprocessing.normalise(preprocessing.frame(piece))
        patches = x.unfold(2, height, 1).unfold(3, width, 1).transpose(1, 3).reshape(-1, side)
        products += (patches.T @ patches).double()
        count += len(patches)
    return products / count
