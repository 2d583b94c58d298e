"""prune_easy: an epoch passes over half of the easiest images, by what their own losses were."""

from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

import resnetkit as rk
from resnetkit.training import loop
from resnetkit.training.prepare import prepare
from resnetkit.training.pruning import Pruning

TINY = {"model": "resnet8_cifar", "batch_size": 64, "label_smoothing": 0.0}
IMAGES, SHARE, EPOCHS = 1000, 0.2, 12


def passed_over(epoch, losses=None, seed=0):
    pruning = Pruning(IMAGES, SHARE)
    pruning.record(torch.arange(IMAGES), torch.arange(IMAGES).float() if losses is None else losses)
    pruning.begin(epoch, EPOCHS, seed)
    return (~pruning.kept).nonzero()[:, 0]


def test_half_of_the_easiest_are_passed_over_from_a_quarter_to_the_last():
    assert [len(passed_over(epoch)) for epoch in range(EPOCHS)] == [0, 0, 0, *8 * [200], 0]
    assert passed_over(5).max() < 400 and passed_over(5).max() > 350  # of the 400 of the least loss


def test_another_half_each_epoch_and_the_same_by_a_seed():
    first, next_one = set(passed_over(5).tolist()), set(passed_over(6).tolist())
    assert 60 < len(first & next_one) < 140  # 100 of 200 by chance
    assert set(passed_over(5).tolist()) == first != set(passed_over(5, seed=1).tolist())


def test_a_run_learns_from_the_others_and_knows_every_loss(tmp_path, monkeypatch):
    """Each batch's mean of what is told is its loss, in pieces too; an epoch has as many images as are kept."""
    seen, told = [], []
    plain = loop._gradients

    def watched(net, task, x, targets, recipe, class_weights, each_loss):
        def tell(losses):
            told.append(losses)
            each_loss(losses)

        loss, right = plain(net, task, x, targets, recipe, class_weights, tell)
        seen.append(len(x))
        assert float(told[-1].mean()) == pytest.approx(float(loss), rel=1e-5)
        return loss, right

    monkeypatch.setattr(loop, "_gradients", watched)
    run = rk.train("digits", out=tmp_path / "run", epochs=4, prune_easy=0.25, accumulate=2, **TINY)
    steps = len(seen) // 4
    train = sum(seen[:steps])
    per_epoch = [sum(seen[i * steps : (i + 1) * steps]) for i in range(4)]
    assert per_epoch == [train, train - train // 4, train - train // 4, train]
    losses = load_file(run.folder / "checkpoints" / "last.safetensors")["pruning.losses"]
    assert sorted(losses.tolist()) == sorted(torch.cat(told[-steps:]).tolist())


def test_each_loss_goes_to_its_own_image_of_those_kept(tmp_path, monkeypatch):
    """A loss that is the label, and forgotten before every epoch: afterwards the images it kept have their own."""
    monkeypatch.setattr(loop, "F", SimpleNamespace(cross_entropy=lambda logits, targets, **_: targets.float()))
    known = []

    def watched(pruning, *when):
        known.append(pruning.losses.clone())
        begin(pruning, *when)
        pruning.losses.fill_(torch.inf)
        known.append(pruning.kept.clone())

    begin = Pruning.begin
    monkeypatch.setattr(Pruning, "begin", watched)
    rk.train("digits", out=tmp_path / "run", epochs=4, prune_easy=0.25, **TINY)
    labels = prepare("digits", None, dict(TINY), 0.0).parts["train"].labels.float()
    _, first, after_first, second, after_second, _, _, _ = known
    assert first.all() and torch.equal(after_first, labels)
    assert not second.all() and torch.equal(after_second, labels.where(second, torch.inf))


@pytest.mark.parametrize("clash", [{"mixup": 0.2}, {"cutmix": 1.0}, {"repeats": 2}, {"balance": "sampling"}])
def test_what_mixes_or_repeats_images_is_refused(tmp_path, clash):
    with pytest.raises(rk.ResnetkitError, match="prune_easy goes by the loss of each image"):
        rk.train("digits", out=tmp_path / "run", epochs=4, prune_easy=0.2, **TINY | clash)
    assert not (tmp_path / "run").exists()
