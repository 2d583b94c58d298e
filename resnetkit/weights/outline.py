"""Our network as a graph format states it: the stem, blocks of two paths, the head, each a list of layers."""

from dataclasses import dataclass

from torch import nn

from resnetkit.architecture.blocks import PreActBlock, ResidualBlock
from resnetkit.architecture.layers import ZeroPadShortcut
from resnetkit.architecture.resnet import ResNet

Part = tuple[str, nn.Module]  # by its name in the state dict


@dataclass(frozen=True)
class BlockOutline:
    """`before` is read by both paths and `after` follows their sum; `shortcut` None is a plain network's."""

    name: str
    before: list[Part]
    branch: list[Part]
    shortcut: list[Part] | None
    after: list[Part]


@dataclass(frozen=True)
class Outline:
    stem: list[Part]
    blocks: list[BlockOutline]
    head: list[Part]


def outline(net: ResNet) -> Outline:
    """The layers in the order in which they run; what does nothing is left out."""
    stem = [*_children("stem.convs", net.stem.convs), *_real(("stem.pool", net.stem.pool))]
    blocks = [_block(f"stages.{row.stage}.{row.block}", net) for row in net.rows]
    head: list[Part] = [("head", net.head), *_real(("head.classifier", net.head.classifier))]
    return Outline(stem, blocks, [*_children("norm", net.norm), *head])


def _block(name: str, net: ResNet) -> BlockOutline:
    block = net.get_submodule(name)
    assert isinstance(block, (PreActBlock, ResidualBlock))
    before: list[Part] = []
    branch = [*_children(f"{name}.branch", block.branch), *_real((f"{name}.drop_path", block.drop_path))]
    after: list[Part] = []
    if isinstance(block, PreActBlock):
        before = _children(f"{name}.preact", block.preact)
        if block.shortcut is None or block.reads_x:
            before, branch = [], before + branch
    else:
        after = [(f"{name}.activation", block.activation)]
    return BlockOutline(name, before, branch, _shortcut(f"{name}.shortcut", block.shortcut), after)


def _shortcut(name: str, module: nn.Module | None) -> list[Part] | None:
    if module is None:
        return None
    if isinstance(module, ZeroPadShortcut):
        return [(name, module)]
    return _children(name, module)


def _children(name: str, module: nn.Module) -> list[Part]:
    return [part for child, layer in module.named_children() for part in _real((f"{name}.{child}", layer))]


def _real(part: Part) -> list[Part]:
    return [] if isinstance(part[1], nn.Identity) else [part]
