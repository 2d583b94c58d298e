"""The scripts under benchmarks/ that take hours: what they keep of one that ends early, and of an older measurement."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

RUN = {"seconds": 10.0, "top1": 0.9, "loss": 0.3, "ece": 0.1, "n": 100}
HERE = {"commit": "abc", "processor": "EPYC", "gpu": None, "threads": 2}


@pytest.fixture
def script(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    (tmp_path / "results").mkdir()
    record = importlib.import_module("record")
    monkeypatch.setattr(record, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(record, "environment", lambda device=None: dict(HERE))
    return importlib.import_module


def test_seeds_are_kept_one_by_one(script, monkeypatch, tmp_path):
    """Here the second fails: the first is there, with its log and plots, and says that three were to be."""
    accuracy, kept = script("accuracy"), []

    def train_once(data, flags, seed, folder, judging):
        if seed == 1:
            sys.exit("killed")
        return {"seed": seed} | RUN, "log"

    def keep(*_):
        kept.append(json.loads((tmp_path / "results/digits.json").read_text())["seeds"])

    monkeypatch.setattr(accuracy, "train_once", train_once)
    monkeypatch.setattr(accuracy, "keep", keep)
    monkeypatch.setattr(accuracy, "products", lambda device: {"float32": 1.0})
    monkeypatch.setitem(accuracy.MEASUREMENTS["digits"], "seeds", 3)
    with pytest.raises(SystemExit):
        accuracy.measure("digits", "digits")
    found = json.loads((tmp_path / "results/digits.json").read_text())
    assert found["seeds"] == [0] and found["seeds_planned"] == 3 and kept == [[0]]
    assert [run["seed"] for run in found["runs"]] == [0] and found["top1_mean"] == 0.9
    (tmp_path / "results/digits.json").write_text(json.dumps(found | {"seeds": [0, 1]}))
    with pytest.raises(SystemExit):
        accuracy.measure("digits", "digits")
    assert json.loads((tmp_path / "results/digits.json").read_text())["seeds"] == [0, 1] and len(kept) == 1


@pytest.mark.parametrize("flags", [[], ["--only", "building"]])
def test_parts_of_an_older_measurement_stay(script, monkeypatch, tmp_path, flags):
    memory, file = script("memory"), tmp_path / "results/memory.json"
    monkeypatch.setattr(memory, "RESULT", file)

    def killed():
        return memory.process("resnet8_cifar", "plain", 4)

    monkeypatch.setattr(memory.subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], -9, "", ""))
    monkeypatch.setattr(memory, "PARTS", {"building": lambda: {"parameters": 2}, "checkpoint": killed})
    monkeypatch.setattr(sys, "argv", ["memory.py", *flags])
    file.write_text(json.dumps({"id": "memory", "building": {"parameters": 1}, "checkpoint": {"images": 64}}))
    if flags:
        memory.main()
    else:
        with pytest.raises(SystemExit, match="resnet8_cifar, plain"):
            memory.main()
    found = json.loads(file.read_text())
    assert found["building"]["parameters"] == 2 and found["checkpoint"] == {"images": 64}


@pytest.mark.parametrize(
    ("other", "alike"),
    [({}, True), ({"threads": 4}, False), ({"commit": "abc-dirty"}, False), ({"gpu": "H200"}, False)],
)
def test_pairs_of_another_machine_or_code_are_neither_mixed_nor_lost(script, monkeypatch, tmp_path, other, alike):
    airbench = script("airbench")
    pair = {"seed": 0, "environment": HERE | other, "record": {"command": airbench.peer_command([])}}
    for commit in ("abc-dirty", "unknown"):
        assert not airbench._alike(pair, HERE | {"commit": commit}, [])
    monkeypatch.setattr(airbench, "FILE", tmp_path / "airbench.json")
    monkeypatch.setattr(airbench, "here", lambda device: HERE)
    airbench.FILE.write_text(json.dumps({"command": airbench.COMMAND, "pairs": [pair]}))
    result = airbench.measured()
    assert airbench.others(result, [0], []) == []
    if alike:
        assert airbench.others(result, [1], []) == [pair]
    else:
        with pytest.raises(SystemExit, match="would be lost"):
            airbench.others(result, [1], [])


def test_results_alone_make_no_commit_dirty(script, monkeypatch, tmp_path):
    """A measurement that saves as it goes would be the change that its next part stumbles over."""
    record = script("record")
    monkeypatch.setattr(record, "environment", lambda device=None: HERE | {"commit": "abc-dirty"})
    for name in ("results/a.json", "code.py"):
        (tmp_path / name).write_text("1")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=x", "-c", "user.email=x@x"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"]):
        subprocess.run([*git, *words], check=True)
    (tmp_path / "results/a.json").write_text("2")
    assert record.header("a", "do", [0])["environment"]["commit"] == "abc"
    (tmp_path / "code.py").write_text("2")
    assert record.header("a", "do", [0])["environment"]["commit"] == "abc-dirty"
