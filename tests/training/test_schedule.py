"""Learning rates against PyTorch's own schedulers, and the image size over a run."""

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, MultiStepLR, OneCycleLR

from resnetkit.training.recipe import make_recipe
from resnetkit.training.schedule import learning_rate, training_size

EPOCHS, STEPS = 7, 11
TOTAL = EPOCHS * STEPS


def rates(scheduler_class, **options):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.4)
    scheduler = scheduler_class(optimizer, **options)
    found = []
    for _ in range(TOTAL):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if len(found) < TOTAL:
            scheduler.step()
    return found


def recipe(**settings):
    return make_recipe({"model": "resnet20_cifar", "epochs": EPOCHS, "lr": 0.4} | settings)


def test_one_cycle_is_pytorchs():
    theirs = rates(OneCycleLR, max_lr=0.4, total_steps=TOTAL)
    ours = [learning_rate(recipe(schedule="one_cycle"), step, STEPS) for step in range(TOTAL)]
    assert ours == pytest.approx(theirs, rel=1e-9)


def test_cosine_is_pytorchs():
    theirs = rates(CosineAnnealingLR, T_max=TOTAL)
    ours = [learning_rate(recipe(schedule="cosine"), step, STEPS) for step in range(TOTAL)]
    assert ours == pytest.approx(theirs, rel=1e-9)


def test_linear_is_pytorchs():
    theirs = rates(LinearLR, start_factor=1.0, end_factor=0.0, total_iters=TOTAL)
    ours = [learning_rate(recipe(schedule="linear"), step, STEPS) for step in range(TOTAL)]
    assert ours == pytest.approx(theirs, rel=1e-9)


def test_steps_are_pytorchs():
    theirs = rates(MultiStepLR, milestones=[TOTAL // 2 + 1, 58])
    ours = [learning_rate(recipe(schedule="step", milestones="0.5, 0.75"), step, STEPS) for step in range(TOTAL)]
    assert ours == pytest.approx(theirs, rel=1e-9)


@pytest.mark.parametrize("schedule, last", [("cosine", 0.002), ("linear", 0.01)])
def test_warm_up_rises_linearly_to_the_peak(schedule, last):
    warmed = [learning_rate(recipe(schedule=schedule, warmup_epochs=2), step, STEPS) for step in range(TOTAL)]
    assert warmed[:22] == pytest.approx([0.4 * (i + 1) / 22 for i in range(22)])
    assert max(warmed) == pytest.approx(0.4) and 0 < warmed[-1] < last


@pytest.mark.parametrize("schedule", ["cosine", "linear", "step"])
def test_a_warm_up_of_a_part_of_a_step_ends_at_the_peak(schedule):
    warmed = [learning_rate(recipe(schedule=schedule, warmup_epochs=0.5), step, STEPS) for step in range(TOTAL)]
    assert warmed[4:6] == pytest.approx([0.4 * 5 / 5.5, 0.4]) and max(warmed) <= 0.4


@pytest.mark.parametrize("schedule", ["cosine", "linear", "one_cycle"])
@pytest.mark.parametrize("warmup", [0, 1, 50])
def test_a_run_of_one_or_two_steps_has_rates(schedule, warmup):
    for epochs in (1, 2):
        settings = recipe(schedule=schedule, epochs=epochs, warmup_epochs=warmup)
        assert all(0 < learning_rate(settings, step, 1) <= 0.4 for step in range(epochs))


def test_sizes_grow_to_the_whole():
    grow = recipe(epochs=10, start_size=0.625)
    assert [training_size(grow, (32, 32), e)[0] for e in range(10)] == [20, 20, 20, 24, 24, 24, 28, 28, 32, 32]
    assert training_size(recipe(train_size=160), (224, 224), 3) == (160, 160)
    assert training_size(recipe(train_size=160), (32, 32), 3) == (32, 32)
    assert training_size(recipe(train_size=160, start_size=0.5), (224, 112), 0) == (80, 40)
    small = [training_size(recipe(start_size=0.25), size, 0) for size in ((28, 28), (64, 64), (64, 16), (8, 8))]
    assert small == [(14, 14), (16, 16), (48, 12), (8, 8)]
    assert [training_size(recipe(epochs=n, start_size=0.5), (32, 32), n - 1) for n in (1, 2, 3)] == [(32, 32)] * 3
    assert {training_size(recipe(), (32, 48), e) for e in range(7)} == {(32, 48)}
