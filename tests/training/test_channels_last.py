"""A fused optimizer in memory order: PyTorch's own numbers, and no copies."""

import copy

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

import resnetkit as rk
from resnetkit.training.channels_last import step_in_memory_order
from resnetkit.training.optimizer import make_optimizer
from resnetkit.training.recipe import make_recipe

KINDS = {
    "sgd": lambda parameters, **how: torch.optim.SGD(parameters, lr=0.1, momentum=0.9, nesterov=True, **how),
    "adamw": lambda parameters, **how: torch.optim.AdamW(parameters, lr=0.1, weight_decay=0.1, **how),
}


def parameters(seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = (8, 4, 3, 3), (16, 8, 1, 1), (8,), (5, 8)
    made = [torch.randn(shape, generator=generator) for shape in shapes]
    return [torch.nn.Parameter(p.contiguous(memory_format=torch.channels_last) if p.ndim == 4 else p) for p in made]


def give_gradients(own, seed):
    generator = torch.Generator().manual_seed(seed)
    for parameter in own:
        parameter.grad = torch.empty_like(parameter).normal_(generator=generator)


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_are_those_of_the_plain_optimizer(kind):
    ours, theirs = parameters(), parameters()
    optimizer = step_in_memory_order(KINDS[kind](ours, fused=True))
    reference = KINDS[kind](theirs, foreach=False)
    for seed in range(1, 4):
        for own in (ours, theirs):
            give_gradients(own, seed)
        optimizer.step()
        reference.step()
    for mine, other in zip(ours, theirs):
        assert mine.shape == other.shape and mine.stride() == other.stride() and mine.grad.shape == other.shape
        torch.testing.assert_close(mine, other)
        for name, value in optimizer.state[mine].items():
            torch.testing.assert_close(value, reference.state[other][name])


@pytest.mark.parametrize("kind", KINDS)
def test_state_is_loaded_by_an_optimizer_that_does_not_do_so(kind):
    ours = parameters()
    optimizer = step_in_memory_order(KINDS[kind](ours, fused=True))
    give_gradients(ours, 1)
    optimizer.step()
    plain = [torch.nn.Parameter(p.detach().clone()) for p in ours]
    reference = KINDS[kind](plain, fused=True)
    reference.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for own, taken in ((ours, optimizer), (plain, reference)):
        give_gradients(own, 2)
        taken.step()
    for mine, other in zip(ours, plain):
        torch.testing.assert_close(mine, other)


def copies(optimizer, own):
    for seed in range(1, 3):  # the first makes the state
        give_gradients(own, seed)
        with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as seen:
            optimizer.step()
    return sum(event.name == "aten::copy_" and len(event.input_shapes[0]) == 4 for event in seen.events())


@pytest.mark.parametrize("kind", KINDS)
def test_training_copies_nothing(kind):
    own = parameters()
    assert copies(KINDS[kind](own, fused=True), own) > 0  # or this has become needless
    net = rk.build("resnet8_cifar").place("cpu")
    optimizer = make_optimizer(net, make_recipe({"model": "resnet8_cifar", "epochs": 1, "lr": 0.1, "optimizer": kind}))
    assert copies(optimizer, list(net.parameters())) == 0
