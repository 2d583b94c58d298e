"""--compile: recorded, kept by a resume, decided by a trial, and refused where it cannot be."""

import json

import pytest
import torch

import resnetkit as rk
from resnetkit.architecture.resnet import ResNet
from resnetkit.training import compiling, trainer

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


def test_auto_counts_small_images_as_small(tmp_path, monkeypatch):
    monkeypatch.setattr(compiling, "_seconds", lambda prepared, state: 60.0)
    monkeypatch.setattr(trainer.Trainer, "run", lambda self: self.notes[-1])
    minutes = []
    for share in (1.0, 0.5):
        how = TINY | {"epochs": 2, "img_size": 16, "start_size": share, "batch_size": 1437}
        note = rk.train("digits", out=tmp_path / str(share), compile="auto", **how)
        minutes.append(float(note.removeprefix("compile off: ").split()[0]))
    assert minutes[0] == pytest.approx(2, rel=0.01)
    assert minutes[1] < 0.95 * minutes[0]


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


@pytest.fixture
def graphs_on_a_cpu(monkeypatch):
    """Blocks are not compiled and no graphs recorded; how the network was to be compiled, and what happened in which
    order: `forward` of the stem, `end` of what graphs wrote."""
    events = []
    monkeypatch.setattr(compiling, "_check_graphs", lambda device, memory: None)
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: events.append("end"))

    def compile(net, **how):
        events.append(how)
        net.stem.register_forward_hook(lambda *_: events.append("forward"))

    monkeypatch.setattr(ResNet, "compile", compile)
    return events


def test_what_graphs_write_lives_to_the_end_of_a_step(tmp_path, graphs_on_a_cpu):
    """1,437 images in three steps of two halves, whose gradients add up; 360 predictions in two batches."""
    rk.train("digits", out=tmp_path / "run", compile="graphs", **TINY | {"batch_size": 512, "accumulate": 2})
    how, *events = graphs_on_a_cpu
    step, prediction = ["forward", "forward", "end"], ["forward", "end"]
    assert how == {"mode": "reduce-overhead"} and recorded(tmp_path / "run") == "graphs"
    assert events == ["end", *3 * step, *2 * prediction]


def test_graphs_are_refused_where_there_are_none(tmp_path):
    with pytest.raises(rk.ResnetkitError, match="CUDA graphs, and the run is on cpu; give compile=on"):
        rk.train("digits", out=tmp_path / "run", compile="graphs", device="cpu", **TINY)
    assert not (tmp_path / "run").exists()
    with pytest.raises(rk.ResnetkitError, match="memory=checkpoint gives back"):
        compiling._check_graphs(torch.device("cuda"), "checkpoint")


def test_mistakes_are_named(tmp_path):
    with pytest.raises(rk.ResnetkitError, match="compile='of': did you mean off"):
        rk.train("digits", out=tmp_path / "run", compile="of")
