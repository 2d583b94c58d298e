"""How far the moments that a network's batch norms stored in training are from those that given images produce."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from resnetkit.architecture.resnet import ResNet

Moments = tuple[Tensor, Tensor]  # mean and variance of each channel
Noted = list[tuple[nn.BatchNorm2d, Moments]]  # in the order in which the network runs them


@dataclass(frozen=True)
class Fit:
    """`distance` is of the moments of all images, `groups` of each group alone, whose small numbers put it further
    off; `answers` (N,) are the most likely classes, empty where the network was not run to its end."""

    distance: float
    groups: tuple[float, ...]
    answers: Tensor


class _Enough(Exception):
    """The norms that were asked for have been reached."""


def fit(net: ResNet, groups: list[Tensor], *, first: bool = False) -> Fit:
    """The distance of stored moments from those of groups of normalised images, float (n, C, H, W) each.

    It is the Kullback-Leibler divergence of normal distributions, the mean over the channels of a norm and over norms.
    The network runs on its stored moments, so that what is wrong in one layer shows in all that follow. `first` looks
    at the first norm alone, which depends on pixels and the first convolution, and stops there.
    """
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    seen: list[Noted] = []
    hooks = [norm.register_forward_pre_hook(lambda norm, x: _note(norm, x[0], seen[-1], first)) for norm in norms]
    answers = []
    try:
        for images in groups:
            seen.append([])
            try:
                with torch.inference_mode():
                    answers.append(net(images).argmax(1))
            except _Enough:
                pass
    finally:
        for hook in hooks:
            hook.remove()
    reached = [norm for norm, _ in seen[0]]
    alone = [[moments for _, moments in own] for own in seen]
    pooled = [_pool(*map(torch.stack, zip(*of_norm))) for of_norm in zip(*alone)]
    every = torch.cat(answers) if answers else torch.empty(0, dtype=torch.long)
    return Fit(_distance(reached, pooled), tuple(_distance(reached, own) for own in alone), every)


def _note(norm: nn.BatchNorm2d, x: Tensor, seen: Noted, first: bool) -> None:
    means = x.mean((2, 3), keepdim=True)
    variances = (x - means).square_().mean((2, 3))  # in two passes, which are faster than torch.var_mean's one
    seen.append((norm, _pool(means.flatten(1), variances)))
    if first:
        raise _Enough


def _pool(means: Tensor, variances: Tensor) -> Moments:
    """Of rows that stand for as many values each: the variance within them and that of their means."""
    return means.double().mean(0), variances.double().mean(0) + means.double().var(0, correction=0)


def _distance(norms: list[nn.BatchNorm2d], moments: list[Moments]) -> float:
    return sum(_divergence(norm, *own) for norm, own in zip(norms, moments)) / len(norms)


def _divergence(norm: nn.BatchNorm2d, mean: Tensor, variance: Tensor) -> float:
    assert norm.running_mean is not None and norm.running_var is not None
    stored = norm.running_var.double() + norm.eps  # epsilon keeps channels that never fire from counting
    ratio = (variance + norm.eps) / stored
    return float((ratio + (mean - norm.running_mean) ** 2 / stored - 1 - ratio.log()).mean() / 2)
