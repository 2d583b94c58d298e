"""Parameter groups and the optimizer."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from torch import nn
from torch.optim import Optimizer

from resnetkit.architecture.layers import BranchPool2d
from resnetkit.architecture.resnet import ResNet
from resnetkit.errors import ResnetkitError
from resnetkit.training.channels_last import step_in_memory_order
from resnetkit.training.freezing import parts
from resnetkit.training.lamb import Lamb
from resnetkit.training.muon import Muon
from resnetkit.training.recipe import Recipe
from resnetkit.training.untraced import SGD, AdamW

# Beside the convolutions under a norm that Muon turns:
OTHER_KERNELS = 4.0  # the rate of SGD for those under none, as a multiple of Muon's
ADAMW_RATE = 0.005  # the peak rate of AdamW for the classifier, norms and biases, whatever Muon's


def make_optimizer(net: ResNet, recipe: Recipe) -> Optimizer:
    """SGD with momentum, AdamW, LAMB or Muon. Norms and biases do not decay (Goyal et al. 2017, section 5.3).

    A group's `scale` is its share of the learning rate: 1 at the head, times `rate_decay` a part below it
    (discriminative rates, Howard & Ruder 2018, section 3.2). Raises ResnetkitError for a network Muon is not for.
    """
    if recipe.optimizer == "muon":
        return _muon(net, recipe)
    groups: list[dict[str, Any]] = []
    for piece, scale in _pieces(net, recipe):
        trained = list(piece.parameters())
        for chosen, decay in (
            ([p for p in trained if p.ndim > 1], recipe.weight_decay),
            ([p for p in trained if p.ndim <= 1], 0.0),
        ):
            if chosen:
                groups.append({"params": chosen, "weight_decay": decay, "scale": scale})
    if recipe.optimizer == "lamb":
        return Lamb(groups, lr=recipe.lr)
    if recipe.optimizer == "adamw":
        fused: Optimizer = AdamW(groups, lr=recipe.lr, fused=True)
    else:
        fused = SGD(
            groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.nesterov and recipe.momentum > 0, fused=True
        )
    on_cpu = next(net.parameters()).device.type == "cpu"
    return step_in_memory_order(fused) if on_cpu else fused


def _muon(net: ResNet, recipe: Recipe) -> Muon:
    if net.spec.norm not in ("batch", "group"):
        raise ResnetkitError(
            f"setting optimizer='muon' keeps the norms of filters, which needs norm layers that learn; "
            f"{recipe.model} has norm={net.spec.norm!r}: use sgd or adamw"
        )
    turned = {id(conv.weight): conv.groups for conv in _normed_convolutions(net)}
    groups: list[dict[str, Any]] = []
    share = ADAMW_RATE / recipe.lr
    decay = {"weight_decay": recipe.weight_decay}
    for piece, scale in _pieces(net, recipe):
        trained = list(piece.parameters())
        rest = [p for p in trained if id(p) not in turned]
        for count in sorted(set(turned.values())):
            kernels = [p for p in trained if turned.get(id(p)) == count]
            if kernels:
                groups.append({"params": kernels, "rule": "orthogonal", "scale": scale, "filter_groups": count})
        for chosen, own in (
            ([p for p in rest if p.ndim > 2], {"rule": "sgd", "scale": OTHER_KERNELS * scale} | decay),
            ([p for p in rest if p.ndim == 2], {"rule": "adamw", "scale": share * scale} | decay),
            ([p for p in rest if p.ndim < 2], {"rule": "adamw", "scale": share * scale}),
        ):
            if chosen:
                groups.append({"params": chosen} | own)
    return Muon(groups, recipe.lr, recipe.momentum)


def _normed_convolutions(net: ResNet) -> Iterator[nn.Conv2d]:
    """Those whose output a norm scales, at once or after a pool: the length of their weights changes nothing."""
    for chain in net.modules():
        if isinstance(chain, nn.Sequential):
            for layer, following in pairwise(layer for layer in chain if not isinstance(layer, BranchPool2d)):
                if isinstance(layer, nn.Conv2d) and isinstance(following, (nn.BatchNorm2d, nn.GroupNorm)):
                    yield layer


def _pieces(net: ResNet, recipe: Recipe) -> Iterator[tuple[nn.Module, float]]:
    """The parts of the network that learn at rates of their own, or from epochs of their own on, each with its share of
    the rate: PyTorch's fused SGD takes no first step of some of a group's weights beside a later one of others."""
    if recipe.rate_decay == 1 and not recipe.thaw_epochs:
        yield net, 1.0
        return
    for distance, (_, part) in enumerate(reversed(parts(net))):
        yield part, recipe.rate_decay**distance
