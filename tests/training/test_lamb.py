"""LAMB against the algorithm of the paper, worked in float64, and against Adam where nothing decays."""

import torch

from resnetkit.training.lamb import Lamb


def test_a_step_is_as_long_as_the_weights_say():
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(4, 3, 3, 3, dtype=torch.float64))
    x, m, v = weight.detach().clone(), torch.zeros_like(weight), torch.zeros_like(weight)
    optimizer = Lamb([{"params": [weight], "weight_decay": 0.02}], lr=5e-3)
    for t in range(1, 5):
        gradient = torch.randn_like(weight)
        weight.grad = gradient.clone()
        optimizer.step()
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        r = (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-6) + 0.02 * x
        step = 5e-3 * x.norm() / r.norm() * r
        assert torch.allclose(step.norm() / x.norm(), torch.tensor(5e-3, dtype=torch.float64))
        x = x - step
        torch.testing.assert_close(weight.detach(), x)


def test_without_decay_it_is_adam():
    torch.manual_seed(0)
    ours, theirs = (torch.nn.Parameter(torch.linspace(-1, 1, 6)) for _ in range(2))
    lamb, adam = Lamb([{"params": [ours]}], lr=0.01), torch.optim.Adam([theirs], lr=0.01, eps=1e-6)
    for _ in range(3):
        ours.grad = torch.randn(6)
        theirs.grad = ours.grad.clone()
        lamb.step()
        adam.step()
    torch.testing.assert_close(ours, theirs)


def test_a_layer_of_zeros_can_begin():
    weight = torch.nn.Parameter(torch.zeros(2, 2))
    weight.grad = torch.ones(2, 2)
    Lamb([{"params": [weight], "weight_decay": 0.1}], lr=0.1).step()
    assert weight.isfinite().all() and (weight != 0).all()
