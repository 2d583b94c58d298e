"""--compile: recorded, kept by a resume, decided by a trial, and refused where it cannot be."""

import json

import pytest
import torch

import resnetkit as rk
from resnetkit.architecture.resnet import ResNet
from resnetkit.training import compiling, run, trainer
from resnetkit.training.prepare import prepare

TINY = {"model": "resnet8_cifar", "epochs": 1, "batch_size": 256}


def recorded(folder):
    return json.loads((folder / "command.json").read_text())["compile"]


def test_a_compiled_run_is_the_same_but_for_rounding(tmp_path, compilations):
    plain = rk.train("digits", out=tmp_path / "plain", **TINY)
    assert not compilations and recorded(plain.folder) == "off"
    compiled = rk.train("digits", out=tmp_path / "compiled", compile="on", **TINY)
    assert compilations and recorded(compiled.folder) == "on"
    assert compiled.metrics["loss"] == pytest.approx(plain.metrics["loss"], rel=1e-3)


def test_in_the_memory_mode_checkpoint_too(tmp_path, compilations):
    rk.train("digits", out=tmp_path / "run", compile="on", memory="checkpoint", **TINY | {"model": "resnet20_cifar"})
    graphs = len(compilations)
    rk.train("digits", out=tmp_path / "deeper", compile="on", memory="checkpoint", **TINY | {"model": "resnet56_cifar"})
    assert 0 < graphs < 40 and len(compilations) - graphs <= graphs


def test_a_resumed_run_is_compiled_again_or_as_it_says(tmp_path, compilations, monkeypatch):
    monkeypatch.setattr(trainer.Trainer, "run", lambda self: sum(map(is_compiled, self.state.net.modules())))
    assert rk.train("digits", out=tmp_path / "run", compile="on", **TINY) == 1 + 3  # the stem and the blocks
    assert rk.train(resume=tmp_path / "run") == 1 + 3
    assert rk.train(resume=tmp_path / "run", compile="off") == 0
    file = tmp_path / "run" / "command.json"
    file.write_text(file.read_text().replace('"compile": "on"', '"compile": true'))  # as it once was
    assert rk.train(resume=tmp_path / "run") == 1 + 3
    with pytest.raises(rk.ResnetkitError, match="compile=auto is for a new run"):
        rk.train(resume=tmp_path / "run", compile="auto")


def is_compiled(module):
    return module._compiled_call_impl is not None


@pytest.mark.parametrize(
    ("plain", "compiled", "first", "chosen"),
    [(1.0, 0.5, 30.0, "on"), (1.0, 0.95, 30.0, "off"), (1.0, 0.5, 300.0, "off")],
)
def test_auto_takes_what_ends_the_run_sooner(tmp_path, compilations, monkeypatch, plain, compiled, first, chosen):
    """1,006 steps; compiling is waited for twice more."""
    seconds = iter([plain] * 4 + [first] + [compiled] * 4)
    monkeypatch.setattr(compiling, "_seconds", lambda prepared, state: next(seconds))
    monkeypatch.setattr(trainer.Trainer, "run", lambda self: self.notes[-1])
    note = rk.train("digits", out=tmp_path / "run", compile="auto", **TINY | {"epochs": 280, "batch_size": 400})
    assert note.startswith(f"compile {chosen}: a step takes {compiled:g} s compiled and 1 s not")
    assert recorded(tmp_path / "run") == chosen


@pytest.mark.parametrize(
    ("setting", "least", "most"),
    [({}, 8, 8), ({"img_size": 16, "start_size": 0.5}, 5.3, 5.4), ({"prune_easy": 0.3}, 6.5, 6.5)],
    ids=["whole", "small images", "fewer images"],
)
def test_auto_counts_what_epochs_leave_out(tmp_path, monkeypatch, setting, least, most):
    """A minute a step, a step an epoch. Of 16 pixels five epochs see 12, two 14; from the third epoch to the last but
    one 0.3 are passed over."""
    monkeypatch.setattr(compiling, "_seconds", lambda prepared, state: 60.0)
    monkeypatch.setattr(trainer.Trainer, "run", lambda self: self.notes[-1])
    how = TINY | {"epochs": 8, "batch_size": 1438} | setting
    note = rk.train("digits", out=tmp_path / "run", compile="auto", **how)
    assert least <= float(note.removeprefix("compile off: ").split()[0]) <= most


@pytest.mark.parametrize(
    ("setting", "shapes"),
    [({}, 1), ({"batch_size": 719}, 1), ({"batch_size": 400}, 2), ({"img_size": 16, "start_size": 0.5}, 3)],
    ids=["one batch", "two alike", "four of two sizes", "small images first"],
)
def test_a_gpu_compiles_once_a_shape(setting, shapes):
    prepared = prepare("digits", None, TINY | {"epochs": 8, "batch_size": 1438} | setting, 0.0)
    assert compiling._shapes(prepared) == shapes


def test_where_nothing_compiles_auto_is_off_and_on_is_refused(tmp_path, monkeypatch):
    def broken(*_arguments, **_settings):
        raise RuntimeError("no C++ compiler\nand much more")

    monkeypatch.setattr(torch, "compile", lambda function, **_: broken)
    monkeypatch.setattr(trainer.Trainer, "run", lambda self: self.notes[-1])
    with pytest.raises(rk.ResnetkitError, match=r"does not work here: no C\+\+ compiler; install"):
        rk.train("digits", out=tmp_path / "run", compile="on", **TINY)
    assert not (tmp_path / "run").exists()
    monkeypatch.setattr(compiling, "_seconds", lambda prepared, state: 1000.0)
    assert "off: torch.compile does not work" in rk.train("digits", out=tmp_path / "run", compile="auto", **TINY)


def test_a_network_that_cannot_be_is_refused_by_on_and_left_by_auto(tmp_path, monkeypatch):
    how = TINY | {"drop_path_rate": 0.2}
    with pytest.raises(rk.ResnetkitError, match="drop_path_rate cannot be compiled"):
        rk.train("digits", out=tmp_path / "run", compile="on", **how)
    assert not (tmp_path / "run").exists()
    monkeypatch.setattr(compiling, "_seconds", lambda prepared, state: 1000.0)
    monkeypatch.setattr(trainer.Trainer, "run", lambda self: self.notes[-1])
    assert "off: a network with drop_path_rate" in rk.train("digits", out=tmp_path / "run", compile="auto", **how)


def test_graphs_keep_what_they_give_to_the_end_of_a_step(tmp_path, monkeypatch):
    """1,437 images in three steps of two halves, whose gradients add up."""
    events = []

    def compile(net, **how):
        events.append(how)
        net.stem.register_forward_hook(lambda *_: events.append("forward") if torch.is_grad_enabled() else None)

    monkeypatch.setattr(compiling, "check_graphs", lambda device, memory: None)
    monkeypatch.setattr(run, "check_graphs", lambda device, memory: None)
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: events.append("mark"))
    monkeypatch.setattr(ResNet, "compile", compile)
    rk.train("digits", out=tmp_path / "run", compile="graphs", **TINY | {"batch_size": 512, "accumulate": 2})
    assert recorded(tmp_path / "run") == "graphs"
    assert events == [{"mode": "reduce-overhead"}, "mark", *3 * ["forward", "forward", "mark"]]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU")
def test_a_run_by_graphs_is_the_same_but_for_rounding(tmp_path):
    """Batches of two sizes, gradients that accumulate, and more steps than it takes to record."""
    how = TINY | {"epochs": 3, "batch_size": 300, "accumulate": 2, "device": "cuda"}
    plain, graphs = (rk.train("digits", out=tmp_path / mode, compile=mode, **how) for mode in ("off", "graphs"))
    assert graphs.metrics["loss"] == pytest.approx(plain.metrics["loss"], rel=1e-2)


def test_graphs_are_refused_where_there_are_none(tmp_path):
    with pytest.raises(rk.ResnetkitError, match="CUDA graphs, and the run is on cpu; give compile=on"):
        rk.train("digits", out=tmp_path / "run", compile="graphs", device="cpu", **TINY)
    assert not (tmp_path / "run").exists()
    with pytest.raises(rk.ResnetkitError, match="needs memory=plain; with memory=checkpoint give compile=on"):
        compiling.check_graphs(torch.device("cuda"), "checkpoint")


def test_mistakes_are_named(tmp_path):
    with pytest.raises(rk.ResnetkitError, match="compile='of': did you mean off"):
        rk.train("digits", out=tmp_path / "run", compile="of")
