"""`precision=auto`: the faster of two arithmetics, where the processor has both."""

import json
import re

import pytest
import torch

import resnetkit as rk
from resnetkit.training import precision, run


@pytest.mark.parametrize("has, faster, chosen", [(True, True, "bfloat16"), (True, False, "float32")])
def test_auto_takes_the_faster(monkeypatch, has, faster, chosen):
    monkeypatch.setattr(precision, "has_bfloat16", lambda device: has)
    monkeypatch.setattr(precision, "bfloat16_is_faster", lambda device, tell: faster)
    assert precision.resolve_precision("auto", torch.device("cpu")) == chosen
    assert precision.resolve_precision("bfloat16", torch.device("cpu")) == "bfloat16"


def test_wrong_convolutions_are_noticed(monkeypatch):
    cpu, convolve = torch.device("cpu"), torch.nn.functional.conv2d
    assert precision.bfloat16_is_right(cpu)

    def wrong_for_one_image(x, filters, **choices):
        y = convolve(x, filters, **choices)
        return y * 1.05 if torch.is_autocast_enabled("cpu") and len(x) == 1 else y

    monkeypatch.setattr(precision.F, "conv2d", wrong_for_one_image)
    assert not precision.bfloat16_is_right(cpu)
    monkeypatch.setattr(precision, "has_bfloat16", lambda device: True)
    monkeypatch.setattr(precision, "bfloat16_is_faster", lambda device, tell: True)
    assert precision.resolve_precision("auto", cpu) == "float32"


def test_emulated_bfloat16_is_not_even_timed(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    monkeypatch.setattr(precision, "bfloat16_is_faster", lambda *_: pytest.fail("timed"))
    assert precision.resolve_precision("auto", torch.device("cpu")) == "float32"


@pytest.mark.parametrize("has", [True, False])
def test_a_run_in_emulated_bfloat16_says_that_it_is_slow(tmp_path, monkeypatch, capsys, has):
    monkeypatch.setattr(run, "has_bfloat16", lambda device: has)
    rk.train("digits", out=tmp_path / "run", model="resnet8_cifar", epochs=1, precision="bfloat16")
    says = "emulates it; precision=auto is several times as fast"
    assert (says in capsys.readouterr().err) != has
    (tmp_path / "run/evaluation/metrics.json").unlink()
    rk.train(resume=tmp_path / "run")
    assert (says in capsys.readouterr().err) != has


def test_what_was_timed_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(precision, "has_bfloat16", lambda device: True)
    monkeypatch.setattr(precision, "SIDE", 64)  # in no time where bfloat16 is emulated
    rk.train("digits", out=tmp_path / "run", model="resnet8_cifar", epochs=1, compile="auto")
    first, last = json.loads((tmp_path / "run/command.json").read_text())["trials"]
    assert re.fullmatch(r"precision: a product .* takes [\d.]+ ms in float32 and [\d.]+ ms in bfloat16", first)
    assert last.startswith("compile off: ")


def test_the_trial_sees_which_product_is_slow(monkeypatch):
    def slow(name, seconds=2.0):
        clock = iter(
            t
            for i in range(precision.TRIALS)
            for k, s in enumerate(("float32", "bfloat16"))
            for t in (10 * i + 5 * k, 10 * i + 5 * k + (seconds if s == name else 1))
        )
        monkeypatch.setattr(precision, "perf_counter", lambda: next(clock))
        return precision.bfloat16_is_faster(torch.device("cpu"))

    assert slow("float32")
    assert not slow("float32", seconds=1.1)  # which noise can turn
    assert not slow("bfloat16")
