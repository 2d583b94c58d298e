"""Blocks left out, exchanged and open to one path, against what must come out."""

from itertools import combinations
from math import comb
from random import Random

import pytest
import torch
import torch.nn.functional as F

import resnetkit as rk
from resnetkit.lab.ablate import exchanged, path_gradient
from resnetkit.lab.ablation import middle_share, path_shares
from resnetkit.lab.surgery import droppable, one_path, reordered, without
from tests.conftest import randomise

NAMES = ["resnet14_cifar", "preact_resnet14_cifar"]


@pytest.fixture
def x():
    return torch.randn(4, 3, 8, 8)


def network(name, **choices):
    return randomise(rk.build(name, **choices)).eval()


@pytest.mark.parametrize("name", NAMES)
def test_a_block_whose_branch_is_zero_can_go(name, x):
    net = network(name)
    block = net.stages[0][1]
    torch.nn.init.zeros_(block.last_layer().weight)
    if hasattr(block.last_layer(), "bias") and block.last_layer().bias is not None:
        torch.nn.init.zeros_(block.last_layer().bias)
    whole = net(x)
    with without(net, [1]):
        assert torch.equal(net(x), whole)
    with without(net, [2]):
        assert not torch.allclose(net(x), whole)


def test_without_all_branches_the_shortcuts_are_left(x):
    net = network("resnet14_cifar")
    with without(net, range(6)):
        got = net(x)
    h = net.stem(x)
    for stage in net.stages:
        for block in stage:
            h = block.shortcut(h).relu()
    assert torch.equal(got, net.head(h))


def test_a_plain_network_loses_only_blocks_that_keep_the_shape(x):
    net = network("plain14_cifar")
    assert droppable(net.rows) == [0, 1, 3, 5]
    with without(net, [1]):
        got = net(x)
    h = net.stages[0][0](net.stem(x))
    assert torch.equal(got, net.head(net.stages[2](net.stages[1](h))))
    with pytest.raises(AssertionError), without(net, [2]):
        pass


@pytest.mark.parametrize("name", [*NAMES, "plain14_cifar"])
def test_everything_is_put_right_again(name, x):
    net = network(name)
    whole, names = net(x), list(net.state_dict())
    with pytest.raises(RuntimeError), without(net, [1]), reordered(net, [1, 0, 2, 3, 4, 5]):
        raise RuntimeError
    if name != "plain14_cifar":
        with one_path(net, {0}):
            assert torch.allclose(net(x), whole, atol=1e-6)
    assert torch.equal(net(x), whole)
    assert list(net.state_dict()) == names


def test_exchanged_blocks_run_in_the_other_order(x):
    net = network("resnet14_cifar")
    with reordered(net, [1, 0, 2, 3, 4, 5]):
        got = net(x)
    first, second = net.stages[0]
    assert torch.equal(got, net.head(net.stages[2](net.stages[1](first(second(net.stem(x)))))))


def test_only_blocks_of_one_shape_are_exchanged():
    net = network("resnet20_cifar")
    order = exchanged(net.rows, 50, Random(0))
    assert sorted(order) == list(range(9))
    assert order[3] == 3 and order[6] == 6  # these change the shape
    assert set(order[:3]) == {0, 1, 2} and set(order[4:6]) == {4, 5}


@pytest.mark.parametrize("name", NAMES)
def test_the_gradients_of_all_paths_add_up_to_autograds(name, x):
    net = network(name, num_classes=3).double()
    labels = torch.tensor([0, 1, 2, 0])
    start = net.stem(x.double()).detach().requires_grad_()

    def gradient():
        loss = F.cross_entropy(net.head(net.norm(net.stages(start))), labels)
        return torch.autograd.grad(loss, start)[0]

    whole = gradient()
    total = torch.zeros_like(whole)
    for length in range(7):
        for through in combinations(range(6), length):
            with one_path(net, through):
                total += gradient()
    assert torch.allclose(total, whole, atol=1e-9)
    with one_path(net, {0, 3}):
        assert path_gradient(net, x.double(), labels, {0, 3}) == pytest.approx(float(gradient().norm()))


def test_path_lengths_are_binomial_where_all_paths_bring_alike():
    shares = path_shares([1.0] * 11)
    assert shares == pytest.approx([comb(10, k) / 1024 for k in range(11)])
    # 2.5 % on each side: P(X <= 1) = 11/1024 < 0.025 < P(X <= 2) = 56/1024
    assert middle_share(shares) == (2, 8)


def test_where_a_branch_halves_the_gradient_paths_are_a_third_long():
    shares = path_shares([0.5**k for k in range(31)])  # binomial with odds 1/2 to 1: a share of 1/3
    assert sum(k * share for k, share in enumerate(shares)) == pytest.approx(10)
