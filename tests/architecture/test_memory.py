"""Recomputation: the same to the bit as the plain run, for a fraction of its memory."""

import copy
from contextlib import nullcontext
from itertools import product
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch.profiler import ProfilerActivity, profile

import resnetkit as rk
from resnetkit.architecture import recompute
from resnetkit.architecture.live_memory import LiveMemory
from resnetkit.architecture.recompute import segments
from resnetkit.architecture.stages import plan
from resnetkit.architecture.variants import spec
from tests.conftest import randomise

SMALL = {"stem": "3x3", "stem_width": 8, "widths": (8, 16), "strides": (1, 2), "depths": (5, 4), "num_classes": 3}
BLOCKS = {
    "basic": {},
    "bottleneck": {"block": "bottleneck"},
    "grouped": {"block": "bottleneck", "cardinality": 2, "base_width": 32},
    "squeeze-excite": {"attention": "se"},
    "pooled": {"shortcut": "pooled", "attention": "eca", "activation": "silu"},
    "zero_pad": {"shortcut": "zero_pad", "activation": "gelu"},
    "preactivation": {"preactivation": True, "shortcut_norm": False},
    "preactivation bottleneck": {"preactivation": True, "block": "bottleneck", "activation": "silu"},
    "plain": {"shortcut": "none"},
}
NORMS = ("batch", "group", "frozen", "none")


def small(**choices):
    return randomise(rk.build("resnet18", **SMALL | choices)).train()


class Step(NamedTuple):
    """A training step: gradients by parameter, and of x; parameters and statistics after it; the next random draw."""

    logits: torch.Tensor
    gradients: dict
    state: dict
    next: torch.Tensor

    def items(self):
        gradients = {f"{name}.grad": value for name, value in self.gradients.items()}
        return {"logits": self.logits, "next": self.next} | gradients | self.state


def step(net, x, precision=torch.float32):
    torch.manual_seed(1)
    net.zero_grad(set_to_none=True)
    x = x.clone().requires_grad_()
    with torch.autocast("cpu", precision, enabled=precision != torch.float32):
        logits = net(x)
    F.cross_entropy(logits.float(), torch.arange(len(x)) % 3).backward()
    gradients = {name: p.grad for name, p in net.named_parameters() if p.grad is not None} | {"x": x.grad}
    return Step(logits, gradients, {name: value.clone() for name, value in net.state_dict().items()}, torch.rand(1))


def differing(net, x, **how):
    """What a step in the checkpoint mode does not have in common with a plain one."""
    plain, twin = step(copy.deepcopy(net).set_memory("plain"), x, **how), copy.deepcopy(net).set_memory("checkpoint")
    plain, checkpointed = plain.items(), step(twin, x, **how).items()
    assert plain.keys() == checkpointed.keys()
    return [name for name in plain if not torch.equal(plain[name], checkpointed[name])]


@pytest.mark.parametrize(("block", "norm"), list(product(BLOCKS, NORMS)))
def test_every_block_and_norm_is_the_same_to_the_bit(block, norm):
    choices = BLOCKS[block] | {"norm": norm}
    x = torch.randn(4, 3, 8, 8)
    assert differing(small(**choices), x) == []
    if block != "plain":
        net = small(**choices, drop_path_rate=0.5)
        net.stages[0][2].register_forward_hook(lambda module, inputs, output: F.dropout(output, 0.3))
        assert differing(net, x) == []


@pytest.mark.parametrize("block", ["basic", "preactivation bottleneck"])
def test_in_bfloat16_too(block):
    assert differing(small(**BLOCKS[block]), torch.randn(4, 3, 8, 8), precision=torch.bfloat16) == []


def test_statistics_updated_twice_are_noticed(monkeypatch):
    """PyTorch's own recomputation does that."""
    monkeypatch.setattr(recompute, "StatisticsKept", nullcontext)
    found = differing(small(), torch.randn(4, 3, 8, 8))
    kinds = {name.rpartition(".")[2] for name in found}
    assert kinds == {"running_mean", "running_var", "num_batches_tracked"}


def test_statistics_are_whole_again_after_an_error():
    net = small()
    kept = {name: value for name, value in net.named_buffers()}
    with pytest.raises(KeyError), recompute.StatisticsKept([net]):
        net(torch.randn(4, 3, 8, 8))
        raise KeyError
    assert all(value is kept[name] for name, value in net.named_buffers())


def test_frozen_parts_features_and_evaluation_are_the_same():
    net, x = small(), torch.randn(4, 3, 8, 8)
    net.stem.requires_grad_(False).eval()
    net.stages[0].requires_grad_(False).eval()
    assert differing(net, x) == []
    maps = [copy.deepcopy(net).set_memory(mode).features(x) for mode in ("plain", "checkpoint")]
    assert all(torch.equal(*pair) for pair in zip(*maps, strict=True))
    net.set_memory("checkpoint").eval()
    with torch.no_grad():
        assert torch.equal(net(x), net.set_memory("plain")(x))


def test_a_second_backward_pass_gives_the_same_again():
    net = small().set_memory("checkpoint")
    loss = net(torch.randn(4, 3, 8, 8)).sum()
    first = torch.autograd.grad(loss, list(net.parameters()), retain_graph=True)
    second = torch.autograd.grad(loss, list(net.parameters()))
    assert all(torch.equal(*pair) for pair in zip(first, second))


def test_an_unknown_mode_is_named():
    with pytest.raises(rk.ResnetkitError, match="memory mode 'sqrt' is not known; it must be plain or checkpoint"):
        small().set_memory("sqrt")


@pytest.mark.parametrize("name", ["resnet1202_cifar", "resnet152", "preact_resnet164_cifar", "resnet18"])
def test_segments_hold_every_block_once(name):
    rows = plan(spec(name))
    found = [(stage, block) for stage, cut in enumerate(segments(spec(name), rows)) for part in cut for block in part]
    assert found == [(row.stage, row.block) for row in rows]


def test_equal_blocks_hold_the_square_root():
    """n blocks that keep 4 times their input, as basic blocks do: no cut holds less than about sqrt(2 * 4n) inputs."""
    for n in (50, 200, 800):
        network = spec("resnet18", depths=(n,), widths=(64,), strides=(1,), stem="3x3")
        (cut,) = segments(network, plan(network))
        peak = max(i + 4 * len(segment) for i, segment in enumerate(cut, 1))
        assert peak == pytest.approx((8 * n) ** 0.5, rel=0.15)


def live_bytes(net, x):
    """The most that is live in a step above what it starts with, gradients included."""
    step(net, x)
    for p in net.parameters():
        p.grad = torch.zeros_like(p)
    with LiveMemory() as memory:
        F.cross_entropy(net(x), torch.arange(len(x)) % 3).backward()
    assert memory.live == 0
    return memory.peak


def test_live_memory_counts_by_hand():
    kept = torch.ones(100)  # 400 bytes that were there before
    with LiveMemory() as memory:
        a = kept * 2  # 400 live
        b = a.view(10, 10).add_(1)  # the same storage
        c = torch.cat([a, a])  # 1,200
        del a, b
        c = c.double()  # 800 to 1,600 more: 2,400
        kept.mul_(2)
    assert (memory.live, memory.peak) == (1600, 2400)


def test_live_memory_is_what_the_allocator_records():
    net, x = small(), torch.randn(8, 3, 16, 16)
    peak = live_bytes(net, x)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        F.cross_entropy(net(x), torch.arange(8) % 3).backward()
    live = most = 0
    blocks = [e for e in record.profiler.kineto_results.events() if e.name() == "[memory]"]
    for block in sorted(blocks, key=lambda e: e.start_ns()):
        live += block.nbytes()
        most = max(most, live)
    assert peak == pytest.approx(most, rel=0.05)


def test_memory_grows_with_the_square_root_of_depth():
    x = torch.randn(4, 3, 8, 8)
    build = lambda n: small(depths=(n,), widths=(8,), strides=(1,))  # noqa: E731
    plain, checkpointed = (
        [live_bytes(build(n).set_memory(mode), x) for n in (10, 160)] for mode in ("plain", "checkpoint")
    )
    assert plain[1] / plain[0] > 14
    assert checkpointed[1] / checkpointed[0] < 16**0.55
    assert checkpointed[1] < plain[1] / 8
