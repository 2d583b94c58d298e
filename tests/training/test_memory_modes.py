"""A run in the checkpoint mode has the numbers of a plain one; auto chooses by the budget."""

import json

import pytest

import resnetkit as rk
from resnetkit.errors import Interrupted
from resnetkit.training import memory, trainer

TINY = {
    "model": "resnet8_cifar",
    "epochs": 1,
    "img_size": 8,
    "precision": "float32",
    "drop_path_rate": 0.3,
    "batch_size": 256,
}


def told(folder):
    return json.loads((folder / "command.json").read_text())["memory"]


def test_checkpoint_is_bit_equal_to_plain_and_recorded(tmp_path, capsys):
    plain = rk.train("digits", out=tmp_path / "plain", **TINY)
    checkpointed = rk.train("digits", out=tmp_path / "checkpoint", memory="checkpoint", **TINY)
    one, other = (run.model.network.state_dict() for run in (plain, checkpointed))
    assert all((one[name] == other[name]).all() for name in one)
    assert (told(plain.folder), told(checkpointed.folder)) == ("plain", "checkpoint")
    assert plain.metrics["loss"] == checkpointed.metrics["loss"]


def test_a_reversible_network_trains_and_its_file_says_so(tmp_path):
    run = rk.train("digits", out=tmp_path / "run", reversible=True, **TINY | {"model": "resnet14_cifar"})
    assert run.model.network.spec.reversible


def test_auto_is_plain_within_the_budget_and_checkpoint_beyond(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(trainer.Trainer, "run", lambda self: self.notes[-1])
    note = rk.train("digits", out=tmp_path / "a", memory="auto", **TINY)
    assert "memory plain: a step in plain needs" in note and told(tmp_path / "a") == "plain"
    whole = rk.train("digits", out=tmp_path / "whole", memory_budget="1GiB", **TINY | {"batch_size": 1438})
    assert rk.train("digits", out=tmp_path / "more", memory_budget="1GiB", **TINY | {"batch_size": 8192}) == whole
    needs = memory.live_bytes
    monkeypatch.setattr(
        memory, "live_bytes", lambda spec, mode, **how: needs(spec, mode, **how) + 2**30 * (mode == "plain")
    )
    note = rk.train("digits", out=tmp_path / "b", memory_budget="1GiB", **TINY)
    assert "memory checkpoint: a step in plain needs 1." in note and "of the budget of 1.0 GiB" in note
    assert told(tmp_path / "b") == "checkpoint"
    note = rk.train("digits", out=tmp_path / "c", memory_budget="1KB", **TINY)
    assert "over it too: lower batch_size or img_size" in note


def test_a_resumed_run_keeps_its_mode_or_takes_another(tmp_path, monkeypatch):
    def stop(self, state, waited):
        if state.step == 3:
            self._save()
            raise Interrupted("stopped")

    with monkeypatch.context() as patch:
        patch.setattr(trainer.Trainer, "_after_step", stop)
        with pytest.raises(Interrupted):
            rk.train("digits", out=tmp_path / "run", memory="checkpoint", **TINY)
    modes = []
    monkeypatch.setattr(trainer.Trainer, "run", lambda self: modes.append(self.state.net.memory))
    rk.train(resume=tmp_path / "run")
    rk.train(resume=tmp_path / "run", memory="plain")
    assert modes == ["checkpoint", "plain"]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"memory": "checkpoints"}, "memory='checkpoints': did you mean checkpoint"),
        ({"memory_budget": "4"}, "'4' is no amount of memory"),
        ({"memory": "plain", "memory_budget": "4GiB"}, "is for memory=auto, and memory=plain"),
    ],
)
def test_mistakes_are_named(tmp_path, settings, says):
    with pytest.raises(rk.ResnetkitError, match=says):
        rk.train("digits", out=tmp_path / "run", **settings)
    assert not (tmp_path / "run").exists()
