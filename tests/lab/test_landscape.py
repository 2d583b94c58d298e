"""Directions, losses along them, and what is read from them, by hand."""

import pytest
import torch
import torch.nn.functional as F

import resnetkit as rk
from resnetkit.errors import Diverged
from resnetkit.lab import landscape
from resnetkit.lab.landscape import Landscape, grid, loss_along, random_direction, rise, valleys
from tests.conftest import randomise


@pytest.fixture
def net():
    return randomise(rk.build("resnet8_cifar", norm="batch")).eval()


def test_every_filter_of_a_direction_is_as_long_as_the_networks(net):
    direction = random_direction(net, seed=0)
    weights = dict(net.named_parameters())
    assert direction.keys() == {name for name, weight in weights.items() if weight.ndim > 1}
    for name, own in direction.items():
        for filter_, drawn in zip(weights[name].detach(), own):
            assert float((drawn**2).sum() ** 0.5) == pytest.approx(float((filter_**2).sum() ** 0.5), rel=1e-5)


def test_a_networks_scale_does_not_change_the_line():
    """Conv weights ten times as large before batch norm compute the same: so must the losses around them."""
    torch.manual_seed(0)
    net = rk.build("resnet8_cifar", norm_eps=1e-12)
    x, labels = torch.randn(8, 3, 8, 8), torch.arange(8)
    with torch.no_grad():
        net.train()(x)
    lines = []
    for _ in range(2):
        lines.append(loss_along(net, [(0.0,), (0.4,)], [random_direction(net, seed=1)], x, labels))
        with torch.no_grad():
            for block in (net.stages[0][0], net.stages[1][0]):
                block.branch.conv1.weight *= 10
                block.branch.norm1.running_mean *= 10
                block.branch.norm1.running_var *= 100
    assert lines[1] == pytest.approx(lines[0], rel=1e-3)


def test_losses_are_those_of_the_moved_weights_which_come_back(net):
    x, labels = torch.randn(8, 3, 8, 8), torch.arange(8)
    directions = [random_direction(net, seed=seed) for seed in (1, 2)]
    before = {name: value.clone() for name, value in net.state_dict().items()}
    found = loss_along(net, [(0.0, 0.0), (0.5, -0.25)], directions, x, labels)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert found[0] == pytest.approx(float(F.cross_entropy(net(x), labels)))
    moved = {
        name: value + 0.5 * directions[0][name] - 0.25 * directions[1][name] if name in directions[0] else value
        for name, value in before.items()
    }
    net.load_state_dict(moved)
    assert found[1] == pytest.approx(float(F.cross_entropy(net(x), labels)), rel=1e-5)


def test_a_parabola_is_read_as_one():
    places = grid(21)
    assert places[10] == 0 and places[0] == -1 and places[-1] == 1
    line = [place**2 for place in places]
    assert rise(line, places) == pytest.approx(sum((i / 10) ** 2 for i in range(1, 6)) / 5)
    assert valleys(line) == 0
    line[3] = -1.0
    assert valleys(line) == 1


PLACES = grid(5)


def verdict(plain, residual, seeds=3):
    """Of the rise and the loss in the middle of each network, nearly alike at every seed; None diverged."""
    experiment = Landscape(depths=(20,), points=5, side=3, seeds=seeds)
    rows = []
    for cell in experiment.cells():
        own = {"plain": plain, "residual": residual}[cell["net"]]
        if own is None:
            rows.append(cell | {"diverged": True})
            continue
        up, middle = own
        line = [middle + up * (1 + 0.01 * cell["seed"]) * abs(place) for place in PLACES]
        rows.append(cell | {"line": line, "test_error": 0.5})
    (finding,) = experiment.read(rows).findings
    return finding.holds


@pytest.mark.parametrize(
    ("plain", "residual", "holds"),
    [
        ((2.0, 0.1), (1.0, 0.1), True),
        ((1.0, 0.1), (2.0, 0.1), False),
        ((0.0, 2.303), (1.0, 0.1), None),  # at chance it is flat all about
        ((2.0, 0.1), (1.0, 1.2), None),  # above half of ln 10
        (None, (1.0, 0.1), None),
        (None, None, None),
    ],
)
def test_only_minima_are_compared(plain, residual, holds):
    assert verdict(plain, residual) is holds


def test_one_seed_compares_nothing():
    assert verdict((2.0, 0.1), (1.0, 0.1), seeds=1) is None


def test_a_network_that_diverges_is_a_cell(monkeypatch, tmp_path):
    def diverge(*_):
        raise Diverged("no number")

    monkeypatch.setattr(landscape, "trained_twin", diverge)
    assert Landscape().measure({"net": "plain", "depth": 8, "seed": 0}, tmp_path) == {"diverged": True}
