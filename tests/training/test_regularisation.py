"""Settings that change how a network is trained, each against PyTorch's or scikit-learn's own."""

import copy
import csv
import json
from contextlib import nullcontext

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import resnetkit as rk
from resnetkit.data.augment import Augmentation
from resnetkit.data.balance import balanced_weights
from resnetkit.data.loaders import TrainingBatches
from resnetkit.data.parts import Part
from resnetkit.data.preprocess import Preprocessing
from resnetkit.tasks import classification
from resnetkit.training.epochs import training_batches
from resnetkit.training.loop import _gradients
from resnetkit.training.prepare import prepare
from resnetkit.training.range_test import range_test
from resnetkit.training.recipe import make_recipe
from resnetkit.training.run import new_state, require_batches_of_two

TINY = {"model": "resnet8_cifar", "epochs": 2}
LABELS = torch.tensor([0] * 60 + [1] * 30 + [2] * 10)


def test_class_weights_are_scikit_learns():
    from sklearn.utils.class_weight import compute_class_weight

    expected = compute_class_weight("balanced", classes=np.arange(3), y=LABELS.numpy())
    np.testing.assert_allclose(balanced_weights(LABELS, 3), expected, rtol=1e-6)


def test_balanced_sampling_shows_each_class_alike():
    part = Part(torch.zeros(100, 1, 8, 8, dtype=torch.uint8), LABELS, [str(i) for i in range(100)])
    odds = balanced_weights(LABELS, 3)[LABELS]
    batches = TrainingBatches(
        part, Preprocessing(size=(8, 8), framing="squash", channels="grey", mean=(0.5,), std=(0.5,)),
        Augmentation(0, 1.0, False), batch_size=10, seed=0, workers=0, odds=odds,
    )  # fmt: skip
    seen = torch.cat([labels for epoch in range(60) for _, labels in batches.epoch(epoch, (8, 8))])
    shares = torch.bincount(seen) / len(seen)
    assert len(seen) == 6000
    assert (shares - 1 / 3).abs().max() < 0.03


def test_balanced_sampling_augments_an_image_anew_each_time_it_is_shown():
    images = torch.randint(256, (100, 1, 8, 8), dtype=torch.uint8)
    batches = TrainingBatches(
        Part(images, LABELS, [str(i) for i in range(100)]), Preprocessing(size=(8, 8), framing="squash"),
        Augmentation(4, 1.0, True), batch_size=100, seed=0, workers=0, odds=balanced_weights(LABELS, 3)[LABELS],
    )  # fmt: skip
    (shown, _), (samples,) = next(batches.epoch(0, (8, 8))), batches.samples(0)
    numbers, times = samples.unique(return_counts=True)
    often = numbers[times.argmax()]
    assert times.max() >= 4
    assert len(shown[samples == often].unique(dim=0)) > 1


@pytest.mark.parametrize("weights", [None, torch.linspace(0.1, 5, 10)], ids=["alike", "weighed"])
def test_a_batch_in_pieces_has_the_gradient_of_the_whole(weights):
    torch.manual_seed(0)
    net = rk.build("resnet8_cifar", norm="group")
    x, labels = torch.randn(10, 3, 16, 16), torch.arange(10)
    gradients = []
    for pieces in (1, 3):
        settings = {"model": "resnet8_cifar", "epochs": 1, "lr": 1, "precision": "float32", "accumulate": pieces}
        net.zero_grad()
        recipe = make_recipe(settings | {"label_smoothing": 0.1})
        loss, right = _gradients(net, classification, x, labels, recipe, weights)
        gradients.append([p.grad.clone() for p in net.parameters()])
        theirs = F.cross_entropy(net(x), labels, weights, label_smoothing=0.1)
        assert float(loss) == pytest.approx(float(theirs.detach()), rel=1e-5)
        assert right == int((net(x).argmax(1) == labels).sum())
    for whole, in_pieces in zip(*gradients):
        torch.testing.assert_close(whole, in_pieces, rtol=1e-3, atol=1e-5)
    soft = F.one_hot(labels, 10).float()
    logits = net(x)
    assert classification.right(logits, soft) == classification.right(logits, labels)


@pytest.mark.parametrize(("images", "pieces", "sizes"), [(10, 4, [3, 3, 2, 2]), (15, 8, [3, 2, 2, 2, 2, 2, 2])])
def test_no_piece_of_a_batch_is_a_single_image(images, pieces, sizes):
    net = rk.build("resnet8_cifar").train()
    seen = []
    net.register_forward_pre_hook(lambda net, args: seen.append(len(args[0])))
    recipe = make_recipe({"model": "resnet8_cifar", "epochs": 1, "lr": 1, "precision": "float32", "accumulate": pieces})
    _gradients(net, classification, torch.randn(images, 3, 8, 8), torch.zeros(images, dtype=torch.long), recipe, None)
    assert seen == sizes


@pytest.mark.parametrize(
    ("images", "settings", "refused"),
    [
        (7, {"batch_size": 2}, True),
        (8, {"batch_size": 2}, False),
        (5, {"batch_size": 4, "prune_easy": 0.49, "epochs": 4}, True),  # three of them in two batches
        (7, {"batch_size": 4, "prune_easy": 0.49, "epochs": 4}, False),
        (5, {"batch_size": 4, "prune_easy": 0.49, "epochs": 2}, False),  # too few epochs to pass over any
    ],
)
def test_a_set_that_leaves_batch_norm_a_single_image_is_refused(images, settings, refused):
    prepared = prepare("digits", None, TINY | settings, max_bad=0.0)
    prepared.parts["train"] = prepared.parts["train"].take(torch.arange(images))
    said = f"{images} training images in batches of up to . leave .* give another batch_size"
    with pytest.raises(rk.ResnetkitError, match=said) if refused else nullcontext():
        require_batches_of_two(prepared)


def test_binary_loss_asks_each_class_by_itself():
    """PyTorch's own, on indicators written by hand; a share of a mixture counts whole, but for a small one."""
    logits = torch.randn(2, 3)
    shares = torch.tensor([[0.7, 0.3, 0.0], [0.1, 0.0, 0.9]])
    wanted = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    theirs = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    torch.testing.assert_close(classification.binary_loss(logits, shares), theirs.sum(1).mean())
    smoothed = F.binary_cross_entropy_with_logits(logits[1:], torch.tensor([[0.1, 0.1, 0.8]]) * 1.0, reduction="sum")
    torch.testing.assert_close(classification.binary_loss(logits[1:], torch.tensor([2]), 0.3), smoothed + 0.0)


def test_clipping_bounds_a_step(tmp_path):
    """Without momentum or decay, a step is no longer than lr times the norm."""
    settings = TINY | {"epochs": 1, "batch_size": 2000, "momentum": 0.0, "weight_decay": 0.0, "warmup_epochs": 0}
    settings |= {"lr": 0.5, "schedule": "cosine"}
    start = rk.train("digits", out=tmp_path / "start", clip_norm=1e-9, **settings).model.network
    clipped = rk.train("digits", out=tmp_path / "clipped", clip_norm=0.01, **settings).model.network
    free = rk.train("digits", out=tmp_path / "free", **settings).model.network

    def moved(net):
        return float(sum((a - b).pow(2).sum() for a, b in zip(net.parameters(), start.parameters())) ** 0.5)

    assert moved(clipped) == pytest.approx(0.5 * 0.01, rel=0.01)
    assert moved(free) > 0.02


def test_patience_ends_a_run_that_gets_no_better(tmp_path):
    run = rk.train("digits", out=tmp_path / "run", **TINY | {"epochs": 60, "holdout": 0.1, "patience": 2, "lr": 1e-7})
    rows = list(csv.DictReader((run.folder / "results.csv").open()))
    held = [float(row["holdout_top1"]) for row in rows]
    assert len(rows) < 60
    assert max(held[:-2]) >= max(held[-2:])
    best = rk.load(run.folder / "checkpoints" / "best.safetensors")
    assert run.model.provenance["steps"] == best.provenance["steps"]
    assert json.loads((run.folder / "evaluation" / "metrics.json").read_text())["split"] == "test"
    assert rk.train(resume=run.folder).metrics == run.metrics


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"patience": 3}, "patience needs a holdout"),
        (
            {"padding_mode": "reflect", "crop_padding": 0},
            "padding_mode does nothing without crop_padding; leave",
        ),
        ({"thaw_epochs": 1}, "thaw_epochs does nothing without freeze"),
        ({"milestones": "0.3"}, "milestones does nothing without schedule=step; leave it out, or set schedule"),
        ({"policy_level": 3}, "policy_level does nothing without policy=rand"),
        ({"optimizer": "adamw", "nesterov": False}, "nesterov does nothing without optimizer=sgd"),
        ({"optimizer": "lamb", "momentum": 0.5}, "momentum does nothing without optimizer=sgd or muon"),
        ({"accumulate": 3, "batch_size": 4}, "batch norm needs pieces of two images"),
        ({"prune_easy": 0.4, "batch_size": 3}, "batch norm needs pieces of two images"),
        ({"framing": "letterbox"}, "framing=.* is for photos"),
        ({"policy": "best"}, "policy='best'"),
        ({"balance": "yes"}, "balance='yes'"),
    ],
)
def test_settings_that_cannot_be_are_refused(tmp_path, settings, message):
    with pytest.raises(rk.ResnetkitError, match=message):
        rk.train("digits", out=tmp_path / "run", **TINY | settings)
    assert not (tmp_path / "run").exists()


def test_a_recipe_without_its_crops_has_no_rims_to_reflect():
    prepared = prepare("digits", "cifar10_fast", {"crop_padding": 0, "whiten": False, "freeze": None}, max_bad=0.0)
    assert prepared.recipe.padding_mode == "zeros"
    assert prepare("digits", prepared.recipe.model_copy(update={"padding_mode": "reflect"}), {}, max_bad=0.0)


def test_the_range_test_finds_a_rate_that_trains(tmp_path):
    run = rk.train("digits", out=tmp_path / "run", **TINY | {"lr": "auto", "epochs": 8})
    chosen = run.model.provenance["recipe"]["lr"]
    assert 0.01 < chosen < 0.5, "SGD with momentum on a network with batch norm takes about 0.1"
    assert run.metrics["top1"] > 0.9
    assert (run.folder / "plots" / "lr_range_test.png").read_bytes().startswith(b"\x89PNG")
    assert f"lr = {chosen}\n" in (run.folder / "recipe.toml").read_text()


def test_the_range_test_moves_muons_rate_and_not_that_of_adamw(monkeypatch):
    prepared = prepare("digits", None, TINY | {"optimizer": "muon", "lr": 1.0, "precision": "float32"}, max_bad=0.0)
    state, _ = new_state(prepared, torch.device("cpu"))
    taken, rates = state.optimizer.step, {"orthogonal": [], "sgd": [], "adamw": []}

    def step():
        for group in state.optimizer.param_groups:
            rates[group["rule"]].append(group["lr"])
        return taken()

    monkeypatch.setattr(state.optimizer, "step", step)
    tested = range_test(state, training_batches(prepared, workers=0), prepared)
    assert set(rates["orthogonal"]) == set(tested.rates) and len(tested.rates) > 30
    assert rates["adamw"] == pytest.approx([0.005] * len(rates["adamw"]))


def test_the_range_test_weighs_classes_as_the_run_does():
    how = TINY | {"lr": 1.0, "precision": "float32", "batch_size": 60, "balance": "weights"}
    prepared = prepare("digits", None, how, max_bad=0.0)
    prepared.parts["train"] = prepared.parts["train"].take(torch.arange(600))  # of classes of unlike sizes
    state, _ = new_state(prepared, torch.device("cpu"))
    images, labels = next(training_batches(prepared, workers=0).epoch(0, (8, 8)))
    logits = copy.deepcopy(state.net).train()(prepared.preprocessing.normalise(images))
    weights = balanced_weights(prepared.parts["train"].labels, 10)
    tested = range_test(state, training_batches(prepared, workers=0), prepared)
    assert tested.losses[0] == pytest.approx(float(F.cross_entropy(logits, labels, weights).detach()), rel=1e-4)
    assert tested.losses[0] != pytest.approx(float(F.cross_entropy(logits, labels).detach()), rel=1e-4)
