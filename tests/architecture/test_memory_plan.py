"""The plan of a step's memory against a step that is taken."""

import json

import pytest
import torch
import torch.nn.functional as F
from torch.profiler import ProfilerActivity, profile

import resnetkit as rk
from resnetkit.architecture.live_memory import LiveMemory
from resnetkit.cli.main import app
from resnetkit.sizes import parse_bytes, written_bytes

NETWORKS = [
    ("resnet14_cifar", 32, 32, {}),
    ("preact_resnet20_cifar", 16, 32, {"block": "bottleneck"}),
    ("wide_resnet10_2_cifar", 16, 32, {}),
    ("resnet14_cifar", 32, 32, {"norm": "none"}),
    ("resnet18", 2, 96, {"widths": (16, 32, 32, 32), "attention": "se"}),
]


def step(net, x, precision):
    with torch.autocast("cpu", precision, enabled=precision != torch.float32):
        logits = net(x)
    F.cross_entropy(logits.float(), torch.zeros(len(x), dtype=torch.long)).backward()


def recorded_peak(net, x, precision):
    """The most that the allocator records in a step, what kernels take for themselves included."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        step(net, x, precision)
    blocks = [e for e in record.profiler.kineto_results.events() if e.name() == "[memory]"]
    live = peak = 0
    for block in sorted(blocks, key=lambda e: e.start_ns()):
        live += block.nbytes()
        peak = max(peak, live)
    return peak


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(("name", "images", "side", "choices"), NETWORKS)
def test_the_plan_is_what_a_step_takes(name, images, side, choices, precision):
    net = rk.build(name, **choices).train()
    planned = rk.plan_memory(net, batch_size=images, image_size=side, precision=precision)
    x, arithmetic = torch.randn(images, 3, side, side), getattr(torch, precision)
    for mode, live in planned["live"].items():
        twin = rk.build(name, reversible=True, **choices).train() if mode == "reversible" else net.set_memory(mode)
        for p in twin.parameters():
            p.grad = torch.zeros_like(p)
        with LiveMemory() as memory:
            step(twin, x, arithmetic)
        assert live == pytest.approx(memory.peak, rel=0.02), mode
        if precision == "float32":  # in bfloat16 kernels take much more or little of their own, by processor
            assert live == pytest.approx(recorded_peak(twin, x, arithmetic), rel=0.2), mode


def test_frozen_parts_need_less():
    net = rk.build("resnet20_cifar")
    whole = rk.plan_memory(net, batch_size=8)
    net.stages.requires_grad_(False)
    net.stem.requires_grad_(False)
    part = rk.plan_memory(net, batch_size=8)
    assert part["live"]["plain"] < 0.2 * whole["live"]["plain"]
    assert part["gradients"] == 4 * (64 * 10 + 10) and part["weights"] == whole["weights"]


def test_a_plain_twin_has_no_reversible_mode():
    assert list(rk.plan_memory("plain20_cifar", batch_size=2)["live"]) == ["plain", "checkpoint"]
    with pytest.raises(rk.ResnetkitError, match="batch_size=0"):
        rk.plan_memory("resnet20_cifar", batch_size=0)
    with pytest.raises(rk.ResnetkitError, match="batch_size='auto' is impossible; it must be a whole number"):
        rk.plan_memory("resnet20_cifar", batch_size="auto")
    for size in (-4, (32,), (0, 32)):
        with pytest.raises(rk.ResnetkitError, match="image_size=.* is impossible"):
            rk.plan_memory("resnet20_cifar", batch_size=2, image_size=size)


def test_the_command(capsys):
    with pytest.raises(SystemExit):
        app(["inspect", "resnet20_cifar", "--memory", "--batch-size", "4", "--json"])
    told = json.loads(capsys.readouterr().out)
    assert told["live"] == rk.plan_memory("resnet20_cifar", batch_size=4)["live"]
    assert all(told["process_at_least"][mode] > live for mode, live in told["live"].items())
    with pytest.raises(SystemExit):
        app(["inspect", "resnet20_cifar", "--memory", "--batch-size", "4"])
    table = capsys.readouterr().out
    assert "on 4 images of 32x32 in float32" in table and "checkpoint" in table and "MiB" in table


def test_amounts_of_memory():
    assert parse_bytes("4GiB") == 4 * 2**30 and parse_bytes("500MB") == 500_000_000 and parse_bytes("1.5 gb") == 1.5e9
    assert written_bytes(1536 * 2**20) == "1.5 GiB" and written_bytes(3 * 2**20) == "3.0 MiB"
    for text in ("4", "GiB", "4 G", "-1GB", "0MB", 4_000_000):
        with pytest.raises(rk.ResnetkitError, match="write a number above 0 and a unit, as 4GiB or 500MB"):
            parse_bytes(text)
