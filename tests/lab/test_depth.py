"""Verdicts on made-up losses, seconds and bytes of networks of several depths."""

from math import log

import pytest
import torch
from scipy.stats import entropy

from resnetkit.architecture.blocks import Block
from resnetkit.lab import depth
from resnetkit.lab.depth import Depth, MiB, trains
from resnetkit.lab.images import guessing_loss
from resnetkit.training.run import new_state

DEPTHS = (20, 56, 110, 1202)
BEGIN, GUESS, LEARNED = 3.5, log(10), 1.2


def read(ends, *, seconds=lambda depth: depth / 100, bytes_=lambda depth: depth * MiB, checkpointed=lambda d: d**0.5):
    """Findings by key where the network of each kind ends at a loss, from BEGIN; None: no number at the first step."""
    experiment, rows = Depth(depths=DEPTHS, steps=10, seeds=2), []
    for cell in experiment.cells():
        own = {"losses": [], "parameters": 1, "classes": 10, "checkpoint": checkpointed(cell["depth"])}
        if (end := ends.get(cell["net"], GUESS)) is not None:
            own |= {"losses": [BEGIN] * 9 + [end], "seconds": seconds(cell["depth"])}
        if cell["depth"] <= 500:
            own["plain"] = bytes_(cell["depth"])
        rows.append(cell | own)
    return {finding.key: finding.holds for finding in experiment.read(rows).findings}


@pytest.mark.parametrize(
    ("residual", "plain", "verdicts"),
    [
        (LEARNED, GUESS, (True, True)),
        (GUESS, GUESS, (None, None)),  # it fell by a third from where it began, and learned nothing
        (LEARNED, LEARNED, (True, False)),
        (LEARNED, None, (True, True)),
        (GUESS, LEARNED, (None, False)),
        (None, None, (None, None)),
    ],
)
def test_what_only_guesses_does_not_train(residual, plain, verdicts):
    found = read({"residual": residual, "plain": plain})
    assert (found["residual_trains"], found["plain_does_not"]) == verdicts


def test_zero_init_is_a_residual_network_but_no_twin_of_the_plain_one():
    found = read({"residual": GUESS, "residual, zero-init": LEARNED, "plain": GUESS})
    assert (found["residual_trains"], found["plain_does_not"]) == (True, None)


def test_every_branch_of_a_zero_init_network_begins_at_zero():
    for net, begins_as_shortcut in (("residual", False), ("residual, zero-init", True)):
        prepared = Depth(batch=8, steps=2)._prepared({"net": net, "depth": 8, "seed": 0})
        blocks = [m for m in new_state(prepared, torch.device("cpu"))[0].net.modules() if isinstance(m, Block)]
        assert len(blocks) == 3
        assert all((block.last_layer().weight == 0).all() == begins_as_shortcut for block in blocks)


def test_a_loss_that_becomes_no_number_is_told():
    rows = [{"losses": [BEGIN, GUESS]}, {"losses": [BEGIN]}]
    assert depth._course(rows, 2).endswith("and is no number after step 1")
    assert "no number" not in depth._course(rows[:1], 2)


def test_one_seed_that_learns_is_not_enough():
    rows = [{"losses": [BEGIN, LEARNED]}, {"losses": [BEGIN, GUESS]}]
    assert not trains(rows, 2, log(10)) and trains(rows[:1], 2, log(10))
    assert not trains(rows[:1], 3, log(10))  # it stopped after two of three
    assert not trains([], 2, log(10))
    assert not trains([{"losses": [2.0, 0.68]}], 2, log(2))


def test_guessing_knows_how_often_each_label_comes():
    """Of nine and one it has 0.325, not ln 2: a network that came down to 0.33 has learned nothing else."""
    labels = torch.tensor([0] * 9 + [1])
    assert guessing_loss(labels) == pytest.approx(entropy([0.9, 0.1]))
    assert not trains([{"losses": [2.0, 0.33]}], 2, guessing_loss(labels))
    assert guessing_loss(torch.arange(10)) == pytest.approx(log(10))


def test_exponents_are_judged_by_their_intervals():
    ends = {"residual": LEARNED, "plain": GUESS}
    found = read(ends)
    assert (found["time_is_linear"], found["memory_is_linear"], found["checkpointed_memory_is_less"]) == (True,) * 3
    assert read(ends, seconds=lambda depth: depth**1.5)["time_is_linear"] is False
    assert read(ends, checkpointed=lambda depth: depth)["checkpointed_memory_is_less"] is False
    rough = {20: 1, 56: 6, 110: 5, 1202: 50}
    assert read(ends, seconds=rough.get)["time_is_linear"] is None


def test_time_is_that_of_depths_which_keep_every_activation():
    """Deeper ones compute the forward pass twice: half as much time again would bend the line."""
    twice = read({"residual": LEARNED, "plain": GUESS}, seconds=lambda depth: depth * (1 if depth <= 500 else 1.5))
    assert twice["time_is_linear"] is True


def test_a_network_that_diverges_at_its_first_step_is_a_cell(monkeypatch, tmp_path):
    monkeypatch.setattr(depth, "_train", lambda *_: ([], []))
    found = Depth(batch=8, steps=2).measure({"net": "plain", "depth": 8, "seed": 0}, tmp_path)
    assert found["losses"] == [] and "seconds" not in found and found["plain"] > 0
