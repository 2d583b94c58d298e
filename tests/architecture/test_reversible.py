"""Reversible networks: gradients as by plain backpropagation, and memory that does not grow with depth."""

import copy
from contextlib import nullcontext
from itertools import product

import pytest
import torch

import resnetkit as rk
from resnetkit.architecture import layers, reversible
from resnetkit.data.preprocess import Preprocessing
from resnetkit.weights.files import Model, load_model
from tests.architecture.test_memory import BLOCKS, NORMS, SMALL, live_bytes, step
from tests.conftest import randomise

BLOCKS = {name: choices for name, choices in BLOCKS.items() if name != "plain"}


def small(**choices):
    return randomise(rk.build("resnet18", reversible=True, **SMALL | choices)).train()


def compare(monkeypatch, net, x, tolerance, **how):
    """A step with the streams rebuilt against one by ordinary autograd on the same network."""
    twin = copy.deepcopy(net)
    logits, gradients, state, _ = step(net, x, **how)
    with monkeypatch.context() as patch:
        patch.setattr(reversible, "rebuilt", reversible.plain)
        plain_logits, plain_gradients, plain_state, _ = step(twin, x, **how)
    assert torch.equal(logits, plain_logits) and gradients.keys() == plain_gradients.keys()
    assert all(torch.equal(value, plain_state[name]) for name, value in state.items())
    scale = max(gradient.norm() for gradient in plain_gradients.values())
    for name, gradient in plain_gradients.items():
        error = (gradients[name] - gradient).norm() / max(gradient.norm(), 1e-4 * scale)
        assert error < tolerance, (name, error)


@pytest.mark.parametrize(("block", "norm"), list(product(BLOCKS, NORMS)))
@pytest.mark.parametrize("drop_path_rate", [0.0, 0.5])
def test_gradients_are_those_of_plain_backpropagation(monkeypatch, block, norm, drop_path_rate):
    choices = SMALL | BLOCKS[block] | {"norm": norm, "drop_path_rate": drop_path_rate}
    net, x = small(**choices), torch.randn(4, 3, 8, 8)
    compare(monkeypatch, copy.deepcopy(net).double(), x.double(), 1e-9)
    if norm == "frozen":  # what `randomise` makes of its statistics lets the maps grow from block to block
        net = rk.build("resnet18", reversible=True, **choices).train()
    compare(monkeypatch, net, x, 1e-3)


def test_deep_gradients_are_within_a_thousandth(monkeypatch):
    net = rk.build("resnet302_cifar", widths=(4, 4, 4), stem_width=4, reversible=True).train()
    compare(monkeypatch, net, torch.randn(4, 3, 8, 8), 1e-3)


def test_streams_stay_float32_in_bfloat16(monkeypatch):
    net = small()
    compare(monkeypatch, net, torch.randn(4, 3, 8, 8), 2e-2, precision=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        assert net.features(torch.randn(4, 3, 8, 8))[-1].dtype == torch.float32


def test_statistics_updated_twice_are_noticed(monkeypatch):
    monkeypatch.setattr(reversible, "StatisticsKept", lambda modules: nullcontext())
    with pytest.raises(AssertionError):
        compare(monkeypatch, small(), torch.randn(4, 3, 8, 8), 1e-3)


def test_streams_that_are_not_rebuilt_are_noticed(monkeypatch):
    monkeypatch.setattr(
        reversible._Trail, "streams", property(lambda t: list(t.ends), lambda t, v: None), raising=False
    )
    with pytest.raises(AssertionError):
        compare(monkeypatch, small(), torch.randn(4, 3, 8, 8), 1e-3)


def test_the_coupling_by_hand():
    """y1 = x1 + F(x2), y2 = x2 + G(y1) (Gomez et al. 2017, equation 6), from x1 = x2 and to their mean."""
    net = small(depths=(2,), widths=(8,), strides=(1,), preactivation=True).eval()
    f, g = (lambda x, block=block: block.branch(block.preact(x)) for block in net.stages[0])
    x = torch.randn(2, 8, 6, 6)
    y1 = x + f(x)
    y2 = x + g(y1)
    torch.testing.assert_close(net._stage(0, x), (y1 + y2) / 2)


def test_blocks_that_do_nothing_leave_the_map_as_it_is():
    net = rk.build("resnet20_cifar", reversible=True, zero_init_residual=True).eval()
    x = torch.rand(2, 16, 8, 8)
    assert torch.equal(net._stage(0, x), x)


def test_dropped_blocks_change_nothing(monkeypatch):
    net, x = small(drop_path_rate=0.5, depths=(3,), widths=(8,), strides=(1,)), torch.rand(2, 8, 6, 6)
    monkeypatch.setattr(layers.DropPath, "drops", lambda self: True)
    assert torch.equal(net._stage(0, x), x)


def test_memory_does_not_grow_with_depth():
    x = torch.randn(4, 3, 8, 8)
    build = lambda n: small(depths=(n,), widths=(8,), strides=(1,))  # noqa: E731
    few, many = (live_bytes(build(n), x) for n in (10, 160))
    assert many == pytest.approx(few, rel=0.01)


def test_the_rest_is_recomputed_in_the_checkpoint_mode():
    net, x = small(), torch.randn(4, 3, 8, 8)
    twin = copy.deepcopy(net).set_memory("checkpoint")
    for a, b in zip(step(net, x).gradients.values(), step(twin, x).gradients.values(), strict=True):
        assert torch.equal(a, b)
    assert live_bytes(twin, x) < live_bytes(net, x)


def test_frozen_blocks_and_a_second_backward_pass():
    net = small()
    net.stages[0].requires_grad_(False)
    loss = net(torch.randn(4, 3, 8, 8)).sum()
    learnt = [p for p in net.parameters() if p.requires_grad]
    first = torch.autograd.grad(loss, learnt, retain_graph=True)
    second = torch.autograd.grad(loss, learnt)
    assert all(torch.equal(*pair) for pair in zip(first, second))


def test_a_model_file_keeps_it_for_it_is_another_function(tmp_path):
    net = small().eval()
    preprocessing = Preprocessing(size=(8, 8), mean=(0.5,) * 3, std=(0.5,) * 3, framing="squash")
    Model(net, ["a", "b", "c"], preprocessing).save(tmp_path / "model.safetensors")
    read = load_model(tmp_path / "model.safetensors").network
    x = torch.randn(2, 3, 8, 8)
    assert read.spec.reversible and torch.equal(read(x), net(x))
    twin = rk.build("resnet18", **SMALL).eval()
    twin.load_state_dict(net.state_dict())  # of the same shapes, and another function
    assert not torch.allclose(twin(x), net(x), atol=1e-3)


def test_half_precision_weights_are_refused():
    with pytest.raises(rk.ResnetkitError, match=r"float32 weights; for bfloat16 run it under torch\.autocast"):
        small().bfloat16()(torch.randn(2, 3, 32, 32).bfloat16())


def test_no_reversible_network_is_refused():
    with pytest.raises(rk.ResnetkitError, match="reversible=True is impossible; it must be False without shortcuts"):
        rk.build("plain56_cifar", reversible=True)
    with pytest.raises(rk.ResnetkitError, match="reversible=True is impossible; it must be False where no stage has"):
        rk.build("resnet18", depths=(1, 1), widths=(128, 256), strides=(1, 2), reversible=True)
    with pytest.raises(rk.ResnetkitError, match="reversible='yes' is impossible; it must be True or False"):
        rk.build("resnet18", reversible="yes")
