"""A CIFAR-10 ResNet as repositories commonly write it: NCHW, float32, eager, accuracy and loss read at every step.

The network is that of the paper's section 4.2 with option A shortcuts, in the manner and under the names of
github.com/akamaster/pytorch_resnet_cifar10, whose checkpoints name the usual figures.
"""

import re
from typing import Any

from torch_peer import TorchPeer


def version() -> str:
    import torch  # noqa: F401

    return "the usual CIFAR repository"


def make(job: dict):
    import torch
    import torch.nn.functional as F
    from torch import nn

    match = re.fullmatch(r"resnet(\d+)_cifar", job["model"])
    if not match or (int(match[1]) - 2) % 6:
        raise ValueError(f"CIFAR repositories have resnet20_cifar, resnet56_cifar and the like, not {job['model']}")
    blocks = (int(match[1]) - 2) // 6

    class Block(nn.Module):
        def __init__(self, in_planes: int, planes: int, stride: int) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(in_planes, planes, 3, stride=stride, padding=1, bias=False)
            self.bn1 = nn.BatchNorm2d(planes)
            self.conv2 = nn.Conv2d(planes, planes, 3, stride=1, padding=1, bias=False)
            self.bn2 = nn.BatchNorm2d(planes)
            self.pad = planes // 4 if in_planes != planes else 0

        def forward(self, x):
            out = F.relu(self.bn1(self.conv1(x)))
            out = self.bn2(self.conv2(out))
            out += F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.pad, self.pad)) if self.pad else x
            return F.relu(out)

    class ResNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(3, 16, 3, stride=1, padding=1, bias=False)
            self.bn1 = nn.BatchNorm2d(16)
            self.layer1 = self.stage(16, 16, 1)
            self.layer2 = self.stage(16, 32, 2)
            self.layer3 = self.stage(32, 64, 2)
            self.linear = nn.Linear(64, job["classes"])

        def stage(self, in_planes: int, planes: int, stride: int) -> nn.Sequential:
            first = Block(in_planes, planes, stride)
            return nn.Sequential(first, *(Block(planes, planes, 1) for _ in range(blocks - 1)))

        def forward(self, x):
            out = F.relu(self.bn1(self.conv1(x)))
            out = self.layer3(self.layer2(self.layer1(out)))
            out = F.avg_pool2d(out, out.size()[3])
            return self.linear(out.view(out.size(0), -1))

    network = ResNet()
    for module in network.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            torch.nn.init.kaiming_normal_(module.weight)
    return network


class CifarRepository(TorchPeer):
    def look(self, output: Any, loss: Any) -> None:
        """The repository's trainer prints the accuracy, too."""
        _, called = output.float().data.topk(1, 1, True, True)
        called.t().eq(self.labels.view(1, -1)).view(-1).float().sum(0).mul_(100.0 / len(self.x)).item()
        loss.float().item()


CifarRepository(make, version).serve()
