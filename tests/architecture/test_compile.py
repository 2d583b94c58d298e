"""Block-wise compilation: the same network, and as many compilations at any depth."""

import copy
import shutil

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
    assert 0 < counts[0] == counts[1] <= 8


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


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler")
@pytest.mark.parametrize("memory", ["plain", "checkpoint"])
def test_step_by_machine_code(memory):
    torch._dynamo.reset()
    net, twin = small().set_memory(memory), small()
    twin.load_state_dict(net.state_dict())
    net.compile()
    x = torch.rand(4, 3, 16, 16)
    torch.testing.assert_close(step(net, x).items(), step(twin, x).items(), rtol=1e-4, atol=1e-5)


def test_a_copy_is_not_compiled(compilations):
    net = small().eval()
    x = torch.rand(2, 3, 16, 16)
    net.compile()
    expected = net(x)
    torch._dynamo.reset()  # or what the network's blocks share would be there already
    before = len(compilations)
    torch.testing.assert_close(copy.deepcopy(net)(x), expected)
    assert len(compilations) == before > 0


@pytest.mark.parametrize("choice", [{"drop_path_rate": 0.2}, {"reversible": True}])
def test_what_cannot_be_compiled_is_refused(choice):
    with pytest.raises(rk.ResnetkitError, match=f"a network with {next(iter(choice))} cannot be compiled"):
        small(**choice).compile()
