"""--compile: recorded, kept by a resume, decided by a trial, and refused where it cannot be."""

import json

import pytest

import resnetkit as rk
from resnetkit.training import compiling, trainer

TINY = {"model": "resnet8_cifar", "epochs": 1, "batch_size": 256}


def recorded(folder):
    return json.loads((folder / "command.json").read_text())["compile"]


def test_a_compiled_run_is_the_same_but_for_rounding(tmp_path, compilations):
    plain = rk.train("digits", out=tmp_path / "plain", **TINY)
    assert not compilations and recorded(plain.folder) is False
    compiled = rk.train("digits", out=tmp_path / "compiled", compile="on", **TINY)
    assert compilations and recorded(compiled.folder) is True
    assert compiled.metrics["loss"] == pytest.approx(plain.metrics["loss"], rel=1e-3)


def test_a_resumed_run_is_compiled_again(tmp_path, compilations, monkeypatch):
    monkeypatch.setattr(trainer.Trainer, "run", lambda self: [m for m in self.state.net.modules() if is_compiled(m)])
    assert rk.train("digits", out=tmp_path / "run", compile="on", **TINY)
    assert rk.train(resume=tmp_path / "run")
    with pytest.raises(rk.ResnetkitError, match="give --resume alone"):
        rk.train(resume=tmp_path / "run", compile="off")


def is_compiled(module):
    return module._compiled_call_impl is not None


@pytest.mark.parametrize(
    ("plain", "compiled", "first", "pays"),
    [(1.0, 0.5, 30.0, True), (1.0, 0.95, 30.0, False), (1.0, 0.5, 300.0, False)],
)
def test_auto_takes_what_ends_the_run_sooner(tmp_path, monkeypatch, plain, compiled, first, pays):
    """1,000 steps; compiling is waited for three times."""
    seconds = iter([plain] * 4 + [first] + [compiled] * 4)
    monkeypatch.setattr(compiling, "_seconds", lambda prepared, state: next(seconds))
    monkeypatch.setattr(trainer.Trainer, "run", lambda self: self.notes[-1])
    note = rk.train("digits", out=tmp_path / "run", compile="auto", **TINY | {"epochs": 250, "batch_size": 400})
    assert note.startswith(f"compile {'on' if pays else 'off'}: a step takes {compiled:g} s compiled and 1 s not")
    assert recorded(tmp_path / "run") is pays


def test_a_short_run_is_not_worth_the_trial(tmp_path, monkeypatch):
    monkeypatch.setattr(trainer.Trainer, "run", lambda self: self.notes[-1])
    note = rk.train("digits", out=tmp_path / "run", compile="auto", **TINY)
    assert "minutes of training are too few" in note and recorded(tmp_path / "run") is False


def test_mistakes_are_named(tmp_path, monkeypatch):
    with pytest.raises(rk.ResnetkitError, match="compile='of': did you mean off"):
        rk.train("digits", out=tmp_path / "run", compile="of")
    with monkeypatch.context() as patch:
        patch.setattr(compiling, "which", lambda name: None)
        with pytest.raises(rk.ResnetkitError, match=r"needs a C\+\+ compiler"):
            rk.train("digits", out=tmp_path / "run", compile="on")
    with pytest.raises(rk.ResnetkitError, match="drop_path_rate cannot be compiled"):
        rk.train("digits", out=tmp_path / "run", compile="on", drop_path_rate=0.2)
    assert not (tmp_path / "run").exists()
