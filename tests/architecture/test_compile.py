"""Block-wise compilation: the same network, and as many compilations at any depth."""

import copy

import pytest
import torch

import resnetkit as rk
from tests.architecture.test_memory import small, step


@pytest.mark.parametrize("name", ["resnet{}_cifar", "preact_resnet{}_cifar"])
def test_compilations_do_not_grow_with_depth(compilations, name):
    counts = []
    for depth in (20, 110):
        torch._dynamo.reset()
        net = rk.build(name.format(depth))
        net.compile()
        compilations.clear()
        net(torch.zeros(2, 3, 32, 32)).sum().backward()
        counts.append(len(compilations))
    assert counts[0] == counts[1] <= 8


def test_block_of_one_shape_has_its_own_code_at_each_size_and_mode(compilations):
    """More than torch's own limit of eight, beyond which it would go on uncompiled."""
    net = small()
    net.compile(dynamic=False)
    for size in (8, 12, 16):
        for training in (True, False):
            net.train(training)(torch.zeros(2, 3, size, size))
    before = len(compilations)
    net(torch.zeros(2, 3, 8, 8))
    assert len(compilations) == before > 3 * 2 * 3


@pytest.mark.parametrize("memory", ["plain", "checkpoint"])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_step_is_that_of_the_network_as_it_is(compilations, memory, precision):
    net, x = small().set_memory(memory), torch.rand(4, 3, 16, 16)
    twin = small()
    twin.load_state_dict(net.state_dict())
    net.compile()
    found, wanted = step(net, x, precision), step(twin, x, precision)
    assert compilations
    torch.testing.assert_close(found.items(), wanted.items(), rtol=1e-5, atol=1e-6)


def test_a_copy_is_not_compiled(compilations):
    net = small().eval()
    x = torch.rand(2, 3, 16, 16)
    net.compile()
    expected = net(x)
    before = len(compilations)
    assert torch.equal(copy.deepcopy(net)(x), expected) and len(compilations) == before


@pytest.mark.parametrize("choice", [{"drop_path_rate": 0.2}, {"reversible": True}])
def test_what_cannot_be_compiled_is_refused(choice):
    with pytest.raises(rk.ResnetkitError, match=f"a network with {next(iter(choice))} cannot be compiled"):
        small(**choice).compile()
