"""benchmarks/speed.py: a case that is void or cannot be made stops no other, and is not written."""

import importlib
import json
import sys
from pathlib import Path

import pytest

from resnetkit.errors import ResnetkitError

FOUND = {"peers": {"timm": {"ratio": {"median": 2.0}}}, "reasons": []}


@pytest.fixture
def speed(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    module = importlib.import_module("speed")
    (tmp_path / "results").mkdir()
    monkeypatch.setattr("record.RESULTS", tmp_path / "results")
    return module


@pytest.mark.parametrize(("ends", "code"), [("void written", 7), ("failed void written", 1), ("written", 0)])
def test_all_cases_are_tried(speed, monkeypatch, tmp_path, capsys, ends, code):
    waiting, asked = ends.split(), []

    def benchmark(kind, model, **choices):
        asked.append(choices)
        choices["tell"]("starting ours")
        end = waiting[len(asked) - 1]
        if end == "failed":
            raise ResnetkitError("timm is not there")
        return FOUND | {"void": end == "void"}

    monkeypatch.setattr(speed, "benchmark", benchmark)
    cases = ["memory-resnet18", "step-resnet50", "step-resnet18"][-len(waiting) :]
    monkeypatch.setattr(sys, "argv", ["speed.py", *cases])
    with pytest.raises(SystemExit) as stopped:
        speed.main()
    assert stopped.value.code == code and len(asked) == len(waiting)
    assert capsys.readouterr().err.count("s: starting ours\n") == len(waiting)
    (file,) = (tmp_path / "results").iterdir()
    assert file.name == "benchmark-step-resnet18.json"
    assert json.loads(file.read_text())["command"].endswith(
        "--against torchvision-default,timm-default --batch-size 32"
    )
