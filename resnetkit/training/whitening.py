"""A stem that begins as a whitening of the training images, so that nothing has to be learnt there."""

import torch
from torch import Tensor, nn

from resnetkit.architecture.resnet import ResNet
from resnetkit.data.preprocess import Preprocessing

IMAGES = 5_000  # whose patches are measured, as in airbench94
LEAST_VARIANCE = 5e-4  # added to every direction's, as in airbench94: else noise is blown up


@torch.no_grad()
def whiten(net: ResNet, images: Tensor, preprocessing: Preprocessing) -> None:
    """Let the filters of the first convolution be the directions in which the patches of `images`, uint8 (N, C, H, W),
    vary, each divided by the deviation along it, the strongest first and each followed by its negative, which the
    activation would else lose. Filters beyond these keep their values.

    Page 2019, How to Train Your ResNet 8; Jordan 2024, section 3.2.
    """
    conv = net.stem.convs[0]
    assert isinstance(conv, nn.Conv2d)
    x = preprocessing.normalise(images[torch.randperm(len(images))[:IMAGES]])
    height, width = conv.kernel_size
    patches = x.unfold(2, height, 1).unfold(3, width, 1).transpose(1, 3).reshape(-1, conv.weight[0].numel())
    variances, directions = torch.linalg.eigh(patches.T @ patches / len(patches))
    filters = (directions / (variances + LEAST_VARIANCE).sqrt()).T.flip(0)
    both = torch.stack([filters, -filters], 1).flatten(0, 1).view(-1, *conv.weight.shape[1:])
    count = min(len(both), len(conv.weight))
    conv.weight[:count] = both[:count]
