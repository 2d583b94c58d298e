"""Norms of gradients against autograd by hand, and the figures that the issue names, on a small network."""

import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from resnetkit.benchmark.subject import write_photos
from resnetkit.errors import ResnetkitError
from resnetkit.lab import gradients
from resnetkit.lab.gradients import NETS, SETTINGS, Gradients, Norms, block_norms, initialised, train_and_watch
from resnetkit.lab.images import few_images
from resnetkit.training import loop
from resnetkit.training.epochs import training_batches
from resnetkit.training.prepare import prepare
from resnetkit.training.recipe import make_recipe


def net(name="plain8_cifar", norm="batch", init="he", seed=0):
    return initialised(name, 10, 3, norm, init, seed)


def test_norms_are_autograds():
    x, labels = torch.randn(8, 3, 8, 8), torch.arange(8)
    found = block_norms(net(), x, labels)
    by_hand = net().train()
    outputs = [by_hand.stem(x)]
    for stage in by_hand.stages:
        outputs.append(stage(outputs[-1]))
    loss = F.cross_entropy(by_hand.head(outputs[-1]), labels)
    by_autograd = torch.autograd.grad(loss, [stage[0].branch.conv1.weight for stage in by_hand.stages])
    assert found.loss == pytest.approx(loss.item())
    assert found.gradients == pytest.approx([float((g**2).sum() ** 0.5) for g in by_autograd], rel=1e-5)
    assert found.activations == pytest.approx([float((o**2).mean() ** 0.5) for o in outputs[1:]], rel=1e-5)


def test_nothing_is_left_behind():
    network = net()
    block_norms(network, torch.randn(4, 3, 8, 8), torch.arange(4))
    assert not any(module._forward_hooks for module in network.modules())


def test_initialisations_are_what_they_are_called():
    for kind in (nn.Conv2d, nn.Linear):
        torch.manual_seed(0)
        fresh = [m for m in net(init="pytorch").modules() if isinstance(m, kind)][0]
        bound = (1 / fresh.weight[0].numel()) ** 0.5  # PyTorch's kaiming_uniform with a = sqrt(5): 1 / sqrt(fan_in)
        assert fresh.weight.abs().max() <= bound
        assert fresh.weight.abs().max() > 0.9 * bound
    he = net(init="he").stages[0][0].branch.conv1.weight
    assert float(he.std()) == pytest.approx((2 / (16 * 9)) ** 0.5, rel=0.1)
    zero = net("resnet8_cifar", "none", "zero").stages[0][0]
    assert not zero.branch.conv2.weight.any() and zero.branch.conv1.weight.any()


def test_plain_gradients_vanish_by_pytorchs_initialisation_and_not_with_batch_norm():
    x, labels = torch.randn(16, 3, 8, 8), torch.arange(16) % 10
    share = {}
    for norm in ("none", "batch"):
        norms = block_norms(net("plain44_cifar", norm, "pytorch"), x, labels).gradients
        share[norm] = norms[0] / norms[-1]
    assert share["none"] < 1e-6
    assert share["batch"] > 1


def test_without_norm_residual_outputs_double_their_variance():
    x = torch.randn(16, 3, 8, 8)
    norms = block_norms(net("resnet44_cifar", "none", "he"), x, torch.arange(16) % 10)
    stage = norms.activations[:7]
    growth = (stage[-1] / stage[0]) ** (2 / 6)  # of the mean square, a block
    assert 1.5 < growth < 2.5


def test_a_loss_is_that_of_its_own_batch():
    """66 images in a batch of 14 and four of 13."""
    recipe = make_recipe({"model": "resnet8_cifar", "epochs": 1, "lr": 0.1, "batch_size": 16, "precision": "float32"})
    prepared = prepare(few_images("noise", train=66, test=1), recipe, {}, 0.0)
    images, labels = next(training_batches(prepared, workers=0).epoch(0, (32, 32)))
    assert len(images) == 14
    by_hand = F.cross_entropy(net("resnet8_cifar").train()(prepared.preprocessing.normalise(images)), labels)
    found = train_and_watch(prepared, net("resnet8_cifar"), 4)
    assert found["losses"][0] == pytest.approx(float(by_hand), rel=1e-4) and len(found["losses"]) == 4


@pytest.mark.parametrize("depth", [20, 164, 1001])
def test_networks_of_one_depth_have_blocks_of_one_kind(monkeypatch, depth):
    """preact_resnet164_cifar is the paper's, of bottlenecks, where plain164_cifar and resnet164_cifar are basic."""
    built = []
    monkeypatch.setattr("resnetkit.lab.gradients.block_norms", lambda net, *_: built.append(net) or Norms(1, [1], [1]))
    experiment = Gradients(depths=(depth,), seeds=1, steps=0)
    cells = {cell["net"]: cell for cell in experiment.cells()}
    for cell in cells.values():
        experiment.measure(cell, None)
    assert len({(net.spec.block, net.spec.depths) for net in built}) == 1 and len(built) == 3


@pytest.mark.parametrize("batch", [2, 4])
def test_a_batch_smaller_than_the_classes(batch):
    found = Gradients(depths=(8,), batch=batch, steps=0).measure(
        {"net": "plain", "depth": 8, "setting": "no norm, He", "seed": 0}, None
    )
    assert found["loss"] > 0


def test_it_computes_on_the_device_that_is_given(monkeypatch):
    """Here on one where a tensor has no values."""
    seen, meta = [], torch.device("meta")
    monkeypatch.setattr(gradients, "find_device", lambda name: {"cuda": meta}[name])

    def norms(net, x, labels):
        seen.extend(tensor.device for tensor in (x, labels, *net.parameters()))
        return Norms(1.0, [1.0], [1.0])

    def watch(prepared, net, steps):
        seen.extend(p.device for p in net.parameters())

    monkeypatch.setattr(gradients, "block_norms", norms)
    monkeypatch.setattr(gradients, "train_and_watch", watch)
    Gradients(depths=(8,), device="cuda").measure(
        {"net": "plain", "depth": 8, "setting": "no norm, He", "seed": 0}, None
    )
    assert len(seen) > 20 and set(seen) == {meta}


def test_a_loss_that_is_no_number_ends_it_where_it_comes(monkeypatch):
    """Where the loop looks seldom, as on a GPU, too."""
    name, recipe = "resnet8_cifar", {"epochs": 1, "lr": 1e9, "batch_size": 16, "flip": False, "precision": "float32"}
    prepared = prepare("digits", make_recipe({"model": name} | recipe), {}, 0.0)
    found = []
    for looks in (math.isfinite, lambda loss: True):
        monkeypatch.setattr(loop, "math", SimpleNamespace(isfinite=looks))
        found.append(train_and_watch(prepared, initialised(name, 10, 1, "none", "he", 0), 12))
    assert found[0] == found[1] and 0 < found[0]["diverged"] < 12
    assert len(found[0]["losses"]) == found[0]["diverged"] and all(map(math.isfinite, found[0]["losses"]))


def test_photos_are_refused(tmp_path):
    write_photos(tmp_path / "photos", count=12, size=(200, 200))
    with pytest.raises(ResnetkitError, match="train: the experiments need images of one size, 64 pixels"):
        Gradients(data=str(tmp_path / "photos/train"), depths=(8,)).measure(
            {"net": "plain", "depth": 8, "setting": "no norm, He", "seed": 0}, None
        )


INFINITE = (math.inf, math.inf, math.inf)
LIKE = {"plain": 500.0, "residual": 1.5, "pre-activation": 1.0}  # the first block's gradient with batch norm


def reading(changes, seeds=3):
    """Of the first block's gradients by (net, setting), or a value for each seed, where the last block's is 1."""
    experiment, rows = Gradients(depths=(8, 14, 20), seeds=seeds, steps=0), []
    for cell in experiment.cells():
        first = changes.get((cell["net"], cell["setting"]), LIKE[cell["net"]])
        first = first[cell["seed"]] if isinstance(first, tuple) else first * (1 + 0.01 * cell["seed"])
        rows.append(cell | {"loss": 3.0, "gradients": [first, 1.0], "activations": [1.0, 1.0]})
    return experiment.read(rows)


def verdicts(changes, seeds=3):
    return {finding.key: finding.holds for finding in reading(changes, seeds).findings}


@pytest.mark.parametrize(
    ("key", "changes", "holds"),
    [
        ("plain_batch_norm_vanishes", {}, False),
        ("plain_batch_norm_vanishes", {("plain", "batch norm, He"): 1e-6}, True),
        ("plain_batch_norm_vanishes", {("plain", "batch norm, He"): (1e-6, 1.0, 1.0)}, None),
        ("plain_default_vanishes", {("plain", "no norm, PyTorch"): 0.0}, True),
        ("plain_default_vanishes", {}, False),
        ("plain_default_vanishes", {("plain", "no norm, PyTorch"): 0.0, ("residual", "no norm, PyTorch"): 0.0}, False),
        ("he_cures_plain", {}, True),
        ("he_cures_plain", {("plain", "no norm, He"): 1e-6}, False),
        ("residual_explodes", {("residual", "no norm, He"): 3e4}, True),
        ("residual_explodes", {}, False),
        ("residual_explodes", {("residual", "no norm, He"): (1.0, 3e2, 3e4)}, None),
        ("residual_explodes", {("residual", "no norm, He"): INFINITE}, True),
        ("residual_explodes", {("residual", "no norm, He"): (None, None, None)}, True),  # as JSON gives it back
        ("residual_explodes", {("residual", "no norm, He"): (3e4, math.inf, math.inf)}, None),
        ("residual_explodes", {("residual", setting): INFINITE for setting in SETTINGS}, None),
        ("shortcut_tames", {}, True),
        ("shortcut_tames", {("plain", "batch norm, He"): 3.0}, False),
    ],
)
def test_verdicts_are_of_whole_intervals(key, changes, holds):
    assert set(NETS) == set(LIKE) and all(setting in SETTINGS for _, setting in changes)
    assert verdicts(changes)[key] is holds


def test_what_is_infinite_at_some_seeds_has_no_interval():
    findings = reading({("residual", "no norm, He"): (3e4, math.inf, math.nan)}).findings
    (says,) = (finding.says for finding in findings if finding.key == "residual_explodes")
    assert says.startswith("Its first block gets inf, inf times what")


def test_one_seed_has_no_interval_to_judge_by():
    assert set(verdicts({}, seeds=1).values()) == {None}
